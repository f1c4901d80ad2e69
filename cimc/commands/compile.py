"""`cimc compile`."""

import gc
from dataclasses import fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import (
    DATA,
    MAPPING,
    ChannelsLast,
    DataDir,
    DeviceName,
    FillRows,
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
    require_finite,
)
from cimc.errors import CimcError
from cimc.options import RowSplit, ShareWeights, check_range

if TYPE_CHECKING:
    from cimc.api.compile import Compiled
    from passes.verify_mapping import Verification

NETWORK, TARGET, CHECKS = "Network", "Digital layers and accuracy targets", "Checks"


def compile(
    model: Annotated[Path, typer.Argument(help="ONNX file.", autocompletion=complete_files(".onnx"))],
    chip: Annotated[
        str,
        typer.Option(help="Chip name (see `cimc chips`) or path of a TOML file.", autocompletion=complete_chip),
    ] = "brram-256x64",
    device: DeviceName = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help=".cim file to write.")] = None,
    input_range: Annotated[
        str | None,
        typer.Option(
            metavar="LOW,HIGH",
            rich_help_panel=DATA,
            help="Least and greatest input; a negative one takes a second phase. Default: 0,1.",
        ),
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            rich_help_panel=DATA,
            help="Take the input range from this data (as --data of other commands).",
            autocompletion=complete_data,
        ),
    ] = None,
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    max_chips: Annotated[
        int | None, typer.Option(help="Refuse a network that needs more chips.", min=1, rich_help_panel=MAPPING)
    ] = None,
    row_split: Annotated[
        RowSplit | None, typer.Option(help="In place of the chip's own rule.", rich_help_panel=MAPPING)
    ] = None,
    fill_rows: FillRows = None,
    rows_per_read: RowsPerRead = None,
    groups_per_read: GroupsPerRead = None,
    options: Options = None,
    objective: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            rich_help_panel=MAPPING,
            help="What copies and packing are for: latency, interval, energy or arrays. "
            "Default: one copy, one block an array.",
        ),
    ] = None,
    arrays: Annotated[
        int | None,
        typer.Option(help="Budget of the objective. Default: one chip.", min=1, rich_help_panel=MAPPING),
    ] = None,
    seed: Seed = 0,
    mapper_seconds: Annotated[
        float | None,
        typer.Option(
            min=0,
            callback=require_finite,
            help="Of an objective: then no further layout is tried, and the best so far is taken, with its bound.",
        ),
    ] = None,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            help="Sizes of an input, such as input=1x3x224x224 or tokens=Nx128; repeatable.", rich_help_panel=NETWORK
        ),
    ] = None,
    constants: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="An input that is a constant, such as sr=16000; repeatable.",
            rich_help_panel=NETWORK,
        ),
    ] = None,
    share_weights: Annotated[
        ShareWeights,
        typer.Option(
            help="Whether a weight that several products use is one layer; auto: unless equal by chance.",
            rich_help_panel=NETWORK,
        ),
    ] = ShareWeights.auto,
    digital: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LAYER",
            rich_help_panel=TARGET,
            help="A layer left to the digital side, by name or pattern such as 'head*'; repeatable.",
        ),
    ] = None,
    digital_budget: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            rich_help_panel=TARGET,
            help="Leave the layers digital that cost the outputs most, up to such a share of all multiply-accumulates "
            "as 5%; needs --calibrate.",
        ),
    ] = None,
    target_snr: Annotated[
        float | None,
        typer.Option(
            metavar="DB",
            rich_help_panel=TARGET,
            help="Take the cheapest of some settings (rows filled, rows a read, digital layers) whose outputs have "
            "this SNR against float32 on one virtual chip; needs --calibrate.",
        ),
    ] = None,
    min_agreement: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE",
            rich_help_panel=TARGET,
            help="The same for the share of cases with the same largest entry, such as 98%.",
        ),
    ] = None,
    curve: Annotated[
        bool,
        typer.Option(
            "--curve",
            rich_help_panel=TARGET,
            help="For a target: measure all settings, although a cheap one is enough.",
        ),
    ] = False,
    verify: Annotated[
        bool | None,
        typer.Option(
            "--verify/--no-verify",
            rich_help_panel=CHECKS,
            help="Compare with onnxruntime on random inputs; default: up to 1 GiB.",
        ),
    ] = None,
    verify_each: Annotated[
        bool,
        typer.Option(
            "--verify-each",
            rich_help_panel=CHECKS,
            help="Compare after every network pass; name the first that errs.",
        ),
    ] = False,
    save_passes: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            rich_help_panel=CHECKS,
            help="Keep the network after every pass, to be opened in a viewer.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Lower an ONNX network to crossbar layers, map it on a chip, verify it, and count its cost.

    Example: cimc compile models/lenet1.onnx --chip brram-soc -o lenet1.cim
    """
    import cimc
    from cimc.commands.console import inform
    from cimc.commands.next_step import data_options
    from passes.set_inputs import parse_constant
    from passes.set_shapes import parse_shape

    # A network is many objects that live to the end: looking for dead ones again and again takes a fifth of the time.
    gc.set_threshold(100_000, 20, 20)
    data = (
        None if calibrate is None else load_data(calibrate, data_dir, mean=mean, std=std, channels_last=channels_last)
    )
    compiled = cimc.compile(
        model,
        chip,
        device=device,
        output=output,
        input_range=None if input_range is None else parse_range(input_range),
        calibrate=data,
        max_chips=max_chips,
        row_split=row_split,
        fill_rows=parse_by_layer("--fill-rows", fill_rows),
        rows_per_read=parse_by_layer("--rows-per-read", rows_per_read),
        groups_per_read=parse_by_layer("--groups-per-read", groups_per_read),
        verify=verify,
        shapes=dict(parse_shape(text) for text in shape or ()),
        constants=dict(parse_constant(text) for text in constants or ()),
        verify_passes=verify_each,
        passes_folder=save_passes,
        objective=objective,
        arrays=arrays,
        seed=seed,
        mapper_seconds=mapper_seconds,
        share_weights=share_weights,
        digital=digital or (),
        digital_budget=None if digital_budget is None else parse_share("--digital-budget", digital_budget),
        target_snr=target_snr,
        min_agreement=None if min_agreement is None else parse_share("--min-agreement", min_agreement),
        curve=curve,
        options=options,
        note=inform,
    )
    given = calibrate and data_options(calibrate, data_dir, mean=mean, std=std, channels_last=channels_last)
    emit(figures(compiled), lambda: show(compiled, output, given), as_json=as_json)


def parse_range(text: str) -> tuple[float, float]:
    """LOW,HIGH as numbers. Raises typer.BadParameter when it is not that."""
    try:
        return check_range("--input-range", text.split(","))
    except CimcError:
        message = f"{text!r} is not LOW,HIGH with LOW below HIGH"
        raise typer.BadParameter(message, param_hint="--input-range") from None


def parse_share(option: str, text: str) -> float:
    """5% or 0.05 as a number. Raises typer.BadParameter when it is not from 0 to 1."""
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise typer.BadParameter(f"{text!r} is no share such as 5% or 0.05", param_hint=option)
    return share


def figures(compiled: "Compiled") -> dict[str, Any]:
    """JSON of `compile`; what was not verified is None."""
    from cimc.commands import digital_table, layout_table, mapping_table
    from passes.verify_mapping import Verification

    artifact = compiled.artifact
    return {
        "model": artifact.model,
        "chip": artifact.chip.name,
        **mapping_table.figures(artifact),
        "row_split": sorted({layer.row_split for layer in artifact.mapping.layers}),
        "verify": {field.name: getattr(compiled.verification, field.name, None) for field in fields(Verification)},
        "notes": list(compiled.notes),
        **digital_table.choice_figures(compiled.digital_choice),
        **layout_table.figures(compiled.layout_choice),
    }


def show(compiled: "Compiled", output: Path | None, data: str | None = None) -> None:
    """Layer table, totals and verification of `compile`, and what to do next with `data` (options, None: not given)."""
    from cimc.commands import digital_table, layout_table, mapping_table, totals
    from cimc.commands.console import next_step, say
    from cimc.commands.next_step import after_compile

    artifact = compiled.artifact
    mapping_table.show_layers(artifact)
    totals.show(artifact)
    digital_table.show(artifact)
    digital_table.show_choice(compiled.digital_choice)
    layout_table.show(compiled.layout_choice)
    for note in compiled.notes:
        say(f"note: {note}")
    say(_verified(compiled.verification))
    if output is not None:
        simulated = artifact.chip.not_simulated is None and not artifact.mapping.segments
        then = after_compile(artifact.network, output, data) if simulated else f"cimc inspect {quote(str(output))}"
        say(f"wrote {output}{next_step(then)}")


def _verified(found: "Verification | None") -> str:
    """What the comparison with onnxruntime found, in one line."""
    from passes.judge import ROUNDING

    if found is None:
        return (
            "not verified: give --verify to compare with onnxruntime, which needs several times the weights in memory"
        )
    line = (
        f"verified against onnxruntime: largest difference {found.ideal:.1e} ({found.ideal_relative:.1e} of the output)"
    )
    if found.not_mapped:
        return f"{line} of the lowered network; {found.not_mapped}"
    line += " with ideal converters"
    if found.ideal_relative > ROUNDING:
        line += " (no fault: rounding, or the grid of the conductances, changes as much)"
    if found.chip_relative is None or found.chip_snr_db is None:
        return f"{line}, none with the chip's"
    # Their figures, in the JSON, are of scales that are not fitted yet: no more than a bound, and a low one.
    return f"{line}; what the chip's converters change is measured with scales fitted to data, by eval and export"
