"""One time step of an LSTM, a GRU or an RNN as a crossbar product and standard operators.

Gates follow the ONNX operators' equations.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.errors import CimcError
from cimc.operators import SEQUENCE_STEPS
from passes.crossbar_functions import crossbar_product, crossbar_weight
from passes.graph_edit import add_constant, new_node
from passes.messages import describe

Floats = npt.NDArray[np.float32]
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
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


@dataclass
class Steps:
    """Collects the nodes that replace one recurrent node."""

    graph: ir.Graph
    name: str
    nodes: list[ir.Node] = field(default_factory=list)
    count: int = 0

    @contextmanager
    def apart(self) -> Iterator[list[ir.Node]]:
        """Collect the nodes of a body apart from the others."""
        others, self.nodes = self.nodes, []
        try:
            yield self.nodes
        finally:
            self.nodes = others

    def add(self, node: ir.Node) -> ir.Node:
        """Collect a node."""
        self.nodes.append(node)
        self.count += 1
        return node

    def op(self, operator: str, *inputs: ir.Value | None, **attributes: int | float | list[int]) -> ir.Value:
        """The output of a standard operator."""
        made = []
        for key, value in attributes.items():
            if isinstance(value, list):
                made.append(ir.AttrInt64s(key, value))
            else:
                made.append(ir.AttrInt64(key, value) if isinstance(value, int) else ir.AttrFloat32(key, value))
        return self.add(new_node(operator, inputs, f"{self.name}.{operator.lower()}{self.count}", made)).outputs[0]

    def layer(self, x: ir.Value, weight: ir.Value, bias: ir.Value | None = None) -> ir.Value:
        """The output of a crossbar layer; all that use `weight` are one."""
        # The first node of a layer gives it its name.
        own = (weight.name or "").removesuffix(".weight")
        name = f"{self.name}.step{self.count}" if weight.uses() else own
        return self.add(crossbar_product(x, weight, name, bias)).outputs[0]

    def scan(self, body: ir.Graph, states: list[ir.Value], sequences: list[ir.Value], length: int) -> list[ir.Value]:
        """The last states and the stacked other results of `body`, run over the first axis of the sequences.

        length: steps in all, with those before.
        """
        attributes = [ir.AttrGraph("body", body), ir.AttrInt64("num_scan_inputs", len(sequences))]
        inputs, count = [*states, *sequences], len(body.outputs)
        node = ir.Node("", "Scan", inputs, attributes, num_outputs=count, name=f"{self.name}.scan{self.count}")
        node.metadata_props[SEQUENCE_STEPS] = str(length)
        return self._several(node)

    def const(self, array: npt.ArrayLike, name: str = "constant") -> ir.Value:
        """An initializer of the graph."""
        return add_constant(self.graph, f"{self.name}.{name}", np.asarray(array))

    def cut(self, x: ir.Value, start: int, stop: int, axis: int) -> ir.Value:
        """The part from `start` to before `stop`."""
        bounds = (self.const(np.array([n], np.int64)) for n in (start, stop, axis))
        return self.op("Slice", x, *bounds)

    def parts(self, x: ir.Value, count: int, axis: int) -> list[ir.Value]:
        """So many equal parts."""
        if count == 1:
            return [x]
        attributes = [ir.AttrInt64("axis", axis), ir.AttrInt64("num_outputs", count)]
        name = f"{self.name}.split{self.count}"
        return self._several(ir.Node("", "Split", [x], attributes, num_outputs=count, name=name))

    def _several(self, node: ir.Node) -> list[ir.Value]:
        for output in node.outputs:
            output.type = ir.TensorType(ir.DataType.FLOAT)
        return list(self.add(node).outputs)


# (gate inputs [batch, gates * hidden], h or None, c or None) -> h and c after the step
Cell = Callable[[ir.Value, ir.Value | None, ir.Value | None], tuple[ir.Value, ir.Value | None]]


def _activations(steps: Steps, node: ir.Node, index: int) -> list[Callable[[ir.Value], ir.Value]]:
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
    steps: Steps, operator: str, parameters: dict[str, float], clip: float
) -> Callable[[ir.Value], ir.Value]:
    def apply(x: ir.Value) -> ir.Value:
        if clip > 0:
            x = steps.op("Clip", x, steps.const(np.float32(-clip)), steps.const(np.float32(clip)))
        return steps.op(operator, x, **parameters)

    return apply


def _rnn(
    steps: Steps, node: ir.Node, index: int, r: Floats, bias: Floats | None, peephole: Floats | None, name: str
) -> Cell:
    (f,) = _activations(steps, node, index)
    weight = crossbar_weight(steps.graph, f"{name}.recurrent", r.T)

    def cell(x: ir.Value, h: ir.Value | None, c: ir.Value | None) -> tuple[ir.Value, ir.Value | None]:
        return f(x if h is None else steps.op("Add", x, steps.layer(h, weight))), None

    return cell


def _lstm(
    steps: Steps, node: ir.Node, index: int, r: Floats, bias: Floats | None, peephole: Floats | None, name: str
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
    steps: Steps, node: ir.Node, index: int, r: Floats, bias: Floats | None, peephole: Floats | None, name: str
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
                rz, rr, rh = steps.parts(products, 3, 1)
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


CELLS: dict[str, Callable[..., Cell]] = {"LSTM": _lstm, "GRU": _gru, "RNN": _rnn}
