"""Fit of a pulse law to measured pulse trains: the law by cross-validation, its figures, spreads and confidence.

Every law's mean step is a shape times a factor of each device and direction. The shape is fitted to all devices (soft
L1 loss), the factors to each (Huber weights); spreads from device to device are those of the factors less what their
errors make. Confidence is that of a bootstrap over devices. Plain NumPy and SciPy.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import zip_longest

import numpy as np
import numpy.typing as npt

from runtime.fitting.law_keys import FittedShape, law_keys
from runtime.fitting.pulse_trains import PulseTrains, robust_sd, steps_of, without_outliers
from runtime.fitting.shapes import FIXED, SHAPES
from runtime.fitting.sides import (
    FLOOR,
    Lines,
    Side,
    fit_factors,
    fit_lines,
    fit_shape,
    mean_of,
    median_of,
    sides_of,
    spread,
    truncated_sd,
)

Doubles = npt.NDArray[np.float64]

FOLDS = 4
RESAMPLED = 60
MOST_ERROR = 4.0  # robust sds: larger errors of a prediction count as this, so that outliers choose no law
ALIKE = 0.01  # of the squared error: laws that differ by less, or by two standard errors, predict alike
SMALL_STEP = 0.2  # of the mean step: where steps are smaller, noise that is proportional to them says nothing
CLEARLY = 10.0  # of log likelihood
CONFIDENCE = 1.96  # sds: 95 %


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % confidence interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class PulseFit:
    """What `fit_pulses` finds.

    law: that predicts best. scores: mean squared error of one-step predictions on held-out devices by law, in squares
    of the residual sd, and the standard error of each. own_bounds: bounds differ by device. settings: `[pulse]` of a
    device file but for the figures. figures: dotted keys of a device file -> estimates. residual_sd_uS: of single
    steps.
    """

    law: str
    scores: Mapping[str, tuple[float, float]]
    own_bounds: bool
    settings: Mapping[str, object]
    figures: Mapping[str, Estimate]
    residual_sd_uS: float
    devices: int
    steps: int
    outliers: int
    stuck: int


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def fit_pulses(trains: PulseTrains, *, seed: int = 0) -> PulseFit:
    """Fit every law, choose one and estimate its figures; those that the trains do not tell are NaN.

    Args:
        trains: of at least two devices; without RESET pulses the device is one that only goes up.
        seed: of the folds and of the bootstrap.
    """
    clean, outliers, stuck = without_outliers(trains)
    sides = sides_of(clean, (steps_of(clean, 1), steps_of(clean, -1)))
    random = np.random.default_rng(seed)
    devices = np.unique(clean.device)
    errors = _errors_of_laws(sides, devices, random)
    law, own_bounds, scores = _choice(errors)
    noise = _noise_of(law, sides, own_bounds=own_bounds)
    estimator = _Estimator(law, tuple(sides), own_bounds, noise)
    everyone = np.zeros(trains.devices)
    everyone[devices] = 1.0
    found = estimator.figures(everyone)
    near = replace(estimator, start=tuple(one.given for one in estimator.fitted(everyone)))
    drawn = [
        near.figures(np.bincount(random.choice(devices, len(devices)), minlength=trains.devices).astype(float))
        for _ in range(RESAMPLED)
    ]
    figures = {}
    for key, value in found.items():
        told = [one[key] for one in drawn if math.isfinite(one[key])]  # few devices drawn may not say it
        error = CONFIDENCE * float(np.std(told, ddof=1)) if len(told) > 1 else math.nan
        least = 0.0 if value >= 0 else -math.inf
        figures[key] = Estimate(value, max(value - error, least), value + error)
    settings: dict[str, object] = {"law": law, "c2c_of": noise, **FIXED.get(law, {})}
    if len(sides) == 1:
        settings["directions"] = "up"
    used = sum(int(side.usable.sum()) for side in sides)
    return PulseFit(
        law, scores, own_bounds, settings, figures, estimator.residual_sd(everyone), len(devices), used, outliers, stuck
    )


def _errors_of_laws(
    sides: list[Side], devices: npt.NDArray[np.int64], random: np.random.Generator
) -> dict[str, Doubles]:
    """Mean squared error of one-step predictions of every device [devices] by law, each held out once.

    The factor of a held-out device is taken from every other step of its, and predicts the steps between.
    """
    fold = np.arange(len(devices)) % min(FOLDS, len(devices))
    random.shuffle(fold)
    totals = {law: np.zeros(len(devices)) for law in (*SHAPES, OWN_BOUNDS)}
    for side in sides:
        scale = _residual_scale(side)
        for one in range(fold.max() + 1):
            held_out = devices[fold == one]
            test = np.isin(side.device, held_out)
            for law, shape in SHAPES.items():
                given = fit_shape(shape, side, (~test).astype(float))
                predicted = _predicted(side, shape.mean(side.x, given), test, hard=shape.hard)
                totals[law][fold == one] += _device_errors(side, predicted, scale, held_out)
            predicted = _predicted_by_lines(side, test)
            totals[OWN_BOUNDS][fold == one] += _device_errors(side, predicted, scale, held_out)
    return {law: total / len(sides) for law, total in totals.items()}


OWN_BOUNDS = "soft-bounds, own bounds"


def _predicted(side: Side, mean: Doubles, test: npt.NDArray[np.bool_], *, hard: bool) -> Doubles:
    """Predicted changes of held-out steps, each from the factors that the device's other half of steps gives."""
    predicted = np.full(side.change.shape, np.nan)
    for half in (0, 1):
        told = test & (side.half == half)
        factor, _ = fit_factors(side, mean, told & side.usable)
        asked = test & (side.half != half)
        step = np.nan_to_num(factor, nan=median_of(factor))[side.device[asked]] * mean[asked]
        predicted[asked] = np.minimum(step, side.room[asked]) if hard else step
    return predicted


def _predicted_by_lines(side: Side, test: npt.NDArray[np.bool_]) -> Doubles:
    predicted = np.full(side.change.shape, np.nan)
    for half in (0, 1):
        told = test & (side.half == half) & side.usable
        lines = fit_lines(side.device[told], side.x[told], side.change[told], side.devices)
        asked = test & (side.half != half)
        of = side.device[asked]
        predicted[asked] = np.maximum(lines.constant[of] + lines.slope[of] * side.x[asked], 0.0)
    return predicted


def _residual_scale(side: Side) -> float:
    """Robust sd of what the most flexible law leaves."""
    shape = SHAPES["piecewise"]
    mean = shape.mean(side.x, fit_shape(shape, side))
    factor, _ = fit_factors(side, mean, side.usable)
    left = (side.change - factor[side.device] * mean)[side.usable]
    return max(robust_sd(left), 1e-12 * float(np.abs(side.change).max()))


def _device_errors(side: Side, predicted: Doubles, scale: float, devices: npt.NDArray[np.int64]) -> Doubles:
    """Mean squared error by device; a device without predictions counts as one that is predicted as well as others."""
    error = np.minimum(np.abs(side.change - predicted) / scale, MOST_ERROR) ** 2
    known = np.isfinite(error)
    total = np.bincount(side.device[known], error[known], minlength=side.devices)
    count = np.bincount(side.device[known], minlength=side.devices)
    return np.where(count > 0, total / np.maximum(count, 1), 1.0)[devices]


def _choice(errors: dict[str, Doubles]) -> tuple[str, bool, dict[str, tuple[float, float]]]:
    """The simplest law that predicts as well as the best, whether devices have bounds of their own, and all scores."""
    count = len(next(iter(errors.values())))

    def standard_error(values: Doubles) -> float:
        return float(np.std(values, ddof=1) / math.sqrt(count)) if count > 1 else 0.0

    best = min(errors, key=lambda law: float(errors[law].mean()))
    least = float(errors[best].mean())
    alike = [
        law
        for law, error in errors.items()
        if float((error - errors[best]).mean()) <= max(2 * standard_error(error - errors[best]), ALIKE * least)
    ]
    order = ["linear", "soft-bounds", OWN_BOUNDS, *(law for law in SHAPES if law not in ("linear", "soft-bounds"))]
    chosen = min(alike, key=order.index)
    scores = {law: (float(error.mean()), standard_error(error)) for law, error in errors.items()}
    own = scores.pop(OWN_BOUNDS)
    scores["soft-bounds"] = min(scores["soft-bounds"], own) if chosen != "soft-bounds" else scores["soft-bounds"]
    return ("soft-bounds", True, scores) if chosen == OWN_BOUNDS else (chosen, False, scores)


def _noise_of(law: str, sides: list[Side], *, own_bounds: bool) -> str:
    """What cycle-to-cycle noise is proportional to, by likelihood: the first of those that are about as likely."""
    likelihood = dict.fromkeys(("step", "nominal-step", "window"), 0.0)
    estimator = _Estimator(law, tuple(sides), own_bounds, "step")
    for fitted in estimator.fitted(np.ones(sides[0].devices)):
        clear = fitted.clear()
        left = (fitted.side.change - fitted.predicted)[clear]
        for name in likelihood:
            scale = fitted.scale_of(name)[clear]
            c2c = max(truncated_sd(left / scale), 1e-12)
            squares = np.minimum((left / (c2c * scale)) ** 2, MOST_ERROR**2)
            likelihood[name] -= float(np.sum(np.log(c2c * scale) + squares / 2))
    likelihood = {name: value if math.isfinite(value) else -math.inf for name, value in likelihood.items()}
    best = max(likelihood.values())
    return next(name for name, value in likelihood.items() if value >= best - CLEARLY)


def _device_lines(side: Side, *, follow_mean: bool) -> Lines:
    used = side.usable
    return fit_lines(side.device[used], side.x[used], side.change[used], side.devices, follow_mean=follow_mean)


@dataclass(frozen=True)
class _Fitted:
    """One direction: shape, and of every device [devices] the step at the middle of the window, where its steps end
    (shares of the window of the states; NaN: not seen), and the standard errors of both; mean step predicted [steps].
    """

    side: Side
    given: Doubles
    step: Doubles
    step_error: Doubles
    end: Doubles
    end_error: Doubles
    predicted: Doubles

    def mean_step(self, weights: Doubles) -> float:
        """Of the devices, at the middle of the window, uS."""
        return mean_of(self.step, weights)

    def scale_of(self, noise: str) -> Doubles:
        """What c2c is a fraction of, by step [steps], uS."""
        if noise == "step":
            return self.predicted
        if noise == "window":
            return np.full(self.predicted.shape, self.side.width)
        # Factors have errors: what of their spread is that of the devices.
        everyone = np.ones(self.step.shape)
        mean, real = mean_of(self.step, everyone), spread(self.step, self.step_error, everyone)
        share = real**2 / max(spread(self.step, 0 * self.step_error, everyone) ** 2, 1e-300)
        return (mean + share * (self.step - mean))[self.side.device]

    def clear(self) -> npt.NDArray[np.bool_]:
        """Steps that say something about noise."""
        usual = SMALL_STEP * median_of(self.step)
        return self.side.usable & (self.predicted > usual) & (self.step[self.side.device] > usual)


@dataclass(frozen=True)
class _Estimator:
    """Estimates of a law's figures from devices that count with weights [devices]."""

    law: str
    sides: tuple[Side, ...]
    own_bounds: bool
    noise: str
    start: tuple[Doubles, ...] = ()

    def figures(self, weights: Doubles) -> dict[str, float]:
        """The figures by dotted key of a device file."""
        fitted = self.fitted(weights)
        shapes = [FittedShape(one.given, one.mean_step(weights), one.side.width) for one in fitted]
        low, high = self._window(fitted, weights)
        keys = law_keys(self.law, shapes, low, high)
        keys |= self._step_spreads(fitted, weights)
        for one, key in zip(fitted, ("pulse.high_d2d", "pulse.low_d2d"), strict=False):
            if np.isfinite(one.end).sum() > 2:  # whatever the weights: a bootstrap has the same figures in every draw
                to_half = one.side.width / ((high - low) / 2)
                keys[key] = spread(one.end * to_half, one.end_error * to_half, weights)
        steps = (keys[key] for key in ("pulse.step_uS", "pulse.step_down_uS") if key in keys)
        keys["pulse.c2c"] = self._c2c(
            fitted, [step / one.factor for step, one in zip(steps, shapes, strict=True)], weights
        )
        return keys

    def fitted(self, weights: Doubles) -> list[_Fitted]:
        """Each direction."""
        return (
            self._lines(weights)
            if self.own_bounds
            else [self._shaped(side, weights, start) for side, start in zip_longest(self.sides, self.start)]
        )

    def residual_sd(self, weights: Doubles) -> float:
        """Of single steps, uS, without outliers."""
        left = [(one.side.change - one.predicted)[one.side.usable] for one in self.fitted(weights)]
        return truncated_sd(np.concatenate([one[np.isfinite(one)] for one in left]))

    def _step_spreads(self, fitted: list[_Fitted], weights: Doubles) -> dict[str, float]:
        """Of the step of both directions, and of the difference between them."""
        up = fitted[0]
        step = up.mean_step(weights)
        if len(fitted) == 1:
            return {"pulse.step_d2d": spread(up.step / step, up.step_error / step, weights)}
        down = fitted[1]
        fall = down.mean_step(weights)
        error = np.hypot(up.step_error / step, down.step_error / fall) / 2
        return {
            "pulse.step_d2d": spread((up.step / step + down.step / fall) / 2, error, weights),
            "pulse.asymmetry_d2d": spread((up.step / step - down.step / fall) / 2, error, weights),
        }

    def _c2c(self, fitted: list[_Fitted], nominal: list[float], weights: Doubles) -> float:
        """nominal: step of the law's description over the factor of a device, by direction."""
        values, counts = [], []
        for one, ratio in zip(fitted, nominal, strict=True):
            clear = one.clear()
            scale = one.scale_of(self.noise)[clear] * (ratio if self.noise == "nominal-step" else 1.0)
            values.append((one.side.change - one.predicted)[clear] / scale)
            counts.append(weights[one.side.device[clear]])
        count = np.concatenate(counts)
        lost = (2 if self.own_bounds else 1) * len(fitted) * np.count_nonzero(weights)  # figures of each device
        used = sum(np.count_nonzero(weights[one.side.device[one.side.usable]]) for one in fitted)
        freedom = 1 - min(lost / max(used, 1), 0.9)
        return truncated_sd(np.concatenate(values), count) / math.sqrt(freedom)

    def _window(self, fitted: list[_Fitted], weights: Doubles) -> tuple[float, float]:
        """Mean lower and upper bound of the devices, uS: where the steps end, or else what was seen."""
        ends = []
        for one in fitted:
            if self.own_bounds:
                end = mean_of(one.end, weights)
            else:
                end = mean_of(one.side.seen, weights) if SHAPES[self.law].hard else float(one.given[0])
            ends.append(one.side.direction * (one.side.start + end * one.side.width))
        return max(ends[1] if len(ends) > 1 else self.sides[0].start, 0.0), ends[0]

    def _shaped(self, side: Side, weights: Doubles, start: Doubles | None) -> _Fitted:
        shape = SHAPES[self.law]
        given = fit_shape(shape, side, weights[side.device], start)
        mean = shape.mean(side.x, given)
        noise = np.maximum(mean, FLOOR * float(mean.mean())) if self.noise == "step" else None
        factor, error = fit_factors(side, mean, side.usable, noise)
        end = np.full(side.devices, np.nan) if not shape.hard else side.bounds
        return _Fitted(side, given, factor, error, end, np.zeros(side.devices), factor[side.device] * mean)

    def _lines(self, weights: Doubles) -> list[_Fitted]:
        lines = [_device_lines(side, follow_mean=self.noise == "step") for side in self.sides]
        ends = [mean_of(line.ends()[0], weights) for line in lines]
        opposite = 1 - ends[1] if len(ends) > 1 else 0.0
        middles = [(ends[0] + opposite) / 2, 1 - (ends[0] + opposite) / 2]
        found = []
        for side, line, middle in zip(self.sides, lines, middles, strict=False):
            predicted = np.maximum(line.constant[side.device] + line.slope[side.device] * side.x, 0.0)
            found.append(_Fitted(side, np.array([]), line.at(middle), line.error_at(middle), *line.ends(), predicted))
        return found
