"""Devices: closed-loop write-verify, blind pulses, reads.

One rule about bounds. Targets lie in the window, G_min to G_max. The error a chip file states is the error left as
measured, with whatever saturation there was in it: a write ends there, also beyond the window, and for a G_min of 0
also below 0 (a difference to a reference, not a negative resistor); nothing is clipped that would shift the mean or
narrow the spread. Where the file states `[cell] limits_uS = [low, high]`, no act (write-verify or blind pulse) takes a
device beyond: it is clipped there, and `cimc chips NAME --explain` prints the mean and sd that result. Without
limits_uS, blind pulses, which are open loop, stop at the window.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from runtime.crossbar.noise import normal
from runtime.devices.write_law import trial_error


class Written(NamedTuple):
    """Conductances after a write [.., like the targets] in uS, and the trials (or pulses) each device took."""

    conductance: Array
    trials: Array


def write_verify(targets: Array, cell: Cell, key: Array) -> Written:
    """Program every device by closed-loop write-verify: at most N trials, a failed last trial is accepted.

    Args:
        targets: conductances in uS, any shape.
        cell: the device.
        key: a `jax.random` key.
    """
    mean, sd = single_trial(cell, targets)
    if not cell.programming.follows_state and sd == 0:
        return Written(_bounded(targets + mean, cell.limits_uS), jnp.ones(targets.shape, jnp.int32))

    def trial(n: Array, written: Written) -> Written:
        fresh = mean + sd * normal(jax.random.fold_in(key, n), targets.shape)
        pending = (written.trials == n) & ~_within(written.conductance - targets, n)
        conductance = jnp.where(pending, _bounded(targets + fresh, cell.limits_uS), written.conductance)
        return Written(conductance, written.trials + pending.astype(jnp.int32))

    def _within(deviation: Array, n: Array) -> Array:
        tolerance = cell.programming.tolerance_uS
        accepted = jnp.zeros(deviation.shape, bool) if tolerance is None else jnp.abs(deviation) <= tolerance
        return accepted & (n > 0)

    start = Written(targets, jnp.zeros(targets.shape, jnp.int32))
    return jax.lax.fori_loop(0, cell.programming.trials, trial, start)


def single_trial(cell: Cell, targets: Array) -> tuple[float | Array, float | Array]:
    """Mean and sd, in uS, of the error of one trial: numbers, or arrays like the targets where it follows the state."""
    if cell.programming.follows_state:
        return cell.error_mean_uS(targets), cell.error_sd_uS(targets)
    return trial_error(cell.programming)


def blind_pulses(conductance: Array, pulses: Array, cell: Cell, key: Array) -> Array:
    """Conductances in uS after that many blind pulses (negative: RESET), which stop at the limits or the window.

    n pulses move the device by n step + sqrt(|n|) step c2c z: the cycle-to-cycle errors of single pulses add up. A
    device that a write has left beyond the window is not taken further, nor set back by a pulse the other way.
    """
    if cell.pulse is None:
        raise ValueError("the chip has no [cell.pulse]")
    spread = jnp.sqrt(jnp.abs(pulses)) * (cell.pulse.c2c * normal(key, conductance.shape))
    moved = conductance + cell.pulse.step_uS * (pulses + spread)
    low, high = cell.limits_uS or (cell.conductance_min_uS, cell.conductance_max_uS)
    bounded = _bounded(moved, (jnp.minimum(conductance, low), jnp.maximum(conductance, high)))
    return jnp.where(pulses == 0, conductance, bounded)


def _bounded(conductance: Array, bounds: Sequence[float | Array] | None) -> Array:
    """The conductances, those beyond the bounds (low, high) set to them; None: all as they are."""
    return conductance if bounds is None else jnp.clip(conductance, bounds[0], bounds[1])


def read_cells(conductance: Array, cell: Cell, key: Array, reads: int = 1) -> Array:
    """The mean of that many noisy reads of every device, in uS."""
    if cell.read_noise_uS == 0:
        return conductance
    return conductance + cell.read_noise_uS / math.sqrt(reads) * normal(key, conductance.shape)
