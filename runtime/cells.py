"""Devices: closed-loop write-verify, blind pulses, reads."""

import math
from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.chip import Cell, Programming
from cimc.errors import CimcError
from runtime.noise import normal


class TrialError(NamedTuple):
    """Gaussian error of one programming trial, in uS."""

    mean_uS: float
    sd_uS: float


class Written(NamedTuple):
    """Conductances after a write [.., like the targets] in uS, and the trials (or pulses) each device took."""

    conductance: Array
    trials: Array


@lru_cache
def trial_error(programming: Programming) -> TrialError:
    """The error of a single trial that leaves the stated error after at most `trials` trials.

    A trial's error is N(m, s^2); within +-tolerance it is accepted, otherwise the next trial overwrites it, and the
    last one stays as it is. With p = P(accept) and q = 1 - p the final error is, with weight 1 - q^(trials - 1), the
    truncated Gaussian and else a free one. m and s are solved for the stated final mean and sd (least squares).

    Raises:
        CimcError: no trial error leaves the stated figures.
    """
    mean, sd, tolerance = programming.error_mean_uS, programming.error_sd_uS, programming.tolerance_uS
    if programming.trials == 1 or tolerance is None or sd == 0:
        return TrialError(mean, sd)

    def miss(unknowns: np.ndarray) -> list[float]:
        final_mean, final_sd = _final_moments(
            unknowns[0] * sd, math.exp(unknowns[1]) * sd, tolerance, programming.trials
        )
        return [(final_mean - mean) / sd, math.log(final_sd / sd)]

    from scipy.optimize import least_squares  # here: most commands need no solver, and its import takes 0.3 s

    # Several starts: far from the solution the last trial hides the others and the slope vanishes.
    starts = [(mean / sd * shift, math.log(spread)) for shift in (1, 2, 4) for spread in (1, 1.5, 2.5, 4)]
    with np.errstate(all="ignore"):
        solutions = [least_squares(miss, start, xtol=1e-12, ftol=1e-12, gtol=1e-12) for start in starts]
    best = min(solutions, key=lambda solution: solution.cost)
    if max(abs(v) for v in best.fun) > 1e-3:
        raise CimcError(
            f"no error of a single trial leaves sd {sd} uS and mean {mean} uS after {programming.trials} trials at "
            f"tolerance {tolerance} uS; correct [cell.programming] of the chip"
        )
    return TrialError(float(best.x[0]) * sd, math.exp(float(best.x[1])) * sd)


def _final_moments(m: float, s: float, tolerance: float, trials: int) -> tuple[float, float]:
    """Mean and sd of the final error for trial errors N(m, s^2)."""
    a, b = (-tolerance - m) / s, (tolerance - m) / s
    density_a, density_b = (math.exp(-z * z / 2) / math.sqrt(2 * math.pi) for z in (a, b))
    accept = max((math.erf(b / math.sqrt(2)) - math.erf(a / math.sqrt(2))) / 2, 1e-12)
    shift = (density_a - density_b) / accept
    inside_mean = m + s * shift
    inside_square = s * s * (1 + (a * density_a - b * density_b) / accept - shift**2) + inside_mean**2
    last = (1 - accept) ** (trials - 1)
    mean = (1 - last) * inside_mean + last * m
    square = (1 - last) * inside_square + last * (s * s + m * m)
    return mean, math.sqrt(square - mean * mean)


def write_verify(targets: Array, cell: Cell, key: Array) -> Written:
    """Program every device by closed-loop write-verify: at most N trials, a failed last trial is accepted.

    Args:
        targets: conductances in uS, any shape.
        cell: the device.
        key: a `jax.random` key.
    """
    error = trial_error(cell.programming)
    once = jnp.ones(targets.shape, jnp.int32)
    if error.sd_uS == 0:
        return Written(jnp.maximum(targets + error.mean_uS, 0.0), once)

    def trial(n: Array, written: Written) -> Written:
        fresh = error.mean_uS + error.sd_uS * normal(jax.random.fold_in(key, n), targets.shape)
        pending = (written.trials == n) & ~_within(written.conductance - targets, n)
        conductance = jnp.where(pending, targets + fresh, written.conductance)
        return Written(conductance, written.trials + pending.astype(jnp.int32))

    def _within(deviation: Array, n: Array) -> Array:
        tolerance = cell.programming.tolerance_uS
        accepted = jnp.zeros(deviation.shape, bool) if tolerance is None else jnp.abs(deviation) <= tolerance
        return accepted & (n > 0)

    start = Written(targets, jnp.zeros(targets.shape, jnp.int32))
    written = jax.lax.fori_loop(0, cell.programming.trials, trial, start)
    return Written(jnp.maximum(written.conductance, 0.0), written.trials)


def blind_pulses(conductance: Array, pulses: Array, cell: Cell, key: Array) -> Array:
    """Conductances in uS after that many blind pulses (negative: RESET), hard bounds at G_min and G_max.

    n pulses move the device by n step + sqrt(|n|) step c2c z: the cycle-to-cycle errors of single pulses add up.
    """
    if cell.pulse is None:
        raise ValueError("the chip has no [cell.pulse]")
    spread = jnp.sqrt(jnp.abs(pulses)) * (cell.pulse.c2c * normal(key, conductance.shape))
    moved = conductance + cell.pulse.step_uS * (pulses + spread)
    bounded = jnp.clip(moved, cell.conductance_min_uS, cell.conductance_max_uS)
    return jnp.where(pulses == 0, conductance, bounded)


def read_cells(conductance: Array, cell: Cell, key: Array, reads: int = 1) -> Array:
    """The mean of that many noisy reads of every device, in uS."""
    if cell.read_noise_uS == 0:
        return conductance
    return conductance + cell.read_noise_uS / math.sqrt(reads) * normal(key, conductance.shape)
