"""`cimc inspect`. Its tables are those of `mapping_table`, but that of `--simulate`."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import Json, emit

if TYPE_CHECKING:
    from passes.simulator.simulate import Comparison


def inspect(
    artifact: Annotated[Path, typer.Argument(help=".cim file.")],
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Simulate it event by event, beside the schedule's figures.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how a .cim file lies on its chip: layers, arrays, copies, time, energy, bound, critical path.

    Example: cimc inspect lenet1.cim
    """
    from cimc.artifact import read_artifact
    from cimc.commands import mapping_table

    contents = read_artifact(artifact)
    figures = mapping_table.figures(contents)
    compared: Sequence[Comparison] = ()
    if simulate:
        from passes.simulator.simulate import compare

        _, compared = compare(contents.network, contents.mapping, contents.chip)
        figures["simulation"] = simulation_figures(compared)

    def show() -> None:
        mapping_table.show(contents)
        if compared:
            show_simulation(compared)

    emit(figures, show, as_json=as_json)


def simulation_figures(compared: Sequence["Comparison"]) -> dict[str, Any]:
    """JSON of `inspect --simulate` under `simulation`: latency and interval, scheduled and simulated."""
    return {
        one.what: {
            "scheduled_ms": one.analytic * 1e-6,
            "simulated_ms": one.simulated * 1e-6,
            "deviation": one.deviation,
            "causes": list(one.causes),
            "without_causes_ms": one.without_causes * 1e-6,
            "agrees": one.agrees,
        }
        for one in compared
    }


def show_simulation(compared: Sequence["Comparison"]) -> None:
    """The schedule's and the simulated figures side by side, with what makes the difference."""
    from cimc.commands.console import print_table

    rows = [
        [
            one.what,
            f"{one.analytic * 1e-6:.4g}",
            f"{one.simulated * 1e-6:.4g}",
            f"{one.deviation:+.1%}",
            ", ".join(one.causes) or "-",
            "yes" if one.agrees else "no",
        ]
        for one in compared
    ]
    note = "causes: what the schedule leaves out; explained: without them the two agree within 5 %"
    columns = ["of images", "scheduled ms", "simulated ms", "difference", "causes", "explained"]
    print_table("simulated, event by event", columns, rows, note)
