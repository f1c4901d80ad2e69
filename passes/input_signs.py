"""Which values of a network can never be negative: their crossbars need no second input phase."""

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from cimc.operators import operators_where
from passes.graph_edit import constant
from passes.scan_body import body_of, states_of

_ALWAYS = operators_where(lambda operator: operator.sign == "always")
_FIRST_INPUT = operators_where(lambda operator: operator.sign == "first")
_ALL_INPUTS = operators_where(lambda operator: operator.sign == "all")


def nonnegative_values(model: ir.Model, input_range: tuple[float, float]) -> frozenset[str]:
    """The names of the values of `model` that are proven to be >= 0 for inputs within `input_range`."""
    graph = model.graph
    proven: set[str] = set()
    if input_range[0] >= 0:
        proven.update(value.name for value in graph.inputs if value.name and not value.is_initializer())
    for name, value in graph.initializers.items():
        array = constant(value)
        if array is not None and array.dtype.kind in "fiub" and not np.any(np.less(array, 0)):
            proven.add(name)
    _add_proven(graph, proven)
    return frozenset(proven)


def _add_proven(nodes: Iterable[ir.Node], proven: set[str]) -> None:
    for node in nodes:
        body = body_of(node)
        if body is not None:
            _add_scan(node, body, proven)
        elif not node.domain and _is_nonnegative(node, proven) and node.outputs[0].name:
            proven.add(node.outputs[0].name)


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
    if node.op_type == "Clip":
        low, high = (node.inputs[index] if len(node.inputs) > index else None for index in (1, 2))
        return (known[0] or (low is not None and low.name in proven)) and (high is None or high.name in proven)
    return False
