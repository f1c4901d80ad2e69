"""`cimc inspect`. Its table is that of `mapping_table`."""

from pathlib import Path
from typing import Annotated

import typer

from cimc.commands.options import Json, complete_files, emit, require_finite


def inspect(
    artifact: Annotated[Path, typer.Argument(help=".cim file.", autocompletion=complete_files(".cim"))],
    simulate: Annotated[
        bool, typer.Option("--simulate", help="Compare the schedule with an event-driven simulation.")
    ] = False,
    inputs_per_second: Annotated[
        float | None,
        typer.Option(
            min=0,
            callback=require_finite,
            help="Inputs in a second of a stream, such as 31.25 of 512 samples of audio at 16 kHz: figures for it too.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show how a .cim file lies on its chip: layers, arrays, copies, time, energy, bound, critical path.

    Example: cimc inspect lenet1.cim --simulate
    """
    from cimc.artifact import read_artifact
    from cimc.commands import mapping_table

    contents, simulated = read_artifact(artifact), None
    if simulate:
        from cimc.api.simulate import simulate_mapping

        simulated = simulate_mapping(contents)
    emit(
        mapping_table.figures(contents, simulated, inputs_per_second),
        lambda: mapping_table.show(contents, simulated, inputs_per_second),
        as_json=as_json,
    )
