"""Operators that pick or place values by index, and that search."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from runtime.network.operators.kinds import Attributes, Operators, static_ints, text, to_dtype


def _wrapped(indices: Any, size: int) -> Array:
    """Indices from the end counted from the start."""
    indices = jnp.asarray(indices)
    return jnp.where(indices < 0, indices + size, indices)


def _gather(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, axis = inputs[0], int(attributes.get("axis", 0))
    if isinstance(x, np.ndarray) and isinstance(inputs[1], np.ndarray):
        return np.take(x, inputs[1], axis)  # type: ignore[return-value]
    return jnp.take(jnp.asarray(x), _wrapped(inputs[1], x.shape[axis]), axis)


def _gather_elements(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, axis = jnp.asarray(inputs[0]), int(attributes.get("axis", 0))
    return x[_element_index(_wrapped(inputs[1], x.shape[axis]), axis % x.ndim)]


def _element_index(indices: Array, axis: int) -> tuple[Array, ...]:
    places = list(jnp.indices(indices.shape, sparse=True))
    places[axis] = indices
    return tuple(places)


def _gather_nd(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, indices, batch = jnp.asarray(inputs[0]), jnp.asarray(inputs[1]), int(attributes.get("batch_dims", 0))

    def pick(x: Array, indices: Array) -> Array:
        return x[tuple(_wrapped(indices[..., axis], x.shape[axis]) for axis in range(indices.shape[-1]))]

    for _ in range(batch):
        pick = jax.vmap(pick)
    return pick(x, indices)


def _scatter_nd(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, indices = jnp.asarray(inputs[0]), jnp.asarray(inputs[1])
    where = tuple(_wrapped(indices[..., axis], x.shape[axis]) for axis in range(indices.shape[-1]))
    return _reduced(x.at[where], jnp.asarray(inputs[2]), text(attributes, "reduction", "none"))


def _scatter_elements(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x, axis = jnp.asarray(inputs[0]), int(attributes.get("axis", 0)) % np.ndim(inputs[0])
    where = _element_index(_wrapped(inputs[1], x.shape[axis]), axis)
    return _reduced(x.at[where], jnp.asarray(inputs[2]), text(attributes, "reduction", "none"))


def _reduced(place: Any, updates: Array, reduction: str) -> Array:
    names = {"none": "set", "add": "add", "mul": "multiply", "max": "max", "min": "min"}
    return getattr(place, names[reduction])(updates)


def _one_hot(inputs: Sequence[Any], attributes: Attributes) -> Array:
    depth, axis = static_ints(inputs[1], "the depth of a OneHot")[0], int(attributes.get("axis", -1))
    indices = jnp.asarray(inputs[0]).astype(jnp.int32)
    hot = jax.nn.one_hot(_wrapped(indices, depth), depth, axis=axis)
    off, on = jnp.asarray(inputs[2])
    return jnp.where(hot > 0, on, off)


def _eye_like(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    kind = to_dtype(attributes["dtype"]) if "dtype" in attributes else x.dtype
    return jnp.eye(x.shape[0], x.shape[1], int(attributes.get("k", 0)), dtype=kind)


def _top_k(inputs: Sequence[Any], attributes: Attributes) -> tuple[Array, Array]:
    x, k = jnp.asarray(inputs[0]), static_ints(inputs[1], "the number of a TopK")[0]
    axis = int(attributes.get("axis", -1))
    # A stable sort puts the lower index first among equals, as ONNX wants it.
    order = jnp.argsort(x, axis=axis, stable=True, descending=bool(attributes.get("largest", 1)))
    order = jnp.take(order, jnp.arange(k), axis)
    return jnp.take_along_axis(x, order, axis), order


def _arg(find: Any) -> Any:
    def operator(inputs: Sequence[Any], attributes: Attributes) -> Array:
        x, axis = jnp.asarray(inputs[0]), int(attributes.get("axis", 0))
        keep = bool(attributes.get("keepdims", 1))
        if not attributes.get("select_last_index", 0):
            return find(x, axis, keepdims=keep)
        return x.shape[axis] - 1 - find(jnp.flip(x, axis), axis, keepdims=keep)

    return operator


INDEXING: Operators = {
    "ArgMax": _arg(jnp.argmax),
    "ArgMin": _arg(jnp.argmin),
    "EyeLike": _eye_like,
    "Gather": _gather,
    "GatherElements": _gather_elements,
    "GatherND": _gather_nd,
    "OneHot": _one_hot,
    "ScatterElements": _scatter_elements,
    "ScatterND": _scatter_nd,
    "TopK": _top_k,
}
