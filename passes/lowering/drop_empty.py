"""Take values without elements out of the network, such as a slice of nothing: no array and no stage computes them."""

import numpy as np
import onnx_ir as ir

from cimc.operators import CROSSBAR_SOURCES
from passes.graph_edit import add_constant, new_node, replace_node
from passes.lowering.free_batch import batch_and


class DropEmpty(ir.passes.InPlacePass):
    """Leave empty values out of every Concat, and make those that a product computes constants."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Drop them; needs inferred shapes."""
        count = 0
        for node in model.graph:
            if node.op_type == "Concat" and not node.domain:
                kept = [value for value in node.inputs if not _is_empty(value)]
                if kept and len(kept) < len(node.inputs):
                    name, attributes = node.name or "", list(node.attributes.values())
                    shorter = new_node("Concat", kept, name, attributes)
                    replace_node(node, [shorter])
                    count += 1
            elif node.op_type in CROSSBAR_SOURCES and not node.domain and _is_empty(node.outputs[0]):
                count += _make_constant(model.graph, node)
        return ir.passes.PassResult(model, modified=bool(count))


def _is_empty(value: ir.Value | None) -> bool:
    return value is not None and value.shape is not None and any(size == 0 for size in value.shape)


def _make_constant(graph: ir.Graph, node: ir.Node) -> bool:
    """Nothing, for each image, in the place of the output of `node`."""
    shape = node.outputs[0].shape
    if len(node.outputs) > 1 or shape is None or not all(isinstance(size, int) for size in shape[1:]):
        return False
    rest = np.array(shape[1:], np.int64)
    nothing = add_constant(graph, f"{node.outputs[0].name}.nothing", np.zeros((1, *rest), np.float32))
    if isinstance(shape[0], int):
        sizes = add_constant(graph, f"{node.outputs[0].name}.sizes", np.array([shape[0], *rest]))
    else:
        sizes = batch_and(graph, node, rest)
    replace_node(node, [new_node("Expand", [nothing, sizes], f"{node.name}.nothing")])
    return True
