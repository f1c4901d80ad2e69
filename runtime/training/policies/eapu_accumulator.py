"""EaPU's chance on an accumulator: acc += dw; the step's own chance, not the sum alone, says when a weight is written.

With r ~ U(0, 1) and threshold theta, a weight is written where |acc| > theta, or where dw points as acc does and
|dw| > r theta. Written is sign(acc) max(|acc|, theta), and what of it was not yet asked for stays in the accumulator as
a debt, so that all writes and the accumulator add up to all steps. Steps that cancel are not written (as in mixed
precision), steps that go on are written without waiting for a whole threshold (as by EaPU, see `eapu`). No source: a
combination of arXiv 2305.14547 and s41467-025-66240-7.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.options import Residual, Sync, Write
from runtime.training.policies import pair_writes
from runtime.training.policies.pair_writes import ACCUMULATOR, PairWrites
from runtime.training.policies.policy import Aim, Change, LayerState, UpdatePolicy, Wish

ASKED = "asked"  # of the accumulator, what is to be written now


@dataclass(frozen=True)
class EapuAccumulator:
    """Options. threshold, write, sync: as of `PairWrites`."""

    threshold: float | None = None
    write: Write = Write.verify
    sync: Sync = Sync.auto


def check(options: EapuAccumulator, chip: Chip) -> None:
    """Raises CimcError for options that do not fit the chip."""
    pair_writes.check(_writes(options), chip)


def threshold(options: EapuAccumulator, chip: Chip) -> float:
    """The smallest change that is written, as a fraction of the weight range."""
    return pair_writes.threshold(_writes(options), chip)


def update(
    options: EapuAccumulator, chip: Chip, layer: LayerState, change: Change, weight_range: Array, key: Array
) -> Wish:
    """Due are the weights beyond the threshold and those that chance picks."""
    draw_key, key = jax.random.split(key)
    least = threshold(options, chip) * weight_range
    wish = pair_writes.accumulate(
        _writes(options), chip, layer, change.step, weight_range, threshold(options, chip), key
    )
    total = wish.memory[ACCUMULATOR]
    drawn = jnp.abs(change.step) > least * jax.random.uniform(draw_key, total.shape)
    due = wish.due | (drawn & (change.step * total > 0))
    most = weight_range * pair_writes.reach(_writes(options), chip)
    asked = jnp.sign(total) * jnp.maximum(jnp.abs(total), least)
    asked = jnp.clip(asked, -most - wish.base, most - wish.base)
    return wish._replace(due=due, memory={ACCUMULATOR: total, ASKED: jnp.where(due, asked, 0)})


def aim(options: EapuAccumulator, chip: Chip, layer: LayerState, wish: Wish, weight_range: Array, key: Array) -> Aim:
    """Goals or pulses as of mixed precision."""
    due_at = threshold(options, chip)
    return pair_writes.aim(_writes(options), chip, layer, _asking(wish), weight_range, due_at, key)


def settle(
    options: EapuAccumulator, chip: Chip, layer: LayerState, wish: Wish, aim: Aim, weight_range: Array, key: Array
) -> LayerState:
    """As mixed precision; what was written before it was asked for stays as a debt."""
    settled = pair_writes.settle(_writes(options), chip, layer, _asking(wish), aim, weight_range, key)
    total, asked = wish.memory[ACCUMULATOR], wish.memory[ASKED]
    written = wish.due & jnp.any(aim.selected, axis=0)
    left = jnp.where(written, settled.memory[ACCUMULATOR] + (total - asked), total)
    return settled._replace(memory={ACCUMULATOR: left, ASKED: jnp.zeros_like(asked)})


def _asking(wish: Wish) -> Wish:
    """The wish as mixed precision knows it."""
    return wish._replace(memory={ACCUMULATOR: wish.memory[ASKED]})


def _writes(options: EapuAccumulator) -> PairWrites:
    return PairWrites(options.threshold, Residual.keep, options.write, options.sync)


POLICY = UpdatePolicy(
    name="eapu-accumulator",
    options=EapuAccumulator,
    memory=(ACCUMULATOR, ASKED),
    check=check,
    threshold=threshold,
    update=update,
    aim=aim,
    settle=settle,
)
