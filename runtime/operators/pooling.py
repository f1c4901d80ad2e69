"""Pooling over windows and over whole images."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from cimc.errors import CimcError
from runtime.operators.kinds import Attributes, Operator, Operators


def pool_padding(attributes: Attributes, spatial: Sequence[int]) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Strides, dilations and (begin, end) pads of a pooling node, with auto_pad and ceil_mode resolved.

    In ceil mode the end pad grows until the last window is covered; one that would start in the end pad is left out.
    """
    kernel = [int(k) for k in attributes["kernel_shape"]]
    axes = len(kernel)
    strides = [int(s) for s in attributes.get("strides", [1] * axes)]
    dilations = [int(d) for d in attributes.get("dilations", [1] * axes)]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    mode = attributes.get("auto_pad", "NOTSET")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        totals = [(-(-n // s) - 1) * s + span - n for n, s, span in zip(spatial, strides, spans, strict=True)]
        if min(totals) < 0 or max(dilations) > 1:
            raise CimcError(f"pooling with {mode} and gaps or dilations is ambiguous; export it with explicit pads")
        smaller = [total // 2 for total in totals]
        larger = [total - half for total, half in zip(totals, smaller, strict=True)]
        pads = list(zip(smaller, larger, strict=True) if mode == "SAME_UPPER" else zip(larger, smaller, strict=True))
        return strides, dilations, pads
    flat = [int(p) for p in attributes.get("pads", [0] * 2 * axes)] if mode == "NOTSET" else [0] * 2 * axes
    pads = [(flat[a], flat[axes + a]) for a in range(axes)]
    if attributes.get("ceil_mode", 0):
        for a, (n, span, stride) in enumerate(zip(spatial, spans, strides, strict=True)):
            begin, end = pads[a]
            outputs = -(-(n + begin + end - span) // stride) + 1
            outputs -= (outputs - 1) * stride >= n + begin
            pads[a] = (begin, (outputs - 1) * stride + span - n - begin)
    return strides, dilations, pads


def _max_pool(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    kernel = [int(k) for k in attributes["kernel_shape"]]
    strides, dilations, pads = pool_padding(attributes, x.shape[2:])
    if any(map(any, pads)):
        whole = jnp.issubdtype(x.dtype, jnp.integer)
        lowest = jnp.asarray(jnp.iinfo(x.dtype).min if whole else -jnp.inf, x.dtype)
        x = lax.pad(x, lowest, [(0, 0, 0), (0, 0, 0), *((max(begin, 0), end, 0) for begin, end in pads)])
    # The maximum of strided slices, one axis after the other: on a CPU it and its gradient cost a tenth of those of a
    # maximum over reshaped axes (tests/benchmarks/README.md).
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), start=2):
        span = (x.shape[axis] - (size - 1) * dilation - 1) // stride * stride + 1
        slices = [
            lax.slice_in_dim(x, offset * dilation, offset * dilation + span, stride, axis) for offset in range(size)
        ]
        x = functools.reduce(_larger, slices)
    return x


@jax.custom_jvp
def _larger(a: Array, b: Array) -> Array:
    """max(a, b) whose gradient goes to `a` where they are equal: half as many operations as JAX's shared gradient."""
    return jnp.maximum(a, b)


@_larger.defjvp
def _larger_tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (a_dot, b_dot) = primals, tangents
    return _larger(a, b), jnp.where(a < b, b_dot, a_dot)


def _average_pool(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = inputs[0]
    kernel = [int(k) for k in attributes["kernel_shape"]]
    strides, dilations, pads = pool_padding(attributes, x.shape[2:])

    def window_sum(values: Array, padding: Sequence[tuple[int, int]]) -> Array:
        return lax.reduce_window(
            values,
            0.0,
            lax.add,
            (1, 1, *kernel),
            (1, 1, *strides),
            [(0, 0), (0, 0), *padding],
            window_dilation=(1, 1, *dilations),
        )

    counted = jnp.ones((1, 1, *x.shape[2:]), x.dtype)
    if attributes.get("count_include_pad", 0):
        # Pads that the node asks for count; those that only ceil mode added do not.
        strict_pads = pool_padding({**attributes, "ceil_mode": 0}, x.shape[2:])[2]
        counted = jnp.pad(counted, [(0, 0), (0, 0), *strict_pads], constant_values=1)
        rest = [(0, end - strict_end) for (_, end), (_, strict_end) in zip(pads, strict_pads, strict=True)]
        return window_sum(x, pads) / window_sum(counted, rest)
    return window_sum(x, pads) / window_sum(counted, pads)


def _lp_pool(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, p = jnp.asarray(inputs[0]), float(attributes.get("p", 2))
    kernel = [int(k) for k in attributes["kernel_shape"]]
    strides, dilations, pads = pool_padding(attributes, x.shape[2:])
    window = (1, 1, *kernel), (1, 1, *strides), [(0, 0), (0, 0), *pads]
    total = lax.reduce_window(jnp.abs(x) ** p, 0.0, lax.add, *window, window_dilation=(1, 1, *dilations))
    return total ** (1 / p)


def _global_lp(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, p = jnp.asarray(inputs[0]), float(attributes.get("p", 2))
    return jnp.sum(jnp.abs(x) ** p, axis=tuple(range(2, x.ndim)), keepdims=True) ** (1 / p)


def _global(function: Callable[..., Array]) -> Operator:
    return lambda inputs, attributes: function(inputs[0], axis=tuple(range(2, inputs[0].ndim)), keepdims=True)


POOLING: Operators = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(jnp.mean),
    "GlobalLpPool": _global_lp,
    "GlobalMaxPool": _global(jnp.max),
    "LpPool": _lp_pool,
    "MaxPool": _max_pool,
}
