"""The write scheduler: which due weights are written now, and how few of all weights a write has to look at.

Every due weight is written at once. Budgets, write ports and waiting come in at `grant`, which sees the word line of
every weight.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from runtime.devices.traits import Traits
from runtime.system.state import System
from runtime.training.policies.policy import LayerState, Wish
from runtime.training.vectors import STRIP

SMALL = 4096  # weights: below, programming all of them is as quick as finding those that are due
STRIPS_A_ROUND = 64  # the part of all strips that a round programs; with a few due weights in a thousand one is enough


class Beside(NamedTuple):
    """What a write of weights [..] reads and does not change: their range, scalar or [..], and traits, each [2, ..]."""

    weight_range: Array
    traits: Traits


# Writes weights [..] as wished: (layer, wish, what it reads beside, key) -> layer.
Write = Callable[[LayerState, Wish, Beside, Array], LayerState]


def word_lines(system: System, weights: Mapping[str, Array]) -> dict[str, Array]:
    """The word line of every weight, by layer: int32 arrays like the weights, numbered through all layers.

    A word line is a row of one array: the weights of a row that lie in the same column block of the same group. Layers
    that are packed into one array count as if each had its own.

    Args:
        system: how the layers lie on arrays.
        weights: [rows, columns], by layer.
    """
    lines, first = {}, 0
    for name, weight in weights.items():
        crossbar, (rows, columns) = system.crossbars[name], weight.shape
        of_group = columns // crossbar.groups
        blocks = -(-of_group // crossbar.column_block)
        column = jnp.arange(columns, dtype=jnp.int32)
        block = column // of_group * blocks + column % of_group // crossbar.column_block
        row = jnp.arange(rows, dtype=jnp.int32)[:, None]
        lines[name] = first + row * (blocks * crossbar.groups) + block
        first += rows * blocks * crossbar.groups
    return lines


def grant(wish: Wish, word_line: Array) -> Wish:
    """Of a wish [..] what is written now: all of it. word_line: of every weight [..] (`word_lines`)."""
    del word_line
    return wish


def write_due(write: Write, layer: LayerState, wish: Wish, beside: Beside, key: Array) -> LayerState:
    """Write the due weights of a layer, looking at their strips alone where the layer is large.

    Usually a few weights in ten thousand are due: errors are then drawn for their strips only, in as many rounds as
    these need. A strip is `STRIP` consecutive weights.

    Args:
        write: what is done with weights, some of them due.
        layer: with the memory of the wish in it.
        wish: weights [..].
        beside: weight range and traits.
        key: for all draws.
    """
    if wish.due.size < SMALL or wish.due.size % STRIP:
        return write(layer, wish, beside, key)
    strips, axes = wish.due.size // STRIP, wish.due.ndim
    a_round = max(strips // STRIPS_A_ROUND, 16)

    def in_strips(array: Array) -> Array:
        return array.reshape(*array.shape[: array.ndim - axes], strips, STRIP)

    shapes = jax.tree.map(jnp.shape, layer)
    # The memory is carried in the layer: what of it was settled in one round must not be lost in the next.
    layer, wish = jax.tree.map(in_strips, (layer, wish._replace(memory={})))
    per_weight, traits = beside.weight_range.ndim > 0, jax.tree.map(in_strips, dict(beside.traits))
    ranges = in_strips(beside.weight_range) if per_weight else beside.weight_range
    count = jnp.cumsum(jnp.any(wish.due, axis=1).astype(jnp.int32))

    def write_round(n: Array, layer: LayerState) -> LayerState:
        # The places of the next due strips; past the last one, a place that is none.
        nth = n * a_round + jnp.arange(1, a_round + 1, dtype=jnp.int32)
        places = jnp.searchsorted(count, nth, method="scan_unrolled")

        def take(array: Array) -> Array:
            return array.at[..., places, :].get(mode="clip")

        some, wish_here = jax.tree.map(take, (layer, wish))
        due = wish.due.at[places].get(mode="fill", fill_value=False)
        wish_here = wish_here._replace(due=due, memory=some.memory)
        here = Beside(take(ranges) if per_weight else ranges, jax.tree.map(take, traits))
        done = write(some, wish_here, here, jax.random.fold_in(key, n))
        return jax.tree.map(
            lambda array, new: array.at[..., places, :].set(
                new, mode="drop", unique_indices=True, indices_are_sorted=True
            ),
            layer,
            done,
        )

    rounds = (count[-1] + a_round - 1) // a_round
    layer = jax.lax.fori_loop(0, rounds, write_round, layer)
    return jax.tree.map(
        lambda array, shape: array.reshape(shape), layer, shapes, is_leaf=lambda x: isinstance(x, Array)
    )
