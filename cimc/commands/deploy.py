"""`cimc deploy`."""

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
    require_finite,
)
from cimc.durations import time_text
from cimc.options import Compensate

if TYPE_CHECKING:
    import numpy as np

    from runtime.deployment.deploy import Deployment


def deploy(
    package: Annotated[Path, typer.Argument(help="Package folder.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    chips: Annotated[
        int | None,
        typer.Option(min=1, help="Virtual chips to program; with --dies how often each. Default: 20, with --dies 1."),
    ] = None,
    required: Annotated[
        float, typer.Option(min=0, callback=require_finite, help="Normalised accuracy of a good chip, for the yield.")
    ] = 0.99,
    baseline: Annotated[
        float | None,
        typer.Option(
            min=0.001,
            max=1,
            callback=require_finite,
            help="Accuracy to normalise by. Default: the package's weights in float32.",
        ),
    ] = None,
    metric: Metric = None,
    memory: Memory = None,
    carry: Carry = None,
    at: Annotated[
        str | None, typer.Option(help="Times after programming to measure at too, such as 1s,1h,1d,1y.")
    ] = None,
    compensate: Annotated[
        Compensate,
        typer.Option(help="What the digital side makes up for at these times: a scale a layer, or one a column."),
    ] = Compensate.none,
    faults: Annotated[
        Path | None, typer.Option(help="Fault map (CSV or NPZ): every chip has these stuck devices.")
    ] = None,
    dies: Annotated[Path | None, typer.Option(help="Folder of fault maps, each of a real die.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Program virtual chips with a package and measure their accuracy and yield, on the test set.

    Example: cimc deploy package/ --data mnist --chips 100 --at 1h,1d,1y --compensate global
    """
    import cimc
    from cimc.commands.console import noting, progress_bar
    from runtime.deployment.deploy import summary

    size = parse_memory(memory)
    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    notes, note = noting("deploy")
    with progress_bar("deploy") as bar:
        result = cimc.deploy(
            package,
            dataset,
            chips=chips,
            seed=seed,
            required=required,
            baseline=baseline,
            metric=metric,
            memory=size,
            carry=parse_carry(carry),
            at=() if at is None else at.split(","),
            compensate=compensate,
            faults=faults,
            dies=dies,
            progress=lambda done, total: bar(done, total, ""),
            note=note,
        )
    emit({**summary(result), "notes": notes}, lambda: show(result, dataset.label), as_json=as_json)


def show(result: "Deployment", data: str) -> None:
    """The accuracies over the chips, and the yield."""
    from cimc.commands.console import print_table, say

    name = result.measure.replace("_", " ")
    rows = [[name, *spread_of(result.accuracies)], ["normalised", *spread_of(result.normalized)]]
    if result.dies:
        of_dies = [[die, f"{value:.4f}"] for die, value in zip(result.dies, result.accuracies.tolist(), strict=True)]
        print_table(f"dies on {data}", ["die", name], of_dies)
    print_table(
        f"{len(result.accuracies)} {'programmed dies' if result.dies else 'virtual chips'} on {data}",
        ["", "mean", "sd", "min", "5 %", "median"],
        rows,
        f"normalised by {result.baseline_accuracy:.4f}",
    )
    if result.aged:
        print_table(f"over time: {name}", ["after", "mean", "sd", "min", "5 %", "median", "yield"], aged_rows(result))
    say(f"yield {result.yield_fraction:.0%} (chips with a normalised {name} of at least {result.required:g})")


def aged_rows(result: "Deployment") -> list[list[str]]:
    """A row a time: the figures over the chips, and their yield."""
    rows = []
    for seconds in result.aged:
        aged = result.at(seconds)
        rows.append([time_text(seconds), *spread_of(aged.accuracies), f"{aged.yield_fraction:.0%}"])
    return rows


def spread_of(values: "np.ndarray") -> list[str]:
    """Mean, sd, least, 5 % and median of a figure over the chips."""
    import numpy as np

    spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
    return [f"{figure:.4f}" for figure in [values.mean(), spread, values.min(), *np.percentile(values, [5, 50])]]
