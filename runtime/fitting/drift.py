"""Fit of the power law of drift to retention data: g(t) = g(start) (t / start)^-nu, nu by device. Plain NumPy."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.fitting.pulses import CONFIDENCE, Estimate
from runtime.fitting.sides import fit_lines, mean_of, spread, truncated_sd

Doubles = npt.NDArray[np.float64]
RESAMPLED = 200


@dataclass(frozen=True)
class RetentionData:
    """Conductances over time, a row a reading [rows]: device from 0, time after the write in s, conductance in uS."""

    device: npt.NDArray[np.int64]
    time_s: Doubles
    conductance: Doubles


@dataclass(frozen=True)
class DriftFit:
    """What `fit_drift` finds.

    start_s: the earliest time. exponent, exponent_sd: mean and sd of nu over devices. residual: sd of single readings
    about their device's law, as a fraction of the conductance.
    """

    start_s: float
    exponent: Estimate
    exponent_sd: Estimate
    residual: float
    devices: int
    readings: int


def fit_drift(data: RetentionData, *, seed: int = 0) -> DriftFit:
    """Fit a power law to each device, and mean and sd of the exponents with their 95 % confidence.

    Args:
        data: positive times and conductances of at least two devices, of some at three times or more.
        seed: of the bootstrap over devices.
    """
    devices = int(data.device.max()) + 1
    first = np.full(devices, np.inf)
    np.minimum.at(first, data.device, data.time_s)
    start = float(np.median(first))
    x, y = np.log(data.time_s / start), np.log(data.conductance)
    lines = fit_lines(data.device, x, y, devices)
    exponent, error = -lines.slope, np.sqrt(lines.slope_variance)
    left = y - lines.constant[data.device] - lines.slope[data.device] * x

    def figures(weights: Doubles) -> tuple[float, float]:
        return mean_of(exponent, weights), spread(exponent, error, weights)

    random = np.random.default_rng(seed)
    drawn = [
        figures(np.bincount(random.integers(devices, size=devices), minlength=devices).astype(float))
        for _ in range(RESAMPLED)
    ]
    found = figures(np.ones(devices))
    mean, sd = (
        Estimate(value, value - CONFIDENCE * deviation, value + CONFIDENCE * deviation)
        for value, deviation in zip(found, np.std(drawn, axis=0, ddof=1), strict=True)
    )
    sd = Estimate(sd.value, max(sd.low, 0.0), sd.high)
    residual = truncated_sd(left[np.isfinite(left)]) / math.sqrt(max(1 - 2 * devices / len(x), 0.1))
    return DriftFit(start, mean, sd, residual if math.isfinite(residual) else 0.0, devices, len(x))
