"""Hold each row of a layer on several word lines: the currents add, and few rows fill the ADC's range.

What a device errs and what a read adds is averaged over the copies of a row, as of a synapse of several devices (Boybat
et al., Nature Communications 9, 2514, 2018), also over those in further arrays, whose codes add up. The network
computes the same: the channels of the input are repeated, and the weights of a row are divided among its copies. All
rows of a group come before their next copies, so that each array has as many different ones as fit: copies of few rows
add up to larger currents than as many different rows, which the ADC would clip.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.by_layer import check_layers, number_of
from cimc.operators import ROW_COPIES
from passes.crossbar_functions import crossbar_layers
from passes.graph_edit import add_constant, float_constant, insert_before, owner


def repeat_rows(model: ir.Model, rows: Mapping[str, int]) -> ir.Model:
    """A copy of a lowered network whose layers hold each row as often as fits into so many weight rows of arrays.

    Args:
        model: the network; returned as it is where no layer has so few rows.
        rows: weight rows by layer, more than an array has in several; "" stands for all others.

    Raises:
        CimcError: a layer that the network has not.
    """
    layers = crossbar_layers(model)
    check_layers("--fill-rows", rows, layers)
    times = {name: _times(nodes[0], number_of(name, rows) or 1) for name, nodes in layers.items()}
    if all(count == 1 for count in times.values()):
        return model
    model = model.clone()
    for name, nodes in crossbar_layers(model).items():
        if times[name] > 1:
            _repeat(nodes, times[name], model.graph)
    return model


def _times(node: ir.Node, rows: int) -> int:
    """How often the rows of the layer of this node fit into so many."""
    matrix = float_constant(node.inputs[1])
    return 1 if matrix is None or not len(matrix) else max(rows // len(matrix), 1)


def join_rows(nodes: list[ir.Node]) -> None:
    """Undo it for the layer that these nodes use, in place: the weights of the copies of a row add up."""
    count = int(nodes[0].metadata_props.get(ROW_COPIES, "1"))
    if count == 1:
        return
    shape = _weight_shape(nodes[0])
    order = _rows_of(nodes[0])[: shape[1]]  # of the first group

    def joined(by_channel: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        once = np.zeros((shape[1] // count, *by_channel.shape[1:]), np.float32)
        np.add.at(once, order, by_channel)
        return once

    _set_weight(nodes[0], joined)
    for node in nodes:
        repeated = node.inputs[0]
        assert repeated is not None
        gather, graph = repeated.producer(), owner(node)
        assert gather is not None
        x, index = gather.inputs
        node.replace_input_with(0, x)
        if not repeated.uses():
            graph.remove(gather, safe=True)
            if index is not None and index.graph is not None and not index.uses():
                del index.graph.initializers[index.name or ""]
        del node.metadata_props[ROW_COPIES]
        if "weight_shape" in node.attributes:
            sizes = (shape[0], shape[1] // count, *shape[2:])
            node.attributes["weight_shape"] = ir.AttrInt64s("weight_shape", sizes)


def _rows_of(node: ir.Node) -> npt.NDArray[np.int64]:
    """Which channel of the input each repeated one is."""
    repeated = node.inputs[0]
    gather = None if repeated is None else repeated.producer()
    index = None if gather is None else ir.convenience.get_const_tensor(gather.inputs[1])  # type: ignore[arg-type]
    assert index is not None
    return index.numpy().astype(np.int64)


def _weight_shape(node: ir.Node) -> Sequence[int]:
    """Output channels, input channels and the kernel, of a layer's node."""
    if "weight_shape" in node.attributes:
        return node.attributes["weight_shape"].as_ints()
    assert node.inputs[1] is not None
    assert node.inputs[1].shape is not None
    rows, columns = node.inputs[1].shape.numpy()
    return columns, rows


def _set_weight(node: ir.Node, change: Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]) -> None:
    """Change the weight of a layer, as [input channels, kernel, columns]."""
    weight, matrix = node.inputs[1], float_constant(node.inputs[1])
    assert weight is not None
    assert matrix is not None
    held = change(matrix.reshape(_weight_shape(node)[1], -1, matrix.shape[1])).reshape(-1, matrix.shape[1])
    weight.const_value, weight.shape = ir.tensor(held, name=weight.name), ir.Shape(held.shape)


def _repeat(nodes: list[ir.Node], count: int, graph: ir.Graph) -> None:
    """Repeat the rows of the layer that these nodes use; the constant goes into `graph`, also of a Scan's body."""
    convolution, shape = "weight_shape" in nodes[0].attributes, _weight_shape(nodes[0])
    _set_weight(nodes[0], lambda by_channel: np.tile(by_channel / np.float32(count), (count, 1, 1)))
    for node in nodes:
        x = node.inputs[0]
        assert x is not None
        assert x.shape is not None
        axis = 1 if convolution else len(x.shape) - 1
        channels = x.shape[axis]
        assert isinstance(channels, int)
        groups = np.arange(channels).reshape(-1, shape[1])
        index = add_constant(graph, f"{node.name}.rows", np.tile(groups, count).reshape(-1))
        (repeated,) = insert_before(node, "Gather", [x, index], axis=axis)
        repeated.shape = ir.Shape([*x.shape[:axis], channels * count, *x.shape[axis + 1 :]])
        repeated.type = x.type
        node.replace_input_with(0, repeated)
        node.metadata_props[ROW_COPIES] = str(count)
        if convolution:
            node.attributes["weight_shape"] = ir.AttrInt64s("weight_shape", (shape[0], shape[1] * count, *shape[2:]))
