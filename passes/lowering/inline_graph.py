"""Copy the nodes of a subgraph into the graph that holds it."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.graph_edit import add_constant, new_name, owner
from passes.lowering.fold_constants import RANDOM, fold


def inline(place: ir.Node, body: ir.Graph, inputs: Sequence[ir.Value | None], opset: int) -> list[ir.Value]:
    """Put a copy of the nodes of `body` before `place`, folded where their inputs are constants.

    Args:
        place: a node of the graph that takes the copy.
        body: a subgraph of that graph; its constants are those of the graph.
        inputs: what takes the place of the inputs of `body`; None: nothing uses it.
        opset: that of the network.

    Returns:
        The values that take the place of the outputs of `body`.
    """
    graph, copy = owner(place), body.clone(allow_outer_scope_values=True)
    values = dict(zip(copy.inputs, inputs, strict=True))
    results = list(copy.outputs)
    copy.outputs.clear()
    for name, value in copy.initializers.items():  # left there because they are outputs
        values[value] = add_constant(graph, name, _array(value))
    for parameter, argument in values.items():
        if argument is not None:
            parameter.replace_all_uses_with(argument)
    nodes = list(copy)
    copy.remove(nodes)
    for node in nodes:
        node.name = new_name(graph, node.name or node.op_type)
        for output in node.outputs:
            if output.name:
                output.name = new_name(graph, output.name)
        graph.insert_before(place, node)
        folded = fold(graph, node, opset)
        if folded is not None:
            values |= dict(zip(node.outputs, folded, strict=True))
    return [values.get(result) or result for result in results]


def _array(value: ir.Value) -> npt.NDArray[np.generic]:
    assert value.const_value is not None
    return value.const_value.numpy()


def hoist(place: ir.Node, body: ir.Graph, opset: int) -> None:
    """Move the nodes of `body` that need nothing of its inputs before `place`: they compute the same at every step.

    There they are folded where their inputs are constants, by the rules of that opset.
    """
    graph = owner(place)
    varying = set(body.inputs)
    for node in list(body):
        stays = any(output.is_graph_output() for output in node.outputs) or any(
            attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        )
        if stays or node.op_type in RANDOM or not varying.isdisjoint(node.inputs):
            varying.update(node.outputs)
            continue
        body.remove(node)
        for output in node.outputs:
            if output.name:
                output.name = new_name(graph, output.name)
        graph.insert_before(place, node)
        fold(graph, node, opset)


def replace_by(node: ir.Node, values: Sequence[ir.Value]) -> None:
    """Put `values` in the place of the outputs of `node`, which keep their names."""
    pairs = [(old, new) for old, new in zip(node.outputs, values, strict=True) if old.uses() or old.is_graph_output()]
    copies = [ir.Node("", "Identity", [new], num_outputs=1) for _, new in pairs]
    new = [copy.outputs[0] for copy in copies]
    ir.convenience.replace_nodes_and_values(owner(node), node, [node], copies, [old for old, _ in pairs], new)
