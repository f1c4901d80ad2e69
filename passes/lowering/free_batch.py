"""Make the batch size of a network that was exported for one batch size symbolic."""

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import onnx_ir as ir

from cimc.errors import CimcError
from passes.graph_edit import add_constant, constant, new_name, new_node
from passes.lowering.infer_shapes import BATCH_SYMBOL, Sizes, sizes_at
from passes.verify import random_inputs, run

# Sizes of the values of a network at the batch that it was exported for, by name.
_Known = Mapping[str, Sizes | None]
# The axis of the batch among the sizes of a value; None: the value does not depend on it.
_Axis = Callable[[Sequence[int]], int | None]
_RECURRENT = ("LSTM", "GRU", "RNN")


class FreeBatch(ir.passes.InPlacePass):
    """Replace a static batch size by a symbol, also where a Reshape, an Expand or a constant repeats it.

    The first size of every input counts as the batch if all inputs (rank 2 or more) agree in it, and if the network
    with a free batch, run on one image more, computes the same for all the others. Else the network stays as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Free the batch size where that is safe."""
        first = {
            value.shape[0] if value.shape is not None and len(value.shape) > 1 else None for value in model.graph.inputs
        }
        batch = first.pop() if len(first) == 1 else None
        if not isinstance(batch, int) or batch < 1:
            return ir.passes.PassResult(model, modified=False)
        sizes = {name: sizes for name, (_, sizes) in sizes_at(model, batch).items()}
        for value in model.graph.inputs:
            sizes[value.name or ""] = tuple(size if isinstance(size, int) else None for size in value.shape or ())
        for axis_of_batch in _guesses(batch):
            trial = model.clone()
            _free(trial, sizes, axis_of_batch)
            if _same_with_another_image(model, trial, batch) and _time_stays(trial):
                _free(model, sizes, axis_of_batch)
                return ir.passes.PassResult(model, modified=True)
        return ir.passes.PassResult(model, modified=False)


def _guesses(batch: int) -> tuple[_Axis, _Axis, _Axis]:
    """Which axis of sizes holds the batch: only the first, if it is the batch; or a multiple; or any that is it."""

    def first(sizes: Sequence[int]) -> int | None:
        return 0 if sizes[0] == batch else None

    def multiple(sizes: Sequence[int]) -> int | None:  # such as batch x heads
        return 0 if sizes[0] % batch == 0 else None

    def anywhere(sizes: Sequence[int]) -> int | None:  # such as [time, batch, features]
        return next((axis for axis, size in enumerate(sizes) if size == batch), multiple(sizes))

    return first, multiple, anywhere


def _same_with_another_image(fixed: ir.Model, free: ir.Model, batch: int) -> bool:
    try:
        feeds = random_inputs(free, batch + 1, 0)
        expected = run(fixed, {name: array[:batch] for name, array in feeds.items()})
        computed = run(free, feeds)
    except CimcError:
        return False
    return all(
        one.ndim and more.shape == (batch + 1, *one.shape[1:]) and np.allclose(one, more[:batch], rtol=1e-4, atol=1e-5)
        for one, more in zip(expected, computed, strict=True)
    )


def _time_stays(free: ir.Model) -> bool:
    """Whether no sequence length became free: with the time first, one step more changes nothing before it."""
    if not any(node.op_type in _RECURRENT and not node.domain for node in free.graph):
        return True
    small, large = sizes_at(free, 7), sizes_at(free, 11)
    inputs = {value.name: value for value in free.graph.inputs}
    for node in free.graph:
        if node.op_type not in _RECURRENT or node.domain or node.inputs[0] is None:
            continue
        axis, name = node.attributes.get_int("layout", 0), node.inputs[0].name or ""
        if name in inputs:
            shape = inputs[name].shape
            if shape is not None and not isinstance(shape[axis], int):
                return False
        else:
            one, other = (known.get(name, (None, None))[1] for known in (small, large))
            if one is not None and other is not None and one[axis] != other[axis]:
                return False
    return True


def _free(model: ir.Model, sizes: _Known, axis_of_batch: _Axis) -> None:
    """Let the first size of the inputs vary, and what follows from it."""
    for value in model.graph.inputs:
        if value.shape is not None:
            value.shape = ir.Shape([BATCH_SYMBOL, *value.shape.dims[1:]])
    for node in list(model.graph):
        for output in node.outputs:
            output.shape = None
        if node.domain:
            continue
        if node.op_type == "Reshape":
            _free_reshape(model.graph, node, sizes, axis_of_batch)
        elif node.op_type == "Expand":
            _free_expand(model.graph, node, sizes, axis_of_batch)
        elif node.op_type == "Concat" and node.attributes.get_int("axis", 0) != 0:
            _free_constants(model.graph, node, axis_of_batch)
        elif node.op_type in _RECURRENT:
            for place in (5, 6):  # initial states of zeros are the default
                array = constant(node.inputs[place]) if place < len(node.inputs) else None
                if array is not None and not np.any(array):
                    node.replace_input_with(place, None)


def _free_reshape(graph: ir.Graph, node: ir.Node, sizes: _Known, axis_of_batch: _Axis) -> None:
    source = sizes.get(node.inputs[0].name or "") if node.inputs[0] else None
    result = sizes.get(node.outputs[0].name or "")
    target = constant(node.inputs[1])
    if target is None or not target.size or not source or not result or None in (*source, *result) or 0 in result:
        return
    whole = [size or 0 for size in result]
    axis = axis_of_batch(whole)
    if axis is None or target[axis] in (0, -1):
        return
    kept = axis == 0 and source[0] == whole[0] and math.prod(n or 0 for n in source[1:]) == math.prod(whole[1:])
    freed = np.array([*whole[:axis], 0 if kept else -1, *whole[axis + 1 :]], np.int64)
    node.attributes.pop("allowzero", None)
    node.replace_input_with(1, add_constant(graph, f"{node.outputs[0].name}.shape", freed))


def _free_expand(graph: ir.Graph, node: ir.Node, sizes: _Known, axis_of_batch: _Axis) -> None:
    """The batch in the shape of an Expand, such as that of a class token, is that of the network's input."""
    shape, source = constant(node.inputs[1]), sizes.get(node.inputs[0].name or "") if node.inputs[0] else None
    array = constant(node.inputs[0])
    rank = array.ndim if array is not None else len(source or ())
    if shape is not None and shape.size and rank <= shape.size and axis_of_batch([int(n) for n in shape]) == 0:
        node.replace_input_with(1, batch_and(graph, node, shape[1:]))


def _free_constants(graph: ir.Graph, node: ir.Node, axis_of_batch: _Axis) -> None:
    """A constant with equal entries for each image of the batch that is joined to values: one entry, expanded."""
    for place, value in enumerate(node.inputs):
        array = constant(value)
        if value is None or array is None or not array.ndim or not array.size or axis_of_batch(array.shape) != 0:
            continue
        if np.all(array == array[:1]):
            one = add_constant(graph, f"{value.name}.one", array[:1])
            wide = new_node("Expand", [one, batch_and(graph, node, np.array(array.shape[1:]))], f"{node.name}.batch")
            wide.outputs[0].name = new_name(graph, f"{node.outputs[0].name}.batch")
            wide.outputs[0].type = value.type
            graph.insert_before(node, wide)
            node.replace_input_with(place, wide.outputs[0])


def batch_and(graph: ir.Graph, node: ir.Node, rest: np.ndarray) -> ir.Value:
    """The shape [batch, *rest] as nodes before `node`."""
    name = f"{node.outputs[0].name}.batch_size"
    size = ir.Node("", "Shape", [graph.inputs[0]], [ir.AttrInt64("start", 0), ir.AttrInt64("end", 1)], num_outputs=1)
    sizes = add_constant(graph, f"{name}.rest", rest.astype(np.int64))
    whole = ir.Node("", "Concat", [size.outputs[0], sizes], [ir.AttrInt64("axis", 0)], num_outputs=1)
    for made in (size, whole):
        made.name = made.outputs[0].name = new_name(graph, name)
        made.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        graph.insert_before(node, made)
    return whole.outputs[0]
