"""`cimc inspect`. Its table is that of `mapping_table`."""

from pathlib import Path
from typing import Annotated

import typer

from cimc.commands.options import Json, emit


def inspect(artifact: Annotated[Path, typer.Argument(help=".cim file.")], as_json: Json = False) -> None:
    """Show how a .cim file lies on its chip: layers, arrays, copies, time, energy, bound, critical path.

    Example: cimc inspect lenet1.cim
    """
    from cimc.artifact import read_artifact
    from cimc.commands import mapping_table

    contents = read_artifact(artifact)
    emit(mapping_table.figures(contents), lambda: mapping_table.show(contents), as_json=as_json)
