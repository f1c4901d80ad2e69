"""MatMul with a constant operand becomes a crossbar layer; a stack of constants becomes one layer an entry."""

import math

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from passes.crossbar_functions import crossbar_matmul
from passes.graph_edit import add_constant, float_constant, new_node, owner, replace_node


class LowerMatMul(ir.passes.InPlacePass):
    """Replace MatMul nodes of which one operand is a constant; others stay."""

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
    if weight is not None and left is not None and right is not None:
        return _times_constant(owner(node), left, weight, name, source=right)
    weight = float_constant(left)
    if weight is None or left is None or right is None or right.shape is None or len(right.shape) == 0:
        return None
    # W x = (x' W')', over the last two axes of x
    if weight.ndim == 1:
        weight = weight[None]
        squeeze = True
    else:
        squeeze = False
    rank = len(right.shape)
    turned = np.swapaxes(weight, -1, -2)
    if rank < 2:
        chain = _times_constant(owner(node), right, turned, name, source=left)
        return chain if chain is None or not squeeze else [*chain, _squeeze(owner(node), chain[-1], -1, name)]
    before = new_node("Transpose", [right], f"{name}.transpose_input", [_swap(rank)])
    before.outputs[0].shape = ir.Shape([*right.shape.dims[:-2], right.shape[-1], right.shape[-2]])
    product = _times_constant(owner(node), before.outputs[0], turned, name, source=left)
    if product is None:
        return None
    result = max(rank, weight.ndim)
    after = new_node("Transpose", [product[-1].outputs[0]], f"{name}.transpose_output", [_swap(result)])
    chain = [before, *product, after]
    return chain if not squeeze else [*chain, _squeeze(owner(node), after, -2, name)]


def _times_constant(
    graph: ir.Graph,
    x: ir.Value,
    weight: npt.NDArray[np.float32],
    name: str,
    *,
    source: ir.Value,
    part: tuple[int, ...] = (),
) -> list[ir.Node] | None:
    """Nodes for x W, with W that part of the stack `source`; None where the rank of x is needed and not known."""
    if weight.ndim == 1:
        product = crossbar_matmul(graph, x, weight[:, None], name, source=source, part=part)
        return [product, _squeeze(graph, product, -1, name)]
    if weight.ndim == 2:
        return [crossbar_matmul(graph, x, weight, name, source=source, part=part)]
    if x.shape is None:
        return None
    stack = weight.shape[:-2]
    rank = len(x.shape)
    if math.prod(stack) == 1:
        product = crossbar_matmul(graph, x, weight.reshape(weight.shape[-2:]), name, source=source, part=part)
        missing = weight.ndim - max(rank, 2)
        if rank == 1:
            missing = weight.ndim - 2
        if missing <= 0:
            return [product]
        axes = add_constant(graph, f"{name}.axes", np.arange(missing, dtype=np.int64))
        return [product, new_node("Unsqueeze", [product.outputs[0], axes], f"{name}.unsqueeze")]
    return _stack(graph, x, weight, name, source=source, part=part)


def _stack(
    graph: ir.Graph,
    x: ir.Value,
    weight: npt.NDArray[np.float32],
    name: str,
    *,
    source: ir.Value,
    part: tuple[int, ...],
) -> list[ir.Node] | None:
    """One layer for each entry of the outermost axis of the stack, joined on that axis."""
    assert x.shape is not None
    rank, place = len(x.shape), weight.ndim  # the axis, counted from the end
    chain: list[ir.Node] = []
    parts: list[ir.Value] = []
    axis = rank - place
    if weight.shape[0] == 1 and axis >= 0:
        return _times_constant(graph, x, weight[0], name, source=source, part=part)
    varies = axis >= 0 and x.shape[axis] != 1
    if varies and x.shape[axis] != weight.shape[0]:
        return None
    for index in range(weight.shape[0]):
        entry = x
        if axis >= 0:
            # The axis is dropped: the rest of the stack sees the same alignment of axes from the end.
            number = add_constant(graph, f"{name}.entry{index}", np.array(index if varies else 0, np.int64))
            chain.append(new_node("Gather", [x, number], f"{name}.gather{index}", [ir.AttrInt64("axis", axis)]))
            entry = chain[-1].outputs[0]
            entry.shape = ir.Shape([*x.shape.dims[:axis], *x.shape.dims[axis + 1 :]])
        product = _times_constant(graph, entry, weight[index], f"{name}.{index}", source=source, part=(*part, index))
        if product is None:
            return None
        chain += product
        where = add_constant(graph, f"{name}.axis{index}", np.array([axis if axis >= 0 else 0], np.int64))
        chain.append(new_node("Unsqueeze", [chain[-1].outputs[0], where], f"{name}.unsqueeze{index}"))
        parts.append(chain[-1].outputs[0])
    chain.append(new_node("Concat", parts, f"{name}.join", [ir.AttrInt64("axis", max(axis, 0))]))
    return chain


def _squeeze(graph: ir.Graph, product: ir.Node, axis: int, name: str) -> ir.Node:
    axes = add_constant(graph, f"{name}.axis", np.array([axis], np.int64))
    return new_node("Squeeze", [product.outputs[0], axes], f"{name}.squeeze")


def _swap(rank: int) -> ir.Attr:
    return ir.AttrInt64s("perm", [*range(rank - 2), rank - 1, rank - 2])
