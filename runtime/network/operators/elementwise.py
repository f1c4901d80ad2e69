"""Operators on each element alone: arithmetic, comparison, logic, activations, types."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from runtime.network.operators.kinds import Attributes, Operator, Operators, given, text, to_dtype


def _unary(function: Callable[[Any], Any]) -> Operator:
    return lambda inputs, attributes: function(jnp.asarray(inputs[0]))


def _binary(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda inputs, attributes: function(jnp.asarray(inputs[0]), jnp.asarray(inputs[1]))


def _fold(function: Callable[[Any, Any], Any]) -> Operator:
    return lambda inputs, attributes: functools.reduce(function, [jnp.asarray(x) for x in inputs])


def _divide(a: Array, b: Array) -> Array:
    """Integers are divided towards zero."""
    if not jnp.issubdtype(a.dtype, jnp.integer):
        return a / b
    wide, other = jnp.broadcast_arrays(a, b)
    return lax.div(wide, other)


def _mod(inputs: Sequence[Any], attributes: Attributes) -> Array:
    a, b = jnp.asarray(inputs[0]), jnp.asarray(inputs[1])
    return jnp.fmod(a, b) if attributes.get("fmod", 0) else jnp.mod(a, b)


def _power(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, y = jnp.asarray(inputs[0]), inputs[1]
    whole = isinstance(y, np.ndarray) and y.size == 1 and float(y.reshape(())) == int(y.reshape(()))
    # A constant whole exponent keeps negative bases and their gradients exact.
    if whole and jnp.issubdtype(x.dtype, jnp.floating):
        return lax.integer_pow(x, int(y.reshape(()))) * jnp.ones(np.shape(y), x.dtype)
    return jnp.power(x, jnp.asarray(y)).astype(x.dtype)


def _shift(inputs: Sequence[Any], attributes: Attributes) -> Array:
    shift = jnp.left_shift if text(attributes, "direction", "LEFT") == "LEFT" else jnp.right_shift
    return shift(jnp.asarray(inputs[0]), jnp.asarray(inputs[1]))


def _mean(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return functools.reduce(jnp.add, [jnp.asarray(x) for x in inputs]) / len(inputs)


def _clip(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, low, high = jnp.asarray(inputs[0]), given(inputs, 1), given(inputs, 2)
    x = x if low is None else jnp.maximum(x, jnp.asarray(low))
    return x if high is None else jnp.minimum(x, jnp.asarray(high))


def _cast(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return _to(jnp.asarray(inputs[0]), to_dtype(attributes["to"]))


def _cast_like(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return _to(jnp.asarray(inputs[0]), jnp.asarray(inputs[1]).dtype)


def _to(x: Array, kind: Any) -> Array:
    return x != 0 if kind == jnp.bool_ else x.astype(kind)


def _elu(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jax.nn.elu(inputs[0], float(attributes.get("alpha", 1.0)))


def _selu(inputs: Sequence[Any], attributes: Attributes) -> Array:
    alpha = float(attributes.get("alpha", 1.67326319217681884765625))
    gamma = float(attributes.get("gamma", 1.05070102214813232421875))
    return gamma * jax.nn.elu(inputs[0], alpha)


def _celu(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jax.nn.celu(inputs[0], float(attributes.get("alpha", 1.0)))


def _leaky_relu(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jax.nn.leaky_relu(inputs[0], float(attributes.get("alpha", 0.01)))


def _thresholded_relu(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    return jnp.where(x > float(attributes.get("alpha", 1.0)), x, 0)


def _prelu(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    return jnp.where(x < 0, x * jnp.asarray(inputs[1]), x)


def _hard_sigmoid(inputs: Sequence[Any], attributes: Attributes) -> Array:
    alpha, beta = float(attributes.get("alpha", 0.2)), float(attributes.get("beta", 0.5))
    return jnp.clip(alpha * jnp.asarray(inputs[0]) + beta, 0, 1)


def _hard_swish(x: Array) -> Array:
    return x * jnp.clip(x / 6 + 0.5, 0, 1)


def _gelu(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jax.nn.gelu(inputs[0], approximate=text(attributes, "approximate", "none") == "tanh")


def _swish(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    return x * jax.nn.sigmoid(float(attributes.get("alpha", 1.0)) * x)


def _shrink(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    bias, limit = float(attributes.get("bias", 0.0)), float(attributes.get("lambd", 0.5))
    return jnp.where(x < -limit, x + bias, jnp.where(x > limit, x - bias, 0)).astype(x.dtype)


def _is_inf(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    up, down = (bool(attributes.get(f"detect_{side}", 1)) for side in ("positive", "negative"))
    return (jnp.isposinf(x) & up) | (jnp.isneginf(x) & down)


def _where(inputs: Sequence[Any], attributes: Attributes) -> Array:
    condition, one, other = (jnp.asarray(x) for x in inputs)
    return jnp.where(condition, one, other)


ELEMENTWISE: Operators = {
    "Abs": _unary(jnp.abs),
    "Acos": _unary(jnp.arccos),
    "Acosh": _unary(jnp.arccosh),
    "Add": _binary(jnp.add),
    "And": _binary(jnp.logical_and),
    "Asin": _unary(jnp.arcsin),
    "Asinh": _unary(jnp.arcsinh),
    "Atan": _unary(jnp.arctan),
    "Atanh": _unary(jnp.arctanh),
    "BitShift": _shift,
    "BitwiseAnd": _binary(jnp.bitwise_and),
    "BitwiseNot": _unary(jnp.bitwise_not),
    "BitwiseOr": _binary(jnp.bitwise_or),
    "BitwiseXor": _binary(jnp.bitwise_xor),
    "Cast": _cast,
    "CastLike": _cast_like,
    "Ceil": _unary(jnp.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": _unary(jnp.cos),
    "Cosh": _unary(jnp.cosh),
    "Div": _binary(_divide),
    "Elu": _elu,
    "Equal": _binary(jnp.equal),
    "Erf": _unary(jax.scipy.special.erf),
    "Exp": _unary(jnp.exp),
    "Floor": _unary(jnp.floor),
    "Gelu": _gelu,
    "Greater": _binary(jnp.greater),
    "GreaterOrEqual": _binary(jnp.greater_equal),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary(_hard_swish),
    "Identity": _unary(jnp.asarray),
    "IsInf": _is_inf,
    "IsNaN": _unary(jnp.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": _binary(jnp.less),
    "LessOrEqual": _binary(jnp.less_equal),
    "Log": _unary(jnp.log),
    "Max": _fold(jnp.maximum),
    "Mean": _mean,
    "Min": _fold(jnp.minimum),
    "Mish": _unary(jax.nn.mish),
    "Mod": _mod,
    "Mul": _binary(jnp.multiply),
    "Neg": _unary(jnp.negative),
    "Not": _unary(jnp.logical_not),
    "Or": _binary(jnp.logical_or),
    "PRelu": _prelu,
    "Pow": _power,
    "Reciprocal": _unary(jnp.reciprocal),
    "Relu": _unary(jax.nn.relu),
    "Round": _unary(jnp.round),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": _unary(jax.nn.sigmoid),
    "Sign": _unary(jnp.sign),
    "Sin": _unary(jnp.sin),
    "Sinh": _unary(jnp.sinh),
    "Softplus": _unary(jax.nn.softplus),
    "Softsign": _unary(jax.nn.soft_sign),
    "Sqrt": _unary(jnp.sqrt),
    "Sub": _binary(jnp.subtract),
    "Sum": _fold(jnp.add),
    "Swish": _swish,
    "Tan": _unary(jnp.tan),
    "Tanh": _unary(jnp.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": _where,
    "Xor": _binary(jnp.logical_xor),
}
