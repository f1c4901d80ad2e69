"""Digital quantisation of values. Integers pass no gradient on; a quantiser joined with its inverse does."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from runtime.network.operators.kinds import Attributes, Operators, given, to_dtype


def _along(parameter: Any, x: Array, attributes: Attributes) -> Array:
    """A scale or zero point in the shape of x: one value, one an index of the axis, or one a block of the axis."""
    parameter = jnp.asarray(parameter)
    axis, block = int(attributes.get("axis", 1)), int(attributes.get("block_size", 0))
    if parameter.ndim == 0 or (parameter.size == 1 and not block):
        return parameter.reshape(())
    axis %= x.ndim
    if block:
        return jnp.repeat(parameter, block, axis)[(*[slice(None)] * axis, slice(x.shape[axis]))]
    return parameter.reshape([-1 if a == axis else 1 for a in range(x.ndim)])


def _quantize(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, zero = jnp.asarray(inputs[0]), given(inputs, 2)
    kind = jnp.asarray(zero).dtype if zero is not None else to_dtype(attributes.get("output_dtype", 0) or 2)
    limits = jnp.iinfo(kind)
    shift = 0 if zero is None else _along(zero, x, attributes).astype(jnp.int32)
    level = jnp.round(x / _along(inputs[1], x, attributes)) + shift
    return jnp.clip(level, limits.min, limits.max).astype(kind)


def _dequantize(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, zero = jnp.asarray(inputs[0]), given(inputs, 2)
    scale = _along(inputs[1], x, attributes)
    shift = 0 if zero is None else _along(zero, x, attributes).astype(jnp.int32)
    return (x.astype(jnp.int32) - shift).astype(scale.dtype) * scale


def _dynamic_quantize(inputs: Sequence[Any], attributes: Attributes) -> tuple[Array, Array, Array]:
    x = jnp.asarray(inputs[0])
    low, high = jnp.minimum(jnp.min(x), 0), jnp.maximum(jnp.max(x), 0)
    scale = (high - low) / np.float32(255)
    zero = jnp.clip(jnp.round(-low / scale), 0, 255).astype(jnp.uint8)
    return jnp.clip(jnp.round(x / scale) + zero, 0, 255).astype(jnp.uint8), scale, zero


@jax.custom_jvp
def _straight_through(x: Array, quantised: Array, low: Array, high: Array) -> Array:
    """`quantised`, with the gradient of x clipped to [low, high] (arXiv 1308.3432)."""
    return quantised


@_straight_through.defjvp
def _straight_through_gradient(values: tuple[Array, ...], tangents: tuple[Array, ...]) -> tuple[Array, Array]:
    x, quantised, low, high = values
    return quantised, jnp.where((x >= low) & (x <= high), tangents[0], 0)


def _fake_quantize(inputs: Sequence[Any], attributes: Attributes) -> Array:
    level = _quantize(inputs, attributes)
    limits = jnp.iinfo(level.dtype)
    # Half a step further: what rounds to the last level is within.
    scale, zero = _along(inputs[1], level, attributes), given(inputs, 2)
    shift = 0.0 if zero is None else _along(zero, level, attributes).astype(jnp.float32)
    low, high = ((limit - shift) * scale for limit in (limits.min - 0.5, limits.max + 0.5))
    return _straight_through(jnp.asarray(inputs[0]), _dequantize([level, *inputs[1:]], attributes), low, high)


QUANTIZATION: Operators = {
    "DequantizeLinear": _dequantize,
    "DynamicQuantizeLinear": _dynamic_quantize,
    "FakeQuantize": _fake_quantize,
    "QuantizeLinear": _quantize,
}
