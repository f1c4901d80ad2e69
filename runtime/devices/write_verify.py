"""Closed-loop writes: write-verify, a trial after the other until a device is within its tolerance."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from runtime.crossbar.figures import figure
from runtime.crossbar.normal import normal
from runtime.devices.pulses import NO_TRAITS
from runtime.devices.traits import Traits
from runtime.devices.wear import keep_stuck
from runtime.devices.write_law import trial_error


class Written(NamedTuple):
    """Conductances after a write [.., like the goals] in uS, and the trials (or pulses) each device took.

    seen: what the last pulse lets be seen beside what devices hold, uS (`draw_write_noise`); None: nothing.
    """

    conductance: Array
    trials: Array
    seen: Array | None = None


def write_verify(goal: Array, key: Array, *, cell: Cell, traits: Traits = NO_TRAITS) -> Written:
    """Program every device by closed-loop write-verify: at most N trials, a failed last trial is accepted.

    A stuck device takes one trial where it is within tolerance, else all of them.

    Args:
        goal: conductances [..], uS.
        key: a `jax.random` key.
        cell: the device.
        traits: of the devices, of which `stuck` has an effect here.
    """
    mean, sd = single_trial(cell, goal)
    tolerance = None if cell.programming.tolerance_uS is None else figure(cell.programming.tolerance_uS)
    if not cell.programming.follows_state and trial_error(cell.programming).sd_uS == 0:  # every trial ends alike
        ends = keep_stuck(_limited(goal + mean, cell), traits)
        accepted = True if tolerance is None else jnp.abs(ends - goal) <= tolerance
        return Written(ends, jnp.where(accepted, 1, cell.programming.trials) * jnp.ones(goal.shape, jnp.int32))

    def trial(n: Array, written: Written) -> Written:
        fresh = mean + sd * normal(jax.random.fold_in(key, n), goal.shape)
        pending = (written.trials == n) & ~_within(written.conductance - goal, n)
        after = keep_stuck(_limited(goal + fresh, cell), traits)
        conductance = jnp.where(pending, after, written.conductance)
        return Written(conductance, written.trials + pending.astype(count))

    def _within(deviation: Array, n: Array) -> Array:
        accepted = jnp.zeros(deviation.shape, bool) if tolerance is None else jnp.abs(deviation) <= tolerance
        return accepted & (n > 0)

    count = jnp.uint8 if cell.programming.trials < 256 else jnp.int32  # small, as the loop holds it several times
    start = Written(goal, jnp.zeros(goal.shape, count))
    written = jax.lax.fori_loop(0, cell.programming.trials, trial, start)
    return Written(written.conductance, written.trials.astype(jnp.int32))


def single_trial(cell: Cell, targets: Array) -> tuple[float | Array, float | Array]:
    """Mean and sd, in uS, of the error of one trial: numbers, or arrays like the targets where it follows the state."""
    if cell.programming.follows_state:
        return cell.error_mean_uS(targets), cell.error_sd_uS(targets)
    mean, sd = trial_error(cell.programming)
    return figure(mean), figure(sd)


def _limited(conductance: Array, cell: Cell) -> Array:
    """The conductances, those beyond the limits of the device set to them."""
    return conductance if cell.limits_uS is None else jnp.clip(conductance, cell.limits_uS[0], cell.limits_uS[1])
