"""The addition of one constant a column, right after a crossbar layer, becomes the layer's bias."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.crossbar_functions import is_crossbar, with_bias
from passes.graph_edit import float_constant, replace_node


class FuseBias(ir.passes.InPlacePass):
    """Fuse Add nodes whose other operand is a crossbar layer's output that nothing else uses."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse all such additions."""
        count = 0
        for node in model.graph:
            if node.op_type != "Add" or node.domain:
                continue
            for product, addend in (node.inputs, reversed(node.inputs)):
                if product is None or len(product.uses()) != 1 or product.is_graph_output():
                    continue
                layer = product.producer()
                if layer is None or not is_crossbar(layer) or _is_shared(layer):
                    continue
                bias = _bias(layer, float_constant(addend))
                if bias is not None:
                    replace_node(node, [with_bias(model.graph, layer, bias)])
                    model.graph.remove(layer, safe=True)
                    count += 1
                    break
        return ir.passes.PassResult(model, modified=bool(count))


def _is_shared(layer: ir.Node) -> bool:
    """Whether other nodes use the layer's weight: a bias belongs to the layer, so none may be fused into one use."""
    weight = layer.inputs[1]
    users = [] if weight is None else [use.node for use in weight.uses()]
    return any(user is not layer and user.graph is not None for user in users)


def _bias(layer: ir.Node, addend: npt.NDArray[np.float32] | None) -> npt.NDArray[np.float32] | None:
    """The bias [columns] of `layer` plus `addend`, or None if that is not one constant a column."""
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
    own = float_constant(layer.inputs[2]) if len(layer.inputs) > 2 else None
    bias = np.broadcast_to(addend.reshape(-1), (columns,))
    return bias if own is None else own + bias
