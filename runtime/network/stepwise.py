"""Inference step by step: the digital parts of a network in onnxruntime, each crossbar layer by a given function.

Nothing is compiled for the network as a whole, every operator of onnxruntime can stand between the layers, inputs and
outputs are any, and a value is dropped after its last use.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from typing import Any, TypeVar, TypeVarTuple
from weakref import WeakKeyDictionary

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from cimc.errors import CimcError
from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS, layer_of
from runtime.network.network import Network

Arrays = Mapping[str, NDArray[Any]]

_FATAL_ONLY = 4
_LARGE = 1 << 14  # bytes: a constant from here on is handed to each run, of which onnxruntime makes no copy


@dataclass(frozen=True, eq=False)
class LayerStep:
    """A node that uses a crossbar layer. number: among the steps."""

    number: int
    layer: str
    node: onnx.NodeProto


@dataclass(frozen=True, eq=False)
class DigitalStep:
    """Nodes that onnxruntime executes together. inputs: names of values, parameters and large constants."""

    session: onnxruntime.InferenceSession
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    nodes: tuple[onnx.NodeProto, ...]


@dataclass(frozen=True, eq=False)
class ScanStep:
    """A Scan with crossbar layers in its body. inputs: names of all values that it and its body take from elsewhere."""

    number: int
    node: onnx.NodeProto
    inputs: tuple[str, ...]


T = TypeVar("T")
Ts = TypeVarTuple("Ts")

Step = LayerStep | DigitalStep | ScanStep
# (step, input as in ONNX) -> output as in ONNX.
LayerFunction = Callable[[LayerStep, NDArray[np.float32]], NDArray[np.float32]]
# (step, values by name) -> outputs as in ONNX.
ScanFunction = Callable[[ScanStep, Arrays], Sequence[NDArray[Any]]]


def run_steps(
    network: Network, feeds: Arrays, parameters: Arrays, *, layer: LayerFunction, scan: ScanFunction
) -> dict[str, NDArray[Any]]:
    """Run a network with its crossbar layers computed by `layer`.

    Args:
        network: the network.
        feeds: every input by name.
        parameters: digital parameters and statistics by initializer.
        layer: computes a crossbar layer.
        scan: computes a Scan with crossbar layers; of the network's constants it gets only parameters.

    Returns:
        The outputs by name.
    """
    run = Run(network, feeds, parameters)
    while (step := run.step) is not None:
        run.go_on([layer(step, run.input)] if isinstance(step, LayerStep) else scan(step, run.inputs))
    return run.outputs


class Run:
    """A run of a network that stands at a step with crossbar layers until it is given what that computes."""

    def __init__(self, network: Network, feeds: Arrays, parameters: Arrays) -> None:
        """Go to the first such step; arguments as `run_steps`."""
        steps, uses = steps_of(network)
        self._network, self._left, self._todo = network, dict(uses), deque(steps)
        self._constant = network.initializers.keys() - parameters.keys()
        self._values = {**network.initializers, **parameters, **feeds}
        self._go()

    @property
    def step(self) -> LayerStep | ScanStep | None:
        """Where the run stands; None at the end."""
        if not self._todo:
            return None
        assert not isinstance(self._todo[0], DigitalStep)
        return self._todo[0]

    @property
    def input(self) -> NDArray[np.float32]:
        """What the layer takes."""
        return self._values[_ends(self._todo[0])[0][0]]

    @property
    def inputs(self) -> Arrays:
        """What the Scan takes by name; of the network's constants parameters only."""
        return {name: self._values[name] for name in _ends(self._todo[0])[0] if name not in self._constant}

    @property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """The network's outputs by name, at the end."""
        return {name: self._values[name] for name in self._network.outputs}

    def go_on(self, made: Sequence[NDArray[Any]]) -> None:
        """Take what the step computes, and go to the next one."""
        self._finish(made)
        self._go()

    def _go(self) -> None:
        while self._todo and isinstance(step := self._todo[0], DigitalStep):
            self._finish(_run(step, self._values))

    def _finish(self, made: Sequence[NDArray[Any]]) -> None:
        """Keep what the first step to do has made; a value is dropped after its last use."""
        inputs, outputs = _ends(self._todo.popleft())
        self._values.update((name, array) for name, array in zip(outputs, made, strict=True) if name)
        for name in inputs:
            self._left[name] -= 1
            if not self._left[name]:
                del self._values[name]


def run_exactly(network: Network, feeds: Arrays, parameters: Arrays) -> dict[str, NDArray[Any]]:
    """The outputs of a network in float32, all of it in onnxruntime.

    Args:
        network: the network.
        feeds: every input by name.
        parameters: weights of crossbar layers, digital parameters and statistics by initializer.
    """
    step = _whole(network)
    values = {**network.initializers, **parameters, **feeds}
    return dict(zip(step.outputs, _run(step, values), strict=True))


def run_node_exactly(network: Network, node: onnx.NodeProto, values: Arrays) -> list[NDArray[Any]]:
    """The outputs of a crossbar layer or a Scan in float32 in onnxruntime, with all that it takes by name."""
    return _run(_alone(network, node.output[0]), values)


def bytes_at_once(network: Network, elements: Callable[[str], int]) -> int:
    """The most bytes that values take at once, those within a digital part included.

    Args:
        network: the network.
        elements: how many elements a value has, by its name.
    """
    steps, uses = steps_of(network)
    left, held, most = dict(uses), {name: elements(name) for name in network.inputs}, 0
    for step in steps:
        nodes = step.nodes if isinstance(step, DigitalStep) else (step.node,)
        inputs, outputs = _ends(step)
        inside = max(sum(map(elements, {*node.input, *node.output} - held.keys())) for node in nodes)
        most = max(most, sum(held.values()) + inside)
        held.update((name, elements(name)) for name in outputs)
        for name in inputs:
            left[name] -= 1
            if not left[name]:
                held.pop(name, None)
    return 4 * most


def _ends(step: Step) -> tuple[Sequence[str], Sequence[str]]:
    """Names of what a step takes and of what it gives."""
    if isinstance(step, LayerStep):
        return step.node.input[:1], step.node.output
    return step.inputs, step.outputs if isinstance(step, DigitalStep) else step.node.output


def _once_a_network(make: Callable[[Network, *Ts], T]) -> Callable[[Network, *Ts], T]:
    """What is made of a network is kept as long as the network: other caches would keep networks that are gone."""
    kept: WeakKeyDictionary[Network, dict[tuple[*Ts], T]] = WeakKeyDictionary()

    @wraps(make)
    def made(network: Network, *arguments: *Ts) -> T:
        found = kept.setdefault(network, {})
        if arguments not in found:
            found[arguments] = make(network, *arguments)
        return found[arguments]

    return made


@_once_a_network
def steps_of(network: Network) -> tuple[tuple[Step, ...], Mapping[str, int]]:
    """The steps, and how often each value is used by steps or is an output."""
    groups: list[list[onnx.NodeProto]] = []
    for node in network.protos:
        if _on_arrays(node) or not groups or _on_arrays(groups[-1][0]):
            groups.append([])
        groups[-1].append(node)
    # After each group, what later ones need.
    needed = [set(network.outputs)]
    for group in reversed(groups[1:]):
        needed.append(needed[-1] | _used_from_outside(group))
    steps: list[Step] = []
    for number, (group, later) in enumerate(zip(groups, reversed(needed), strict=True)):
        if _is_layer(group[0]):
            steps.append(LayerStep(number, layer_of(group[0].input[1]), group[0]))
        elif _on_arrays(group[0]):
            steps.append(ScanStep(number, group[0], tuple(sorted(_used_from_outside(group)))))
        elif made := [name for node in group for name in node.output if name in later]:
            steps.append(_digital_step(network, group, made))
    uses = Counter(network.outputs)
    for step in steps:
        uses.update(_ends(step)[0])
    return tuple(steps), uses


@_once_a_network
def _whole(network: Network) -> DigitalStep:
    weights = {node.inputs[1] for node in network.layers()}
    return _digital_step(network, network.protos, network.outputs, free=weights)


@_once_a_network
def _alone(network: Network, output: str) -> DigitalStep:
    node = next(node for node in network.protos if output in node.output)
    return _digital_step(network, [node], [name for name in node.output if name], free=node.input)


def _digital_step(
    network: Network, nodes: Sequence[onnx.NodeProto], outputs: Sequence[str], free: Iterable[str] = ()
) -> DigitalStep:
    """Nodes as a session; `free`: constants that come with each run, beside large ones, weights and parameters."""
    used = _used_from_outside(nodes)
    weights = (node.inputs[1] for node in network.layers())
    given = {*free, *weights, *network.trainable, *network.statistics}
    constants = {
        name: array
        for name in used
        if (array := network.initializers.get(name)) is not None and name not in given and array.nbytes < _LARGE
    }
    inputs = tuple(sorted(used - constants.keys()))
    graph = onnx.helper.make_graph(
        nodes,
        "step",
        [onnx.helper.make_tensor_value_info(name, network.types[name], None) for name in inputs],
        [onnx.helper.make_tensor_value_info(name, network.types[name], None) for name in outputs],
        [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in network.opsets.items()]
    model = onnx.helper.make_model(graph, opset_imports=imports, ir_version=10, functions=network.functions)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    # A thread that waits would take a core from the arrays, and each session would keep the memory of its largest run.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = False
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    # onnxruntime's exception types share no base class of their own.
    except Exception as error:
        raise CimcError(
            f"onnxruntime cannot run a part of the network ({_line(error)}); compile the model again"
        ) from None
    return DigitalStep(session, inputs, tuple(outputs), tuple(nodes))


def _run(step: DigitalStep, values: Arrays) -> list[NDArray[Any]]:
    try:
        return [np.asarray(array) for array in step.session.run(None, {name: values[name] for name in step.inputs})]
    except Exception as error:
        raise CimcError(
            f"onnxruntime cannot run the network on these inputs ({_line(error)}); check sizes and values of the data"
        ) from None


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def _used_from_outside(nodes: Iterable[onnx.NodeProto]) -> set[str]:
    """Names of the values that nodes, and what is below them, take from elsewhere."""
    used: set[str] = set()
    made: set[str] = set()
    for node in nodes:
        used.update(name for name in node.input if name and name not in made)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                own = {value.name for value in (*graph.input, *graph.initializer)}
                used.update(_used_from_outside(graph.node) - own - made)
        made.update(node.output)
    return used


def _on_arrays(node: onnx.NodeProto) -> bool:
    """Whether a node is a crossbar layer or has some in its body."""
    bodies = [attribute.g for attribute in node.attribute if attribute.HasField("g")]
    return _is_layer(node) or any(_is_layer(inner) for body in bodies for inner in body.node)


def _is_layer(node: onnx.NodeProto) -> bool:
    return node.domain == CROSSBAR_DOMAIN and node.op_type in CROSSBAR_OPERATORS
