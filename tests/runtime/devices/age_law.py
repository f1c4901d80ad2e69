"""What a device holds so long after a write, as mean and sd over devices, from the chip's figures alone (plain NumPy).

The equations are those of `runtime.devices.age`, which draws from the same law.
"""

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cimc.chip import Cell
from cimc.device_laws import law_at
from cimc.device_time import Drift, Relaxation, Retention, state_law_at
from runtime.devices.write_law import NORMAL, NORMAL_SHARE

Doubles = npt.NDArray[np.float64]


class StateLeft(NamedTuple):
    """Mean and sd over devices, uS."""

    mean_uS: float
    sd_uS: float


def state_left(cell: Cell, written_uS: float, seconds: float) -> StateLeft:
    """The law of what devices hold so long after they were left at one conductance; `limits_uS` not applied.

    Args:
        cell: the device.
        written_uS: what the write left.
        seconds: since the write.
    """
    x = cell.state(np.asarray(written_uS, np.float64))
    share, added, left = (1.0, 1.0), (0.0, 0.0), (1.0, 1.0)  # mean and mean square of each law
    if cell.drift is not None:
        share = _drift_moments(cell.drift, x, seconds)
    if cell.relaxation is not None:
        mean, sd = relaxation_at(cell.relaxation, x, seconds)
        added = mean, mean**2 + sd**2
    rest = 0.0
    if cell.retention is not None:
        rest, left = cell.retention.rest_uS, _retention_moments(cell.retention, seconds)
    # Moments of share * written + added - rest, and then of that times what is left.
    moved = added[0] - rest
    mean = share[0] * written_uS + moved
    variance = (share[1] - share[0] ** 2) * written_uS**2 + added[1] - added[0] ** 2
    square = left[1] * (variance + mean**2)
    return StateLeft(rest + left[0] * mean, math.sqrt(max(square - (left[0] * mean) ** 2, 0.0)))


def relaxation_at(relaxation: Relaxation, x: Doubles, seconds: float) -> tuple[float, float]:
    """Mean and sd, uS, of what time has added by then to devices at the state x."""
    times = np.log(relaxation.times_s)
    if seconds < relaxation.times_s[0]:
        return 0.0, 0.0
    sds = [float(law_at(law, x)) for law in relaxation.sd_uS]
    means = [float(law_at(law, x)) for law in relaxation.mean_uS or (0.0,) * len(times)]
    mean, sd = (float(np.interp(math.log(seconds), times, values)) for values in (means, sds))
    if relaxation.of == "written":
        return mean, sd
    return mean - means[0], math.sqrt(max(sd**2 - sds[0] ** 2, 0.0))


def _drift_moments(drift: Drift, x: Doubles, seconds: float) -> tuple[float, float]:
    exponent = state_law_at(drift.exponent, x) + state_law_at(drift.exponent_sd, x) * NORMAL
    if drift.sign == "positive":
        exponent = np.abs(exponent)
    return _moments(np.exp(-exponent * math.log(max(seconds / drift.start_s, 1.0))))


def _retention_moments(retention: Retention, seconds: float) -> tuple[float, float]:
    tau = retention.tau_s * np.exp(retention.tau_d2d * NORMAL)
    return _moments(np.exp(-((seconds / tau) ** retention.stretch)))


def _moments(values: Doubles) -> tuple[float, float]:
    """Mean and mean square over devices, of values on the grid of the normal law."""
    return float(NORMAL_SHARE @ values), float(NORMAL_SHARE @ values**2)
