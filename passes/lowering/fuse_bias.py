"""The addition of one constant a column, right after a crossbar layer, becomes the layer's bias.

A layer has one bias for all its uses. Where these add different ones, each is added digitally instead.
"""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.trained_names import TRAINED, names_stated
from passes.crossbar_functions import crossbar_bias, is_crossbar, with_bias
from passes.graph_edit import derived_constant, float_constant, new_node, replace_node, source_of
from passes.lowering.mark_trained import parts_of

Floats = npt.NDArray[np.float32]


class FuseBias(ir.passes.InPlacePass):
    """Fuse Add nodes whose other operand is a crossbar layer's output that nothing else uses."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse all such additions; of a layer with several uses, those that every use has."""
        count = 0
        stated = names_stated(model.metadata_props, TRAINED) if TRAINED in model.metadata_props else None
        for uses in _layers(model.graph):
            if any(node.graph is not model.graph for node in uses):
                continue  # in a body that runs several times, next to its uses outside
            if len({id(node.inputs[2]) if len(node.inputs) > 2 else None for node in uses}) > 1:
                uses = [_unfused(model.graph, node) for node in uses]
                count += 1
            while (fused := _fused(model.graph, uses, stated)) is not None:
                uses = fused
                count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _layers(graph: ir.Graph) -> Iterable[list[ir.Node]]:
    """The nodes of every crossbar layer: those that use one weight."""
    layers: dict[int, list[ir.Node]] = {}
    for node in graph.all_nodes():
        if is_crossbar(node):
            layers.setdefault(id(node.inputs[1]), []).append(node)
    return layers.values()


def _unfused(graph: ir.Graph, layer: ir.Node) -> ir.Node:
    """The layer without its bias, which an Add adds behind it."""
    bias = layer.inputs[2] if len(layer.inputs) > 2 else None
    array = float_constant(bias)
    if bias is None or array is None:
        return layer
    bare, axes = with_bias(layer, None), len(layer.attributes["kernel_shape"].as_ints()) if layer.attributes else 0
    bare.outputs[0].shape = layer.outputs[0].shape
    use = ("addend", layer.inputs[1])
    addend, _ = derived_constant(graph, f"{bias.name}.addend", array.reshape(-1, *(1,) * axes), source_of(bias), use)
    replace_node(layer, [bare, new_node("Add", [bare.outputs[0], addend], f"{layer.name}.add")])
    return bare


def _fused(graph: ir.Graph, uses: list[ir.Node], trained: frozenset[str] | None) -> list[ir.Node] | None:
    """The uses with the constant that an Add adds to each as their bias; None where they are not alike in that.

    trained: the constants of the file that are trained, where it says so: a bias is, so no other one becomes it.
    """
    additions = [_addition(layer) for layer in uses]
    first = additions[0]
    if first is None or (trained is not None and not parts_of(first[1]) & trained):
        return None
    source, bias = source_of(first[1]), first[2]
    for addition in additions:
        if addition is None or source_of(addition[1]) != source or not np.array_equal(addition[2], bias):
            return None
    own = uses[0].inputs[2] if len(uses[0].inputs) > 2 else None
    array = float_constant(own)
    if own is not None and array is not None:
        source, bias = f"{source_of(own)} + {source}", array + bias
    value = crossbar_bias(graph, uses[0], bias, source)
    fused = []
    for layer, addition in zip(uses, additions, strict=True):
        assert addition is not None
        fused.append(with_bias(layer, value))
        fused[-1].outputs[0].shape = addition[0].outputs[0].shape
        replace_node(addition[0], [fused[-1]])
        graph.remove(layer, safe=True)
    return fused


def _addition(layer: ir.Node) -> tuple[ir.Node, ir.Value, Floats] | None:
    """The Add that alone uses the output of `layer` with a constant a column, that constant, and the bias [columns]."""
    product = layer.outputs[0]
    users = [use.node for use in product.uses()]
    if len(users) != 1 or product.is_graph_output() or users[0].op_type != "Add" or users[0].domain:
        return None
    for value in users[0].inputs:
        bias = None if value is None or value is product else _bias(layer, float_constant(value))
        if value is not None and bias is not None:
            return users[0], value, bias
    return None


def _bias(layer: ir.Node, addend: Floats | None) -> Floats | None:
    """`addend` as a bias [columns] of `layer`, or None if that is not one constant a column."""
    weight, shape = float_constant(layer.inputs[1]), layer.outputs[0].shape
    if addend is None or weight is None or shape is None or addend.ndim > len(shape):
        return None
    columns = weight.shape[1]
    channel_axis = len(shape) - 1 if layer.op_type == "CrossbarMatMul" else 1
    full = (1,) * (len(shape) - addend.ndim) + addend.shape
    if any(size != 1 for axis, size in enumerate(full) if axis != channel_axis) or full[channel_axis] not in (
        1,
        columns,
    ):
        return None
    return np.broadcast_to(addend.reshape(-1), (columns,))
