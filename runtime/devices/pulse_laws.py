"""The laws by which a blind pulse moves a device, by name in `PULSE_LAWS`: the mean step at a state.

Written on NumPy or JAX arrays alike: training pulses with them, plans and drawings follow their staircases.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from cimc.chip import Cell
from cimc.device_pulse import Binary, Exponential, ExponentialStep, Piecewise, Power, Pulse, Tabulated
from cimc.scheme import AnyArray, namespace_of

# A device whose own bound lies at the middle or beyond is treated as if it lay so far from it, as a part of the window.
LEAST_REACH = 1e-3
LARGEST_POWER = 60.0  # of e: float32 holds it


class Place(NamedTuple):
    """Where devices stand, seen along the pulse that they get. Arrays [..], in uS, or numbers.

    room: what is left to the bound that the pulse leads to, at least 0. reach: from the middle of the window to that
    bound. width: of the device's own window. up: True for SET, False for RESET.
    """

    room: AnyArray
    reach: Any
    width: Any
    up: Any


# (place, pulse section, cell) -> mean step in the direction of the pulse, over the device's own step [..].
PulseLaw = Callable[[Place, Any, Cell], Any]


def pulse_response(cell: Cell) -> Pulse:
    """The description of the pulses of a device.

    Raises:
        ValueError: the device has no pulse response.
    """
    if cell.pulse is None:
        raise ValueError("the chip has no [cell.pulse]")
    return cell.pulse


def bounds_uS(cell: Cell) -> tuple[float, float]:
    """What pulses never take a device beyond, as the description has it: the limits, or else the window."""
    low, high = cell.limits_uS or (cell.conductance_min_uS, cell.conductance_max_uS)
    return low, high


def step_factor(conductance: AnyArray, *, up: Any, low: Any, high: Any, cell: Cell) -> Any:
    """Mean step of one pulse over the device's own step, at least 0: a number, or an array like the conductances.

    Args:
        conductance: what the devices hold [..], uS.
        up: True for SET and False for RESET; a bool or [..].
        low: lower bound of each device, uS; a number or [..].
        high: upper bound likewise.
        cell: the device.

    Raises:
        ValueError: the device has no pulse response.
    """
    xp = namespace_of(conductance)
    pulse = pulse_response(cell)
    middle = (cell.conductance_min_uS + cell.conductance_max_uS) / 2
    if isinstance(up, bool):
        room, reach = (high - conductance, high - middle) if up else (conductance - low, middle - low)
    else:
        room = xp.where(up, high - conductance, conductance - low)
        reach = xp.where(up, high - middle, middle - low)
    least = LEAST_REACH * cell.window_uS
    reach = max(reach, least) if isinstance(reach, int | float) else xp.maximum(reach, least)
    place = Place(xp.maximum(room, 0), reach, high - low, up)
    return PULSE_LAWS[pulse.law_name](place, pulse, cell)


def _linear(place: Place, pulse: Pulse, cell: Cell) -> float:
    return 1.0


def _soft_bounds(place: Place, pulse: Pulse, cell: Cell) -> Any:
    """1 at the middle of the window, linear to 0 at the device's bound."""
    return place.room / place.reach


def _exponential(place: Place, pulse: Exponential, cell: Cell) -> Any:
    up, down = exponential_form(cell, up=True), exponential_form(cell, up=False)
    constant, slope = (_of_direction(place, a, b) for a, b in zip(up, down, strict=True))
    return constant + slope * (place.room / place.width)


def _exponential_step(place: Place, pulse: ExponentialStep, cell: Cell) -> Any:
    """As aihwkit has it: z grows towards the bound, from `shift` (RESET: -shift) at the middle of the window."""
    xp = namespace_of(place.room)
    weight = 2 * (place.reach - place.room) / place.width  # -1 to 1 in the direction of the pulse
    z = pulse.slope * weight + _of_direction(place, pulse.shift, -pulse.shift)
    amplitude = _of_direction(place, pulse.amplitude, pulse.amplitude_down)
    power = xp.clip(_of_direction(place, pulse.gamma, pulse.gamma_down) * z, -LARGEST_POWER, LARGEST_POWER)
    return xp.maximum(1 - amplitude * xp.exp(power), 0)


def _power(place: Place, pulse: Power, cell: Cell) -> Any:
    down = pulse.exponent if pulse.exponent_down is None else pulse.exponent_down
    return (2 * place.room / place.width) ** _of_direction(place, pulse.exponent, down)


def _piecewise(place: Place, pulse: Piecewise, cell: Cell) -> Any:
    # Nodes stand in the direction of the pulse: those of RESET from the upper to the lower bound.
    down = pulse.factors if pulse.factors_down is None else pulse.factors_down[::-1]
    travelled = 1 - place.room / place.width
    return _interpolated(
        place,
        travelled,
        (np.linspace(0, 1, len(pulse.factors)), np.array(pulse.factors)),
        (np.linspace(0, 1, len(down)), np.array(down)),
    )


def _tabulated(place: Place, pulse: Tabulated, cell: Cell) -> Any:
    """From one pulse number to the next the step of a curve of straight pieces is itself linear in the state."""
    low, high = bounds_uS(cell)
    up = np.array(pulse.curve_uS) - low
    down = high - np.array(pulse.curve_uS[::-1] if pulse.curve_down_uS is None else pulse.curve_down_uS)
    travelled = (1 - place.room / place.width) * (high - low)
    steps = [np.append(np.diff(curve), 0) / step for curve, step in ((up, pulse.step_uS), (down, pulse.down_uS))]
    return _interpolated(place, travelled, (up, steps[0]), (down, steps[1]))


def _binary(place: Place, pulse: Binary, cell: Cell) -> Any:
    """The mean of all devices; each of them goes the whole way or none of it (`apply_pulses`)."""
    up, down = switching(pulse)
    return place.room * _of_direction(place, up / pulse.step_uS, down / pulse.down_uS)


PULSE_LAWS: dict[str, PulseLaw] = {
    "linear": _linear,
    "soft-bounds": _soft_bounds,
    "exponential": _exponential,
    "exponential-step": _exponential_step,
    "power": _power,
    "piecewise": _piecewise,
    "tabulated": _tabulated,
    "binary": _binary,
}


def switching(pulse: Binary) -> tuple[float, float]:
    """Probabilities that a SET and a RESET pulse switch a binary device."""
    return pulse.probability, pulse.probability if pulse.probability_down is None else pulse.probability_down


@lru_cache
def exponential_form(cell: Cell, *, up: bool) -> tuple[float, float]:
    """The exponential law's step over the device's own one is constant + slope (room / width): (constant, slope).

    In P = window / step pulses the conductance runs through the window as y(x) = (1 - e^(-x / A)) / (1 - e^(-1 / A)),
    x the part of the P pulses, y that of the window. One pulse further from y is P (1 - e^(-1 / (A P))) (B - y) steps,
    B = 1 / (1 - e^(-1 / A)).
    """
    pulse = pulse_response(cell)
    assert isinstance(pulse, Exponential)
    down = pulse.nonlinearity if pulse.nonlinearity_down is None else pulse.nonlinearity_down
    a = neurosim_a(pulse.nonlinearity if up else down)
    if math.isinf(a):
        return 1.0, 0.0
    pulses = cell.window_uS / (pulse.step_uS if up else pulse.down_uS)
    slope = -pulses * math.expm1(-1 / (a * pulses))
    return slope * (-1 / math.expm1(-1 / a) - 1), slope


@lru_cache
def neurosim_a(nonlinearity: float) -> float:
    """NeuroSim's A, as a part of all pulses, of a label of nonlinearity; infinite for 0, negative for a negative label.

    The label is the largest distance of the normalised curve y(x) (`exponential_form`) from its diagonal, measured at
    right angles, in units of 0.07. NeuroSim has A in a table (`getParamA` in formula.cpp of MLP+NeuroSim 3.0, labels
    0.01 to 9); this rule gives its entries to their last digit.
    """
    if abs(nonlinearity) < 1e-6:
        return math.inf
    from scipy.optimize import brentq  # here: most chips need no solver, and its import takes 0.3 s

    wanted = 0.07 * math.sqrt(2) * abs(nonlinearity)

    def miss(log_a: float) -> float:
        a = math.exp(log_a)
        whole = -math.expm1(-1 / a)
        x = -a * math.log(a * whole)  # where the curve is as steep as the diagonal
        return -math.expm1(-x / a) / whole - x - wanted

    return math.copysign(math.exp(brentq(miss, math.log(1e-3), math.log(1e7), xtol=1e-13)), nonlinearity)


def _of_direction(place: Place, up: float, down: float) -> Any:
    """The figure of SET or RESET: a number where both are the same or the direction is one, else an array."""
    if isinstance(place.up, bool) or up == down:
        return up if place.up is True or up == down else down
    return namespace_of(place.up).where(place.up, up, down)


def _interpolated(place: Place, at: Any, up: tuple[Any, Any], down: tuple[Any, Any]) -> Any:
    """Linear between the nodes (places, values) of the direction, at the end values beyond them."""
    xp = namespace_of(at)
    if isinstance(place.up, bool):
        return xp.interp(at, *(up if place.up else down))
    return xp.where(place.up, xp.interp(at, *up), xp.interp(at, *down))
