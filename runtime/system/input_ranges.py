"""Input ranges in training and in Scans, compiled with the network: chosen so that a layer's output errs least.

`runtime.system.calibration` chooses those of inference, step by step.

A small range clips inputs and drives currents beyond the ADC; a large one wastes the steps of both converters.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from cimc.window import output_sizes
from runtime.devices.targets import weight_of
from runtime.network.scan import Product, WatchingProduct
from runtime.system.products import exact_layer, layer_on_arrays, state_as_read
from runtime.system.state import State, System

# Input ranges tried, as multiples of the largest input in the calibration batch. No small fractions: with them, half
# of all 8-bit pixels would lie exactly between two DAC codes.
RANGE_FACTORS = tuple(1.37**power for power in range(-3, 8))
# Of a layer with several MVMs a sample as many samples are tried as make that many MVMs, but at least so many samples.
TRIED_MVMS, TRIED_IMAGES = 2048, 4

READ_GROUPS = (
    *("weight", "conductance", "reference_column", "weight_range", "input_range", "gain", "bias"),
    *("digital", "statistics"),
)


def read_part(state: State) -> State:
    """The groups that a forward pass reads: what passes through a compiled function untouched is copied."""
    return {group: state[group] for group in READ_GROUPS}


def tried_images(positions: int) -> int:
    """Images on which a convolution of that many output positions tries its ranges, if there are so many."""
    return max(-(-TRIED_MVMS // positions), TRIED_IMAGES)


def calibrating_product(system: System, state: State, record: dict[str, Array]) -> Product:
    """Layers on the arrays, each with the input range that gives its output the least mean squared error.

    The error is taken against the exact product with the conductances as they are, converters and noise included. The
    ranges found are put into `record` by layer.
    """
    seen = state_as_read(system, state)

    def product(name: str, x: Array, key: Array | None) -> Array:
        if system.chip_of(name).input.bits is None:
            record[name] = jnp.float32(1.0)
            return layer_on_arrays(system, seen, name, x, record[name], key)
        largest = jnp.maximum(jnp.max(jnp.abs(x)), jnp.float32(1e-6))
        candidates = largest * jnp.asarray(RANGE_FACTORS, jnp.float32)
        window, tried = system.crossbars[name].window, x
        if window is not None:
            positions = math.prod(output_sizes(x.shape[1:-1], window))
            tried = x[..., : tried_images(positions)]
        weight = weight_of(state["conductance"][name], state["weight_range"][name], system.chip)
        reference = exact_layer(system, state, name, tried, weight)

        def error(input_range: Array) -> Array:
            return jnp.mean(jnp.square(layer_on_arrays(system, seen, name, tried, input_range, key) - reference))

        # All of them: the error has more than one minimum, so that a search near the present range can be stuck.
        chosen = candidates[jnp.argmin(jax.lax.map(error, candidates))]
        # A layer used several times has one converter range: that of the use with the largest inputs.
        record[name] = jnp.maximum(chosen, record[name]) if name in record else chosen
        return layer_on_arrays(system, seen, name, x, record[name], key)

    def exact(name: str, x: Array, key: Array | None) -> Array:
        weight = weight_of(state["conductance"][name], state["weight_range"][name], system.chip)
        return exact_layer(system, state, name, x, weight)

    def with_range(name: str, x: Array, key: Array | None) -> Array:
        return layer_on_arrays(system, seen, name, x, record[name], key)

    return WatchingProduct(product, exact, with_range)
