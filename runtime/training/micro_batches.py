"""A batch in parts that are computed one after the other, which bounds the memory of a step."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from runtime.training.gradients import Found, Parameters

# Loss, statistics and gradients from the statistics before, the inputs, the targets and a key.
FindGradients = Callable[[dict[str, Array], Mapping[str, Array], Mapping[str, Array], Array], Found]


class _Sums(NamedTuple):
    """Statistics after some parts, and the sums of their losses and gradients."""

    statistics: dict[str, Array]
    found: tuple[Array, Parameters]


def gradients_in_parts(
    find: FindGradients,
    parts: int,
    statistics: dict[str, Array],
    feeds: Mapping[str, Array],
    targets: Mapping[str, Array],
    key: Array,
) -> Found:
    """What `find` gives of a batch: loss and gradients are the mean of those of its parts.

    Each part has its own noise, and moves the statistics on. One part is the batch as it is.
    """
    if parts == 1:
        return find(statistics, feeds, targets, key)

    def of_part(before: dict[str, Array], number: Array) -> _Sums:
        def own(arrays: Mapping[str, Array]) -> dict[str, Array]:
            # Every n-th sample, so that of a batch on several devices each has some of every part.
            apart = {name: array.reshape(-1, parts, *array.shape[1:]) for name, array in arrays.items()}
            return {name: array[:, number] for name, array in apart.items()}

        loss, after, gradients = find(before, own(feeds), own(targets), jax.random.fold_in(key, number))
        return _Sums(after, (loss, gradients))

    def add(sums: _Sums, number: Array) -> tuple[_Sums, None]:
        after, found = of_part(sums.statistics, number)
        return _Sums(after, jax.tree.map(jnp.add, sums.found, found)), None

    shapes = jax.eval_shape(of_part, statistics, jnp.int32(0)).found
    nothing = jax.tree.map(lambda one: jnp.zeros(one.shape, one.dtype), shapes)
    sums, _ = jax.lax.scan(add, _Sums(statistics, nothing), jnp.arange(parts, dtype=jnp.int32))
    loss, gradients = jax.tree.map(lambda total: total / parts, sums.found)
    return loss, sums.statistics, gradients
