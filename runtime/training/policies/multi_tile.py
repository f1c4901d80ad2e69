"""Residual learning over several tiles, for devices of few states (arXiv 2510.02516).

Each weight is a sum over pairs of geometric scales, w = sum over n of g^n w_n, n = 0 to tiles - 1:

    w_last += -most g' / mean max|g'|  pulses    every step, g' the gradient of w
    w_(n-1) += rate growth^n lr read(w_n) / dw0  pulses    a row's turn, once in sweep * slower^(tiles - 1 - n) steps

so that each tile learns what those above it cannot resolve: with g a little above 1 / states the last one moves the sum
by far less than a state. The tile that takes the gradient is read most often, each above it `slower` times less.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from cimc.chip import Chip
from runtime.training.policies.policy import Change, LayerState, UpdatePolicy, Wish
from runtime.training.policies.pulsed import (
    PENDING,
    SCALE,
    Positive,
    Pulses,
    Steps,
    aim_pending,
    check_pulsed,
    draw_pulses,
    held_weight,
    pair_step,
    pulse_gradient,
    pulse_tile,
    read_weight,
    settle_pending,
    take_turn,
)


@dataclass(frozen=True)
class MultiTile:
    """Options.

    tiles: pairs of each weight. g: scale of a tile over that of the one above. most: mean pulses on the last tile of
    the weight with the largest gradient. rate, growth: weight that a tile gains of the one below, over the learning
    rate, in a transfer. sweep: steps between two transfers of a row of the last tile; slower: factor from tile to tile.
    """

    tiles: Annotated[int, Field(ge=2, le=8)] = 3
    g: Annotated[float, Field(gt=0, lt=1)] = 0.5
    most: Pulses = 5.0
    rate: Positive = 30.0
    growth: Positive = 1.2
    sweep: Steps = 2
    slower: Steps = 5


def tiles(options: MultiTile) -> tuple[str, ...]:
    """The tiles beside the first."""
    return tuple(f"tile_{n}" for n in range(1, options.tiles))


def update(options: MultiTile, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array) -> Wish:
    """The last tile takes the gradient, each other one what the one below holds; due are weights of the first tile."""
    names, held = tiles(options), dict(layer.tiles)
    last = names[-1]
    held[last], scale = pulse_gradient(
        chip, layer, held[last], change, most=options.most, key=jax.random.fold_in(key, 0)
    )
    pending = layer.memory[PENDING]
    for n in range(len(names), 0, -1):
        read_key, draw_key, pulse_key = jax.random.split(jax.random.fold_in(key, n), 3)
        turn = take_turn(change, options.sweep, options.slower ** (len(names) - n))
        read = read_weight(chip, held[names[n - 1]].conductance, read_key)
        gain = options.rate * options.growth**n * change.rate / pair_step(chip)
        pulses = draw_pulses(jnp.where(turn, gain * read, 0), draw_key)
        if n == 1:
            pending = pending + pulses
        else:
            held[names[n - 2]] = pulse_tile(chip, held[names[n - 2]], pulses, pulse_key)
    return Wish(pending != 0, layer.weight, None, {PENDING: pending, SCALE: scale}, held)


def combine(options: MultiTile, chip: Chip, layer: LayerState) -> Array:
    """The sum of the tiles, each by its scale."""
    total = held_weight(layer.conductance, chip)
    for n, name in enumerate(tiles(options), start=1):
        total = total + options.g**n * held_weight(layer.tiles[name].conductance, chip)
    return total


def reads(options: MultiTile) -> float:
    """Both devices of each tile but the first, once in its period."""
    return sum(2 / (options.sweep * options.slower**n) for n in range(options.tiles - 1))


POLICY = UpdatePolicy(
    name="multi-tile",
    options=MultiTile,
    memory=(PENDING, SCALE),
    check=lambda options, chip: check_pulsed("multi-tile", chip),
    threshold=lambda options, chip: pair_step(chip),
    update=update,
    aim=aim_pending,
    settle=settle_pending,
    tiles=tiles,
    combine=combine,
    reads=reads,
)
