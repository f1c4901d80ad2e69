"""MatMul with a constant matrix becomes a crossbar layer."""

import onnx_ir as ir

from passes.crossbar_functions import crossbar_matmul
from passes.graph_edit import float_constant, new_node, owner, replace_node


class LowerMatMul(ir.passes.InPlacePass):
    """Replace MatMul nodes of which one operand is a constant 2-D matrix; others stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower all such nodes."""
        count = 0
        for node in model.graph:
            chain = _lower(node) if node.op_type == "MatMul" and not node.domain else None
            if chain:
                replace_node(node, chain)
                count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _lower(node: ir.Node) -> list[ir.Node] | None:
    left, right = node.inputs
    name = node.name or node.outputs[0].name or ""
    weight = float_constant(right)
    if weight is not None and weight.ndim == 2 and left is not None:
        return [crossbar_matmul(owner(node), left, weight, None, name)]
    weight = float_constant(left)
    if weight is None or weight.ndim != 2 or right is None or right.shape is None:
        return None
    # W x = (x' W')', over the last two axes of x
    rank = len(right.shape)
    if rank < 2:
        return [crossbar_matmul(owner(node), right, weight.T, None, name)]
    swap = [ir.AttrInt64s("perm", [*range(rank - 2), rank - 1, rank - 2])]
    before = new_node("Transpose", [right], f"{name}.transpose_input", swap)
    product = crossbar_matmul(owner(node), before.outputs[0], weight.T, None, name)
    after = new_node("Transpose", [product.outputs[0]], f"{name}.transpose_output", swap)
    return [before, product, after]
