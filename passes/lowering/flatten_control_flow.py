"""If, Loop and Scan become plain nodes: the branch that is taken, both branches and a choice, or all the steps."""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from cimc.errors import CimcError
from cimc.operators import CROSSBAR_SOURCES
from passes.graph_edit import add_constant, constant, insert_before, owner
from passes.lowering.fold_constants import FoldConstants
from passes.lowering.fold_sequences import FoldSequences
from passes.lowering.infer_shapes import InferShapes, infer_constants
from passes.lowering.inline_graph import hoist, inline, replace_by
from passes.messages import describe
from passes.notes import add_note

MOST_NODES = 4096  # that one loop may become
MOST_GROWN = 8192  # of a graph before another loop of it is written out

_PREPARE = (
    common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
    FoldSequences(),
    FoldConstants(),
)


class FlattenControlFlow(ir.passes.InPlacePass):
    """Replace control flow that is known before the network runs; what depends on the data stays.

    An If whose condition is known only at run time becomes both branches and a Where, for ONNX operators have no side
    effects. Loops with a known number of steps are unrolled; weights that their steps share stay one constant.
    """

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Flatten from the outside in, until nothing changes.

        Raises:
            CimcError: branches with outputs of other sizes, or a loop with weights that is too long to unroll.
        """
        modified = False
        while nodes := [node for node in model.graph if _controls(node)]:
            for network_pass in _PREPARE:
                network_pass(model)
            if not (_flatten(model, nodes) or _flatten(_with_sizes(model), nodes)):
                choices = [node for node in nodes if node.op_type == "If"]
                if not choices:
                    break
                _select(model, choices[0])
            modified = True
        if modified:
            common.RemoveUnusedNodesPass()(model)
        return ir.passes.PassResult(model, modified=modified)


def _controls(node: ir.Node) -> bool:
    return node.op_type in ("If", "Loop", "Scan") and not node.domain


def _with_sizes(model: ir.Model) -> ir.Model:
    """The model with all sizes inferred, and with constants for what follows from them alone, which bodies use too."""
    known = infer_constants(model)
    for value in [value for node in model.graph for value in node.outputs if value.name in known and value.uses()]:
        fixed = add_constant(model.graph, f"{value.name}.known", known[value.name or ""])
        for use in tuple(value.uses()):
            use.node.replace_input_with(use.idx, fixed)
    return model


def _flatten(model: ir.Model, nodes: Sequence[ir.Node]) -> bool:
    """Flatten each of the nodes that runs in a known way; whether there was one."""
    rules = {"If": _take, "Loop": _unroll_loop, "Scan": _unroll_scan}
    flattened = [rules[node.op_type](model, node) for node in nodes]
    return any(flattened)


def _opset(model: ir.Model) -> int:
    return model.opset_imports.get("", 1)


def _branches(node: ir.Node) -> tuple[ir.Graph, ir.Graph]:
    return node.attributes["then_branch"].as_graph(), node.attributes["else_branch"].as_graph()


def _take(model: ir.Model, node: ir.Node) -> bool:
    condition = constant(node.inputs[0])
    if condition is None or condition.size != 1:
        return False
    taken, other = _branches(node)
    replace_by(node, inline(node, taken if condition.all() else other, [], _opset(model)))
    return True


def _select(model: ir.Model, node: ir.Node) -> None:
    """Both branches, and a Where for each output."""
    graph, condition = model.graph, node.inputs[0]
    assert condition is not None
    then, other = (inline(node, branch, [], _opset(model)) for branch in _branches(node))
    scalar = add_constant(graph, f"{node.name}.scalar", np.array([], np.int64))
    (one,) = insert_before(node, "Reshape", [condition, scalar])
    chosen = [insert_before(node, "Where", [one, a, b])[0] for a, b in zip(then, other, strict=True)]
    name, remedy = describe(node), _remedy(condition)
    replace_by(node, chosen)
    InferShapes()(model)
    for a, b in zip(then, other, strict=True):
        if a.shape is None or a.shape != b.shape:
            raise CimcError(
                f"{name}: its condition is known only when the network runs, and its branches compute "
                f"{_text(a)} and {_text(b)}; {remedy}"
            )
    add_note(model, f"{name}: both branches run, and one is selected at the end; {remedy}")


def _remedy(condition: ir.Value) -> str:
    """What decides the condition of an If before the network runs."""
    seen, waiting = set(), [condition]
    while waiting:
        value = waiting.pop()
        producer = value.producer()
        if value not in seen and producer is not None and producer.op_type not in ("Shape", "Size"):
            waiting.extend(one for one in producer.inputs if one is not None)
        seen.add(value)
    inputs = [value for value in seen if value.is_graph_input()]
    if not inputs:
        return "give the inputs of the network static sizes with --shape"
    if all(value.shape is not None and not len(value.shape) for value in inputs):
        return f"make it a constant with {' '.join(f'--set {value.name}=VALUE' for value in inputs)}"
    return "export the network for one of them"


def _text(value: ir.Value) -> str:
    if value.shape is None:
        return "values of unknown sizes"
    return "x".join(str(size) for size in value.shape) or "one number"


def _unroll_loop(model: ir.Model, node: ir.Node) -> bool:
    body = node.attributes["body"].as_graph()
    count, going = constant(node.inputs[0]), constant(node.inputs[1])
    if (node.inputs[0] is not None and count is None) or (node.inputs[1] is not None and going is None):
        return False
    hoist(node, body, _opset(model))
    carried: list[ir.Value | None] = list(node.inputs[2:])
    stacks: list[list[ir.Value]] = [[] for _ in node.outputs[len(carried) :]]
    most, step = int(count.item()) if count is not None else None, 0
    if most is not None and _goes_on(body) and _too_long(node, body, most):
        return False
    true, goes_on = add_constant(model.graph, f"{node.name}.true", np.array(True)), going is None or bool(going.all())
    while goes_on and step != most:
        number = add_constant(model.graph, f"{node.name}.step", np.array(step, np.int64))
        condition, *results = inline(node, body, [number, true, *carried], _opset(model))
        decided, step = constant(condition), step + 1
        if decided is None or _too_long(node, body, step):
            return False  # the steps that were copied are used by nothing
        goes_on, carried = bool(decided.all()), list(results[: len(carried)])
        for stack, result in zip(stacks, results[len(carried) :], strict=True):
            stack.append(result)
    if not all(stacks):
        return False
    replace_by(node, [*(value for value in carried if value is not None), *(_stack(node, one, 0) for one in stacks)])
    return True


def _goes_on(body: ir.Graph) -> bool:
    """Whether the condition of a loop's body is the one that it was given, or a constant."""
    condition: ir.Value | None = body.outputs[0]
    while condition is not None and (producer := condition.producer()) is not None and producer.op_type == "Identity":
        condition = producer.inputs[0]
    return condition is body.inputs[1] or _is_constant(condition)


def _unroll_scan(model: ir.Model, node: ir.Node) -> bool:
    attributes, body = node.attributes, node.attributes["body"].as_graph()
    states = len(node.inputs) - attributes.get_int("num_scan_inputs")
    carried, scanned = list(node.inputs[:states]), node.inputs[states:]
    axes = attributes.get_ints("scan_input_axes", [0] * len(scanned))
    backwards = attributes.get_ints("scan_input_directions", [0] * len(scanned))
    lengths = {value.shape[axis] for value, axis in zip(scanned, axes, strict=True) if value and value.shape}
    steps = lengths.pop() if len(lengths) == 1 else None
    if not isinstance(steps, int) or steps < 1:
        return False
    hoist(node, body, _opset(model))
    if _too_long(node, body, steps):
        return False
    outputs = len(node.outputs) - states
    stacks: list[list[ir.Value]] = [[] for _ in range(outputs)]
    for step in range(steps):
        inputs: list[ir.Value] = []
        for value, axis, backward in zip(scanned, axes, backwards, strict=True):
            place = add_constant(model.graph, f"{node.name}.step", np.array(steps - 1 - step if backward else step))
            inputs += insert_before(node, "Gather", [value, place], axis=axis)
        results = inline(node, body, [*carried, *inputs], _opset(model))
        carried = list(results[:states])
        for stack, result in zip(stacks, results[states:], strict=True):
            stack.append(result)
    out_axes = attributes.get_ints("scan_output_axes", [0] * outputs)
    reverse = attributes.get_ints("scan_output_directions", [0] * outputs)
    joined = [
        _stack(node, stack[::-1] if backward else stack, axis)
        for stack, axis, backward in zip(stacks, out_axes, reverse, strict=True)
    ]
    replace_by(node, [*(value for value in carried if value is not None), *joined])
    return True


def _too_long(node: ir.Node, body: ir.Graph, steps: int) -> bool:
    """Whether the steps are too many to be written out; refused where weights hang on it."""
    if len(owner(node)) > MOST_GROWN:
        raise CimcError(
            f"{describe(node)}: loops within loops have become {len(owner(node))} operators, more than {MOST_GROWN}; "
            f"give shorter inputs with --shape, or export the recurrence as an LSTM, a GRU or an RNN"
        )
    written = steps * _written_out(body)
    if steps * len(body) <= MOST_NODES and written <= MOST_GROWN:
        return False
    if any(one.op_type in CROSSBAR_SOURCES and any(map(_is_constant, one.inputs[1:])) for one in body.all_nodes()):
        raise CimcError(
            f"{describe(node)}: {steps} steps of {written // steps} operators, products with constant weights among "
            f"them, are more than the {MOST_NODES} operators that a loop may become; give shorter inputs with --shape, "
            f"or export the recurrence as an LSTM, a GRU or an RNN"
        )
    return True


def _written_out(body: ir.Graph) -> int:
    """The operators of a body where loops of a known length in it are written out too."""
    total = 0
    for node in body:
        steps = constant(node.inputs[0]) if node.op_type == "Loop" and node.inputs[0] is not None else None
        inner = None if steps is None else node.attributes["body"].as_graph()
        total += 1 if inner is None or steps is None else max(int(steps.item()), 0) * _written_out(inner)
    return total


def _is_constant(value: ir.Value | None) -> bool:
    return constant(value) is not None


def _stack(node: ir.Node, values: list[ir.Value], axis: int) -> ir.Value:
    where = add_constant(owner(node), f"{node.name}.axis", np.array([axis], np.int64))
    rows = [insert_before(node, "Unsqueeze", [value, where])[0] for value in values]
    return insert_before(node, "Concat", rows, axis=axis)[0]
