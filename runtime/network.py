"""A lowered ONNX network as a JAX function: crossbar layers by a given product, all else by digital operators."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
from jax import Array

from cimc.errors import CimcError
from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS, PARAMETERS, layer_of
from runtime.fallback import element_types, run_in_onnxruntime
from runtime.layout import flattens, images_first, keeps_images_last, layer_input, layer_result
from runtime.operators import OPERATORS
from runtime.operators.pooling import POOLS
from runtime.reorder import pool_first
from runtime.unfold import Window

Values = dict[str, Array]
# (layer name, input, key) -> output with bias; the key is None without noise. Rows or channels come first in both and
# images last: convolutions take and give [C, *spatial, N], matrix products [rows, ...] and [columns, ...].
Product = Callable[[str, Array, Array | None], Array]
_LARGEST_BIAS = 1e4  # masks add less than -1e4


@dataclass(frozen=True)
class Node:
    """One operator: names of its inputs and outputs (empty: left out), and its attributes as Python values.

    layer: name of the crossbar layer it uses; None for a digital operator. Several nodes may use one layer.
    foreign: the node and the element types of its inputs, when onnxruntime executes it for want of an operator here.
    """

    name: str
    operator: str
    layer: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    foreign: tuple[onnx.NodeProto, tuple[int, ...]] | None = None


@dataclass(frozen=True, eq=False)
class Network:
    """A network ready to run.

    nodes: in execution order. inputs: name and shape of each input (None: not static). outputs: names. initializers:
    arrays by name, those of the network (weights in rows x columns). trainable: names of the digital parameters that
    training changes (biases, normalisation, embeddings). statistics: names of the running means and variances of
    batch normalisation. windows: convolution window a layer. integer_inputs: names of the inputs that are integers
    (tokens). opsets: versions of the operator sets. logits: the output that is trained, the only one of floats, before
    a final Softmax if there is one; empty if there are several.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, tuple[int | None, ...]]
    outputs: tuple[str, ...]
    logits: str
    initializers: Mapping[str, np.ndarray]
    trainable: tuple[str, ...]
    statistics: tuple[str, ...]
    windows: Mapping[str, Window | None]
    integer_inputs: frozenset[str]
    opsets: Mapping[str, int]

    def layers(self) -> Iterator[Node]:
        """The first node of every crossbar layer, in order."""
        seen: set[str] = set()
        for node in self.nodes:
            if node.layer is not None and node.layer not in seen:
                seen.add(node.layer)
                yield node

    @property
    def input(self) -> str:
        """The name of the only input. Raises CimcError when there are several, or several outputs to train."""
        if len(self.inputs) != 1 or not self.logits:
            raise CimcError(
                f"the network has {len(self.inputs)} inputs and {len(self.outputs)} outputs; "
                "training and evaluation need one of each, beside outputs of integers: remove the others"
            )
        return next(iter(self.inputs))

    @property
    def tokens(self) -> int | None:
        """Entries of the smallest table that the network's input indexes; None when it indexes none."""
        tables = [
            self.initializers[node.inputs[0]]
            for node in self.nodes
            if node.operator == "Gather"
            and node.inputs[1] in self.integer_inputs
            and node.inputs[0] in self.initializers
        ]
        return min((len(table) for table in tables), default=None)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Input shape without the batch. Raises CimcError when it is not static, or when the batch is."""
        first, *shape = self.inputs[self.input] or (1,)
        if first is not None:
            raise CimcError(
                f"the first size of the network's input {self.input} is fixed to {first}: training and evaluation need "
                "a free batch there; export the network with a dynamic batch axis, images first"
            )
        static = tuple(extent for extent in shape if extent is not None)
        if len(static) < len(shape):
            raise CimcError(
                f"the sizes of the network's input {self.input} are not static; compile it with --shape, images first"
            )
        return static


def load_network(lowered: ir.Model | bytes) -> Network:
    """A lowered network, as a model or serialised, ready to run."""
    model = ir.from_proto(onnx.load_from_string(lowered)) if isinstance(lowered, bytes) else lowered
    graph = model.graph
    outputs = tuple(str(value.name) for value in graph.outputs)
    nodes = pool_first([_node(node) for node in graph], outputs)
    # Classifiers may give the label beside the scores.
    scores = [str(value.name) for value in graph.outputs if value.dtype == ir.DataType.FLOAT or len(outputs) == 1]
    logits = scores[0] if len(scores) == 1 else ""
    last = next((node for node in nodes if logits in node.outputs), None)
    initializers = {name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value}
    return Network(
        nodes=nodes,
        inputs={str(value.name): _sizes(value) for value in graph.inputs},
        outputs=outputs,
        logits=last.inputs[0] if last is not None and last.operator == "Softmax" else logits,
        initializers=initializers,
        trainable=tuple(dict.fromkeys(name for node in nodes for name in _parameters(node, initializers))),
        statistics=tuple(dict.fromkeys(name for node in nodes for name in _statistics(node) if name in initializers)),
        windows={node.layer: _window(node) for node in nodes if node.layer is not None},
        integer_inputs=frozenset(str(v.name) for v in graph.inputs if v.dtype is not None and v.dtype.is_integer()),
        opsets=dict(model.opset_imports),
    )


def _statistics(node: Node) -> tuple[str, ...]:
    return node.inputs[3:5] if node.operator == "BatchNormalization" else ()


def _parameters(node: Node, initializers: Mapping[str, np.ndarray]) -> list[str]:
    """The digital parameters of a node: biases, scales and shifts of normalisation, slopes, tables of embeddings.

    Not a constant that only computes, such as a factor or a mask: of an Add, one finite constant a channel is a bias.
    """
    if node.foreign is not None:
        return []
    if node.layer is not None:
        names = node.inputs[2:]
    elif node.operator == "Gather" and node.attributes.get("axis", 0) == 0:
        names = node.inputs[:1]
    elif node.operator == "Add":
        names = tuple(name for name in node.inputs if name in initializers and _is_bias(initializers[name]))
    else:
        places = PARAMETERS.get(node.operator, ())
        names = tuple(node.inputs[place] for place in places if place < len(node.inputs))
    known = {name for name in names if name in initializers and initializers[name].dtype == np.float32}
    return [name for name in names if name in known and name not in _statistics(node) and initializers[name].ndim]


def _is_bias(array: np.ndarray) -> bool:
    """One value a channel: one axis is longer than 1; and none so low that it masks."""
    return sum(size > 1 for size in array.shape) == 1 and bool(np.all(np.abs(array) < _LARGEST_BIAS))


def run_network(
    network: Network,
    x: Array,
    product: Product,
    digital: Values,
    statistics: Values,
    key: Array | None = None,
    train: bool = False,
) -> tuple[Array, Values]:
    """Run a network with one input and one output on a batch.

    Args:
        network: the network.
        x: [N, *image_shape].
        product: computes the crossbar layers.
        digital: trainable digital parameters by initializer name.
        statistics: running means and variances by initializer name.
        key: for noise and dropout; None: no noise.
        train: batch statistics in normalisation, and dropout on.

    Returns:
        The output [N, ...] (before a final Softmax) and the updated statistics.
    """
    values, last, statistics = _run(network, {network.input: x}, product, digital, statistics, key, train)
    logits = values[network.logits]
    return images_first(logits) if network.logits in last else logits, statistics


def run_nodes(
    network: Network,
    feeds: Mapping[str, Any],
    product: Product,
    digital: Values,
    statistics: Values,
    key: Array | None = None,
    train: bool = False,
) -> tuple[dict[str, Any], Values]:
    """All values of a network by name, for inputs by name, and the updated statistics; arguments as `run_network`.

    A value between an activation and a MaxPool is the pooled one (`runtime.reorder`).
    """
    values, last, statistics = _run(network, feeds, product, digital, statistics, key, train)
    return {name: images_first(value) if name in last else value for name, value in values.items()}, statistics


def _run(
    network: Network,
    feeds: Mapping[str, Any],
    product: Product,
    digital: Values,
    statistics: Values,
    key: Array | None,
    train: bool,
) -> tuple[dict[str, Any], set[str], Values]:
    """All values, the names of those that have images last, and the statistics.

    What depends on constants and sizes alone stays NumPy, so that it may shape what follows.
    """
    values: dict[str, Any] = {**network.initializers, **digital, **statistics, **feeds, "": None}
    statistics = dict(statistics)
    last: set[str] = set()  # names of the values that have images last here
    for index, node in enumerate(network.nodes):
        node_key = None if key is None else jax.random.fold_in(key, index)
        results: Any
        if node.layer is not None:
            window = network.windows[node.layer]
            x = layer_input(values[node.inputs[0]], window, node.inputs[0] in last)
            values[node.outputs[0]], swapped = layer_result(product(node.layer, x, node_key), window)
            last.update(node.outputs if swapped else ())
            continue
        if node.foreign is None and flattens(node.operator, node.attributes, node.inputs, values, last):
            x = values[node.inputs[0]]
            values[node.outputs[0]] = x.reshape(-1, x.shape[-1])
            last.update(node.outputs)
            continue
        swapped = node.foreign is None and keeps_images_last(node.operator, node.inputs, values, last)
        inputs = [images_first(values[name]) if name in last and not swapped else values[name] for name in node.inputs]
        if swapped:
            last.update(name for name in node.outputs if name)
        if node.operator == "BatchNormalization":
            results, mean, variance = _batch_norm(inputs, node.attributes, train, channel_axis=0 if swapped else 1)
            if train:
                statistics[node.inputs[3]], statistics[node.inputs[4]] = mean, variance
        elif node.operator == "Dropout":
            results = _dropout(inputs, node_key if train else None)
        elif swapped and node.operator in POOLS:
            results = POOLS[node.operator](inputs, node.attributes, 1)
        elif all(value is None or isinstance(value, np.ndarray) for value in inputs):
            with jax.ensure_compile_time_eval():
                results = jax.tree.map(np.asarray, _execute(network, node, inputs))
        else:
            results = _execute(network, node, inputs)
        results = results if isinstance(results, tuple) else (results,)
        values.update((name, result) for name, result in zip(node.outputs, results, strict=False) if name)
    return values, last, statistics


def _execute(network: Network, node: Node, inputs: list[Any]) -> Any:
    """The result or results of a digital operator."""
    if node.foreign is not None:
        proto, types = node.foreign
        return run_in_onnxruntime(proto, dict(network.opsets), types, inputs)
    return OPERATORS[node.operator](inputs, node.attributes)


def _batch_norm(
    inputs: list[Any], attributes: Mapping[str, Any], train: bool, channel_axis: int
) -> tuple[Array, Array, Array]:
    """Normalised values and the running mean and variance; in training over the batch (biased variance)."""
    x, scale, bias, running_mean, running_variance = inputs
    epsilon, momentum = float(attributes.get("epsilon", 1e-5)), float(attributes.get("momentum", 0.9))
    shape = [-1 if axis == channel_axis else 1 for axis in range(x.ndim)]
    mean, variance = running_mean, running_variance
    if train:
        axes = tuple(axis for axis in range(x.ndim) if axis != channel_axis)
        mean, variance = jnp.mean(x, axes), jnp.var(x, axes)
        running_mean = momentum * running_mean + (1 - momentum) * jax.lax.stop_gradient(mean)
        running_variance = momentum * running_variance + (1 - momentum) * jax.lax.stop_gradient(variance)
    factor = scale / jnp.sqrt(variance + epsilon)
    return (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape), running_mean, running_variance


def _dropout(inputs: list[Any], key: Array | None) -> tuple[Array, Array]:
    """Inverted dropout with the node's ratio (default 1/2), and its mask; without a key the input itself."""
    x = jnp.asarray(inputs[0])
    ratio = float(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else 0.5
    if key is None or ratio == 0:
        return x, jnp.ones(x.shape, bool)
    kept = jax.random.bernoulli(key, 1 - ratio, x.shape)
    return jnp.where(kept, x / (1 - ratio), 0.0), kept


def _node(node: ir.Node) -> Node:
    weight = node.inputs[1] if node.op_type in CROSSBAR_OPERATORS and node.domain == CROSSBAR_DOMAIN else None
    own = node.domain in ("", CROSSBAR_DOMAIN)
    known = weight is not None or (own and node.op_type in {*OPERATORS, "BatchNormalization", "Dropout"})
    known &= node.op_type != "MaxPool" or len(node.outputs) == 1  # no places of the maxima here
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    if node.op_type == "Split":
        attributes.setdefault("num_outputs", len(node.outputs))
    return Node(
        name=node.name or "",
        operator=node.op_type,
        layer=None if weight is None else layer_of(weight.name or ""),
        inputs=tuple(value.name or "" if value is not None else "" for value in node.inputs),
        outputs=tuple(value.name or "" for value in node.outputs),
        attributes=attributes,
        foreign=None if known else (ir.to_proto(node), element_types(node)),
    )


def _sizes(value: ir.Value) -> tuple[int | None, ...]:
    return tuple(size if isinstance(size, int) else None for size in value.shape or ())


def _window(node: Node) -> Window | None:
    if "kernel_shape" not in node.attributes:
        return None
    kernel, strides, pads, dilations = (
        tuple(int(v) for v in node.attributes[key]) for key in ("kernel_shape", "strides", "pads", "dilations")
    )
    return Window(kernel, strides, pads, dilations)
