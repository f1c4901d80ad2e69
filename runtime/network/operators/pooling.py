"""Pooling over windows and over whole images.

`POOLS` are functions that take the first spatial axis besides: 2 in ONNX, 1 with images last
(`runtime.network.image_order`).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax

from cimc.errors import CimcError
from runtime.crossbar.xla import once
from runtime.network.operators.kinds import Attributes, Operator, Operators

# Inputs, attributes and the first spatial axis -> the output.
Pool = Callable[[Sequence[Any], Attributes, int], Array]


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


def _padding(pads: Sequence[tuple[int, int]], first: int, rank: int) -> list[tuple[int, int]]:
    """Pads of all axes from those of the spatial ones."""
    return [(0, 0)] * first + list(pads) + [(0, 0)] * (rank - first - len(pads))


def _spatial(x: Array, attributes: Attributes, first: int) -> tuple[int, ...]:
    return x.shape[first : first + len(attributes["kernel_shape"])]


def _max_pool(inputs: Sequence[Any], attributes: Attributes, first: int) -> Array:
    x = jnp.asarray(inputs[0])
    kernel = [int(k) for k in attributes["kernel_shape"]]
    strides, dilations, pads = pool_padding(attributes, _spatial(x, attributes, first))
    if any(map(any, pads)):
        whole = jnp.issubdtype(x.dtype, jnp.integer)
        lowest = jnp.asarray(jnp.iinfo(x.dtype).min if whole else -jnp.inf, x.dtype)
        outside = [(max(begin, 0), end) for begin, end in pads]
        x = lax.pad(x, lowest, [(begin, end, 0) for begin, end in _padding(outside, first, x.ndim)])
    # The maximum of strided slices, one axis after the other: on a CPU it and its gradient cost a tenth of those of a
    # maximum over reshaped axes (tests/benchmarks/README.md).
    for axis, (size, stride, dilation) in enumerate(zip(kernel, strides, dilations, strict=True), start=first):
        if size == stride and dilation == 1 and jnp.issubdtype(x.dtype, jnp.floating):
            x = _largest_of_each(x, axis, size)
        else:
            x = functools.reduce(_larger, _slices(x, axis, size, stride, dilation))
    return x


def _slices(x: Array, axis: int, size: int, stride: int, dilation: int) -> list[Array]:
    """The values at each place of a window that slides along an axis."""
    span = (x.shape[axis] - (size - 1) * dilation - 1) // stride * stride + 1
    return [lax.slice_in_dim(x, offset * dilation, offset * dilation + span, stride, axis) for offset in range(size)]


@functools.partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _largest_of_each(x: Array, axis: int, size: int) -> Array:
    """The maximum of each `size` values along an axis; its gradient goes to the first of equal ones.

    The tangent is split into one array a place, so that the gradient is stacked from them, which is a copy of whole
    runs; the gradients of strided slices are sums of widened arrays, which XLA's CPU compiler does not vectorise.
    """
    return functools.reduce(jnp.maximum, _slices(x, axis, size, size, 1))


@_largest_of_each.defjvp
def _largest_tangent(axis: int, size: int, primals: tuple[Array], tangents: tuple[Array]) -> tuple[Array, Array]:
    (x,), (x_dot,) = primals, tangents
    slices = _slices(x, axis, size, size, 1)
    largest = functools.reduce(jnp.maximum, slices)
    count = largest.shape[axis]
    # Without what lies behind the last window.
    covered = once(lax.slice_in_dim(x_dot, 0, count * size, 1, axis))
    by_window = covered.reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
    found, parts = jnp.zeros(largest.shape, bool), []
    for values, dot in zip(slices, lax.split(by_window, [1] * size, axis + 1), strict=True):
        here = (values == largest) & ~found
        parts.append(jnp.where(here, jnp.squeeze(dot, axis + 1), 0))
        found |= here
    return largest, functools.reduce(jnp.add, parts)


@jax.custom_jvp
def _larger(a: Array, b: Array) -> Array:
    """max(a, b) whose gradient goes to `a` where they are equal: half as many operations as JAX's shared gradient."""
    return jnp.maximum(a, b)


@_larger.defjvp
def _larger_tangent(primals: tuple[Array, Array], tangents: tuple[Array, Array]) -> tuple[Array, Array]:
    (a, b), (a_dot, b_dot) = primals, tangents
    return _larger(a, b), jnp.where(a < b, b_dot, a_dot)


def _average_pool(inputs: Sequence[Any], attributes: Attributes, first: int) -> Array:
    x = inputs[0]
    spatial = _spatial(x, attributes, first)
    kernel = [int(k) for k in attributes["kernel_shape"]]
    strides, dilations, pads = pool_padding(attributes, spatial)

    def along_all(sizes: Sequence[int]) -> tuple[int, ...]:
        return (*(1,) * first, *sizes, *(1,) * (x.ndim - first - len(kernel)))

    def window_sum(values: Array, padding: Sequence[tuple[int, int]]) -> Array:
        return lax.reduce_window(
            values,
            0.0,
            lax.add,
            along_all(kernel),
            along_all(strides),
            _padding(padding, first, x.ndim),
            window_dilation=along_all(dilations),
        )

    counted = jnp.ones(along_all(spatial), x.dtype)
    if attributes.get("count_include_pad", 0):
        # Pads that the node asks for count; those that only ceil mode added do not.
        strict_pads = pool_padding({**attributes, "ceil_mode": 0}, spatial)[2]
        counted = jnp.pad(counted, _padding(strict_pads, first, x.ndim), constant_values=1)
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


def _global(function: Callable[..., Array]) -> Pool:
    def pool(inputs: Sequence[Any], attributes: Attributes, first: int) -> Array:
        x = jnp.asarray(inputs[0])
        return function(x, axis=tuple(range(first, first + x.ndim - 2)), keepdims=True)

    return pool


POOLS: dict[str, Pool] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(jnp.mean),
    "GlobalMaxPool": _global(jnp.max),
    "MaxPool": _max_pool,
}


def _images_first(pool: Pool) -> Operator:
    return lambda inputs, attributes: pool(inputs, attributes, 2)


POOLING: Operators = {
    "GlobalLpPool": _global_lp,
    "LpPool": _lp_pool,
    **{name: _images_first(pool) for name, pool in POOLS.items()},
}
