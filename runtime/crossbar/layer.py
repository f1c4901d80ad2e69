"""A layer on arrays as a differentiable function, straight-through: y stands for gain x W + bias.

The rule is stated once, as the tangent of y; JAX transposes it for the backward pass. The weight gradient then is the
outer product of the applied inputs and the gradient, and the input gradient uses the digital copy of the weights
(`digital`) or a transposed read of the arrays (`analog`).
"""

from dataclasses import replace
from functools import partial, reduce
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.custom_derivatives import SymbolicZero, linear_call

from cimc.planes import two_phases
from cimc.units import dac_step, weight_of
from runtime.crossbar.conversions import Applied, convert, row_blocks
from runtime.crossbar.converters import dac
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.figures import figure
from runtime.crossbar.groups import by_group, for_groups, split_groups
from runtime.crossbar.product import apply_inputs, read_vectors, scale_sums
from runtime.crossbar.unfold import unfold
from runtime.crossbar.xla import once


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def layer_output(
    layer: Crossbar,
    x: Array,
    weight: Array,
    gain: Array,
    bias: Array | None,
    conductance: Array,
    weight_range: Array,
    input_range: Array,
    key: Array | None,
    reference: Array | None = None,
) -> Array:
    """The layer's output y for every MVM, read on the arrays; differentiable in x, weight, gain and bias.

    Args:
        layer: static description.
        x: [C, *spatial, N] or [rows, ...].
        weight: digital copy of the weights [rows, columns]; used in derivatives only.
        gain: scalar or [columns], the layer's digital gain; scalar where `backward` is analog.
        bias: [columns] or None.
        conductance: [devices, rows, columns] in uS; of a pair G+ and G-.
        weight_range: scalar or [columns], the weight of a fully programmed pair.
        input_range: scalar, the input of the DAC's largest code.
        key: for read and ADC noise; None: no noise.
        reference: of its reference columns [rows, groups x column blocks] in uS; None: as they are to be.

    Returns:
        [columns, MVMs].
    """
    reading = layer.traced_reading
    d = read_vectors(reading, apply_inputs(reading, x, input_range)[1], conductance, key, reference)
    return scale_sums(reading, d, gain, bias, weight_range, input_range)


def _straight_through(layer: Crossbar, primals: tuple[Any, ...], tangents: tuple[Any, ...]) -> tuple[Array, Array]:
    """The output and its tangent; the devices and the ranges count as constants."""
    x, weight, gain, bias, conductance, weight_range, input_range, key, reference = primals
    x_dot, weight_dot, gain_dot, bias_dot = (None if isinstance(t, SymbolicZero) else t for t in tangents[:4])
    reading = layer.traced_reading
    _, vectors = apply_inputs(reading, x, input_range)
    d = read_vectors(reading, vectors, conductance, key, reference)
    y = scale_sums(reading, d, gain, bias, weight_range, input_range)
    terms = []
    # Scales go to the weights, which are small; vectors and y are large.
    if weight_dot is not None:
        terms.append(_multiply(layer, weight_dot * (_dac_step(layer, input_range) * gain), vectors))
    if x_dot is not None:
        vectors_dot = unfold(once(x_dot), layer.window)
        if layer.backward == "digital":
            terms.append(_multiply(layer, weight * gain, vectors_dot))
        else:
            terms.append(_multiply_by_devices(layer, vectors_dot * gain, conductance, weight_range, key))
    # As products of vectors: their transposes are products too, where XLA's own sums over several axes take a quarter
    # of a VGG-8 training step.
    shift = bias_dot
    if gain_dot is not None:
        growth = gain_dot / gain
        if growth.ndim:
            terms.append(y * growth[:, None])
        else:
            terms.append(_outer_product(y.reshape(-1), growth).reshape(y.shape))
        if bias is not None:
            shift = -bias * growth if shift is None else shift - bias * growth
    if shift is not None:
        terms.append(_outer_product(shift, jnp.ones(y.shape[1], jnp.float32)))
    return y, once(reduce(jnp.add, terms)) if terms else jnp.zeros_like(y)


# With symbolic zeros, no product is made for what is not differentiated, such as the input of the first layer.
layer_output.defjvp(_straight_through, symbolic_zeros=True)


def _dac_step(layer: Crossbar, input_range: Array) -> Array:
    """The input that one DAC unit stands for."""
    if layer.chip.input.bits is None:
        return jnp.float32(1)
    return input_range * figure(dac_step(np.float32(1), layer.chip, layer.signed))


def _multiply(layer: Crossbar, weight: Array, vectors: Array) -> Array:
    """W^T v of each group: [columns, MVMs]."""
    if layer.groups == 1:
        return weight.T @ vectors
    y = jax.vmap(lambda w, v: w.T @ v)(by_group(weight, layer.groups), split_groups(vectors, layer.groups))
    return y.reshape(-1, y.shape[-1])


def _multiply_by_devices(
    layer: Crossbar, vectors: Array, conductance: Array, weight_range: Array, key: Array | None
) -> Array:
    """W^T v with the weights that the devices hold, whose transpose is a read of the arrays.

    JAX has no rule to map it (`jax.vmap` of a derivative with `backward="analog"`); reads of a batch need none.
    """

    def forward(held: tuple[Array, Array, Array | None], v: Array) -> Array:
        return _multiply(layer, weight_of(held[0], held[1], layer.chip), v)

    def transpose(held: tuple[Array, Array, Array | None], y_bar: Array) -> Array:
        conductance, weight_range, key = held

        def one(g: Array, bar: Array, group_key: Array | None) -> Array:
            return transposed_read(layer, bar, g, weight_range, group_key)

        if layer.groups == 1:
            return one(conductance, y_bar, key)
        v_bar = for_groups(one, (by_group(conductance, layer.groups), split_groups(y_bar, layer.groups)), key)
        return v_bar.reshape(-1, v_bar.shape[-1])

    found: Array = linear_call(forward, transpose, (conductance, weight_range, key), vectors)
    return found


def _outer_product(a: Array, b: Array) -> Array:
    """[n] and [m] or a scalar -> [n, m] or [n]."""
    return jax.lax.dot_general(a, b, (((), ()), ((), ())))


def transposed_read(layer: Crossbar, y_bar: Array, conductance: Array, weight_range: Array, key: Array | None) -> Array:
    """The input gradient by reading the arrays backwards: bit lines are driven, word-line currents converted.

    In the first phase the positive part of a gradient drives the devices that count positively and the negative part
    the others (G+ and G- of a pair), in the second phase the reverse; the phases are subtracted. The DAC range is the
    largest gradient of the batch, so that gradients far below it are lost in the ADC's step and noise. Row lines see
    the same converters.

    Args:
        layer: static description.
        y_bar: [columns, MVMs] gradients with respect to x W.
        conductance: [devices, rows, columns] in uS.
        weight_range: scalar.
        key: for noise; None: none.

    Returns:
        [rows, MVMs].
    """
    signs = layer.chip.scheme.signs
    bit_lines = len(signs) * layer.column_block
    reading = replace(layer, signed=True, read_rows=bit_lines).traced_reading
    largest = jnp.maximum(jnp.max(jnp.abs(y_bar)), jnp.float32(1e-30))
    u = dac(y_bar, largest, reading)
    plus, minus = two_phases(u)
    # The bit lines as rows of a transposed array: those of all devices of a weight in one array are driven at once.
    phases = [
        jnp.stack([plus if sign * phase > 0 else minus for sign in signs], axis=1).reshape(-1, u.shape[1])
        for phase in (+1, -1)
    ]
    transposed = jnp.moveaxis(conductance, 0, 2).reshape(conductance.shape[1], -1).T
    noise_key = None if key is None else jax.random.fold_in(key, 1)
    both = jnp.concatenate(phases, axis=1)
    codes = [convert(reading, part) for part in row_blocks(Applied(both, transposed[None], None, noise_key), bit_lines)]
    sums = reduce(jnp.add, [block[0] for part in codes for block in part])
    d = sums[:, : u.shape[1]] - sums[:, u.shape[1] :]
    ranges = largest * weight_range if reading.converts_inputs else weight_range
    return d * (ranges * reading.figures.unit)
