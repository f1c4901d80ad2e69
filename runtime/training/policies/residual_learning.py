"""Residual learning, version 2 (Wu, Xiao, Gokmen, Chen; arXiv 2502.06309v3).

A pair P beside the pair W of each weight; the network computes with W + gamma P, so that P learns what W lacks:

    P += -most g / mean max|g|  pulses           every step, g the gradient of W + gamma P
    H <- (1 - b) H + b read(P)                   a row's turn, once in `sweep` steps
    W += rate lr H / dw0  pulses                 likewise, where |H| >= least dw0

H is a digital filter, not an accumulator as in Tiki-Taka of version 2. P should have its symmetric point at 0.
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
    FAST,
    PENDING,
    SCALE,
    Positive,
    Pulses,
    Steps,
    aim_pending,
    check_pulsed,
    draw_pulses,
    pair_step,
    pulse_gradient,
    read_weight,
    settle_pending,
    take_turn,
    with_fast,
)

FILTER = "filter"  # H


@dataclass(frozen=True)
class ResidualLearning:
    """Options.

    most: mean pulses on P of the weight with the largest gradient. rate: weight that W gains of what H holds, over the
    learning rate, in a transfer. sweep: steps between two transfers of a row. b: of the filter. least: of H, in steps
    of a pair, that is transferred. gamma: part of P that the network reads.
    """

    most: Pulses = 5.0
    rate: Positive = 30.0
    sweep: Steps = 10
    b: Annotated[float, Field(gt=0, le=1)] = 0.5
    least: Annotated[float, Field(ge=0)] = 1.0
    gamma: Annotated[float, Field(gt=0)] = 0.4


def update(
    options: ResidualLearning, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array
) -> Wish:
    """P takes the gradient, H what the rows in turn hold; due are those of their weights that get a pulse."""
    pulse_key, read_key, draw_key = jax.random.split(key, 3)
    fast, scale = pulse_gradient(chip, layer, layer.tiles[FAST], change, most=options.most, key=pulse_key)
    read, turn, step = read_weight(chip, fast.conductance, read_key), take_turn(change, options.sweep), pair_step(chip)
    held = layer.memory[FILTER]
    held = jnp.where(turn, (1 - options.b) * held + options.b * read, held)
    mean = options.rate * change.rate * held / step
    sent = turn & (jnp.abs(held) >= options.least * step)
    pulses = layer.memory[PENDING] + draw_pulses(jnp.where(sent, mean, 0), draw_key)
    return Wish(pulses != 0, layer.weight, None, {PENDING: pulses, SCALE: scale, FILTER: held}, {FAST: fast})


POLICY = UpdatePolicy(
    name="residual-learning",
    options=ResidualLearning,
    memory=(PENDING, SCALE, FILTER),
    check=lambda options, chip: check_pulsed("residual-learning", chip),
    threshold=lambda options, chip: pair_step(chip),
    update=update,
    aim=aim_pending,
    settle=settle_pending,
    tiles=lambda options: (FAST,),
    combine=lambda options, chip, layer: with_fast(options.gamma, chip, layer),
    reads=lambda options: 2 / options.sweep,
)
