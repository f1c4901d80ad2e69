"""Gemm with a constant matrix becomes a crossbar layer; alpha goes into the weight, beta into the bias."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.crossbar_functions import crossbar_bias, crossbar_matmul, with_bias
from passes.graph_edit import add_constant, derived_constant, float_constant, new_node, owner, replace_node, source_of


class LowerGemm(ir.passes.InPlacePass):
    """Replace Gemm nodes of which one operand is a constant; others stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower all such nodes."""
        count = 0
        for node in model.graph:
            chain = _lower(node) if node.op_type == "Gemm" and not node.domain else None
            if chain:
                replace_node(node, chain)
                count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _lower(node: ir.Node) -> list[ir.Node] | None:
    graph = owner(node)
    name = node.name or node.outputs[0].name or ""
    a, b = node.inputs[:2]
    c = node.inputs[2] if len(node.inputs) > 2 else None
    alpha = np.float32(node.attributes.get_float("alpha", 1.0))
    beta = np.float32(node.attributes.get_float("beta", 1.0))
    trans_a, trans_b = (bool(node.attributes.get_int(key, 0)) for key in ("transA", "transB"))
    left, right = float_constant(a), float_constant(b)
    if beta == 0:
        c = None
    if right is not None and a is not None and b is not None:
        weight = alpha * (right.T if trans_b else right)
        bias = _column_bias(c, beta, weight.shape[1])
        chain = [_transpose(a, f"{name}.transpose_input")] if trans_a else []
        product = crossbar_matmul(graph, chain[-1].outputs[0] if chain else a, weight, name, source=b)
        if c is None:
            return [*chain, product]
        if bias is None:
            return [*chain, product, *_add(graph, product, product, c, beta, name)]
        return [*chain, with_bias(product, crossbar_bias(graph, product, bias, source_of(c)))]
    if left is not None and a is not None and b is not None:
        weight = alpha * (left if trans_a else left.T)
        chain = [] if trans_b else [_transpose(b, f"{name}.transpose_input")]
        product = crossbar_matmul(graph, chain[-1].outputs[0] if chain else b, weight, name, source=a)
        turned = _transpose(product.outputs[0], f"{name}.transpose_output")
        return [*chain, product, turned, *([] if c is None else _add(graph, product, turned, c, beta, name))]
    return None


def _column_bias(c: ir.Value | None, beta: np.float32, columns: int) -> npt.NDArray[np.float32] | None:
    array = float_constant(c)
    if array is None or array.size not in (1, columns) or array.shape[-1:] not in ((), (1,), (columns,)):
        return None
    if array.size > 1 and array.shape[-1] == 1:
        return None
    return np.broadcast_to(beta * array.reshape(-1), (columns,))


def _transpose(value: ir.Value, name: str) -> ir.Node:
    return new_node("Transpose", [value], name, [ir.AttrInt64s("perm", [1, 0])])


def _add(graph: ir.Graph, layer: ir.Node, product: ir.Node, c: ir.Value, beta: np.float32, name: str) -> list[ir.Node]:
    """`product` + beta c; a constant c is one for all products of the layer's weight."""
    array, weight = float_constant(c), layer.inputs[1]
    chain = []
    if array is not None and weight is not None:
        use = ("addend", weight.name)
        c, _ = derived_constant(graph, f"{name}.addend", beta * array, source_of(c), use)
    elif beta != 1:
        factor = add_constant(graph, f"{name}.beta", np.array(beta, dtype=np.float32))
        chain.append(new_node("Mul", [c, factor], f"{name}.scale"))
        c = chain[0].outputs[0]
    return [*chain, new_node("Add", [product.outputs[0], c], f"{name}.add")]
