"""Tiki-Taka, version 2, plain and chopped (Gokmen 2021; Rasch et al. 2024, s41467-024-51221-z; aihwkit's constants).

A fast pair A, a digital buffer H and the pair W of each weight, and a chopper c = +-1 of each word line (plain: 1):

    A += -c most g / mean max|g|  pulses     every step, g the gradient
    H += rate lr sweep c read(A) / dA        a row's turn, once in `sweep` steps; then c flips with chance `chop`
    W += sign(H)  one pulse                  in the turn, where |H| >= 1; H then keeps `momentum` of itself, or (no
                                             `forget`) loses 1

dA is the step of a pair in the middle. The plain network reads gamma A + W, the chopped one W alone, for its A has the
sign of the chopper. The buffer takes out what noise of A and of reads puts in; the chopper what A is off from its zero,
which H sees with alternating sign.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from cimc.chip import Chip
from runtime.training.policies.policy import Aim, Change, LayerState, UpdatePolicy, Wish
from runtime.training.policies.pulsed import (
    FAST,
    SCALE,
    Positive,
    Pulses,
    Steps,
    check_pulsed,
    draw_for_lines,
    pair_pulses,
    pair_step,
    pulse_gradient,
    read_weight,
    take_turn,
    with_fast,
)

BUFFER = "buffer"  # H
FLIPPED = "flipped"  # 1 where the chopper is -1
Part = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class Buffered:
    """Options of all rules with a buffer.

    most: mean pulses on A of the weight with the largest gradient. rate: what H gains in a step of what A holds, in its
    steps, over the learning rate. sweep: steps between two transfers of a row. momentum, forget: what H keeps of itself
    after a pulse on W.
    """

    most: Pulses = 5.0
    rate: Positive = 10.0
    sweep: Steps = 10
    momentum: Part = 0.1
    forget: bool = True


@dataclass(frozen=True)
class TikiTakaV2(Buffered):
    """Options: as of all with a buffer, and gamma: part of A that the network reads."""

    gamma: Annotated[float, Field(ge=0)] = 0.0


@dataclass(frozen=True)
class ChoppedTikiTakaV2(Buffered):
    """Options: as of all with a buffer, and chop: the chance that the chopper of a word line flips after its read."""

    chop: Annotated[float, Field(gt=0, le=1)] = 0.1


# What a transfer sends of what A was read to hold, and what it remembers of it:
# (read [..], chopper [..], rows in turn [..], key) -> (read to be sent [..], memory).
Sent = Callable[[Array, Array, Array, Array], tuple[Array, dict[str, Array]]]


def transfer(
    options: Buffered, chip: Chip, layer: LayerState, change: Change, key: Array, chopper: Array, sent: Sent
) -> Wish:
    """A takes the gradient, H what is sent of A's rows in turn; due are the weights of these whose H is 1 or more."""
    pulse_key, read_key, sent_key = jax.random.split(key, 3)
    fast, scale = pulse_gradient(
        chip, layer, layer.tiles[FAST], change, most=options.most, key=pulse_key, chopper=chopper
    )
    turn = take_turn(change, options.sweep)
    read, memory = sent(read_weight(chip, fast.conductance, read_key), chopper, turn, sent_key)
    gain = options.rate * options.sweep * change.rate / pair_step(chip)
    buffer = layer.memory[BUFFER] + jnp.where(turn, gain * read, 0)
    memory = {BUFFER: buffer, SCALE: scale, **memory}
    return Wish(turn & (jnp.abs(buffer) >= 1), layer.weight, None, memory, {FAST: fast})


def aim(options: Buffered, chip: Chip, layer: LayerState, wish: Wish, weight_range: Array, key: Array) -> Aim:
    """One pulse of the pair towards what H asks."""
    pulses = pair_pulses(jnp.where(wish.due, jnp.sign(wish.memory[BUFFER]), 0))
    return Aim(None, pulses, pulses != 0, wish.base, wish.base)


def settle(
    options: Buffered, chip: Chip, layer: LayerState, wish: Wish, aim: Aim, weight_range: Array, key: Array
) -> LayerState:
    """H as its pulse leaves it."""
    buffer = wish.memory[BUFFER]
    left = options.momentum * buffer if options.forget else buffer - jnp.sign(buffer)
    return layer._replace(memory={**wish.memory, BUFFER: jnp.where(wish.due, left, buffer)})


def update(options: TikiTakaV2, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array) -> Wish:
    """Without a chopper, all that is read is sent."""

    def sent(read: Array, chopper: Array, turn: Array, key: Array) -> tuple[Array, dict[str, Array]]:
        return read, {}

    return transfer(options, chip, layer, change, key, jnp.float32(1), sent)


def update_chopped(
    options: ChoppedTikiTakaV2, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array
) -> Wish:
    """What is read is sent with the chopper's sign; the choppers of the rows in turn flip by chance."""

    def sent(read: Array, chopper: Array, turn: Array, key: Array) -> tuple[Array, dict[str, Array]]:
        flips = turn & (draw_for_lines(change, key) < options.chop)
        return chopper * read, {FLIPPED: jnp.where(flips, 1 - layer.memory[FLIPPED], layer.memory[FLIPPED])}

    return transfer(options, chip, layer, change, key, 1 - 2 * layer.memory[FLIPPED], sent)


def policy_of(
    name: str,
    options: type[Buffered],
    memory: tuple[str, ...],
    update: Callable[..., Wish],
    gamma: Callable[[Any], float] = lambda options: 0.0,
) -> UpdatePolicy:
    """A rule of this family, with what it remembers beside H, and the part of A that the network reads."""

    def check(options: Any, chip: Chip) -> None:
        check_pulsed(name, chip)

    return UpdatePolicy(
        name=name,
        options=options,
        memory=(BUFFER, SCALE, *memory),
        check=check,
        threshold=lambda options, chip: pair_step(chip),
        update=update,
        aim=aim,
        settle=settle,
        tiles=lambda options: (FAST,),
        combine=lambda options, chip, layer: with_fast(gamma(options), chip, layer),
        reads=lambda options: 2 / options.sweep,
    )


POLICY = policy_of("tiki-taka-v2", TikiTakaV2, (), update, lambda options: options.gamma)
CHOPPED = policy_of("chopped-tiki-taka-v2", ChoppedTikiTakaV2, (FLIPPED,), update_chopped)
