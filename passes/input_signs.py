"""Which values of a network can never be negative: their crossbars need no second input phase."""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from cimc.operators import CROSSBAR_DOMAIN, FAKE_QUANTIZE, operators_where
from cimc.trained_names import FIXED, TRAINED, names_stated
from passes.graph_edit import constant
from passes.scan_body import body_of, states_of

_ALWAYS = operators_where(lambda operator: operator.sign == "always")
_FIRST_INPUT = operators_where(lambda operator: operator.sign == "first")
_ALL_INPUTS = operators_where(lambda operator: operator.sign == "all")
_ANY_INPUT = operators_where(lambda operator: operator.sign == "any")


def nonnegative_values(model: ir.Model, input_range: tuple[float, float]) -> frozenset[str]:
    """The names of the values of `model` that are proven to be >= 0 for inputs within `input_range`."""
    graph = model.graph
    proven: set[str] = set()
    if input_range[0] >= 0:
        proven.update(value.name for value in graph.inputs if value.name and not value.is_initializer())
    trained = _trained(model)
    for name, value in graph.initializers.items():
        array = None if name in trained else constant(value)
        if array is not None and array.dtype.kind in "fiub" and not np.any(np.less(array, 0)):
            proven.add(name)
    _add_proven(graph, proven)
    return frozenset(proven)


def _trained(model: ir.Model) -> set[str]:
    """Constants beside the layers that training moves, also below 0: an Add's, one a channel, and tables.

    A network may say which are trained.
    """
    stated = TRAINED in model.metadata_props
    trained, fixed = (names_stated(model.metadata_props, key) if stated else frozenset() for key in (TRAINED, FIXED))
    found = set(trained)
    for node in model.graph.all_nodes():
        if node.op_type == "Gather" and not node.domain and not node.attributes.get_int("axis", 0):
            found.update({node.inputs[0].name or ""} - fixed if node.inputs[0] is not None else ())
        elif node.op_type == "Add" and not node.domain and not stated:
            arrays = {value.name or "": constant(value) for value in node.inputs if value is not None}
            found |= {n for n, a in arrays.items() if a is not None and sum(size > 1 for size in a.shape) == 1}
    return found


def _add_proven(nodes: Iterable[ir.Node], proven: set[str]) -> None:
    for node in nodes:
        body = body_of(node)
        if body is not None:
            _add_scan(node, body, proven)
        elif _is_quantizer(node):
            if _keeps_above_zero(node, proven) and node.outputs[0].name:
                proven.add(node.outputs[0].name)
        elif not node.domain and _is_nonnegative(node, proven):
            values = node.outputs if node.op_type == "Split" else node.outputs[:1]
            proven.update(value.name for value in values if value.name)


def _add_scan(scan: ir.Node, body: ir.Graph, proven: set[str]) -> None:
    """By induction: a state is never negative if the first is not, and no step makes a negative one of those."""
    pairs = zip(body.inputs, scan.inputs, strict=True)
    taken = {inner.name or "" for inner, outer in pairs if outer is not None and outer.name in proven}
    states = list(zip(body.inputs, body.outputs[: states_of(scan)], strict=False))
    while True:
        inside = proven | taken
        _add_proven(body, inside)
        refuted = {before.name or "" for before, after in states if after.name not in inside} & taken
        if not refuted:
            break
        taken -= refuted
    proven |= inside
    results = zip(body.outputs, scan.outputs, strict=True)
    proven.update(outer.name for inner, outer in results if inner.name in inside and outer.name)


def _is_nonnegative(node: ir.Node, proven: set[str]) -> bool:
    if node.op_type in _ALWAYS:
        return True
    known = [value is not None and value.name in proven for value in node.inputs]
    if node.op_type in _FIRST_INPUT:
        return known[0]
    if node.op_type == "Mul" and node.inputs[0] is node.inputs[1]:
        return True
    if node.op_type in _ALL_INPUTS:
        return all(known)
    if node.op_type in _ANY_INPUT:
        return any(known)
    if node.op_type == "Where":
        return all(known[1:])
    if node.op_type == "Pad":  # the third input is what is put there, 0 by default
        return known[0] and (len(known) < 3 or node.inputs[2] is None or known[2])
    if node.op_type == "Resize":  # a cubic one overshoots
        beyond = node.attributes.get_float("extrapolation_value", 0.0)
        return known[0] and node.attributes.get_string("mode", "nearest") != "cubic" and beyond >= 0
    if node.op_type == "Clip":
        low, high = (node.inputs[index] if len(node.inputs) > index else None for index in (1, 2))
        return (known[0] or (low is not None and low.name in proven)) and (high is None or high.name in proven)
    return False


def _is_quantizer(node: ir.Node) -> bool:
    return (node.domain, node.op_type) == (CROSSBAR_DOMAIN, FAKE_QUANTIZE)


def _keeps_above_zero(node: ir.Node, proven: set[str]) -> bool:
    """Whether a FakeQuantize gives no negative value: it takes none, or its least level stands for 0."""
    scale, zero = constant(node.inputs[1]), constant(node.inputs[2]) if len(node.inputs) > 2 else None
    if scale is None or not np.all(np.greater(scale, 0)):
        return False
    if node.inputs[0] is not None and node.inputs[0].name in proven:
        return True
    if len(node.inputs) < 3 or node.inputs[2] is None:  # levels are those of uint8 then
        return True
    if zero is None or zero.dtype.kind not in "iu":
        return False
    least = 0 if zero.dtype.kind == "u" else -(2 ** (8 * zero.dtype.itemsize - 1))
    return bool(np.all(zero == least))
