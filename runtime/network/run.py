"""A network as a JAX function: crossbar layers by a given product, all else by digital operators."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from jax import Array

from runtime.network.fallback import run_in_onnxruntime
from runtime.network.image_order import flattens, images_first, keeps_images_last, layer_input, layer_result
from runtime.network.network import Network, Node
from runtime.network.operators import OPERATORS
from runtime.network.operators.batch_norm_and_dropout import batch_norm, dropout
from runtime.network.operators.pooling import POOLS

Values = dict[str, Array]
# (layer name, input, key) -> output with bias; the key is None without noise. Rows or channels come first in both and
# images last: convolutions take and give [C, *spatial, N], matrix products [rows, ...] and [columns, ...].
Product = Callable[[str, Array, Array | None], Array]


def run_network(
    network: Network,
    feeds: Mapping[str, Any],
    product: Product,
    digital: Values,
    statistics: Values,
    key: Array | None = None,
    train: bool = False,
) -> tuple[Values, Values]:
    """Run a network on a batch, for its logits.

    Args:
        network: the network.
        feeds: what it sees [N, ...], by input name.
        product: computes the crossbar layers.
        digital: trainable digital parameters by initializer name.
        statistics: running means and variances by initializer name.
        key: for noise and dropout; None: no noise.
        train: batch statistics in normalisation, and dropout on.

    Returns:
        The logits [N, ...] by output name (`Network.logits`) and the updated statistics.
    """
    values, last, statistics = _run(network, feeds, product, digital, statistics, key, train)
    logits = {
        output: images_first(values[name]) if name in last else values[name] for output, name in network.logits.items()
    }
    return logits, statistics


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

    A value between an activation and a MaxPool is the pooled one (`runtime.network.reorder`).
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
            results, mean, variance = batch_norm(inputs, node.attributes, train, channel_axis=0 if swapped else 1)
            if train:
                statistics[node.inputs[3]], statistics[node.inputs[4]] = mean, variance
        elif node.operator == "Dropout":
            results = dropout(inputs, node_key if train else None)
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
