"""Give every value its shape, with one symbol for the batch and all other sizes static.

Shape inference loses the batch symbol in shape arithmetic, so it is run at two batch sizes: what differs between them
depends on the batch, what does not is static.
"""

import logging
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
from onnx_ir.passes import common

from passes.graph_edit import constant, replace_by_constant
from passes.lowering.fold_constants import FoldConstants
from passes.lowering.learn_sizes import learn_sizes

BATCH_SYMBOL = "N"
_BATCHES = (7, 11)

Sizes = tuple[int | None, ...]


class InferShapes(ir.passes.InPlacePass):
    """Infer the shapes and types of all values anew."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Set the shape of every value that inference reaches; clear the others."""
        _set_sizes(model, [_probe_at(model, batch) for batch in _BATCHES])
        return ir.passes.PassResult(model, modified=True)


def infer_constants(model: ir.Model, batches: tuple[int, int] = _BATCHES) -> dict[str, npt.NDArray[np.generic]]:
    """Infer all shapes; the node outputs that follow from them alone and are the same at both batches, by name."""
    probes = [_probe_at(model, batch) for batch in batches]
    _set_sizes(model, probes)
    for probe in probes:
        _fold_sizes(probe)
    first, second = ({n: constant(v) for n, v in probe.graph.initializers.items()} for probe in probes)
    pairs = {name: (first.get(name), second.get(name)) for name in _outputs(model)}
    return {name: a for name, (a, b) in pairs.items() if a is not None and b is not None and np.array_equal(a, b)}


def _set_sizes(model: ir.Model, probes: Sequence[ir.Model]) -> None:
    symbol = batch_symbol(model)
    first, second = (_sizes_of(model, probe) for probe in probes)
    _set_batch(model, symbol)
    for value in _made(model):
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


def batch_symbol(model: ir.Model) -> str:
    """The name of the batch dimension: that of the first input that names one."""
    for value in model.graph.inputs:
        axis = batch_axis(value, model.graph.inputs)
        size = None if axis is None or value.shape is None else value.shape[axis]
        if isinstance(size, ir.SymbolicDim) and size.value:
            return str(size.value)
    return BATCH_SYMBOL


def batch_axis(value: ir.Value, inputs: Sequence[ir.Value]) -> int | None:
    """Which size of an input is the batch: the first, if that is open; of recurrent inputs and states the second.

    Those are [length or layers, batch, features]; where the first is 1 only with the batch of another input open.
    """
    sizes = list(value.shape or ())
    open_axes = [axis for axis, size in enumerate(sizes) if not isinstance(size, int)]
    if open_axes and open_axes[0] == 0:
        return 0
    leading = any(other.shape is not None and not all(isinstance(n, int) for n in other.shape[:1]) for other in inputs)
    return 1 if open_axes == [1] and len(sizes) == 3 and (leading or sizes[0] != 1) else None


def _set_batch(model: ir.Model, batch: int | str) -> None:
    axes = [batch_axis(value, model.graph.inputs) for value in model.graph.inputs]
    for value, axis in zip(model.graph.inputs, axes, strict=True):
        if axis is not None and value.shape is not None:
            value.shape = ir.Shape([*value.shape.dims[:axis], batch, *value.shape.dims[axis + 1 :]])


def sizes_at(model: ir.Model, batch: int) -> dict[str, tuple[ir.TypeProtocol | None, Sizes | None]]:
    """The type and the sizes of every node output, by name; `batch` stands for a symbolic first size of the inputs."""
    return _sizes_of(model, _probe_at(model, batch))


def _sizes_of(model: ir.Model, probe: ir.Model) -> dict[str, tuple[ir.TypeProtocol | None, Sizes | None]]:
    values = {value.name: value for value in _made(probe)} | dict(probe.graph.initializers)
    return {name: (values[name].type, _sizes(values[name])) for name in _outputs(model) if name in values}


def _outputs(model: ir.Model) -> list[str]:
    return [value.name for value in _made(model) if value.name]


def _probe_at(model: ir.Model, batch: int) -> ir.Model:
    """A copy of the network at that batch: with all sizes that are found, and constants where those give them."""
    probe = model.clone()
    _set_batch(probe, batch)
    for value in _made(probe):
        value.shape = None
    infer = common.ShapeInferencePass(check_type=False, strict_mode=False, data_prop=True)
    with _quiet():
        infer(probe)
        # Arithmetic with sizes that the inference does not follow is computed instead: here all sizes are numbers.
        # Operators of onnxruntime's own are run.
        while not all(_known(value) for value in _made(probe)) and (_fold_sizes(probe) or learn_sizes(probe)):
            infer(probe)
    return probe


def _made(model: ir.Model) -> list[ir.Value]:
    """The values that nodes make, and those that the bodies of Scans take."""
    taken = [value for body in model.graph.subgraphs() for value in body.inputs]
    return [*taken, *(value for node in model.graph.all_nodes() for value in node.outputs)]


def _sizes(value: ir.Value) -> Sizes | None:
    return None if value.shape is None else tuple(size if isinstance(size, int) else None for size in value.shape)


def _known(value: ir.Value) -> bool:
    return value.shape is not None and all(isinstance(size, int) for size in value.shape)


def _fold_sizes(probe: ir.Model) -> int:
    """Compute every Shape and Size of a value of known sizes, and what follows from them; the number of those."""
    count = 0
    for node in probe.graph:
        value = node.inputs[0] if node.op_type in ("Shape", "Size") and not node.domain else None
        if value is None or value.shape is None or not _known(value) or node.outputs[0].is_graph_output():
            continue
        sizes = value.shape.numpy()
        start, end = node.attributes.get_int("start", 0), node.attributes.get_int("end", len(sizes))
        array = np.array(sizes[start:end] if node.op_type == "Shape" else math.prod(sizes), np.int64)
        replace_by_constant(probe.graph, node, array)
        count += 1
    if count:
        FoldConstants()(probe)
    return count


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
