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
from cimc.operators import CROSSBAR_DOMAIN
from runtime.operators import OPERATORS
from runtime.unfold import Window

Values = dict[str, Array]
# (layer name, input, key) -> output with bias; the key is None without noise.
Product = Callable[[str, Array, Array | None], Array]


@dataclass(frozen=True)
class Node:
    """One operator: names of its inputs (empty: left out) and output, and its attributes as Python values."""

    name: str
    operator: str
    crossbar: bool
    inputs: tuple[str, ...]
    output: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Network:
    """A network ready to run.

    nodes: in execution order. image_shape: input shape without the batch. output: the value returned, before a final
    Softmax if there is one. initializers: arrays by name, those of the network (weights in rows x columns).
    trainable: names of the digital parameters that training changes (biases, normalisation scale and bias).
    statistics: names of the running means and variances of batch normalisation. windows: convolution window a layer.
    """

    nodes: tuple[Node, ...]
    input: str
    image_shape: tuple[int, ...]
    output: str
    initializers: Mapping[str, np.ndarray]
    trainable: tuple[str, ...]
    statistics: tuple[str, ...]
    windows: Mapping[str, Window | None]

    def layers(self) -> Iterator[Node]:
        """The crossbar layers in order."""
        return (node for node in self.nodes if node.crossbar)


def load_network(serialised: bytes) -> Network:
    """Read a lowered network. Raises CimcError when it has not one input and one output."""
    model = ir.from_proto(onnx.load_from_string(serialised))
    graph = model.graph
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise CimcError(
            f"the network has {len(graph.inputs)} inputs and {len(graph.outputs)} outputs; "
            "training and evaluation need one of each: remove the others"
        )
    nodes = tuple(_node(node) for node in graph)
    output = str(graph.outputs[0].name)
    last = next((node for node in nodes if node.output == output), None)
    if last is not None and last.operator == "Softmax":
        nodes = tuple(node for node in nodes if node is not last)
        output = last.inputs[0]
    trainable: list[str] = []
    statistics: list[str] = []
    for node in nodes:
        if node.crossbar and len(node.inputs) > 2:
            trainable.append(node.inputs[2])
        if node.operator == "BatchNormalization":
            trainable += node.inputs[1:3]
            statistics += node.inputs[3:5]
    shape = graph.inputs[0].shape
    if shape is None or not all(isinstance(extent, int) for extent in list(shape)[1:]):
        raise CimcError(f"the network's input {graph.inputs[0].name} has no static size; export it with one")
    return Network(
        nodes=nodes,
        input=str(graph.inputs[0].name),
        image_shape=tuple(int(extent) for extent in list(shape)[1:] if isinstance(extent, int)),
        output=output,
        initializers={
            name: value.const_value.numpy() for name, value in graph.initializers.items() if value.const_value
        },
        trainable=tuple(dict.fromkeys(trainable)),
        statistics=tuple(dict.fromkeys(statistics)),
        windows={node.name: _window(node) for node in nodes if node.crossbar},
    )


def run_network(
    network: Network,
    x: Array,
    product: Product,
    digital: Values,
    statistics: Values,
    key: Array | None = None,
    train: bool = False,
) -> tuple[Array, Values]:
    """Run the network on a batch.

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
    values: dict[str, Any] = {**network.initializers, **digital, **statistics, network.input: x, "": None}
    statistics = dict(statistics)
    for index, node in enumerate(network.nodes):
        inputs = [values[name] for name in node.inputs]
        node_key = None if key is None else jax.random.fold_in(key, index)
        if node.crossbar:
            y = product(node.name, inputs[0], node_key)
        elif node.operator == "BatchNormalization":
            y, mean, variance = _batch_norm(inputs, node.attributes, train)
            if train:
                statistics[node.inputs[3]], statistics[node.inputs[4]] = mean, variance
        elif node.operator == "Dropout":
            y = _dropout(inputs, node_key if train else None)
        else:
            y = OPERATORS[node.operator](inputs, node.attributes)
        values[node.output] = y
    return values[network.output], statistics


def _batch_norm(inputs: list[Any], attributes: Mapping[str, Any], train: bool) -> tuple[Array, Array, Array]:
    """Normalised values and the running mean and variance; in training over the batch (biased variance)."""
    x, scale, bias, running_mean, running_variance = inputs
    epsilon, momentum = float(attributes.get("epsilon", 1e-5)), float(attributes.get("momentum", 0.9))
    shape = (1, -1) + (1,) * (x.ndim - 2)
    mean, variance = running_mean, running_variance
    if train:
        axes = (0, *range(2, x.ndim))
        mean, variance = jnp.mean(x, axes), jnp.var(x, axes)
        running_mean = momentum * running_mean + (1 - momentum) * jax.lax.stop_gradient(mean)
        running_variance = momentum * running_variance + (1 - momentum) * jax.lax.stop_gradient(variance)
    factor = scale / jnp.sqrt(variance + epsilon)
    return (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape), running_mean, running_variance


def _dropout(inputs: list[Any], key: Array | None) -> Array:
    """Inverted dropout with the node's ratio (default 1/2); without a key the input itself."""
    x = inputs[0]
    ratio = float(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else 0.5
    if key is None or ratio == 0:
        return jnp.asarray(x)
    return jnp.where(jax.random.bernoulli(key, 1 - ratio, x.shape), x / (1 - ratio), 0.0)


def _node(node: ir.Node) -> Node:
    return Node(
        name=node.name or "",
        operator=node.op_type,
        crossbar=node.domain == CROSSBAR_DOMAIN,
        inputs=tuple(value.name or "" if value is not None else "" for value in node.inputs),
        output=node.outputs[0].name or "",
        attributes={name: attribute.value for name, attribute in node.attributes.items()},
    )


def _window(node: Node) -> Window | None:
    if "kernel_shape" not in node.attributes:
        return None
    kernel, strides, pads, dilations = (
        tuple(int(v) for v in node.attributes[key]) for key in ("kernel_shape", "strides", "pads", "dilations")
    )
    return Window(kernel, strides, pads, dilations)
