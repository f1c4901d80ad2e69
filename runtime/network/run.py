"""A network as a JAX function: crossbar layers by a given product, all else by digital operators."""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import jax
import numpy as np
from jax import Array

from runtime.crossbar.keys import derive
from runtime.network.fallback import run_in_onnxruntime
from runtime.network.image_order import flattens, images_first, keeps_images_last, layer_input, layer_result
from runtime.network.network import Network, Node
from runtime.network.operators import OPERATORS
from runtime.network.operators.batch_norm_and_dropout import batch_norm, dropout
from runtime.network.operators.pooling import POOLS
from runtime.network.scan import Product, Step, WatchingProduct, as_one_batch, loop

Values = dict[str, Array]


def run_network(
    network: Network,
    feeds: Mapping[str, Any],
    product: Product,
    digital: Values,
    statistics: Values,
    key: Array | None = None,
    train: bool = False,
    batch_statistics: bool = True,
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
        batch_statistics: False: in training, too, normalise by the running statistics, and leave them.

    Returns:
        The logits [N, ...] by output name (`Network.logits`) and the updated statistics.
    """
    values, last, statistics = _run(network, feeds, product, digital, statistics, key, train, batch_statistics)
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
    batch_statistics: bool = True,
) -> tuple[dict[str, Any], set[str], Values]:
    """All values, the names of those that have images last, and the statistics.

    What depends on constants and sizes alone stays NumPy, so that it may shape what follows.
    """
    values: dict[str, Any] = {**network.initializers, **digital, **statistics, **feeds, "": None}
    statistics, last = dict(statistics), set[str]()
    execute(network, network.nodes, values, last, product, key, statistics if train else None, batch_statistics)
    return values, last, statistics


def execute(
    network: Network,
    nodes: Sequence[Node],
    values: dict[str, Any],
    last: set[str],
    product: Product,
    key: Array | None,
    statistics: Values | None = None,
    batch_statistics: bool = True,
) -> None:
    """Execute nodes of a network, or of the body of a Scan.

    Args:
        network: the network.
        nodes: in order.
        values: by name, all that the nodes need; their outputs are added.
        last: names of the values that have images last; more are added.
        product: computes the crossbar layers.
        key: for noise and dropout; None: no noise.
        statistics: of normalisation, updated in training; None: no training.
        batch_statistics: as of `run_network`.
    """
    train = statistics is not None
    for index, node in enumerate(nodes):
        node_key = None if key is None else derive(key, index)
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
        if node.body is not None:
            made = run_scan(network, node, values, last, product, node_key)
            values.update((name, value) for name, value in zip(node.outputs, made, strict=True) if name)
            continue
        swapped = node.foreign is None and keeps_images_last(node.operator, node.inputs, values, last)
        inputs = [images_first(values[name]) if name in last and not swapped else values[name] for name in node.inputs]
        if swapped:
            last.update(name for name in node.outputs if name)
        if node.operator == "BatchNormalization":
            by_batch, channel_axis = train and batch_statistics, 0 if swapped else 1
            results, mean, variance = batch_norm(inputs, node.attributes, by_batch, channel_axis)
            if statistics is not None:
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


def run_scan(
    network: Network,
    node: Node,
    values: Mapping[str, Any],
    last: AbstractSet[str],
    product: Product,
    key: Array | None,
) -> list[Array]:
    """The results of a Scan, images first.

    Normalisation in its body uses the running statistics, also in training.

    Args:
        network: the network.
        node: the Scan.
        values: by name, all that the node and its body need: its inputs, constants and parameters.
        last: names of the values that have images last.
        product: computes the crossbar layers of the body.
        key: for noise; None: no noise.
    """
    body = node.body
    assert body is not None
    inputs = [images_first(values[name]) if name in last else values[name] for name in node.inputs]

    def with_product(product: Product) -> Step:
        def step(given: dict[str, Any], key: Array | None) -> tuple[list[Array], list[Array]]:
            inside, swapped, seen = {**values, **given}, set(last), []

            def seeing(name: str, x: Array, key: Array | None) -> Array:
                seen.append(x)
                return product(name, x, key)

            execute(network, body.nodes, inside, swapped, seeing, key)
            return [images_first(inside[name]) if name in swapped else inside[name] for name in body.outputs], seen

        return step

    if not isinstance(product, WatchingProduct):
        return loop(node, inputs, key, with_product(product))[0]
    seen = loop(node, inputs, key, with_product(product.before), collect=True)[1]
    layers = [inner.layer for inner in body.nodes if inner.layer is not None]
    for name, x in zip(layers, seen, strict=True):
        product.see(name, as_one_batch(x), key)
    return loop(node, inputs, key, with_product(product.after))[0]


def _execute(network: Network, node: Node, inputs: list[Any]) -> Any:
    """The result or results of a digital operator."""
    if node.foreign is not None:
        proto, types = node.foreign
        return run_in_onnxruntime(proto, dict(network.opsets), types, inputs)
    return OPERATORS[node.operator](inputs, node.attributes)
