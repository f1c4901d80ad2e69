"""`cimc export`."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import (
    DATA,
    MAPPING,
    Carry,
    ChannelsLast,
    DataDir,
    GroupsPerRead,
    Json,
    Mean,
    Options,
    RowsPerRead,
    Seed,
    Std,
    complete_chip,
    complete_data,
    complete_files,
    emit,
    load_data,
    parse_by_layer,
    parse_carry,
)
from cimc.options import Correct, DiePlacement, Weights

if TYPE_CHECKING:
    from cimc.package import Package

DIE = "A certain die"


def export(
    artifact: Annotated[
        Path, typer.Argument(help=".cim file, trained or compiled.", autocompletion=complete_files(".cim"))
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Package folder to write.")],
    chip: Annotated[
        str | None,
        typer.Option(help="Inference chip. Default: the one it was compiled for.", autocompletion=complete_chip),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="Fit scales and input ranges to this data, not to the images kept from training.",
            rich_help_panel=DATA,
            autocompletion=complete_data,
        ),
    ] = None,
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    weights: Annotated[
        Weights, typer.Option(help="What the trained devices hold (mean of 16 reads), or their digital copy.")
    ] = Weights.devices,
    noise: Annotated[bool, typer.Option(help="Fit scales for reads with the chip's noise, or without it.")] = True,
    layers: Annotated[
        bool, typer.Option("--layers", help="What each layer loses against float32, and by which effects.")
    ] = False,
    digital: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            help="A layer left to the digital side, as of compile; repeatable.",
            rich_help_panel=MAPPING,
        ),
    ] = None,
    correct: Annotated[
        Correct,
        typer.Option(
            help="Fit to samples, layer by layer, so that it gives with noise what it gives in float32: the biases, "
            "the scales too, or the weights too (slow). Taken is what errs less with noise on samples held out; it may "
            "err more without."
        ),
    ] = Correct.none,
    carry: Carry = None,
    rows_per_read: RowsPerRead = None,
    groups_per_read: GroupsPerRead = None,
    options: Options = None,
    die: Annotated[
        Path | None,
        typer.Option(help="Fault map (CSV or NPZ) of the die that the package is for.", rich_help_panel=DIE),
    ] = None,
    placement: Annotated[
        DiePlacement,
        typer.Option(
            rich_help_panel=DIE,
            help="With --die: good devices take up what stuck ones of their weights lack; before that arrays, rows and "
            "columns are chosen.",
        ),
    ] = DiePlacement.full,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Write the package for an inference chip: target conductances, addresses, digital values, chip-exact ONNX.

    Example: cimc export trained.cim --chip brram-256x64 -o package/
    """
    import cimc
    from cimc.commands.console import noting
    from cimc.commands.next_step import data_options, known_data

    notes, note = noting("export")
    dataset = None if data is None else load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    package = cimc.export(
        artifact,
        chip,
        output=output,
        data=dataset,
        weights=weights,
        noise=noise,
        layers=layers,
        digital=digital or (),
        correct=correct,
        carry=parse_carry(carry),
        rows_per_read=parse_by_layer("--rows-per-read", rows_per_read),
        groups_per_read=parse_by_layer("--groups-per-read", groups_per_read),
        die=die,
        placement=placement,
        options=options,
        seed=seed,
        note=note,
    )
    trained_on = known_data(package.notes["training"], package.notes["preprocess"], carry or ())
    used = data and data_options(data, data_dir, mean=mean, std=std, channels_last=channels_last, carry=carry or ())
    emit(
        {**figures(package, output), "notes": notes}, lambda: show(package, output, used or trained_on), as_json=as_json
    )


def figures(package: "Package", output: Path) -> dict[str, Any]:
    """JSON of `export`."""
    cost = package.mapping.cost
    return {
        "model": package.model,
        "chip": package.chip.name,
        "package": str(output),
        "crossbars": cost.crossbars,
        "chips": package.mapping.chips,
        "devices": cost.devices,
        "correction": package.notes.get("correction"),
        **{name: package.notes[name] for name in ("agreement", "layers", "die") if name in package.notes},
    }


def show(package: "Package", output: Path, data: str) -> None:
    """What the package holds, and what to do next with `data` (options): what set its input ranges or trained it."""
    from cimc.commands.console import counted, next_step, print_figures, say
    from cimc.commands.evaluate import show_agreement, show_layers

    cost, correction = package.mapping.cost, package.notes.get("correction")
    print_figures(
        f"{package.model} for {package.chip.name}",
        {
            "program/": f"{cost.devices} target conductances on {counted(cost.crossbars, 'array')}, "
            f"{counted(package.mapping.chips, 'chip')}",
            "digital.safetensors": "scales, input ranges, biases",
            "model.onnx": "the chip-exact network, for any ONNX runtime",
        },
    )
    if correction is not None:
        say(_corrected(correction))
    if die := package.notes.get("die"):
        say(_placed(die))
    if agreement := package.notes.get("agreement"):
        conditions = {"no noise": agreement["noise_off"], "programmed, with noise": agreement["noise_on"]}
        show_agreement(f"agreement with float32 on {agreement['samples']} calibration samples", conditions)
    if layers := package.notes.get("layers"):
        show_layers(layers)
    say(f"wrote {output}{next_step(f'cimc deploy {quote(str(output))} {data} --chips 20')}")


def _corrected(correction: dict[str, Any]) -> str:
    """What the correction brought, in one line."""
    outputs, layers = correction["outputs"], correction["layers"]
    if "note" in outputs:
        return f"correction {correction['method']}: not taken, {outputs['note']}"
    taken = sum(layer["correction"] != "none" for layer in layers.values())
    before, after = (
        "none" if outputs[name] is None else f"{outputs[name]:.1f} dB" for name in ("snr_db_before", "snr_db")
    )
    where = f"taken by {taken} of {len(layers)} layers"
    return f"correction {correction['method']}: {where}; outputs {before} to {after}, with noise, on samples held out"


def _placed(die: dict[str, Any]) -> str:
    """What the placement on a die brought, in one line."""
    errors = die["expected_error"]
    words = {
        "none": "with the targets as they are",
        "pairs": "made up for within weights",
        "full": "on the lines chosen",
        "bound": "no order of the lines on these arrays has less than",
    }
    text = ", ".join(f"{words[name]} {value:.2e}" for name, value in errors.items())
    share = die["stuck"] / max(die["devices"], 1)
    return (
        f"die {die['name']}: {die['stuck']} of the {die['devices']} devices in use are stuck ({share:.1%}); "
        f"expected error of the layers' outputs, of their power: {text}"
    )
