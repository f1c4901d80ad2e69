"""Tiki-Taka, version 1 (Gokmen & Haensch 2020; constants as in aihwkit's `TransferCompound`).

A fast pair A beside the pair W of each weight:

    A += -most g / mean max|g|  pulses           every step, g the gradient
    W += rate lr read(A) / dw0  pulses           a row's turn, once in `sweep` steps

Pulses are drawn so that their mean is that; the network reads gamma A + W. A, driven to its symmetric point where SET
and RESET cancel, is a leaky mean of the gradient; devices whose symmetric point is not 0 shift W for ever. The mean of
max|g| runs over steps (factor 0.99) and is the layer's.
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


@dataclass(frozen=True)
class TikiTaka:
    """Options.

    most: mean pulses on A of the weight with the largest gradient. rate: weight that W gains of what A holds, over the
    learning rate, in a transfer. sweep: steps between two transfers of a row. gamma: part of A that the network reads.
    """

    most: Pulses = 5.0
    rate: Positive = 100.0
    sweep: Steps = 10
    gamma: Annotated[float, Field(ge=0)] = 0.0


def update(options: TikiTaka, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array) -> Wish:
    """A takes the gradient; due are the weights of the rows in turn that get a pulse."""
    pulse_key, read_key, draw_key = jax.random.split(key, 3)
    fast, scale = pulse_gradient(chip, layer, layer.tiles[FAST], change, most=options.most, key=pulse_key)
    read = read_weight(chip, fast.conductance, read_key)
    gain = jnp.where(take_turn(change, options.sweep), options.rate * change.rate / pair_step(chip), 0)
    pulses = layer.memory[PENDING] + draw_pulses(gain * read, draw_key)
    return Wish(pulses != 0, layer.weight, None, {PENDING: pulses, SCALE: scale}, {FAST: fast})


POLICY = UpdatePolicy(
    name="tiki-taka",
    options=TikiTaka,
    memory=(PENDING, SCALE),
    check=lambda options, chip: check_pulsed("tiki-taka", chip),
    threshold=lambda options, chip: pair_step(chip),
    update=update,
    aim=aim_pending,
    settle=settle_pending,
    tiles=lambda options: (FAST,),
    combine=lambda options, chip, layer: with_fast(options.gamma, chip, layer),
    reads=lambda options: 2 / options.sweep,
)
