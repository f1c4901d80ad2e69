"""The three ways to compute a crossbar layer: on the arrays, exactly from the digital weights, and calibrating."""

import math

import jax
import jax.numpy as jnp
from jax import Array

from cimc.units import pair_weight
from runtime.crossbar import by_group, layer_output, split_groups
from runtime.network import Network, Product
from runtime.state import State, System, gain_name
from runtime.unfold import fold_output, output_sizes, unfold

# Input ranges tried by calibration, as multiples of the largest input in the calibration batch. No small fractions:
# with them, half of all 8-bit pixels would lie exactly between two DAC codes.
RANGE_FACTORS = tuple(1.37**power for power in range(-3, 8))
# Of a convolution's images as many are tried as make that many MVMs, but at least so many images.
TRIED_MVMS, TRIED_IMAGES = 4096, 8


def array_product(system: System, state: State) -> Product:
    """Layers on the arrays, with all that `runtime.crossbar` models; noise when a key is given."""

    def product(name: str, x: Array, key: Array | None) -> Array:
        return _layer_on_arrays(system, state, name, x, state["input_range"][name], key)

    return product


def exact_product(system: System, state: State) -> Product:
    """Layers as float32 products with the digital copy of the weights: no converters, no noise, no devices."""

    def product(name: str, x: Array, key: Array | None) -> Array:
        y = _linear(system, name, x, state["weight"][name]) * state["digital"][gain_name(name)]
        return fold_output(_add_bias(system, state, name, y), x.shape, system.crossbars[name].window)

    return product


def plain_product(network: Network) -> Product:
    """Layers as float32 products with the network's own constants, without a system: no chip, no state."""

    def product(name: str, x: Array, key: Array | None) -> Array:
        node = next(node for node in network.layers() if node.layer == name)
        weight = jnp.asarray(network.initializers[node.inputs[1]])
        window, groups = network.windows[name], int(node.attributes.get("group", 1))
        y = grouped_product(weight, unfold(x, window), groups)
        if len(node.inputs) > 2:
            y = y + jnp.asarray(network.initializers[node.inputs[2]])[:, None]
        return fold_output(y, x.shape, window)

    return product


def calibrating_product(system: System, state: State, record: dict[str, Array]) -> Product:
    """Layers on the arrays, each with the input range that gives its output the least mean squared error.

    A small range clips inputs and drives currents beyond the ADC; a large one wastes both converters' steps. The error
    is taken against the exact product with the conductances as they are, converters and noise included. The ranges
    found are put into `record` by layer.
    """

    def product(name: str, x: Array, key: Array | None) -> Array:
        if system.chip.input.bits is None:
            record[name] = jnp.float32(1.0)
            return _layer_on_arrays(system, state, name, x, record[name], key)
        largest = jnp.maximum(jnp.max(jnp.abs(x)), jnp.float32(1e-6))
        candidates = largest * jnp.asarray(RANGE_FACTORS, jnp.float32)
        weight = pair_weight(state["conductance"][name], state["weight_range"][name], system.chip)
        window, tried = system.crossbars[name].window, x
        if window is not None:
            positions = math.prod(output_sizes(x.shape[1:-1], window))
            tried = x[..., : max(-(-TRIED_MVMS // positions), TRIED_IMAGES)]
        exact = _linear(system, name, tried, weight) * state["digital"][gain_name(name)]
        reference = fold_output(_add_bias(system, state, name, exact), tried.shape, window)

        def error(input_range: Array) -> Array:
            on_arrays = _layer_on_arrays(system, state, name, tried, input_range, key)
            return jnp.mean(jnp.square(on_arrays - reference))

        # All of them: the error has more than one minimum, so that a search near the present range can be stuck.
        chosen = candidates[jnp.argmin(jax.lax.map(error, candidates))]
        # A layer used several times has one converter range: that of the use with the largest inputs.
        record[name] = jnp.maximum(chosen, record[name]) if name in record else chosen
        return _layer_on_arrays(system, state, name, x, chosen, key)

    return product


def _layer_on_arrays(system: System, state: State, name: str, x: Array, input_range: Array, key: Array | None) -> Array:
    crossbar, bias_name = system.crossbars[name], system.bias_names.get(name)
    y = layer_output(
        crossbar,
        x,
        state["weight"][name],
        state["digital"][gain_name(name)],
        None if bias_name is None else state["digital"][bias_name],
        state["conductance"][name],
        state["weight_range"][name],
        input_range,
        key,
    )
    return fold_output(y, x.shape, crossbar.window)


def _add_bias(system: System, state: State, name: str, y: Array) -> Array:
    """y [columns, MVMs] with the layer's bias, if it has one."""
    bias = system.bias_names.get(name)
    return y if bias is None else y + state["digital"][bias][:, None]


def _linear(system: System, name: str, x: Array, weight: Array) -> Array:
    """x W in float32: [columns, MVMs]."""
    crossbar = system.crossbars[name]
    return grouped_product(weight, unfold(x, crossbar.window), crossbar.groups)


def grouped_product(weight: Array, vectors: Array, groups: int) -> Array:
    """W^T x of each group: weight [rows, columns], vectors [groups * rows, MVMs] -> [columns, MVMs]."""
    if groups == 1:
        return weight.T @ vectors
    y = jnp.einsum("grc,grm->gcm", by_group(weight, groups), split_groups(vectors, groups))
    return y.reshape(-1, y.shape[-1])
