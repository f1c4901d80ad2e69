"""`cimc deploy`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cimc.commands.options import (
    MEASURING,
    Carry,
    ChannelsLast,
    Cluster,
    Data,
    DataDir,
    Energy,
    Json,
    Mean,
    Memory,
    Metric,
    Seed,
    Std,
    Workers,
    complete_data,
    emit,
    load_data,
    parse_carry,
    parse_memory,
    parsed,
    require_finite,
)
from cimc.commands.read_energy_table import show as show_energy
from cimc.durations import parse_times, time_text
from cimc.options import parse_compensate
from cimc.reprogram import parse_shares

if TYPE_CHECKING:
    import numpy as np

    from runtime.deployment.result import Deployment

OVER_TIME, DIES, REPROGRAMMING = "Over time", "Real dies", "Reprogramming"


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
        float,
        typer.Option(
            min=0,
            max=1,
            callback=require_finite,
            help="Normalised accuracy of a good chip, for the yield, such as 0.99.",
            rich_help_panel=MEASURING,
        ),
    ] = 0.99,
    baseline: Annotated[
        float | None,
        typer.Option(
            min=1e-12,
            callback=require_finite,
            rich_help_panel=MEASURING,
            help="Accuracy or error to normalise by. Default: that of the package's weights in float32.",
        ),
    ] = None,
    metric: Metric = None,
    memory: Memory = None,
    carry: Carry = None,
    at: Annotated[
        str | None,
        typer.Option(help="Times after programming to measure at too, such as 1s,1h,1d,1y.", rich_help_panel=OVER_TIME),
    ] = None,
    temperature: Annotated[
        float | None,
        typer.Option(
            callback=require_finite,
            rich_help_panel=OVER_TIME,
            help="Degrees Celsius at which chips are kept from programming on; the chip states cell.thermal.",
        ),
    ] = None,
    compensate: Annotated[
        str,
        typer.Option(
            metavar="KIND[+KIND...]",
            rich_help_panel=OVER_TIME,
            help="What the digital side makes up for at these times: by reads global (a scale a layer) or column; by "
            "samples ranges (input ranges), bn (mean and sd of channels), affine (scale and shift of columns).",
        ),
    ] = "none",
    calibrate: Annotated[
        str | None,
        typer.Option(
            help="Samples for that, as --data; no labels needed. Default: its training samples.",
            rich_help_panel=OVER_TIME,
            autocompletion=complete_data,
        ),
    ] = None,
    faults: Annotated[
        Path | None,
        typer.Option(help="Fault map (CSV, NPZ or NPY): every chip has these stuck devices.", rich_help_panel=DIES),
    ] = None,
    dies: Annotated[
        Path | None, typer.Option(help="Folder of fault maps, each of a real die.", rich_help_panel=DIES)
    ] = None,
    reprogram: Annotated[
        str | None,
        typer.Option(
            metavar="SHARE,...",
            rich_help_panel=REPROGRAMMING,
            help="Shares of the devices that are written again, round after round: those whose errors cost most, such "
            "as 5%,5%.",
        ),
    ] = None,
    energy: Energy = False,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers",
            help="What each layer of the worst chip loses, and what it costs the outputs.",
            rich_help_panel=MEASURING,
        ),
    ] = False,
    workers: Workers = 1,
    cluster: Cluster = None,
    csv: Annotated[Path | None, typer.Option(help="Table to write: a row for every chip and time.")] = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Program virtual chips with a package and measure their accuracy and yield, on the test set.

    Example: cimc deploy package/ --data mnist --chips 100 --at 1h,1d,1y --compensate global
    """
    import cimc
    from cimc.commands.chip_rows import write_rows
    from cimc.commands.console import noting, progress_bar
    from cimc.files import require_outputs
    from runtime.deployment.result import rows_of_chips, summary

    times = () if at is None else parsed("--at", parse_times, at)
    shares = () if reprogram is None else parsed("--reprogram", parse_shares, reprogram)
    kinds = parsed("--compensate", parse_compensate, compensate)
    require_outputs([], [csv])
    contents = cimc.read_package(package)
    size = parse_memory(memory)
    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    others = calibrate and load_data(calibrate, data_dir, mean=mean, std=std, channels_last=channels_last)
    notes, note = noting("deploy")
    with progress_bar("deploy") as bar:
        result = cimc.deploy(
            contents,
            dataset,
            chips=chips,
            seed=seed,
            required=required,
            baseline=baseline,
            metric=metric,
            memory=size,
            carry=parse_carry(carry),
            at=times,
            temperature=temperature,
            compensate=kinds,
            calibrate=others or None,
            faults=faults,
            dies=dies,
            reprogram=shares,
            energy=energy,
            layers=layers,
            workers=workers,
            cluster=cluster,
            progress=lambda done, total: bar(done, total, ""),
            note=note,
        )
    if csv is not None:
        write_rows(csv, rows_of_chips(result))
    of = {"model": contents.model, "chip": contents.chip.name, "data": dataset.label, "seed": seed}
    emit({**of, **summary(result), "notes": notes}, lambda: show(result, dataset.label), as_json=as_json)


SPREAD = ("mean", "sd", "worst", "worst 5 %", "median")  # of figures over chips: `spread_of`


def show(result: "Deployment", data: str) -> None:
    """The accuracies over the chips, and the yield."""
    from cimc.commands.console import counted, print_table, say

    name = result.measure.replace("_", " ")
    if result.dies:
        columns = [result.accuracies, *result.aged.values()]
        of_dies = [[die, *(f"{of[k]:.4f}" for of in columns)] for k, die in enumerate(result.dies)]
        times = [f"after {time_text(seconds)}" for seconds in result.aged]
        print_table(f"dies on {data}", ["die", name, *times], of_dies)
    print_table(
        f"{counted(len(result.accuracies), 'programmed die' if result.dies else 'virtual chip')} on {data}",
        ["", *SPREAD],
        measured_rows(result),
        f"normalised by {result.baseline_accuracy:.4f}",
    )
    if result.reprogrammed:
        print_table(f"reprogramming: {name}", ["devices written again", *SPREAD], reprogrammed_rows(result))
    if result.aged:
        where = "" if result.temperature_C is None else f" at {result.temperature_C:g} C"
        print_table(f"over time{where}: {name}", ["after", *SPREAD, "yield"], aged_rows(result))
    if result.energy_mj:
        show_energy(result.energy_mj, "energy of one input, first chip")
    for line in (*lines_of(result), yield_line(result)):
        say(line)


def measured_rows(result: "Deployment") -> list[list[str]]:
    """A row a figure: over the chips."""
    rows = [[result.measure.replace("_", " "), *spread_of(result.accuracies, lower_is_better=result.lower_is_better)]]
    rows.append(["normalised", *spread_of(result.normalized)])
    if result.a_star is not None:
        rows.append(["A*", *spread_of(result.a_star)])
    if (details := result.details.get(None)) is not None:
        rows.append(["agreement with float32", *spread_of(details.agreement)])
        if details.calibration_error is not None:
            rows.append(["calibration error", *spread_of(details.calibration_error, lower_is_better=True)])
    return rows


def lines_of(result: "Deployment") -> list[str]:
    """What else there is to say: what compensation costs, iso-accuracy, the worst chip and why."""
    lines = [f"compensation {kind}: {number:,} digital numbers a chip" for kind, number in result.compensation.items()]
    if result.iso_accuracy is not None:
        lines.append(f"iso-accuracy (mean A* above 99 % after 1 h): {'yes' if result.iso_accuracy else 'no'}")
    worst = result.worst
    if worst is not None:
        stuck = f", {worst.stuck_share:.2%} of its devices stuck" if worst.stuck_share else ""
        name = f"die: {result.dies[worst.chip]}" if result.dies else f"chip: number {worst.chip}"
        when = f" {time_text(list(result.aged)[-1])} after programming" if result.aged else ""
        lines.append(f"worst {name}, {worst.value:.4f}{when}{stuck}")
        powers = sorted(worst.layers, key=lambda one: one.own_error / (one.signal or 1.0), reverse=True)
        lines += [f"  {one.name}: {one.figures['own_snr_db']:.1f} dB by itself" for one in powers[:3] if one.own_error]
        costs = sorted(worst.sensitivities, key=lambda one: -one.error)
        lines += [
            f"  {'+'.join(one.layers)} alone on its arrays: outputs {one.snr_db:.1f} dB, {one.agreement:.1%} agree"
            for one in costs[:3]
            if one.snr_db is not None
        ]
    return lines


def yield_line(result: "Deployment") -> str:
    """The yield with its interval: as programmed, and at the last of the times."""
    required = f"chips with a normalised {result.measure.replace('_', ' ')} of at least {result.required:g}"
    when = {"": result}
    if result.aged:
        last = list(result.aged)[-1]
        when = {" as programmed": result, f" after {time_text(last)}": result.at(last)}
    parts = []
    for text, one in when.items():
        low, high = one.yield_interval
        parts.append(f"{one.yield_fraction:.0%}{text} (95 % interval {low:.0%} to {high:.0%})")
    return f"yield {', '.join(parts)}; {required}"


def reprogrammed_rows(result: "Deployment") -> list[list[str]]:
    """A row a round of reprogramming, and what was before it: the figures over the chips."""
    shares = ["none", *(f"{share:.2%}" for share, _ in result.reprogrammed)]
    values = [*(before for _, before in result.reprogrammed), result.accuracies]
    spreads = [spread_of(of_chips, lower_is_better=result.lower_is_better) for of_chips in values]
    return [[share, *spread] for share, spread in zip(shares, spreads, strict=True)]


def aged_rows(result: "Deployment") -> list[list[str]]:
    """A row a time: the figures over the chips, and their yield."""
    rows = []
    for seconds in result.aged:
        aged = result.at(seconds)
        spread = spread_of(aged.accuracies, lower_is_better=result.lower_is_better)
        rows.append([time_text(seconds), *spread, f"{aged.yield_fraction:.0%}"])
    return rows


def spread_of(values: "np.ndarray", *, lower_is_better: bool = False) -> list[str]:
    """`SPREAD` of a figure over the chips."""
    from runtime.deployment.result import distribution

    found = distribution(values, lower_is_better=lower_is_better)
    return [f"{found[name]:.4f}" for name in ("mean", "std", "worst", "worst_p5", "median")]
