"""EaPU, error-aware probabilistic update (Liu, Shi, Liu; Nature Communications 2025, s41467-025-66240-7).

With dw the optimiser's step of a weight, c the clip, both in uS, and r ~ U(0, 1):

    |dw| < r c           nothing is written
    r c <= |dw| < c      sign(dw) c is written
    c <= |dw|            dw is written

so that what is written is dw on average, and no write is smaller than the error it makes. Nothing is remembered. Beside
the published rule, writes here are those of the chip: closed loop with its error, or blind pulses, whose number is
rounded by chance from where the pair stands, so that the mean stays dw where steps are longer or shorter.
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


@dataclass(frozen=True)
class Eapu:
    """Options.

    c_uS: the smallest change that is written; None: the largest sd that a write leaves, or the cell's granularity where
    that is larger for its levels or pulses, or a write leaves no error. write, sync: as of `PairWrites`.
    """

    c_uS: Annotated[float, Field(gt=0)] | None = None
    write: Write = Write.verify
    sync: Sync = Sync.auto


def clip(options: Eapu, chip: Chip) -> float:
    """The smallest change that is written, as a fraction of the weight range."""
    cell = chip.cell
    if options.c_uS is not None:
        return options.c_uS / chip.scheme.full_uS
    sd = cell.largest_error_sd_uS / chip.scheme.full_uS
    if options.write == "pulse" or not sd:
        return pair_writes.threshold(_writes(options), chip)
    return max(sd, cell.largest_spacing * cell.window_uS / chip.scheme.full_uS)


def check(options: Eapu, chip: Chip) -> None:
    """Raises CimcError for options that do not fit the chip."""
    pair_writes.check(_writes(options), chip)
    if clip(options, chip) >= 1:
        raise CimcError(
            f"c_uS is no less than the largest weight of {chip.name}, {chip.scheme.full_uS:g} uS; give a smaller one"
        )


def update(options: Eapu, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array) -> Wish:
    """Due are the weights that chance picks; what they are to change by is in the accumulator until it is written."""
    draw_key, key = jax.random.split(key)
    least = clip(options, chip) * weight_range
    size = jnp.abs(change.step)
    drawn = (size >= least * jax.random.uniform(draw_key, size.shape)) & (size > 0)
    asked = jnp.where(drawn, jnp.sign(change.step) * jnp.maximum(size, least), 0)
    return pair_writes.accumulate(_writes(options), chip, pair_writes.forgetting(layer), asked, weight_range, 0.0, key)


def aim(options: Eapu, chip: Chip, layer: LayerState, wish: Wish, weight_range: Array, key: Array) -> Aim:
    """Goals as of mixed precision, or pulses whose mean leads there."""
    read_key, chance_key = jax.random.split(key)
    chance = jax.random.uniform(chance_key, layer.conductance.shape) if options.write == "pulse" else None
    least = clip(options, chip)
    return pair_writes.aim(_writes(options), chip, layer, wish, weight_range, least, read_key, chance)


def settle(
    options: Eapu, chip: Chip, layer: LayerState, wish: Wish, aim: Aim, weight_range: Array, key: Array
) -> LayerState:
    """The digital copy as of mixed precision; nothing stays."""
    return pair_writes.settle(_writes(options), chip, layer, wish, aim, weight_range, key)


def _writes(options: Eapu) -> PairWrites:
    return PairWrites(write=options.write, sync=options.sync, residual=Residual.drop)


POLICY = UpdatePolicy(
    name="eapu",
    options=Eapu,
    memory=(ACCUMULATOR,),
    check=check,
    threshold=clip,
    update=update,
    aim=aim,
    settle=settle,
)
