"""Sign-only updates, the Manhattan rule (Zamanidoost et al. 2015; revisited in arXiv 2511.03858).

    dw = -size sign(gradient)

whatever the gradient's size: by one write, or by one pulse of each device of the pair. A floor for other rules: nothing
is remembered, and every weight is written in every step, or with a stated chance.
"""

from dataclasses import dataclass
from typing import Annotated

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.options import Residual, Sync, Write
from runtime.training.policies import pair_writes
from runtime.training.policies.pair_writes import ACCUMULATOR, PairWrites
from runtime.training.policies.policy import Aim, Change, LayerState, UpdatePolicy, Wish
from runtime.training.policies.pulsed import check_pulsed, pair_pulses, pair_step


@dataclass(frozen=True)
class Sign:
    """Options.

    size: of a step, as a fraction of the weight range, of closed-loop writes; None: the weight's granularity. share:
    the chance that a weight is written in a step, times the learning rate, so that a rate schedule has its effect;
    None: every weight is written in every step. write, sync: as of `PairWrites`.
    """

    size: Annotated[float, Field(gt=0, lt=1)] | None = None
    share: Annotated[float, Field(gt=0)] | None = None
    write: Write = Write.verify
    sync: Sync = Sync.auto


def check(options: Sign, chip: Chip) -> None:
    """Raises CimcError for options that do not fit the chip."""
    if options.write == "pulse":
        check_pulsed("sign", chip)
        if options.sync == "target":
            raise CimcError(
                "the update policy sign moves its copy by a whole step a pulse, which devices do not; leave out --set "
                "sync=target, or --write pulse"
            )
        if options.size is not None:
            raise CimcError("size of the update policy sign is that of closed-loop writes; leave it out, or --write")
    pair_writes.check(_writes(options), chip)


def size(options: Sign, chip: Chip) -> float:
    """What a weight changes by, as a fraction of the weight range."""
    if options.write == "pulse":
        return pair_step(chip)
    return chip.weight_granularity if options.size is None else options.size


def update(options: Sign, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array) -> Wish:
    """Due is every weight with a gradient, or those that chance picks."""
    draw_key, key = jax.random.split(key)
    asked = -jnp.sign(change.gradient) * size(options, chip) * weight_range
    if options.share is not None:
        asked = jnp.where(jax.random.uniform(draw_key, asked.shape) < options.share * change.rate, asked, 0)
    return pair_writes.accumulate(_writes(options), chip, pair_writes.forgetting(layer), asked, weight_range, 0.0, key)


def aim(options: Sign, chip: Chip, layer: LayerState, wish: Wish, weight_range: Array, key: Array) -> Aim:
    """Goals as of mixed precision, or one pulse on each device of the pair."""
    if options.write == "pulse":
        wanted = wish.base + wish.memory[ACCUMULATOR]
        pulses = pair_pulses(jnp.where(wish.due, jnp.sign(wish.memory[ACCUMULATOR]), 0))
        return Aim(None, pulses, pulses != 0, wanted, wanted)
    return pair_writes.aim(_writes(options), chip, layer, wish, weight_range, size(options, chip), key)


def settle(
    options: Sign, chip: Chip, layer: LayerState, wish: Wish, aim: Aim, weight_range: Array, key: Array
) -> LayerState:
    """The digital copy as of mixed precision; nothing stays."""
    return pair_writes.settle(_writes(options), chip, layer, wish, aim, weight_range, key)


def _writes(options: Sign) -> PairWrites:
    return PairWrites(write=options.write, sync=options.sync, residual=Residual.drop)


POLICY = UpdatePolicy(
    name="sign",
    options=Sign,
    memory=(ACCUMULATOR,),
    check=check,
    threshold=size,
    update=update,
    aim=aim,
    settle=settle,
)
