"""Make the batch size of a network that was exported for one batch size symbolic."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import product

import numpy as np
import onnx_ir as ir

from cimc.errors import CimcError
from passes.graph_edit import add_constant, constant, new_name, new_node
from passes.lowering.follow_batch import FollowBatch
from passes.lowering.infer_shapes import BATCH_SYMBOL, Sizes, batch_axis, sizes_at
from passes.verify import random_inputs, run

# Sizes of the values of a network at the batch that it was exported for, by name.
_Known = Mapping[str, Sizes | None]
# The axis of the batch of each input; None: it has none.
_InputAxes = tuple[int | None, ...]
_RECURRENT = ("LSTM", "GRU", "RNN")
_MOST_CHOICES = 4  # of the axes of the inputs


class FreeBatch(ir.passes.InPlacePass):
    """Replace a static batch size by a symbol, also where a Reshape, an Expand or a constant repeats it.

    The first size of every input counts as the batch if all inputs agree in it, or the second of recurrent inputs and
    states [length or layers, batch, features]; and if the network with a free batch, run on one image more before
    and after, computes the same for all the others. Else the network stays as it is.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Free the batch size where that is safe."""
        for batch, axes in list(_choices(model.graph.inputs))[:_MOST_CHOICES]:
            known = sizes_at(model, batch)
            sizes = {name: sizes for name, (_, sizes) in known.items()}
            for value in (value for node in model.graph for value in node.outputs):
                value.type = value.type or known.get(value.name or "", (None, None))[0]
            for value in model.graph.inputs:
                sizes[value.name or ""] = tuple(size if isinstance(size, int) else None for size in value.shape or ())
            trial = model.clone()
            _free(trial, sizes, axes, batch)
            if _same_with_others(model, trial, axes, batch) and _time_stays(trial):
                _free(model, sizes, axes, batch)
                return ir.passes.PassResult(model, modified=True)
        return ir.passes.PassResult(model, modified=False)


def _choices(inputs: Sequence[ir.Value]) -> Iterator[tuple[int, _InputAxes]]:
    """The batch sizes that the inputs may have, and where: on their first axes, or where there are three the second."""
    places: list[list[tuple[int, int] | None]] = []
    for value in inputs:
        shape = [size if isinstance(size, int) else 0 for size in value.shape or ()]
        if value.shape is None or 0 in shape:
            return
        axes = range(2 if len(shape) == 3 else min(len(shape), 1))
        places.append([(shape[axis], axis) for axis in axes] or [None])
    for choice in product(*places):
        batches = {place[0] for place in choice if place is not None}
        if len(batches) == 1 and any(len(value.shape or ()) > 1 for value in inputs):
            yield batches.pop(), tuple(None if place is None else place[1] for place in choice)


def _same_with_others(fixed: ir.Model, free: ir.Model, axes: _InputAxes, batch: int) -> bool:
    try:
        feeds = random_inputs(free, batch + 2, 0)
        some = {
            name: array if axis is None else array.take(range(1, batch + 1), axis)
            for (name, array), axis in zip(feeds.items(), axes, strict=True)
        }
        expected = run(fixed, some)
        computed = run(free, feeds)
    except CimcError:
        return False
    return all(_holds(more, one, batch) for one, more in zip(expected, computed, strict=True))


def _holds(more: np.ndarray, one: np.ndarray, batch: int) -> bool:
    """Whether `more` is `one` with the results for one image before and for one after."""
    if more.ndim != one.ndim:
        return False
    longer = [axis for axis in range(one.ndim) if more.shape[axis] != one.shape[axis]]
    if len(longer) != 1 or more.shape[longer[0]] * batch != one.shape[longer[0]] * (batch + 2):
        return False
    size = one.shape[longer[0]]
    same = more.take(range(size // batch, size // batch + size), longer[0])
    return bool(np.allclose(one, same, rtol=1e-4, atol=1e-5))


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


def _free(model: ir.Model, sizes: _Known, axes: _InputAxes, batch: int) -> None:
    """Let the batch of the inputs vary, and what follows from it."""
    for value, axis in zip(model.graph.inputs, axes, strict=True):
        if value.shape is not None and axis is not None:
            value.shape = ir.Shape([*value.shape.dims[:axis], BATCH_SYMBOL, *value.shape.dims[axis + 1 :]])
    follow = FollowBatch(model, sizes, batch)
    for node in list(model.graph):
        for output in node.outputs:
            output.shape = None
        if node.domain:
            continue
        if node.op_type == "Reshape":
            _free_reshape(model.graph, node, sizes, follow)
        elif node.op_type == "Expand":
            _free_expand(model.graph, node, sizes, batch)
        elif node.op_type == "Concat" and node.attributes.get_int("axis", 0) != 0:
            _free_constants(model.graph, node, batch)
        elif node.op_type in _RECURRENT:
            for place in (5, 6):  # initial states of zeros are the default
                array = constant(node.inputs[place]) if place < len(node.inputs) else None
                if array is not None and not np.any(array):
                    node.replace_input_with(place, None)


def _free_reshape(graph: ir.Graph, node: ir.Node, sizes: _Known, follow: FollowBatch) -> None:
    source = sizes.get(node.inputs[0].name or "") if node.inputs[0] else None
    result = sizes.get(node.outputs[0].name or "")
    target = constant(node.inputs[1])
    if target is None or not target.size or not source or not result or None in (*source, *result) or 0 in result:
        return
    whole = [size or 0 for size in result]
    axis = follow.axis(node, whole)
    if axis is None or target[axis] in (0, -1):
        return
    freed = np.array([*whole[:axis], -1, *whole[axis + 1 :]], np.int64)
    node.attributes.pop("allowzero", None)
    node.replace_input_with(1, add_constant(graph, f"{node.outputs[0].name}.shape", freed))


def _free_expand(graph: ir.Graph, node: ir.Node, sizes: _Known, batch: int) -> None:
    """The batch in the shape of an Expand, such as that of a class token, is that of the network's input."""
    shape, source = constant(node.inputs[1]), sizes.get(node.inputs[0].name or "") if node.inputs[0] else None
    array = constant(node.inputs[0])
    rank = array.ndim if array is not None else len(source or ())
    if shape is not None and shape.size and rank <= shape.size and shape[0] == batch:
        node.replace_input_with(1, batch_and(graph, node, shape[1:]))


def _free_constants(graph: ir.Graph, node: ir.Node, batch: int) -> None:
    """A constant with equal entries for each image of the batch that is joined to values: one entry, expanded."""
    for place, value in enumerate(node.inputs):
        array = constant(value)
        if value is None or array is None or not array.ndim or not array.size or array.shape[0] != batch:
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
    place = next((value, axis) for value in graph.inputs if (axis := batch_axis(value, graph.inputs)) is not None)
    ends = [ir.AttrInt64("start", place[1]), ir.AttrInt64("end", place[1] + 1)]
    size = ir.Node("", "Shape", [place[0]], ends, num_outputs=1)
    sizes = add_constant(graph, f"{name}.rest", rest.astype(np.int64))
    whole = ir.Node("", "Concat", [size.outputs[0], sizes], [ir.AttrInt64("axis", 0)], num_outputs=1)
    for made in (size, whole):
        made.name = made.outputs[0].name = new_name(graph, name)
        made.outputs[0].type = ir.TensorType(ir.DataType.INT64)
        graph.insert_before(node, made)
    return whole.outputs[0]
