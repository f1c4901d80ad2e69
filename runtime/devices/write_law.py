"""What a write leaves, computed from a chip's figures: the error of one trial, and the law of the error left.

Plain NumPy; `runtime.devices.write_verify` draws from the same law.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cimc.chip import Cell, Programming
from cimc.errors import CimcError

Doubles = npt.NDArray[np.float64]

# Standard normal values on a grid so fine and wide that sums over it are the integrals to about 1e-5.
NORMAL = np.linspace(-10.0, 10.0, 100_001)
NORMAL_SHARE = np.exp(-(NORMAL**2) / 2) / np.sum(np.exp(-(NORMAL**2) / 2))


class TrialError(NamedTuple):
    """Gaussian error of one programming trial, in uS."""

    mean_uS: float
    sd_uS: float


class ErrorLeft(NamedTuple):
    """The error that writes to one target leave, the chip's limits applied.

    mean_uS, sd_uS: of the error. excess_kurtosis: 0 for a Gaussian (and without error). beyond_3_sd: share of devices
    more than 3 sd from the mean. accepted_first: share of writes whose first trial is accepted. trials: mean number.
    beyond_window: share of devices below G_min or above G_max.
    """

    mean_uS: float
    sd_uS: float
    excess_kurtosis: float
    beyond_3_sd: float
    accepted_first: float
    trials: float
    beyond_window: float


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
    if isinstance(mean, tuple) or isinstance(sd, tuple):
        raise ValueError("an error that follows the state is not that of a trial; see `single_trial`")
    if programming.trials == 1 or tolerance is None or sd == 0:
        return TrialError(mean, sd)

    def miss(unknowns: Doubles) -> list[float]:
        final_mean, final_sd = _final_moments(
            unknowns[0] * sd, math.exp(unknowns[1]) * sd, tolerance, programming.trials
        )
        return [(final_mean - mean) / sd, math.log(final_sd / sd)]

    from scipy.optimize import least_squares  # here: most commands need no solver, and its import takes 0.3 s

    # Several starts: far from the solution the last trial hides the others and the slope vanishes. Far ones where none
    # of the near ones leads there: of hundreds of trials a final error beyond the tolerance is that of wild ones.
    for spreads in ((1, 1.5, 2.5, 4), (16, 32, 64, 128, 256)):
        starts = [(mean / sd * shift, math.log(spread)) for shift in (1, 2, 4) for spread in spreads]
        with np.errstate(all="ignore"):
            solutions = [least_squares(miss, start, xtol=1e-12, ftol=1e-12, gtol=1e-12) for start in starts]
        best = min(solutions, key=lambda solution: solution.cost)
        if max(abs(v) for v in best.fun) <= 1e-3:
            return TrialError(float(best.x[0]) * sd, math.exp(float(best.x[1])) * sd)
    raise CimcError(
        f"no error of a single trial leaves sd {sd} uS and mean {mean} uS after {programming.trials} trials at "
        f"tolerance {tolerance} uS; correct [cell.programming] of the chip"
    )


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
    return mean, math.sqrt(max(square - mean * mean, 1e-18 * s * s))  # rounding may leave less than nothing


def error_left(cell: Cell, target_uS: float) -> ErrorLeft:
    """The law of the error that writes to one target leave, integrated over the errors of a trial.

    Raises:
        CimcError: as `trial_error`.
    """
    programming = cell.programming
    if programming.follows_state:
        mean, sd = float(cell.error_mean_uS(target_uS)), float(cell.error_sd_uS(target_uS))
    else:
        mean, sd = trial_error(programming)
    z, weight = (NORMAL, NORMAL_SHARE) if sd > 0 else (np.zeros(1), np.ones(1))
    ends = target_uS + mean + sd * z
    if cell.limits_uS is not None:
        ends = np.clip(ends, cell.limits_uS[0], cell.limits_uS[1])
    error = ends - target_uS
    accepted, trials = 1.0, 1.0
    if programming.trials > 1 and programming.tolerance_uS is not None:
        inside = np.abs(error) <= programming.tolerance_uS
        accepted = float(weight @ inside)
        last = (1 - accepted) ** (programming.trials - 1)
        trials = (1 - (1 - accepted) ** programming.trials) / accepted if accepted > 0 else programming.trials
        weight = weight * (inside * ((1 - last) / max(accepted, 1e-300)) + last)
    mean = float(weight @ error)
    deviation = error - mean
    variance = float(weight @ deviation**2)
    # Rounding in the sums leaves a mean and a variance of nearly 0 where there is none.
    varies = variance > 1e-24 * cell.window_uS**2
    beyond = (ends < cell.conductance_min_uS) | (ends > cell.conductance_max_uS)
    return ErrorLeft(
        mean_uS=mean if abs(mean) > 1e-12 * cell.window_uS else 0.0,
        sd_uS=math.sqrt(variance) if varies else 0.0,
        excess_kurtosis=float(weight @ deviation**4) / variance**2 - 3 if varies else 0.0,
        beyond_3_sd=float(weight @ (np.abs(deviation) > 3 * math.sqrt(variance))) if varies else 0.0,
        accepted_first=accepted,
        trials=trials,
        beyond_window=float(weight @ beyond),
    )
