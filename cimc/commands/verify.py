"""`cimc verify`."""

from pathlib import Path
from typing import Annotated

import typer

from cimc.commands.options import Json, emit


def verify(
    path: Annotated[Path, typer.Argument(help=".cim file, or a package folder.")],
    as_json: Json = False,
) -> None:
    """Check digests and versions of a file, and that a package's model.onnx is what its targets compute.

    Example: cimc verify package/
    """
    import cimc
    from cimc.commands.console import say

    figures = cimc.verify(path)
    agrees = ", model.onnx agrees with the targets" if "model_onnx" in figures else ""
    text = f"{path}: whole; {figures['kind']} of {figures['model']} on {figures['chip']}{agrees}"
    emit(figures, lambda: say(text), as_json=as_json)
