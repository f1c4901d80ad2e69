"""`cimc tune`."""

from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import (
    ChannelsLast,
    Data,
    DataDir,
    Json,
    Mean,
    Seed,
    Std,
    emit,
    load_data,
    parse_policy_settings,
    require_finite,
)

if TYPE_CHECKING:
    from cimc.package import Package

TUNING = "Fine-tuning"


def tune(
    package: Annotated[Path, typer.Argument(help="Package folder that the die is programmed with.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Package folder of the die to write.")],
    measured: Annotated[
        Path | None,
        typer.Option(
            help="Conductances read back (CSV, NPZ or NPY, uS) of the layers that a real die holds so far: the others "
            "are fine-tuned once. Default: a virtual die is programmed layer after layer to the end.",
        ),
    ] = None,
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    epochs: Annotated[
        int, typer.Option(min=1, help="Of the fine-tuning after each layer.", rich_help_panel=TUNING)
    ] = 1,
    steps_per_epoch: Annotated[
        int | None,
        typer.Option(min=1, help="Of each layer's turn. Default: the whole training set.", rich_help_panel=TUNING),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a step.", rich_help_panel=TUNING)] = 64,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples computed at once, for less memory. Default: a whole step.", rich_help_panel=TUNING
        ),
    ] = None,
    lr: Annotated[
        float, typer.Option(min=0, callback=require_finite, help="Learning rate.", rich_help_panel=TUNING)
    ] = 0.001,
    method: Annotated[
        str | None,
        typer.Option(
            "--update",
            metavar="NAME",
            rich_help_panel=TUNING,
            help="How layers compute that are not programmed yet: float, quantisation-aware, hardware-aware. Default: "
            "hardware-aware, with the noise that the chip's writes leave, or that of the training.",
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="FIELD=VALUE", help="An option of that, such as noise=0.1.", rich_help_panel=TUNING
        ),
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Chip in the loop: program a die layer by layer, fine-tuning the layers behind to what it really holds.

    Example: cimc tune package/ --data mnist --seed 7 -o die7/
    """
    import cimc
    from cimc.api.tune import tuning_options
    from cimc.commands.console import noting, progress_bar
    from cimc.commands.next_step import data_options

    contents = cimc.read_package(package)
    options = tuning_options(
        contents,
        method=method,
        settings=parse_policy_settings(settings),
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        micro_batch=micro_batch,
        lr=lr,
        seed=seed,
    )
    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    notes, note = noting("tune")
    with progress_bar("tune") as bar:
        result = cimc.tune(
            contents,
            dataset,
            measured=measured,
            options=options,
            output=output,
            seed=seed,
            progress=lambda done, total: bar(done, total, ""),
            note=note,
        )
    used = data_options(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    emit({**figures(result, output), "notes": notes}, lambda: show(result, output, used), as_json=as_json)


def figures(package: "Package", output: Path) -> dict[str, Any]:
    """JSON of `tune`."""
    names = ("in_the_loop", "programmed", "agreement")
    found = {name: package.notes[name] for name in names}
    return {"model": package.model, "chip": package.chip.name, "package": str(output), **found}


def show(package: "Package", output: Path, data: str) -> None:
    """A line a step, and what to do next with `data` (options)."""
    from cimc.commands.console import next_step, print_table, say

    loop = package.notes["in_the_loop"]
    measure = loop["steps"][0]["measure"].replace("_", " ")
    rows = [
        [
            ", ".join(step["layers"]),
            "-" if (off := step.get("off_target_uS")) is None else f"{off:.3g}",
            f"{step['before']:.4f}",
            f"{step['after']:.4f}",
        ]
        for step in loop["steps"]
    ]
    head = ["programmed", "off target, uS", f"{measure} before", "after tuning"]
    print_table(f"{package.model} on {loop['die']}", head, rows, "without noise of reads")
    waiting = [layer.name for layer in package.mapping.layers if layer.name not in package.programmed]
    if waiting:
        say(f"not programmed yet: {', '.join(waiting)}; program {waiting[0]} from {output}, and measure")
    say(f"wrote {output}{next_step(f'cimc deploy {quote(str(output))} {data} --chips 5')}")
