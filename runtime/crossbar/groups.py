"""Groups of a convolution: each has its own inputs and arrays, and all of them are computed at once."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.scheme import AnyArray
from runtime.crossbar.crossbar import Crossbar, Reading

OneLayer = TypeVar("OneLayer", Crossbar, Reading)


def by_group(matrix: Array, groups: int) -> Array:
    """Columns of each group: [..., rows, columns] -> [groups, ..., rows, columns / groups]."""
    split = matrix.reshape(*matrix.shape[:-1], groups, -1)
    return jnp.moveaxis(split, -2, 0)


def split_groups(vectors: Array, groups: int) -> Array:
    """Rows of each group: [rows, MVMs] -> [groups, rows / groups, MVMs]."""
    return vectors.reshape(groups, -1, vectors.shape[-1])


@dataclass(frozen=True)
class Sets:
    """Groups that are driven together as one, with the cells between them.

    Rows that are driven at once follow one another, `together` x `read_rows` of them; the last read may have fewer.

    groups: of the layer; a multiple of `together`. together: groups that are driven at once. rows: of a group.
    read_rows: rows of each that are driven at once.
    """

    groups: int
    together: int
    rows: int
    read_rows: int

    @property
    def order(self) -> NDArray[np.int64]:
        """The rows of a set, group after group, in the order in which they are driven."""
        parts = [range(start, min(start + self.read_rows, self.rows)) for start in range(0, self.rows, self.read_rows)]
        return np.array([group * self.rows + row for part in parts for group in range(self.together) for row in part])

    def join_vectors(self, vectors: AnyArray) -> AnyArray:
        """Rows of all groups [rows, ...], in the order of the sets."""
        return vectors.reshape(-1, self.together * self.rows, *vectors.shape[1:])[:, self.order].reshape(vectors.shape)

    def join_cells(self, matrix: AnyArray, idle: AnyArray | float) -> AnyArray:
        """[..., rows, columns of all groups] as [..., rows of a set, columns], with `idle` beside the groups.

        idle: a number, or [..., 1, 1].
        """
        xp, kind = matrix.__array_namespace__(), matrix.shape[:-2]
        beside = xp.asarray(idle, dtype=matrix.dtype)
        beside = beside.reshape(*beside.shape[:-2], *(1,) * 5) if beside.ndim else beside
        own = xp.moveaxis(matrix.reshape(*kind, self.rows, -1, self.together, matrix.shape[-1] // self.groups), -4, -2)
        diagonal = np.eye(self.together, dtype=bool)[:, None, :, None]
        dense = xp.where(diagonal, own[..., None, :], beside)
        dense = dense.reshape(*kind, self.groups // self.together, self.together * self.rows, -1)[..., self.order, :]
        return xp.moveaxis(dense, -3, -2).reshape(*kind, self.together * self.rows, -1)

    def join_references(self, columns: Array) -> Array:
        """Reference columns [rows, groups x columns] as [rows of a set, groups x columns]: each has the cells of all
        groups of its set, in the rows of these.
        """
        each = columns.shape[1] // self.groups
        of_groups = jnp.moveaxis(columns.reshape(self.rows, self.groups, each), 1, 0)
        joined = self.join_vectors(of_groups.reshape(-1, each)).reshape(-1, self.together * self.rows, each)
        return jnp.moveaxis(jnp.tile(joined, (1, 1, self.together)), 0, 1).reshape(self.together * self.rows, -1)


def as_sets(layer: OneLayer) -> OneLayer:
    """The layer, or its reading, with the groups that are driven together as one group."""
    together = layer.groups_at_once
    return replace(layer, groups=layer.groups // together, groups_at_once=1, read_rows=together * layer.read_rows)


def sets_of(layer: Crossbar | Reading, rows: int) -> Sets:
    """The groups that are driven together, of so many rows each."""
    return Sets(layer.groups, layer.groups_at_once, rows, layer.read_rows)


def for_groups(function: Callable[..., Array], arguments: tuple[Array | None, ...], key: Array | None) -> Array:
    """`function` of each group's part of the arguments [groups, ...] and a key of its own (None: of None), at once.

    Of a vector of keys each group has a vector. An argument that is None is None for all; the first is not.
    """
    if key is None:
        return jax.vmap(lambda *parts: function(*parts, None))(*arguments)
    assert arguments[0] is not None
    groups = len(arguments[0])
    if key.ndim:
        return jax.vmap(function)(*arguments, jax.vmap(lambda one: jax.random.split(one, groups), out_axes=1)(key))
    return jax.vmap(function)(*arguments, jax.random.split(key, groups))
