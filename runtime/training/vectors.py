"""Arrays of many small layers as a few vectors: an elementwise operation is then one pass instead of one a layer.

A training step of LeNet-5 at batch 8 waits as long for the start of its operations as for their arithmetic.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import jax.numpy as jnp
from jax import Array

ALONE = 1 << 16  # entries; a larger array is a vector of its own, because to copy it costs more than it saves
STRIP = 16  # every vector's length is a multiple

# For each vector the names of its arrays and their shapes.
Packing = tuple[tuple[tuple[str, tuple[int, ...]], ...], ...]


def packing(arrays: Mapping[str, Array]) -> Packing:
    """How these arrays are packed: those of at most `ALONE` entries together, in order."""
    together, vectors = [], []
    for name, array in arrays.items():
        if array.size > ALONE:
            vectors.append(((name, array.shape),))
        else:
            together.append((name, array.shape))
    return (*([tuple(together)] if together else []), *vectors)


def pack(packed: Packing, arrays: Mapping[str, Array]) -> tuple[Array, ...]:
    """Vectors [..., n] of arrays [..., *shape], zeros in the rest of their last strips."""
    return tuple(_joined([_flat(arrays[name], shape) for name, shape in vector], 0.0) for vector in packed)


def spread(packed: Packing, values: Mapping[str, Array]) -> tuple[Array, ...]:
    """Vectors that hold each array's value, or that of the column, for each of its entries; a scalar for an array that
    is alone and has one.
    """
    return tuple(
        values[vector[0][0]]
        if len(vector) == 1 and not values[vector[0][0]].ndim
        else _joined([jnp.broadcast_to(values[name], shape).reshape(-1) for name, shape in vector], 1.0)
        for vector in packed
    )


def unpack(packed: Packing, vectors: Sequence[Array]) -> dict[str, Array]:
    """The arrays [..., *shape] of vectors [..., n]."""
    return dict(_unpacked(packed, vectors))


def _unpacked(packed: Packing, vectors: Sequence[Array]) -> Iterator[tuple[str, Array]]:
    for arrays, vector in zip(packed, vectors, strict=True):
        start = 0
        for name, shape in arrays:
            stop = start + math.prod(shape)
            yield name, vector[..., start:stop].reshape(*vector.shape[:-1], *shape)
            start = stop


def _flat(array: Array, shape: tuple[int, ...]) -> Array:
    return array.reshape(*array.shape[: array.ndim - len(shape)], -1)


def _joined(parts: list[Array], fill: float) -> Array:
    rest = -sum(part.shape[-1] for part in parts) % STRIP
    if rest:
        parts = [*parts, jnp.full((*parts[0].shape[:-1], rest), fill, parts[0].dtype)]
    return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)
