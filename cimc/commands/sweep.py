"""`cimc sweep`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import ChannelsLast, Cluster, Data, DataDir, Json, Mean, Std, Workers, emit, load_data

if TYPE_CHECKING:
    from cimc.sweep_result import SweepResult

MOST_ROWS = 60  # of the table in the terminal


def sweep(
    source: Annotated[Path, typer.Argument(help="ONNX file, compiled or trained .cim file, or a package folder.")],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[TOML]", help="Sweep file: \\[vary] with values by field, and the options below."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", help="Folder of the results; one of the same sweep goes on.")
    ] = Path("sweep"),
    vary: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIELD=VALUES",
            help="Values of a field, such as cell.read_noise_uS=0.4,0.8, adc.bits=6:9, train.lr=1e-3:1e-2:log, "
            "chip=isaac,puma, seed=0:2; repeatable.",
        ),
    ] = None,
    do: Annotated[
        str | None,
        typer.Option(
            metavar="eval|train|deploy",
            help="What a point does: evaluate; train and evaluate; export and deploy. Default: what fits.",
        ),
    ] = None,
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    seeds: Annotated[int | None, typer.Option(min=1, help="Compute each point with so many seeds. Default: 1.")] = None,
    random: Annotated[int | None, typer.Option(min=1, metavar="N", help="Draw N points, in place of all.")] = None,
    search: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Search in N points, by Optuna; needs cimc\\[sweep].")
    ] = None,
    objective: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FIGURE:max|min",
            help="What is searched for and shown, such as accuracy:max, energy:min, area:min; repeatable, then with "
            "the Pareto front.",
        ),
    ] = None,
    devices: Annotated[
        str | None,
        typer.Option(
            metavar="auto|keep|write",
            help="Of a trained file: keep its devices as they are, or write its weights on each point's chip. auto: "
            "keep where only the noise of reads varies.",
        ),
    ] = None,
    workers: Workers = 1,
    cluster: Cluster = None,
    csv: Annotated[Path | None, typer.Option(help="Table to write: a row for every point and seed.")] = None,
    as_json: Json = False,
) -> None:
    """Measure a network at many points of chip, training and deployment; killed, it goes on where it was.

    Example: cimc sweep trained.cim --data mnist --vary cell.read_noise_uS=0.4,0.8,1.6 --vary adc.bits=6:9 -o sweep/
    """
    import cimc
    from cimc.commands.console import noting, progress_bar
    from cimc.errors import CimcError
    from cimc.files import require_outputs
    from cimc.sweep_results import RESULTS, SPEC
    from cimc.sweep_spec import parse_vary, read_toml

    require_outputs([output / SPEC, output / RESULTS], [csv])
    settings = {} if file is None else read_toml(file)
    fields = {**settings.pop("vary", {}), **parse_vary(vary or [])}
    given = {
        "do": do,
        "seeds": seeds,
        "random": random,
        "search": search,
        "objective": objective or None,
        "devices": devices,
    }
    settings |= {name: value for name, value in given.items() if value is not None}
    if not fields and settings.get("seeds") is None:
        raise CimcError("nothing is varied; give --vary FIELD=VALUES, or a sweep file with [vary]")
    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    notes, note = noting("sweep")
    with progress_bar("sweep") as bar:
        result = cimc.sweep(
            source,
            dataset,
            vary=fields,
            folder=output,
            workers=workers,
            cluster=cluster,
            progress=lambda done, total: bar(done, total, _share(done, total)),
            note=note,
            **settings,
        )
    if csv is not None:
        result.to_csv(csv)
    emit({**figures(result), "notes": notes}, lambda: show(result, dataset.label, output), as_json=as_json)
    if not result.complete:
        raise CimcError("the errors of some points may pass, and are not kept; the same command computes them again")


def figures(result: "SweepResult") -> dict[str, Any]:
    """JSON of `sweep`: every row, means over seeds, and the front."""
    return {
        "model": result.name,
        "varied": list(result.varied),
        "objectives": [str(one) for one in result.aims()],
        "points": len(result.groups),
        "failed": len(result.failed),
        "rows": [
            {"point": row.number, "fields": row.fields, "seed": row.seed, **row.figures, "error": row.error}
            for row in result.rows
        ],
        "means": [
            {"fields": group.fields, "mean": group.mean, "sd": group.sd, "seeds": group.count, "error": group.error}
            for group in result.groups
        ],
        "pareto": [group.fields for group in result.pareto()],
    }


def show(result: "SweepResult", data: str, folder: Path) -> None:
    """The points with what is looked at, the best one, and failures by their reason."""
    from shlex import quote

    from cimc.commands.console import print_table, say

    head, rows = result.table()
    caption = f"the first {MOST_ROWS} of {len(rows)} points; all: --csv" if len(rows) > MOST_ROWS else None
    print_table(
        f"{result.name} on {data}, {len(rows)} point{'' if len(rows) == 1 else 's'}", head, rows[:MOST_ROWS], caption
    )
    if len(result.aims()) == 1:
        (best,) = result.pareto()[:1] or (None,)
        if best is not None:
            from cimc.sweep_result import figure_text
            from cimc.sweep_spec import point_text

            figure = result.aims()[0].figure
            place = f" at {point_text(best.fields)}" if best.fields else ""
            say(f"best {figure}: {figure_text(figure, best)}{place}")
    if result.failed:
        reasons = dict.fromkeys(row.error or "" for row in result.failed)
        why = f": {'; '.join(list(reasons)[:5])}" if caption else ""  # else the table says it
        say(f"{len(result.failed)} of {len(result.rows)} failed{why}")
    say(f"wrote {folder}; next: cimc report {quote(str(folder))} -o sweep.html")


def _share(done: int, total: int) -> str:
    """How far it is, in at most eleven texts."""
    step = -(-total // 10)
    return f"{done if done == total else done - done % step} of {total} points"
