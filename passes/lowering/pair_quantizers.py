"""A QuantizeLinear and the DequantizeLinear after it become one FakeQuantize, through which gradients pass.

FakeQuantize(x, scale, zero) is an ONNX function of the two; in training its gradient is that of a clip (the
straight-through estimator, arXiv 1308.3432; with it networks are trained for quantisation, arXiv 1712.05877).
"""

import numpy as np
import onnx_ir as ir

from cimc.operators import CROSSBAR_DOMAIN, FAKE_QUANTIZE, operators_where
from passes.graph_edit import add_constant, constant, new_node, owner, replace_node

# What these compute on levels is what they compute on values: only the places change.
_MOVES = operators_where(lambda operator: operator.on_levels)
_INTEGERS = frozenset({ir.DataType.INT8, ir.DataType.UINT8, ir.DataType.INT16, ir.DataType.UINT16})


class PairQuantizers(ir.passes.InPlacePass):
    """Move DequantizeLinear up through operators that only move values, and join it with its QuantizeLinear."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Join all pairs whose scale and zero point are the same."""
        moved = sum(_move_up(node) for node in reversed(model.graph))
        pairs = [node for node in model.graph if _quantizer(node) is not None]
        for node in pairs:
            _join(node)
        return ir.passes.PassResult(model, modified=bool(moved or pairs))


def _move_up(node: ir.Node) -> int:
    """Move a DequantizeLinear with one scale above the movers before it; the number of those.

    The mover stays for others that read its levels, until the unused are removed.
    """
    count = 0
    while True:
        mover = node.inputs[0].producer() if _is(node, "DequantizeLinear") and node.inputs[0] is not None else None
        if mover is None or mover.domain or mover.op_type not in _MOVES or len(mover.outputs) != 1:
            return count
        scale, source = node.inputs[1], mover.inputs[0]
        if scale is None or scale.shape is None or len(scale.shape):
            return count
        name, attributes = f"{node.name}.{mover.op_type.lower()}", list(mover.attributes.values())
        above = new_node(node.op_type, [source, *node.inputs[1:]], f"{node.name}.up", list(node.attributes.values()))
        below = new_node(mover.op_type, [above.outputs[0], *mover.inputs[1:]], name, attributes)
        replace_node(node, [above, below])
        node = above
        count += 1


def _quantizer(node: ir.Node) -> ir.Node | None:
    """The QuantizeLinear or DynamicQuantizeLinear that the DequantizeLinear `node` undoes."""
    source = node.inputs[0] if _is(node, "DequantizeLinear") else None
    producer = None if source is None else source.producer()
    if producer is None or source is None or source.dtype not in _INTEGERS:
        return None
    scale, zero = node.inputs[1], node.inputs[2] if len(node.inputs) > 2 else None
    if _is(producer, "DynamicQuantizeLinear"):
        return producer if (scale, zero) == (producer.outputs[1], producer.outputs[2]) else None
    if not _is(producer, "QuantizeLinear") or _get(node, "block_size") or _get(producer, "block_size"):
        return None
    other_zero = producer.inputs[2] if len(producer.inputs) > 2 else None
    same = _same(producer.inputs[1], scale) and _same(other_zero, zero)
    along_axis = scale is None or scale.shape is None or len(scale.shape) > 0
    return producer if same and (not along_axis or _get(producer, "axis") == _get(node, "axis")) else None


def _same(one: ir.Value | None, other: ir.Value | None) -> bool:
    first, second = constant(one), constant(other)
    if first is None or second is None:
        return one is other
    return first.dtype == second.dtype and np.array_equal(first, second)


def _join(node: ir.Node) -> None:
    producer = _quantizer(node)
    assert producer is not None
    attributes = [ir.AttrInt64("axis", _get(node, "axis"))]
    inputs = [producer.inputs[0], *node.inputs[1:]]
    name, levels = node.name or node.outputs[0].name or "", producer.outputs[0].dtype
    if (len(inputs) < 3 or inputs[2] is None) and levels is not None and levels != ir.DataType.UINT8:
        # Without a zero point the type of the levels stands in an attribute, and FakeQuantize has none.
        zero = add_constant(owner(node), f"{name}.zero", np.zeros((), levels.numpy()))
        inputs = [*inputs[:2], zero]
    replace_node(node, [new_node(FAKE_QUANTIZE, inputs, name, attributes, domain=CROSSBAR_DOMAIN)])


def _get(node: ir.Node, name: str) -> int:
    return node.attributes.get_int(name, 1 if name == "axis" else 0)


def _is(node: ir.Node, operator: str) -> bool:
    return node.op_type == operator and not node.domain
