"""Groups of a convolution: each has its own inputs and arrays, and all of them are computed at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array


def by_group(matrix: Array, groups: int) -> Array:
    """Columns of each group: [..., rows, columns] -> [groups, ..., rows, columns / groups]."""
    split = matrix.reshape(*matrix.shape[:-1], groups, -1)
    return jnp.moveaxis(split, -2, 0)


def split_groups(vectors: Array, groups: int) -> Array:
    """Rows of each group: [rows, MVMs] -> [groups, rows / groups, MVMs]."""
    return vectors.reshape(groups, -1, vectors.shape[-1])


def for_groups(function: Callable[..., Array], arguments: tuple[Array, ...], key: Array | None) -> Array:
    """`function` of each group's part of the arguments [groups, ...] and a key of its own (None: of None), at once.

    Of a vector of keys each group has a vector.
    """
    if key is None:
        return jax.vmap(lambda *parts: function(*parts, None))(*arguments)
    groups = len(arguments[0])
    if key.ndim:
        return jax.vmap(function)(*arguments, jax.vmap(lambda one: jax.random.split(one, groups), out_axes=1)(key))
    return jax.vmap(function)(*arguments, jax.random.split(key, groups))
