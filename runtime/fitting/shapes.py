"""The pulse laws as what is fitted to measured steps: the shape of the mean step, up to a factor a device.

States are shares x of the window in the direction of the pulses, 0 where they start and 1 where they lead; RESET pulses
are mirrored, so that each law has one shape. Plain NumPy.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Doubles = npt.NDArray[np.float64]

NODES = 8  # of the piecewise law
LEAST_DISTANCE = 1e-6  # of the window, in powers


@dataclass(frozen=True)
class Shape:
    """A law to fit. mean: step of a device with factor 1 at states x [..], by the parameters.

    start, low, high: parameters, where the search starts and its bounds. hard: steps are whole until a device stops at
    its bound; else its bound is where the mean step ends.
    """

    mean: Callable[[Doubles, Doubles], Doubles]
    start: tuple[float, ...] = ()
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    hard: bool = True


def _linear(x: Doubles, _: Doubles) -> Doubles:
    return np.ones_like(x)


def _soft_bounds(x: Doubles, given: Doubles) -> Doubles:
    return 2 * np.maximum(given[0] - x, 0.0)


def _exponential(x: Doubles, given: Doubles) -> Doubles:
    return np.maximum(1 + given[0] * (0.5 - x), 0.0)


def _power(x: Doubles, given: Doubles) -> Doubles:
    return np.maximum(2 * (given[0] - x), LEAST_DISTANCE) ** given[1]


def _exponential_step(x: Doubles, given: Doubles) -> Doubles:
    return np.maximum(1 - np.exp(given[0] + given[1] * (2 * x - 1)), 0.0)


def _piecewise(x: Doubles, given: Doubles) -> Doubles:
    return np.interp(x, np.linspace(0, 1, NODES), given)


# From the simplest to the most flexible: of laws that predict alike the first is taken.
SHAPES: dict[str, Shape] = {
    "linear": Shape(_linear),
    "soft-bounds": Shape(_soft_bounds, (1.1,), (0.8,), (20.0,), hard=False),
    "exponential": Shape(_exponential, (0.5,), (-1.999,), (1.999,)),
    "power": Shape(_power, (1.1, 1.5), (0.8, 0.05), (5.0, 6.0), hard=False),
    "exponential-step": Shape(_exponential_step, (-3.0, 2.0), (-12.0, 0.0), (-0.01, 20.0)),
    "piecewise": Shape(_piecewise, (1.0,) * NODES, (0.0,) * NODES, (20.0,) * NODES),
}

# Keys of a law beside those that are fitted.
FIXED: dict[str, dict[str, float]] = {"exponential-step": {"slope": 1.0, "shift": 0.0}}
