"""One direction of measured steps, and what is fitted to it: shapes, factors of devices, lines of devices, spreads."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.fitting.pulse_trains import PulseTrains, Steps, robust_sd, rows_by_device
from runtime.fitting.shapes import Shape

Doubles = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

HUBER = 1.345  # robust sds: 95 % efficient for Gaussian errors
ROUNDS = 6  # of reweighting
TRUNCATED = 3.0  # sds
TRUNCATED_VARIANCE = 0.97334  # of a standard normal within that
FAR = 5.0  # robust sds: a device whose figure is further off is no sample of the spread
PRECISION = 1e-5  # of a search, far below the confidence of any figure
FLOOR = 0.05  # of the mean step: noise that follows the step is taken not to fall below


@dataclass(frozen=True)
class Side:
    """Steps of one direction, mirrored where they go down.

    device, half: of each step; every other step of a device is of the other half. x: state before, 0 to 1 in the
    direction of the pulses. change: uS. room: to the bound where the device was seen to stop, uS; infinite: nowhere.
    usable: not cut by a bound. bounds [devices]: where each was seen to stop, in shares of the mean window; NaN:
    nowhere. seen [devices]: the same, or the furthest state. direction: 1 or -1. start, width: of the mean window, uS
    (mirrored).
    """

    device: Integers
    half: Integers
    x: Doubles
    change: Doubles
    room: Doubles
    usable: Flags
    bounds: Doubles
    seen: Doubles
    direction: int
    start: float
    width: float

    @property
    def devices(self) -> int:
        """How many there are, those without steps included."""
        return len(self.bounds)


@dataclass(frozen=True)
class Lines:
    """Mean step constant + slope x of each device [devices], with the variances and covariance of both."""

    constant: Doubles
    slope: Doubles
    constant_variance: Doubles
    slope_variance: Doubles
    covariance: Doubles

    def at(self, x: float) -> Doubles:
        """Mean steps at a state."""
        return self.constant + self.slope * x

    def error_at(self, x: float) -> Doubles:
        """Standard errors of those."""
        variance = self.constant_variance + 2 * x * self.covariance + x**2 * self.slope_variance
        return np.sqrt(np.maximum(variance, 0.0))

    def ends(self) -> tuple[Doubles, Doubles]:
        """States where the steps end, with standard errors; NaN where a line does not clearly fall."""
        clear = self.slope < -2 * np.sqrt(self.slope_variance)
        slope = np.where(clear, self.slope, np.nan)
        end = -self.constant / slope
        variance = self.constant_variance + 2 * end * self.covariance + end**2 * self.slope_variance
        return end, np.sqrt(np.maximum(variance, 0.0)) / np.abs(slope)


def sides_of(trains: PulseTrains, steps: tuple[Steps, Steps]) -> list[Side]:
    """The SET and the RESET steps; RESET is left out where there is none."""
    extremes = np.full((2, trains.devices), np.nan)
    np.fmax.at(extremes[0], trains.device, trains.conductance)
    np.fmax.at(extremes[1], trains.device, -trains.conductance)
    bounds = np.stack([one.bound for one in steps])
    seen = np.where(np.isfinite(bounds), bounds, extremes)
    high, low = float(np.nanmean(seen[0])), -float(np.nanmean(seen[1]))
    known = np.isfinite(bounds).all(axis=0)
    sides = []
    for index, (one, start) in enumerate(zip(steps, (low, -high), strict=True)):
        if not one.change.size:
            continue
        width = high - low
        own_start = np.where(known, -bounds[1 - index], start)[one.device]
        own_width = np.where(known, bounds.sum(axis=0), width)[one.device]
        order = np.zeros(len(one.device), np.int64)
        for _, own in rows_by_device(one.device):
            order[own] = np.arange(own.stop - own.start)
        bound = one.bound[one.device]
        sides.append(
            Side(
                one.device,
                order % 2,
                (one.before - own_start) / own_width,
                one.change,
                np.where(np.isfinite(bound), bound - one.before, np.inf),
                ~one.at_bound,
                (bounds[index] - start) / width,
                (seen[index] - start) / width,
                1 - 2 * index,
                start,
                width,
            )
        )
    return sides


def fit_shape(shape: Shape, side: Side, weights: Doubles | None = None, start: Doubles | None = None) -> Doubles:
    """The parameters of a shape, from the usable steps that have a weight [steps]; None: all alike.

    start: parameters that are nearly right; None: the shape's own start.
    """
    if not shape.start:
        return np.array([])
    from scipy.optimize import least_squares  # here: its import takes 0.3 s

    weight = side.usable.astype(float) if weights is None else side.usable * weights
    chosen = weight > 0
    root = np.sqrt(weight[chosen])

    def misses(given: Doubles) -> Doubles:
        mean = shape.mean(side.x, given)
        factor, _, _ = _factors(side, mean, chosen, None, 2)
        left = (side.change - factor[side.device] * mean)[chosen]
        return root * np.nan_to_num(left)  # a device with a single step says nothing

    given = np.array(shape.start) if start is None else start
    for _ in range(2 if start is None else 1):  # what is an outlier is known only after a first fit
        scale = max(robust_sd(misses(given)), 1e-9 * side.width)
        given = least_squares(
            # In units of their sd: the search ends at a small gradient, which in uS is a small device's at once.
            lambda given, scale=scale: misses(given) / scale,
            given,
            bounds=(shape.low, shape.high),
            loss="soft_l1",
            x_scale="jac",
            ftol=PRECISION,
            xtol=PRECISION,
            max_nfev=30,
        ).x
    return given


def fit_factors(side: Side, mean: Doubles, chosen: Flags, noise: Doubles | None = None) -> tuple[Doubles, Doubles]:
    """The factor of each device before the mean steps, and its standard error; NaN where it has no step that says it.

    noise [steps]: what the sd of each step is proportional to; None: all alike.
    """
    factor, left, norm = _factors(side, mean, chosen, noise, ROUNDS)
    with np.errstate(invalid="ignore", divide="ignore"):
        error = truncated_sd(left) / np.sqrt(norm)
    return factor, np.where(np.isfinite(factor), error, np.nan)


def _factors(
    side: Side, mean: Doubles, chosen: Flags, noise: Doubles | None, rounds: int
) -> tuple[Doubles, Doubles, Doubles]:
    """The factors, what they leave of the chosen steps (over noise), and the sums of weights times squared mean steps.

    A search for a shape asks thousands of times: no figure that it does not need is computed here.
    """
    device, shape, change = side.device[chosen], mean[chosen], side.change[chosen]
    inverse = np.ones_like(shape) if noise is None else 1 / noise[chosen] ** 2
    left, trusted, norm = np.zeros_like(shape), np.ones_like(shape), np.zeros(side.devices)
    for number in range(rounds):
        if number:
            trusted = _trust(left, robust_sd(left))
        weight = trusted * inverse
        norm = np.asarray(np.bincount(device, weight * shape**2, side.devices), np.float64)
        with np.errstate(invalid="ignore", divide="ignore"):
            factor = np.bincount(device, weight * shape * change, side.devices) / norm
        left = (change - factor[device] * shape) * np.sqrt(inverse)
    known = np.bincount(device, minlength=side.devices) > 1
    return np.where(known, factor, np.nan), left, norm


def fit_lines(device: Integers, x: Doubles, change: Doubles, devices: int, *, follow_mean: bool = False) -> Lines:
    """A line of the changes over x for each device; NaN where it has too few values. Huber weights.

    follow_mean: the sd of a change is proportional to its mean.
    """
    inverse = trusted = np.ones_like(x)
    for _ in range(ROUNDS):
        weight = trusted * inverse
        total, first, second, plain, product = (
            np.bincount(device, weight * values, devices) for values in (1.0, x, x * x, change, x * change)
        )
        with np.errstate(invalid="ignore", divide="ignore"):
            norm = total * second - first**2
            constant, slope = (second * plain - first * product) / norm, (total * product - first * plain) / norm
        predicted = constant[device] + slope[device] * x
        if follow_mean:
            with np.errstate(invalid="ignore"):  # no line at all
                mean = np.nansum(predicted) / np.isfinite(predicted).sum()
            inverse = 1 / np.maximum(predicted, FLOOR * abs(float(mean))) ** 2
        left = (change - predicted) * np.sqrt(inverse)
        trusted = _trust(left, robust_sd(left[np.isfinite(left)]))
    known = np.bincount(device, minlength=devices) > 2
    freedom = max(1 - 2 * known.sum() / max(len(x), 1), 0.1)  # a line takes two
    variance = truncated_sd(left[np.isfinite(left)]) ** 2 / freedom
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = (constant, slope, variance * second / norm, variance * total / norm, -variance * first / norm)
    return Lines(*(np.where(known, part, np.nan) for part in parts))


def _trust(left: Doubles, scale: float) -> Doubles:
    """Huber's weights of residuals."""
    if scale <= 0:
        return np.ones_like(left)
    return 1 / np.maximum(np.abs(left) / (HUBER * scale), 1.0)


def truncated_sd(values: Doubles, weights: Doubles | None = None) -> float:
    """Root mean square of values about 0, without what lies beyond 3 sd of a Gaussian; 0 of nothing."""
    weight = np.ones_like(values) if weights is None else weights
    if not weight.sum():
        return 0.0
    found = max(robust_sd(values[weight > 0]), 0.0)
    for _ in range(ROUNDS):
        kept = weight * (np.abs(values) <= TRUNCATED * found)
        if found <= 0 or not kept.sum():
            return found
        found = math.sqrt(float(kept @ values**2) / float(kept.sum()) / TRUNCATED_VARIANCE)
    return found


def mean_of(values: Doubles, weights: Doubles) -> float:
    """Weighted mean of what is known, without devices far off."""
    kept = _near(values, weights)
    return float(np.average(values[kept], weights=weights[kept])) if kept.any() else math.nan


def median_of(values: Doubles) -> float:
    """Median of what is known; NaN of nothing."""
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else math.nan


def spread(values: Doubles, errors: Doubles, weights: Doubles) -> float:
    """Sd from device to device: that of the values, less what their standard errors make of it."""
    kept = _near(values, weights) & np.isfinite(errors)
    if kept.sum() < 2:
        return 0.0
    weight = weights[kept] / weights[kept].sum()
    mean = float(weight @ values[kept])
    count = float(weights[kept].sum())
    variance = float(weight @ (values[kept] - mean) ** 2) * count / max(count - 1, 1)
    return math.sqrt(max(variance - float(weight @ errors[kept] ** 2), 0.0))


def _near(values: Doubles, weights: Doubles) -> Flags:
    """Which devices count."""
    known = np.isfinite(values) & (weights > 0)
    if known.any():
        off = np.abs(values - np.median(values[known]))
        known &= off <= FAR * robust_sd(values[known]) + 1e-9 * np.abs(values)
    return known
