"""Give every value its shape, with one symbol for the batch and all other sizes static.

Shape inference loses the batch symbol in shape arithmetic, so it is run at two batch sizes: what differs between them
depends on the batch, what does not is static.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import onnx_ir as ir
from onnx_ir.passes import common

BATCH_SYMBOL = "N"
_BATCHES = (7, 11)

Sizes = tuple[int | None, ...]


class InferShapes(ir.passes.InPlacePass):
    """Infer the shapes and types of all values anew."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Set the shape of every value that inference reaches; clear the others."""
        symbol = batch_symbol(model)
        first, second = (sizes_at(model, batch) for batch in _BATCHES)
        for value in model.graph.inputs:
            if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
                value.shape = ir.Shape([symbol, *value.shape.dims[1:]])
        for node in model.graph:
            for value in node.outputs:
                name = value.name or ""
                value.shape = None
                if name not in first:
                    continue
                kind, small = first[name]
                if kind is not None:
                    value.type = kind
                large = second.get(name, (None, None))[1]
                if small is not None and large is not None and len(small) == len(large):
                    value.shape = ir.Shape([_merge(a, b, symbol) for a, b in zip(small, large, strict=True)])
        return ir.passes.PassResult(model, modified=True)


def batch_symbol(model: ir.Model) -> str:
    """The name of the batch dimension: that of the first input that names one."""
    for value in model.graph.inputs:
        if value.shape is not None and len(value.shape):
            size = value.shape[0]
            if isinstance(size, ir.SymbolicDim) and size.value:
                return str(size.value)
    return BATCH_SYMBOL


def sizes_at(model: ir.Model, batch: int) -> dict[str, tuple[ir.TypeProtocol | None, Sizes | None]]:
    """The type and the sizes of every node output, by name; `batch` stands for a symbolic first size of the inputs."""
    probe = model.clone()
    for value in probe.graph.inputs:
        if value.shape is not None and len(value.shape) and not isinstance(value.shape[0], int):
            value.shape = ir.Shape([batch, *value.shape.dims[1:]])
    outputs = [value for node in probe.graph for value in node.outputs if value.name]
    for value in outputs:
        value.shape = None
    with _quiet():
        common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)(probe)
    return {
        value.name or "": (
            value.type,
            None if value.shape is None else tuple(size if isinstance(size, int) else None for size in value.shape),
        )
        for value in outputs
    }


def _merge(small: int | None, large: int | None, symbol: str) -> int | str | None:
    if small is None or large is None:
        return None
    if small == large:
        return small
    if small * _BATCHES[1] != large * _BATCHES[0]:
        return None
    factor = small // _BATCHES[0]
    return symbol if factor == 1 else f"{factor}*{symbol}"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from logging a traceback where inference stops: the passes after it say what is missing."""
    logger = logging.getLogger("onnx_ir.passes.common.shape_inference")
    before = logger.disabled
    logger.disabled = True
    try:
        yield
    finally:
        logger.disabled = before
