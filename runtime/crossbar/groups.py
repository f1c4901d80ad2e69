"""Groups of a convolution: each has its own inputs and arrays, and all of them are computed at once."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array


def by_group(matrix: Array, groups: int) -> Array:
    """Columns of each group: [..., rows, columns] -> [groups, ..., rows, columns / groups]."""
    split = matrix.reshape(*matrix.shape[:-1], groups, -1)
    return jnp.moveaxis(split, -2, 0)


def split_groups(vectors: Array, groups: int) -> Array:
    """Rows of each group: [rows, MVMs] -> [groups, rows / groups, MVMs]."""
    return vectors.reshape(groups, -1, vectors.shape[-1])


def join_groups(
    vectors: Array, conductance: Array, groups: int, *, together: int, read_rows: int, idle: np.float32
) -> tuple[Array, Array]:
    """Every `together` groups as one, with the cells between them: `idle` conductance, in rows that are driven too.

    Args:
        vectors: [rows, MVMs] of all groups.
        conductance: [devices, rows of a group, columns of all groups].
        groups: of the layer; a multiple of `together`.
        together: groups that are driven at once.
        read_rows: rows of each that are.
        idle: conductance of a cell without a weight.

    Returns:
        Vectors and conductance of groups / together groups. Rows that are driven at once follow one another, `together`
        x `read_rows` of them; the last read may have fewer.
    """
    devices, rows, columns = conductance.shape
    sets, width = groups // together, columns // groups
    parts = [range(start, min(start + read_rows, rows)) for start in range(0, rows, read_rows)]
    order = np.array([group * rows + row for part in parts for group in range(together) for row in part])
    u = vectors.reshape(sets, together * rows, -1)[:, order]
    own = conductance.reshape(devices, rows, sets, together, width).transpose(0, 2, 3, 1, 4)
    diagonal = np.eye(together, dtype=bool)[:, None, :, None]
    dense = jnp.where(diagonal, own[:, :, :, :, None], idle).reshape(devices, sets, together * rows, -1)[:, :, order]
    return u.reshape(len(vectors), -1), dense.transpose(0, 2, 1, 3).reshape(devices, together * rows, -1)


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
