"""`cimc weights`."""

from pathlib import Path
from typing import Annotated

import typer

from cimc.commands.options import Json, emit


def weights(
    artifact: Annotated[Path, typer.Argument(help="Compiled or trained .cim file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="ONNX file to write.")],
    model: Annotated[
        Path | None,
        typer.Option("--model", help="The ONNX file that was compiled: keep its graph, its names and its opset."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Write the trained network as plain float32 ONNX, for any ONNX runtime: what cimc eval --exact computes.

    Example: cimc weights trained.cim -o float.onnx
    """
    import cimc
    from cimc.commands.console import say

    written = cimc.weights(artifact, model, output=output)
    sizes = {tensor.name: list(tensor.dims) for tensor in written.graph.initializer}
    figures = {"model": written.graph.name, "output": str(output), "constants": sizes}
    emit(figures, lambda: say(f"wrote {output}: {len(written.graph.node)} nodes, float32"), as_json=as_json)
