"""Operators that reduce axes or normalise over them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from runtime.network.operators.kinds import Attributes, Operator, Operators, given, optional_axes, static_ints


def _reduce(function: Callable[..., Array]) -> Operator:
    def operator(inputs: Sequence[Any], attributes: Attributes) -> Array:
        x, axes = jnp.asarray(inputs[0]), optional_axes(inputs, attributes)
        keep = bool(attributes.get("keepdims", 1))
        if axes is None and attributes.get("noop_with_empty_axes", 0):
            axes, keep = (), True
        return function(x, axis=axes, keepdims=keep).astype(x.dtype)

    return operator


def _extreme(function: Callable[..., Array], sign: int) -> Callable[..., Array]:
    """Maximum or minimum; over no values at all the least or greatest value of the type."""

    def extreme(x: Array, **options: Any) -> Array:
        if x.size:
            return function(x, **options)
        if x.dtype == jnp.bool_:
            return function(x, **options, initial=sign < 0)
        limits = None if jnp.issubdtype(x.dtype, jnp.floating) else jnp.iinfo(x.dtype)
        least = -sign * jnp.inf if limits is None else (limits.min if sign > 0 else limits.max)
        return function(x, **options, initial=least)

    return extreme


def _sum_square(x: Array, **options: Any) -> Array:
    return jnp.sum(jnp.square(x), **options)


def _norm1(x: Array, **options: Any) -> Array:
    return jnp.sum(jnp.abs(x), **options)


def _norm2(x: Array, **options: Any) -> Array:
    return jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)), **options))


def _log_sum(x: Array, **options: Any) -> Array:
    return jnp.log(jnp.sum(x, **options))


def _cumsum(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, axis = jnp.asarray(inputs[0]), static_ints(inputs[1], "the axis of a CumSum")[0]
    x = jnp.flip(x, axis) if attributes.get("reverse", 0) else x
    total = jnp.cumsum(x, axis, dtype=x.dtype)
    total = total - x if attributes.get("exclusive", 0) else total
    return jnp.flip(total, axis) if attributes.get("reverse", 0) else total


def _softmax(function: Callable[..., Array]) -> Operator:
    return lambda inputs, attributes: function(jnp.asarray(inputs[0]), axis=int(attributes.get("axis", -1)))


def _hardmax(x: Array, axis: int) -> Array:
    return jax.nn.one_hot(jnp.argmax(x, axis), x.shape[axis], dtype=x.dtype, axis=axis)


def _layer_norm(inputs: Sequence[Any], attributes: Attributes) -> tuple[Array, Array, Array]:
    x, scale, bias = jnp.asarray(inputs[0]), jnp.asarray(inputs[1]), given(inputs, 2)
    axes = tuple(range(int(attributes.get("axis", -1)) % x.ndim, x.ndim))
    mean = jnp.mean(x, axes, keepdims=True)
    inverse = 1 / jnp.sqrt(jnp.mean(jnp.square(x - mean), axes, keepdims=True) + float(attributes.get("epsilon", 1e-5)))
    y = (x - mean) * inverse * scale
    return y if bias is None else y + jnp.asarray(bias), mean, inverse


def _rms_norm(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    axes = tuple(range(int(attributes.get("axis", -1)) % x.ndim, x.ndim))
    square = jnp.mean(jnp.square(x), axes, keepdims=True)
    return x / jnp.sqrt(square + float(attributes.get("epsilon", 1e-5))) * jnp.asarray(inputs[1])


def _standardised(x: Array, axes: tuple[int, ...], epsilon: float) -> Array:
    mean = jnp.mean(x, axes, keepdims=True)
    return (x - mean) / jnp.sqrt(jnp.mean(jnp.square(x - mean), axes, keepdims=True) + epsilon)


def _per_channel(vector: Any, x: Array) -> Array:
    return jnp.asarray(vector).reshape(-1, *(1,) * (x.ndim - 2))


def _instance_norm(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    y = _standardised(x, tuple(range(2, x.ndim)), float(attributes.get("epsilon", 1e-5)))
    return y * _per_channel(inputs[1], x) + _per_channel(inputs[2], x)


def _group_norm(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, groups = jnp.asarray(inputs[0]), int(attributes["num_groups"])
    split = x.reshape(x.shape[0], groups, -1)
    y = _standardised(split, (2,), float(attributes.get("epsilon", 1e-5))).reshape(x.shape)
    return y * _per_channel(inputs[1], x) + _per_channel(inputs[2], x)


def _mean_variance_norm(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    axes = tuple(int(a) for a in attributes.get("axes", (0, 2, 3)))
    spread = jnp.sqrt(jnp.mean(jnp.square(x), axes, keepdims=True) - jnp.square(jnp.mean(x, axes, keepdims=True)))
    return (x - jnp.mean(x, axes, keepdims=True)) / (spread + 1e-9)


def _lp_norm(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, axis = jnp.asarray(inputs[0]), int(attributes.get("axis", -1))
    norm = (_norm1 if attributes.get("p", 2) == 1 else _norm2)(x, axis=axis, keepdims=True)
    return jnp.where(norm == 0, 0, x / jnp.where(norm == 0, 1, norm))


def _lrn(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, size = jnp.asarray(inputs[0]), int(attributes["size"])
    alpha, beta = float(attributes.get("alpha", 1e-4)), float(attributes.get("beta", 0.75))
    low = (size - 1) // 2
    padded = jnp.pad(jnp.square(x), [(0, 0), (low, size - 1 - low), *[(0, 0)] * (x.ndim - 2)])
    total = sum(padded[:, offset : offset + x.shape[1]] for offset in range(size))
    return x / (float(attributes.get("bias", 1.0)) + alpha / size * total) ** beta


REDUCTIONS: Operators = {
    "CumSum": _cumsum,
    "GroupNormalization": _group_norm,
    "Hardmax": _softmax(_hardmax),
    "InstanceNormalization": _instance_norm,
    "LRN": _lrn,
    "LayerNormalization": _layer_norm,
    "LogSoftmax": _softmax(jax.nn.log_softmax),
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mean_variance_norm,
    "RMSNormalization": _rms_norm,
    "ReduceL1": _reduce(_norm1),
    "ReduceL2": _reduce(_norm2),
    "ReduceLogSum": _reduce(_log_sum),
    "ReduceLogSumExp": _reduce(jax.scipy.special.logsumexp),
    "ReduceMax": _reduce(_extreme(jnp.max, 1)),
    "ReduceMean": _reduce(jnp.mean),
    "ReduceMin": _reduce(_extreme(jnp.min, -1)),
    "ReduceProd": _reduce(jnp.prod),
    "ReduceSum": _reduce(jnp.sum),
    "ReduceSumSquare": _reduce(_sum_square),
    "Softmax": _softmax(jax.nn.softmax),
}
