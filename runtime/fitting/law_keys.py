"""What a fitted shape of the mean step is in the keys of a device file."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.fitting.shapes import SHAPES

Doubles = npt.NDArray[np.float64]

LABEL = 0.07 * math.sqrt(2)  # of NeuroSim's nonlinearity: a unit of the distance of its curve from the diagonal
MOST_LABEL = 9.0


class FittedShape(NamedTuple):
    """One direction: the shape's parameters, the mean factor of the devices, uS, and the window of its states, uS."""

    given: Doubles
    factor: float
    width: float


def law_keys(law: str, shapes: Sequence[FittedShape], low: float, high: float) -> dict[str, float]:
    """The figures of SET and, where there is one, RESET, by dotted key, in a window from low to high uS."""
    keys = {"conductance_min_uS": low, "conductance_max_uS": high}
    for shape, down in zip(shapes, ("", "_down"), strict=False):
        keys |= {f"pulse.{key}": value for key, value in _direction(law, shape, high - low, down).items()}
    return keys


def _direction(law: str, shape: FittedShape, window: float, down: str) -> dict[str, float]:
    given, factor, width = shape
    step = f"step{down}_uS"
    if law == "soft-bounds" and given.size:
        return {step: factor * window / width}
    if law == "exponential":
        return _exponential(float(given[0]), factor, width, down)
    if law == "power":
        return {step: factor * (window / width) ** float(given[1]), f"exponent{down}": float(given[1])}
    if law == "exponential-step":
        return {step: factor, f"amplitude{down}": math.exp(given[0]), f"gamma{down}": float(given[1])}
    if law == "piecewise":
        middle = float(SHAPES[law].mean(np.array([0.5]), given)[0])
        values = (given if not down else given[::-1]) / middle
        return {step: factor * middle, **{f"factors{down}.{index}": float(v) for index, v in enumerate(values)}}
    return {step: factor}


def _exponential(fall: float, factor: float, width: float, down: str) -> dict[str, float]:
    """The law of NeuroSim from a mean step of factor (1 + fall (1/2 - x)): its pulses through the window, its label."""
    start = 1 + fall / 2
    if abs(fall) < 1e-6:
        return {f"step{down}_uS": factor, f"nonlinearity{down}": 0.0}
    share = factor / width
    left = 1 - fall / start  # e^(-1 / A): of the way to the asymptote, what is left at the end of the window
    pulses = math.log(left) / math.log1p(-share * fall)
    a = 1 / abs(math.log(left))
    whole = -math.expm1(-1 / a)
    x = -a * math.log(a * whole)  # where the curve is as steep as its diagonal
    label = (-math.expm1(-x / a) / whole - x) / LABEL
    return {f"step{down}_uS": width / pulses, f"nonlinearity{down}": math.copysign(min(label, MOST_LABEL), fall)}
