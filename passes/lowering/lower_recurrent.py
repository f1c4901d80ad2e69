"""LSTM, GRU and RNN with constant weights: crossbar layers and standard operators, step by step.

The input weights are one layer that sees all time steps at once; the recurrent weights one layer that every step uses
(the nodes share one weight). The sequence length must be static. Gates follow the ONNX operators' equations.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.errors import CimcError
from passes.crossbar_functions import crossbar_product, crossbar_weight
from passes.graph_edit import add_constant, float_constant, new_name, new_node, owner
from passes.messages import describe

Floats = npt.NDArray[np.float32]
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
_DEFAULTS = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}
# Activations and the names of their parameters; ONNX passes these in two lists.
_ACTIVATIONS: dict[str, tuple[str, ...]] = {
    "relu": (),
    "tanh": (),
    "sigmoid": (),
    "softsign": (),
    "softplus": (),
    "leakyrelu": ("alpha",),
    "thresholdedrelu": ("alpha",),
    "elu": ("alpha",),
    "hardsigmoid": ("alpha", "beta"),
}
_OPERATOR = {
    "relu": "Relu",
    "tanh": "Tanh",
    "sigmoid": "Sigmoid",
    "softsign": "Softsign",
    "softplus": "Softplus",
    "leakyrelu": "LeakyRelu",
    "thresholdedrelu": "ThresholdedRelu",
    "elu": "Elu",
    "hardsigmoid": "HardSigmoid",
}
_DEFAULT_PARAMETERS = {"leakyrelu": 0.01, "thresholdedrelu": 1.0, "elu": 1.0, "hardsigmoid": 0.2}


class LowerRecurrent(ir.passes.InPlacePass):
    """Replace LSTM, GRU and RNN nodes whose weights are constants; others stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower all such nodes.

        Raises:
            CimcError: the sequence length is not static, or an activation is not known.
        """
        count = 0
        for node in list(model.graph):
            if node.op_type in _GATES and not node.domain and _lower(node):
                count += 1
        return ir.passes.PassResult(model, modified=bool(count))


LONGEST = 10_000  # steps: each becomes nodes of its own


@dataclass
class _Steps:
    """Collects the nodes that replace one recurrent node."""

    graph: ir.Graph
    name: str
    nodes: list[ir.Node] = field(default_factory=list)

    def op(self, operator: str, *inputs: ir.Value | None, **attributes: int | float | list[int]) -> ir.Value:
        made = []
        for key, value in attributes.items():
            if isinstance(value, list):
                made.append(ir.AttrInt64s(key, value))
            else:
                made.append(ir.AttrInt64(key, value) if isinstance(value, int) else ir.AttrFloat32(key, value))
        self.nodes.append(new_node(operator, inputs, f"{self.name}.{operator.lower()}{len(self.nodes)}", made))
        return self.nodes[-1].outputs[0]

    def layer(self, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None) -> ir.Value:
        # The first node of a layer gives it its name.
        own = (weight.name or "").removesuffix(".weight")
        name = f"{self.name}.step{len(self.nodes)}" if weight.uses() else own
        self.nodes.append(crossbar_product(x, weight, name, bias))
        return self.nodes[-1].outputs[0]

    def const(self, array: npt.ArrayLike, name: str = "constant") -> ir.Value:
        return add_constant(self.graph, f"{self.name}.{name}", np.asarray(array))

    def cut(self, x: ir.Value, start: int, stop: int, axis: int) -> ir.Value:
        bounds = (self.const(np.array([n], np.int64)) for n in (start, stop, axis))
        return self.op("Slice", x, *bounds)

    def parts(self, x: ir.Value, count: int, axis: int) -> list[ir.Value]:
        if count == 1:
            return [x]
        node = ir.Node(
            "",
            "Split",
            [x],
            [ir.AttrInt64("axis", axis), ir.AttrInt64("num_outputs", count)],
            num_outputs=count,
            name=f"{self.name}.split{len(self.nodes)}",
        )
        for output in node.outputs:
            output.type = ir.TensorType(ir.DataType.FLOAT)
        self.nodes.append(node)
        return list(node.outputs)


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
    if not 0 < length <= LONGEST:
        raise CimcError(f"{describe(node)}: a sequence of {length} steps cannot be unrolled (1 to {LONGEST})")
    ranks = [2 if array is None else array.ndim for array in (bias, peephole)]
    if w.ndim != 3 or r.ndim != 3 or ranks != [2, 2] or len({len(a) for a in (w, r, bias) if a is not None}) > 1:
        raise CimcError(f"{describe(node)}: the sizes of its weights do not fit together; export the network again")
    steps = _Steps(owner(node), node.name or node.outputs[0].name or node.op_type)
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


def _replace(node: ir.Node, steps: _Steps, results: list[ir.Value | None]) -> None:
    graph = steps.graph
    pairs = [(old, new) for old, new in zip(node.outputs, results, strict=True) if new is not None]
    kept = {id(new) for _, new in pairs}
    for link in steps.nodes:
        for place, value in enumerate(link.outputs):
            if id(value) not in kept:
                value.name = new_name(graph, f"{link.name}.value{place or ''}")
    ir.convenience.replace_nodes_and_values(
        graph, node, [node], steps.nodes, [old for old, _ in pairs], [new for _, new in pairs]
    )


def _state(steps: _Steps, state: ir.Value | None, index: int, layout: int) -> ir.Value | None:
    """The initial state of a direction [batch, hidden], or None for zeros."""
    if state is None:
        return None
    return steps.op("Gather", state, steps.const(np.int64(index)), axis=1 if layout else 0)


def _direction(
    steps: _Steps,
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
    gates, hidden = _GATES[node.op_type], r.shape[1]
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
    cell = _CELLS[node.op_type](steps, node, index, r, inner_bias if split_bias else None, peephole, direction)
    h, c = states
    outputs: list[ir.Value] = []
    step_inputs = [steps.op("Gather", inputs, steps.const(np.int64(t)), axis=0) for t in range(length)]
    for t, gate_inputs in enumerate(step_inputs):
        new_h, new_c = cell(gate_inputs, h, c)
        y = new_h
        if lengths is not None:
            # Past a sequence's end its output is zero and its state stays.
            valid = steps.op("Less", steps.const(np.int32(t)), lengths)
            column = steps.op("Unsqueeze", valid, steps.const(np.array([1], np.int64)))
            valid.type = column.type = ir.TensorType(ir.DataType.BOOL)
            zero = steps.op("Sub", new_h, new_h) if h is None else h
            y = steps.op("Where", column, new_h, steps.const(np.float32(0)))
            new_h = steps.op("Where", column, new_h, zero)
            if new_c is not None:
                new_c = steps.op("Where", column, new_c, c if c is not None else steps.op("Sub", new_c, new_c))
        h, c = new_h, new_c
        outputs.append(y)
    axis = steps.const(np.array([0], np.int64))
    stacked = [steps.op("Unsqueeze", y, axis) for y in outputs]
    y = stacked[0] if length == 1 else steps.op("Concat", *stacked, axis=0)
    if reverse:
        y = _reverse(steps, y, length, lengths)
    assert h is not None
    return [y, h] if c is None else [y, h, c]


def _reverse(steps: _Steps, x: ir.Value, length: int, lengths: ir.Value | None) -> ir.Value:
    """Time backwards, within each sequence's own length."""
    if lengths is None:
        return steps.op("Gather", x, steps.const(np.arange(length - 1, -1, -1)), axis=0)
    wide = steps.op("Cast", lengths, to=int(ir.DataType.INT64))
    wide.type = ir.TensorType(ir.DataType.INT64)
    return steps.op("ReverseSequence", x, wide, time_axis=0, batch_axis=1)


# (gate inputs [batch, gates * hidden], h or None, c or None) -> h and c after the step
Cell = Callable[[ir.Value, ir.Value | None, ir.Value | None], tuple[ir.Value, ir.Value | None]]


def _activations(steps: _Steps, node: ir.Node, index: int) -> list[Callable[[ir.Value], ir.Value]]:
    """The activation functions of one direction, with their parameters, after the clip.

    The cell of an LSTM is not clipped on its way to the hidden state: so onnxruntime reads the standard.
    """
    count = len(_DEFAULTS[node.op_type])
    clip = node.attributes.get_float("clip", 0.0)
    names = list(node.attributes.get_strings("activations", []) or _DEFAULTS[node.op_type] * 2)
    alphas, betas = (list(node.attributes.get_floats(f"activation_{key}", []) or []) for key in ("alpha", "beta"))
    functions: list[Callable[[ir.Value], ir.Value]] = []
    for place, name in enumerate(names):
        kind = name.lower()
        if kind not in _ACTIVATIONS:
            raise CimcError(
                f"{describe(node)}: its activation {name} is not known; choose among {', '.join(_OPERATOR)}"
            )
        parameters: dict[str, float] = {}
        if "alpha" in _ACTIVATIONS[kind]:
            parameters["alpha"] = float(alphas.pop(0)) if alphas else _DEFAULT_PARAMETERS[kind]
        if "beta" in _ACTIVATIONS[kind]:
            parameters["beta"] = float(betas.pop(0)) if betas else 0.5
        if index * count <= place < (index + 1) * count:
            functions.append(_activation(steps, _OPERATOR[kind], parameters, 0.0 if place % count == 2 else clip))
    return functions


def _activation(
    steps: _Steps, operator: str, parameters: dict[str, float], clip: float
) -> Callable[[ir.Value], ir.Value]:
    def apply(x: ir.Value) -> ir.Value:
        if clip > 0:
            x = steps.op("Clip", x, steps.const(np.float32(-clip)), steps.const(np.float32(clip)))
        return steps.op(operator, x, **parameters)

    return apply


def _rnn(
    steps: _Steps, node: ir.Node, index: int, r: Floats, bias: Floats | None, peephole: Floats | None, name: str
) -> Cell:
    (f,) = _activations(steps, node, index)
    weight = crossbar_weight(steps.graph, f"{name}.recurrent", r.T)

    def cell(x: ir.Value, h: ir.Value | None, c: ir.Value | None) -> tuple[ir.Value, ir.Value | None]:
        return f(x if h is None else steps.op("Add", x, steps.layer(h, weight))), None

    return cell


def _lstm(
    steps: _Steps, node: ir.Node, index: int, r: Floats, bias: Floats | None, peephole: Floats | None, name: str
) -> Cell:
    f, g, k = _activations(steps, node, index)
    weight = crossbar_weight(steps.graph, f"{name}.recurrent", r.T)
    coupled = bool(node.attributes.get_int("input_forget", 0))
    pi, po, pf = (None, None, None) if peephole is None else (steps.const(p) for p in np.split(peephole, 3))

    def watch(gate: ir.Value, p: ir.Value | None, c: ir.Value | None) -> ir.Value:
        return gate if p is None or c is None else steps.op("Add", gate, steps.op("Mul", p, c))

    def cell(x: ir.Value, h: ir.Value | None, c: ir.Value | None) -> tuple[ir.Value, ir.Value | None]:
        total = x if h is None else steps.op("Add", x, steps.layer(h, weight))
        i, o, forget, candidate = steps.parts(total, 4, 1)
        i = f(watch(i, pi, c))
        new = steps.op("Mul", i, g(candidate))
        if c is not None:
            kept = steps.op("Sub", steps.const(np.float32(1)), i) if coupled else f(watch(forget, pf, c))
            new = steps.op("Add", steps.op("Mul", kept, c), new)
        return steps.op("Mul", f(watch(o, po, new)), k(new)), new

    return cell


def _gru(
    steps: _Steps, node: ir.Node, index: int, r: Floats, bias: Floats | None, peephole: Floats | None, name: str
) -> Cell:
    f, g = _activations(steps, node, index)
    hidden = r.shape[1]
    one = steps.const(np.float32(1))
    if bias is not None:  # linear_before_reset: the candidate's product comes before the reset gate
        whole = crossbar_weight(steps.graph, f"{name}.recurrent", r.T)
        inner = steps.const(bias, "inner_bias")
    else:
        gates = crossbar_weight(steps.graph, f"{name}.recurrent", r[: 2 * hidden].T)
        last = crossbar_weight(steps.graph, f"{name}.candidate", r[2 * hidden :].T)

    def cell(x: ir.Value, h: ir.Value | None, c: ir.Value | None) -> tuple[ir.Value, ir.Value | None]:
        z, reset, candidate = steps.parts(x, 3, 1)
        if h is not None or bias is not None:
            if bias is not None:
                zero = steps.op("Sub", candidate, candidate) if h is None else h
                products = steps.layer(zero, whole, inner)
                rz, rr, rh = (steps.cut(products, n * hidden, (n + 1) * hidden, -1) for n in range(3))
            else:
                assert h is not None
                rz, rr = steps.parts(steps.layer(h, gates), 2, 1)
            z, reset = f(steps.op("Add", z, rz)), f(steps.op("Add", reset, rr))
            recurrent = steps.op("Mul", reset, rh) if bias is not None else steps.layer(steps.op("Mul", reset, h), last)
            candidate = steps.op("Add", candidate, recurrent)
        else:
            z = f(z)
        new = steps.op("Mul", steps.op("Sub", one, z), g(candidate))
        return new if h is None else steps.op("Add", new, steps.op("Mul", z, h)), None

    return cell


_CELLS: dict[str, Callable[..., Cell]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
