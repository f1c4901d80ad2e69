"""Fuse a softmax that is written out, as JAX and TensorFlow export it, so that training finds the logits before it."""

import onnx_ir as ir

from passes.graph_edit import constant, new_node, replace_node

MOVES = ("Identity", "Reshape", "Squeeze", "Unsqueeze")  # keep all elements in their order


class FuseSoftmax(ir.passes.InPlacePass):
    """Make exp(x - m) / sum(exp(x - m)) a Softmax of x, for any m that is one number along the axis of the sum.

    The sum and m may be moved to their places by reshapes and spread by Expand. m only guards against overflow.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Fuse in graph order; needs inferred shapes and folded constants."""
        count = 0
        for node in model.graph:
            if node.op_type != "Div" or node.domain:
                continue
            above, below = node.inputs
            exponential = _made_by(above, "Exp")
            axis = None if exponential is None or above is None else _axis_of_sum(above, below)
            if exponential is None or axis is None or (x := exponential.inputs[0]) is None:
                continue
            difference = _made_by(x, "Sub")
            if difference is not None and _is_one_along(difference.inputs[1], x, axis):
                x = difference.inputs[0]
            attributes = [ir.AttrInt64("axis", axis)]
            replace_node(node, [new_node("Softmax", [x], node.name or "softmax", attributes)])
            count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _made_by(value: ir.Value | None, *operators: str) -> ir.Node | None:
    """The node that gives `value` where it is one of those operators."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type in operators and not node.domain else None


def _before_spread(value: ir.Value | None) -> ir.Value | None:
    """`value`, or what an Expand made it of."""
    spread = _made_by(value, "Expand")
    return value if spread is None else spread.inputs[0]


def _axis_of_sum(terms: ir.Value, total: ir.Value | None) -> int | None:
    """The axis over which `total` is the sum of `terms`, brought to their shape; None: it is not."""
    value = total = _before_spread(total)
    while (move := _made_by(value, *MOVES)) is not None:
        value = move.inputs[0]
    summed = _made_by(value, "ReduceSum")
    if summed is None or summed.inputs[0] is not terms or terms.shape is None:
        return None
    axes = constant(summed.inputs[1]) if len(summed.inputs) > 1 else None
    if axes is None or axes.size != 1:
        return None
    axis = int(axes.ravel()[0]) % len(terms.shape)
    return axis if _is_one_along(total, terms, axis) else None


def _is_one_along(value: ir.Value | None, whole: ir.Value, axis: int) -> bool:
    """Whether `value` has the shape of `whole` but for a size of 1 at the axis, before it is spread."""
    value = _before_spread(value)
    if value is None or value.shape is None or whole.shape is None or len(value.shape) != len(whole.shape):
        return False
    return all(
        size == (1 if place == axis else full)
        for place, (size, full) in enumerate(zip(value.shape, whole.shape, strict=True))
    )
