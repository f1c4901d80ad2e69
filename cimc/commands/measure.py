"""`cimc measure`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cimc.commands.options import (
    Carry,
    ChannelsLast,
    Data,
    DataDir,
    Json,
    Mean,
    Memory,
    Metric,
    Seed,
    Std,
    emit,
    load_data,
    parse_carry,
    parse_memory,
)

if TYPE_CHECKING:
    from cimc.api.measure import Measured


def measure(
    package: Annotated[Path, typer.Argument(help="Package folder that chips were programmed with.")],
    measured: Annotated[
        Path, typer.Argument(help="Conductances read back (CSV, NPZ or NPY, uS), or a folder with a file a chip.")
    ],
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    metric: Metric = None,
    memory: Memory = None,
    carry: Carry = None,
    reprogram: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE|TOLERANCE",
            help="Devices to write again: a share (5%), those whose errors cost most, or all further off (2uS).",
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="Folder for their lists, a CSV a chip, in the order of rows.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Accuracy of chips that were really programmed with a package, from the conductances read back from them.

    Example: cimc measure package/ measured/ --data mnist
    """
    import cimc
    from cimc.commands.console import noting, progress_bar

    size = parse_memory(memory)
    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    notes, note = noting("measure")
    with progress_bar("measure") as bar:
        found = cimc.measure(
            package,
            measured,
            data=dataset,
            metric=metric,
            memory=size,
            carry=parse_carry(carry),
            reprogram=reprogram,
            output=output,
            seed=seed,
            progress=lambda done, total: bar(done, total, ""),
            note=note,
        )
    emit(
        {"chips": [one.figures for one in found], "notes": notes},
        lambda: show(found, dataset.label, output),
        as_json=as_json,
    )


def show(found: "list[Measured]", data: str, output: Path | None) -> None:
    """A line a chip, and the layers of the worst."""
    from cimc.commands.console import print_table, say
    from cimc.commands.evaluate import figure_text, show_layers

    rows = [
        [
            one.name,
            figure_text(one.chip.measure, one.chip.value),
            "-" if one.chip.normalized is None else f"{one.chip.normalized:.4f}",
            f"{one.deviation_uS['mean']:.3g} ± {one.deviation_uS['sd']:.3g}",
            f"{one.deviation_uS['largest']:.3g}",
            "-" if one.beyond_tolerance is None else f"{one.beyond_tolerance:.1%}",
        ]
        for one in found
    ]
    head = ["chip", found[0].chip.measure.replace("_", " "), "normalised", "off target, uS", "most", "beyond tolerance"]
    baseline = figure_text(found[0].chip.measure, found[0].chip.baseline)
    print_table(f"measured chips on {data}", head, rows, f"normalised by {baseline}, the package's weights in float32")
    worst = min(found, key=lambda one: one.chip.normalized or 0.0)
    show_layers({error.name: error.figures for error in worst.chip.layers})
    for one in found:
        if one.reprogram is not None:
            errors = one.reprogram.expected_error
            say(
                f"{one.name}: write {len(one.reprogram.cells)} of {one.reprogram.devices} devices again"
                + ("" if output is None else f", listed in {output / one.name}.csv")
                + f"; expected error of the layers' outputs, of their power: {errors['before']:.2e}, without theirs "
                f"{errors['after']:.2e}"
            )
