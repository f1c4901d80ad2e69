"""LSTM, GRU and RNN with constant weights: crossbar layers and standard operators, the steps in an ONNX Scan.

The input weights are one layer that sees all time steps at once; the recurrent weights one layer, in the body of the
Scan, that every step uses. The sequence length must be static.
"""

import numpy as np
import onnx_ir as ir

from cimc.errors import CimcError
from passes.crossbar_functions import crossbar_weight
from passes.graph_edit import float_constant, new_name, owner
from passes.lowering.recurrent_cells import CELLS, GATES, Cell, Floats, Steps
from passes.messages import describe
from passes.scan_body import body_of


class LowerRecurrent(ir.passes.InPlacePass):
    """Replace LSTM, GRU and RNN nodes whose weights are constants; others stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower all such nodes.

        Raises:
            CimcError: the sequence length is not static or 0, or an activation is not known.
        """
        count = 0
        for node in list(model.graph):
            if node.op_type in GATES and not node.domain and _lower(node):
                count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _lower(node: ir.Node) -> bool:
    x, w, r = node.inputs[0], float_constant(node.inputs[1]), float_constant(node.inputs[2])
    rest = [node.inputs[n] if len(node.inputs) > n else None for n in range(3, 8)]
    bias, peephole = float_constant(rest[0]), float_constant(rest[4])
    if x is None or w is None or r is None or (rest[0] is not None and bias is None):
        return False
    if rest[4] is not None and peephole is None:
        return False
    layout = node.attributes.get_int("layout", 0)
    length = x.shape[layout] if x.shape is not None and len(x.shape) == 3 else None
    if not isinstance(length, int):
        raise CimcError(f"{describe(node)}: the length of its sequence is not static; give it with --shape")
    if not length:
        raise CimcError(f"{describe(node)}: its sequence has no steps; give it another length with --shape")
    ranks = [2 if array is None else array.ndim for array in (bias, peephole)]
    if w.ndim != 3 or r.ndim != 3 or ranks != [2, 2] or len({len(a) for a in (w, r, bias) if a is not None}) > 1:
        raise CimcError(f"{describe(node)}: the sizes of its weights do not fit together; export the network again")
    steps = Steps(owner(node), node.name or node.outputs[0].name or node.op_type)
    sequence = steps.op("Transpose", x, perm=[1, 0, 2]) if layout else x
    directions = w.shape[0]
    kind = node.attributes.get_string("direction", "forward")
    outputs: list[list[ir.Value]] = []
    for index in range(directions):
        reverse = kind == "reverse" or index == 1
        states = [_state(steps, rest[n], index, layout) for n in (2, 3)]
        parameters = (
            w[index],
            r[index],
            None if bias is None else bias[index],
            None if peephole is None else peephole[index],
        )
        outputs.append(_direction(steps, node, index, sequence, length, reverse, parameters, states, rest[1]))
    # Y [length, directions, batch, hidden], and the last states [directions, batch, hidden].
    results: list[ir.Value | None] = []
    for place, output in enumerate(node.outputs):
        if not output.uses() and not output.is_graph_output():
            results.append(None)
            continue
        axis = steps.const(np.array([1 if place == 0 else 0], np.int64))
        parts = [steps.op("Unsqueeze", values[place], axis) for values in outputs]
        joined = parts[0] if directions == 1 else steps.op("Concat", *parts, axis=1 if place == 0 else 0)
        if layout:
            joined = steps.op("Transpose", joined, perm=[2, 0, 1, 3] if place == 0 else [1, 0, 2])
        results.append(joined)
    _replace(node, steps, results)
    return True


def _replace(node: ir.Node, steps: Steps, results: list[ir.Value | None]) -> None:
    graph = steps.graph
    pairs = [(old, new) for old, new in zip(node.outputs, results, strict=True) if new is not None]
    kept = {id(new) for _, new in pairs}
    bodies = [body for link in steps.nodes if (body := body_of(link)) is not None]
    links = [*steps.nodes, *(link for body in bodies for link in body)]
    names = [(value, f"{link.name}.value{place or ''}") for link in links for place, value in enumerate(link.outputs)]
    names += [(value, value.name or "") for body in bodies for value in body.inputs]
    for value, name in names:
        if id(value) not in kept:
            value.name = new_name(graph, name)
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], steps.nodes, [old for old, _ in pairs], [new for _, new in pairs]
    )


def _state(steps: Steps, state: ir.Value | None, index: int, layout: int) -> ir.Value | None:
    """The initial state of a direction [batch, hidden], or None for zeros."""
    if state is None:
        return None
    return steps.op("Gather", state, steps.const(np.int64(index)), axis=1 if layout else 0)


def _direction(
    steps: Steps,
    node: ir.Node,
    index: int,
    x: ir.Value,
    length: int,
    reverse: bool,
    parameters: tuple[Floats, Floats, Floats | None, Floats | None],
    states: list[ir.Value | None],
    lengths: ir.Value | None,
) -> list[ir.Value]:
    """Y [length, batch, hidden], the last h and (LSTM) c [batch, hidden] of one direction."""
    w, r, bias, peephole = parameters
    gates, hidden = GATES[node.op_type], r.shape[1]
    inner_bias = bias[gates * hidden :] if bias is not None else np.zeros(gates * hidden, np.float32)
    split_bias = node.op_type == "GRU" and bool(node.attributes.get_int("linear_before_reset", 0))
    outer_bias = None
    if bias is not None:
        outer = bias[: gates * hidden] if split_bias else bias[: gates * hidden] + inner_bias
        outer_bias = steps.const(outer, "bias")
    direction = f"{steps.name}.{'reverse' if reverse else 'forward'}" if index or reverse else steps.name
    if reverse:
        x = _reverse(steps, x, length, lengths)
    weight = crossbar_weight(steps.graph, f"{direction}.input", w.T)
    inputs = steps.layer(x, weight, outer_bias)
    cell = CELLS[node.op_type](steps, node, index, r, inner_bias if split_bias else None, peephole, direction)
    outputs = _sequence(steps, inputs, length, cell, states, lengths, node.op_type == "LSTM")
    if reverse:
        outputs[0] = _reverse(steps, outputs[0], length, lengths)
    return outputs


def _sequence(
    steps: Steps,
    inputs: ir.Value,
    length: int,
    cell: Cell,
    states: list[ir.Value | None],
    lengths: ir.Value | None,
    has_c: bool,
) -> list[ir.Value]:
    """Y, the last h and (LSTM) c of `length` steps over the gate inputs [length, batch, gates * hidden].

    A step from zeros needs fewer operators, and no product, so it stands before the Scan of the others.
    """
    h, c = states
    from_zeros = h is None or (has_c and c is None)
    single = length if length - from_zeros <= 1 else int(from_zeros)
    sequences = [inputs] if lengths is None else [inputs, _valid(steps, length, lengths)]
    axis = steps.const(np.array([0], np.int64))
    parts: list[ir.Value] = []
    for t in range(single):
        now = [_like(steps.op("Gather", value, steps.const(np.int64(t)), axis=0), value) for value in sequences]
        y, h, c = _step(steps, cell, now, h, c)
        parts.append(steps.op("Unsqueeze", y, axis))
    if single < length:
        assert h is not None
        later = [_like(steps.cut(value, single, length, 0), value) for value in sequences] if single else sequences
        y, h, c = _scan(steps, cell, later, h, c, length)
        parts.append(y)
    assert h is not None
    y = parts[0] if len(parts) == 1 else steps.op("Concat", *parts, axis=0)
    return [y, h] if c is None else [y, h, c]


def _scan(
    steps: Steps, cell: Cell, sequences: list[ir.Value], h: ir.Value, c: ir.Value | None, length: int
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """Y, the last h and c of the steps of these sequences, the last of `length`."""
    before = [h] if c is None else [h, c]
    with steps.apart() as nodes:
        old = [_like(ir.Value(name=f"{steps.name}.before"), value) for value in before]
        now = [_like(ir.Value(name=f"{steps.name}.now"), value) for value in sequences]
        y, *new = _step(steps, cell, now, old[0], old[1] if len(old) > 1 else None)
        # A value cannot leave a body twice, as the state and as the output.
        made = [*(value for value in new if value is not None), steps.op("Identity", y)]
    body = ir.Graph([*old, *now], made, nodes=nodes, name=f"{steps.name}.step")
    last_h, *rest, stacked = steps.scan(body, before, sequences, length)
    return stacked, last_h, rest[0] if rest else None


def _like(value: ir.Value, other: ir.Value) -> ir.Value:
    """The value, with the element type of the other one."""
    value.type = other.type
    return value


def _valid(steps: Steps, length: int, lengths: ir.Value) -> ir.Value:
    """Whether a step is within each sequence [length, batch, 1]."""
    within = steps.op("Less", steps.const(np.arange(length, dtype=np.int32)[:, None]), lengths)
    column = steps.op("Unsqueeze", within, steps.const(np.array([2], np.int64)))
    within.type = column.type = ir.TensorType(ir.DataType.BOOL)
    return column


def _step(
    steps: Steps, cell: Cell, now: list[ir.Value], h: ir.Value | None, c: ir.Value | None
) -> tuple[ir.Value, ir.Value, ir.Value | None]:
    """y, h and c of a step with these gate inputs; past a sequence's end its output is zero and its state stays."""
    gate_inputs, *valid = now
    new_h, new_c = cell(gate_inputs, h, c)
    if not valid:
        return new_h, new_h, new_c
    y = steps.op("Where", *valid, new_h, steps.const(np.float32(0)))
    new_h = steps.op("Where", *valid, new_h, steps.op("Sub", new_h, new_h) if h is None else h)
    if new_c is not None:
        new_c = steps.op("Where", *valid, new_c, steps.op("Sub", new_c, new_c) if c is None else c)
    return y, new_h, new_c


def _reverse(steps: Steps, x: ir.Value, length: int, lengths: ir.Value | None) -> ir.Value:
    """Time backwards, within each sequence's own length."""
    if lengths is None:
        return steps.op("Gather", x, steps.const(np.arange(length - 1, -1, -1)), axis=0)
    wide = steps.op("Cast", lengths, to=int(ir.DataType.INT64))
    wide.type = ir.TensorType(ir.DataType.INT64)
    return steps.op("ReverseSequence", x, wide, time_axis=0, batch_axis=1)
