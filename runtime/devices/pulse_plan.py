"""Which pulses a change of weights takes: whole pulses of the mean law, from where devices are to where they should be.

The rest, part of a pulse, stays with whoever asked. Plans know the description of a device, not its traits.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from cimc.chip import Cell
from cimc.device_pulse import Pulse
from runtime.crossbar.figures import figure
from runtime.devices.pulse_laws import bounds_uS, exponential_form, pulse_response, step_factor

# A law that slows down towards its bound never reaches it: from so near, in steps, no further pulse is asked for.
BEFORE_BOUND = 0.5
SLOWEST = 1e-3  # a step so small, over the stated one, ends a staircase
LONGEST = 1 << 14  # pulses of a staircase
NEAREST = 0.5  # of a pulse
MOST_PULSES = 1024.0  # of one write, each taken by itself; what is missing then stays wanted
ROUNDING = 1e-3  # of a pulse: a whole pulse is one also where float32 has left a little less


class Staircase(NamedTuple):
    """The mean law in one direction: what is travelled from the bound behind, uS, against the number of pulses.

    Either closed: a step is constant + slope (width - travelled). Or nodes: travelled after 0, 1, 2, ... pulses.
    end: from there on, before the bound at `width`, plans ask for no further pulse.
    """

    width: float
    end: float
    constant: float = 0.0
    slope: float = 0.0
    nodes: npt.NDArray[np.float32] | None = None

    def position(self, travelled: Array) -> Array:
        """The number of pulses, not whole, that lead from the bound behind to there [..]."""
        travelled = jnp.clip(travelled, 0, self.width * (1 - ROUNDING**2))  # a law that slows down never arrives
        if self.nodes is not None:
            return jnp.interp(travelled, self.nodes, np.arange(len(self.nodes), dtype=np.float32))
        if self.slope == 0:
            return travelled / self.constant
        return jnp.log1p(-self.slope / self._first * travelled) / math.log1p(-self.slope)

    def travelled(self, position: Array) -> Array:
        """What is travelled after that many pulses [..], uS."""
        if self.nodes is not None:
            return jnp.interp(position, np.arange(len(self.nodes), dtype=np.float32), self.nodes)
        if self.slope == 0:
            return jnp.minimum(position * self.constant, self.width)
        travelled = -self._first / self.slope * jnp.expm1(math.log1p(-self.slope) * position)
        return jnp.minimum(travelled, self.width)

    @property
    def _first(self) -> float:
        """The first step from the bound behind, uS."""
        return self.constant + self.slope * self.width


def plan_pulses(
    change: Array,
    base: Array,
    *,
    weight_range: Array,
    held: Array | None = None,
    chance: Array | None = None,
    cell: Cell,
) -> tuple[Array, Array]:
    """Whole pulses for G+ and G- [2, ..], and the weight [..] they aim at.

    Where every step is the same, as many as do not go too far (Nandakumar et al. 2020); else those that lead nearest,
    what is too much of them to be taken back later. An increase first takes G- down to its minimum, then G+ up; a
    decrease the reverse, so that the idle device of a pair stays at G_min. Where pulses only go up, an increase raises
    G+, a decrease G- (see `find_full_pairs`). A binary device takes one pulse where it is on the wrong side of the
    middle. A device takes no more pulses than lead to its bound.

    Args:
        change: of the weights [..].
        base: the weights before, as the digital copy or a read has them [..].
        weight_range: scalar or [..].
        held: what the devices were read to hold [2, ..], uS; None: where `base` has them.
        chance: numbers from 0 to 1 for the devices [2, ..]: pulses are rounded up where theirs is below the part of a
            pulse that is left, so that on average the change is what is asked; None: as above. Not of binary devices.
        cell: the device.

    Raises:
        ValueError: the device has no pulse response.
    """
    pulse = pulse_response(cell)
    if pulse.law_name == "linear" and pulse.directions == "both" and pulse.down_uS == pulse.step_uS:
        return _plan_steps(change, base, pulse, weight_range=weight_range, held=held, chance=chance, cell=cell)
    scale = cell.window_uS / weight_range
    if held is None:
        held = cell.conductance_min_uS + jnp.stack([jnp.maximum(base, 0), jnp.maximum(-base, 0)]) * scale
    if pulse.law_name == "binary":
        pulses, after = _plan_switches(base + change, held, weight_range, cell)
    else:
        wanted = jnp.stack([jnp.maximum(change, 0), jnp.maximum(-change, 0)]) * scale
        pulses, after = _plan_moves(wanted, held, pulse, chance, cell)
    moved = (after - held) / scale
    return pulses, base + moved[0] - moved[1]


def find_full_pairs(held: Array, *, cell: Cell) -> Array:
    """The pairs [..] of one-sided devices that have no room left, and gain some by being reset and written anew.

    One of their devices has less than a pulse to its bound, and both hold more than a pulse.

    Args:
        held: what the devices were read to hold [2, ..], uS.
        cell: the device.

    Raises:
        ValueError: the device has no pulse response.
    """
    low, _ = bounds_uS(cell)
    stairs = staircase(cell, up=True)
    position, last = stairs.position(held - low), stairs.position(jnp.full_like(held, stairs.end))
    idle = stairs.position(jnp.full_like(held, cell.conductance_min_uS - low))
    return jnp.any(last - position < 1, axis=0) & jnp.all(position - idle > 1, axis=0)


@lru_cache
def staircase(cell: Cell, *, up: bool) -> Staircase:
    """The mean law in one direction, from the bound behind: closed where it has a closed form, else node by node.

    Raises:
        ValueError: the device has no pulse response.
    """
    pulse = pulse_response(cell)
    low, high = bounds_uS(cell)
    step, width = pulse.step_uS if up else pulse.down_uS, high - low
    middle = (cell.conductance_min_uS + cell.conductance_max_uS) / 2
    if pulse.law_name == "linear":
        return Staircase(width, width, step)
    end = width - BEFORE_BOUND * step
    if pulse.law_name == "soft-bounds":
        slope = step / (high - middle if up else middle - low)
        return Staircase(width, end, slope=min(slope, 1 - SLOWEST))
    if pulse.law_name == "exponential":
        constant, slope = exponential_form(cell, up=up)
        return Staircase(width, end, constant=step * constant, slope=step * slope / width)
    nodes = [0.0]
    while len(nodes) < LONGEST and nodes[-1] < width:
        here = np.float64(low + nodes[-1] if up else high - nodes[-1])
        factor = float(step_factor(here, up=up, low=low, high=high, cell=cell))
        if factor < SLOWEST:
            break
        nodes.append(min(nodes[-1] + step * factor, width))
    return Staircase(width, min(end, nodes[-1]), nodes=np.array(nodes, np.float32))


def _plan_steps(
    change: Array,
    base: Array,
    pulse: Pulse,
    *,
    weight_range: Array,
    held: Array | None,
    chance: Array | None,
    cell: Cell,
) -> tuple[Array, Array]:
    """The plan where every step is the same, up and down: trunc(change / step), or rounded by chance."""
    step_uS = figure(pulse.step_uS)
    step = figure(pulse.step_uS / cell.window_uS) * weight_range
    count = jnp.trunc(change / step) if chance is None else jnp.floor(change / step + chance[0])
    if held is None:
        held = cell.conductance_min_uS + jnp.stack([jnp.maximum(base, 0), jnp.maximum(-base, 0)]) / step * step_uS
    _, high = bounds_uS(cell)
    to_low = jnp.maximum(jnp.round((held - cell.conductance_min_uS) / step_uS), 0)
    to_high = jnp.maximum(jnp.round((high - held) / step_uS), 0)
    wanted = jnp.stack([jnp.maximum(count, 0), jnp.maximum(-count, 0)])
    down = jnp.minimum(wanted[::-1], to_low)
    up = jnp.minimum(wanted - down[::-1], to_high)
    pulses = up - down
    return pulses, base + (pulses[0] - pulses[1]) * step


def _plan_moves(wanted: Array, held: Array, pulse: Pulse, chance: Array | None, cell: Cell) -> tuple[Array, Array]:
    """Pulses [2, ..] and where they lead, uS: each device is to rise by `wanted` [2, ..] against the other one."""
    low, high = bounds_uS(cell)
    rising = staircase(cell, up=True)
    if pulse.directions == "up":
        count, travelled = _move(rising, held - low, wanted, chance)
        return count, low + travelled
    # The device that stands against the rise goes down first, at most to where an idle one is.
    above_idle = jnp.maximum(held - cell.conductance_min_uS, 0)
    way, falling = jnp.minimum(wanted[::-1], above_idle), staircase(cell, up=False)
    if chance is not None:  # what is too near the bound to fall is left to the other device
        way = jnp.minimum(way, jnp.maximum(falling.end - (high - held), 0))
    falls, travelled = _move(falling, high - held, way, chance)
    fallen = high - travelled
    # What chance gave or took is not made up for by the other device.
    done = held - fallen if chance is None else way
    count, travelled = _move(rising, fallen - low, wanted - done[::-1], chance)
    return count - falls, low + travelled


def _move(stairs: Staircase, start: Array, way: Array, chance: Array | None) -> tuple[Array, Array]:
    """The whole pulses [..] that lead nearest to what is wanted, none from beyond the end, and where they lead.

    start: what is travelled already, uS. way: how much further, uS. The result is travelled likewise. chance: as of
    `plan_pulses`.
    """
    first = stairs.position(start)
    most = jnp.ceil(stairs.position(jnp.full_like(start, stairs.end)) - first - ROUNDING)
    position = stairs.position(start + way) - first
    if chance is None:
        count = jnp.floor(position + NEAREST)
    else:
        whole = jnp.floor(position + ROUNDING)
        below, above = stairs.travelled(first + whole), stairs.travelled(first + whole + 1)
        rest = jnp.maximum(start + way - below, 0)
        count = whole + (chance * (above - below) < rest)
    count = jnp.clip(jnp.minimum(count, most), 0, MOST_PULSES)
    return count, jnp.where(count > 0, stairs.travelled(first + count), start)


def _plan_switches(weight: Array, held: Array, weight_range: Array, cell: Cell) -> tuple[Array, Array]:
    """One pulse for each binary device on the wrong side of the middle, and where the pulses lead [2, ..], uS."""
    low, high = bounds_uS(cell)
    middle = (cell.conductance_min_uS + cell.conductance_max_uS) / 2
    on = jnp.stack([weight, -weight]) > weight_range / 2
    pulses = on.astype(jnp.float32) - (held > middle).astype(jnp.float32)
    return pulses, jnp.where(pulses == 0, held, jnp.where(pulses > 0, high, low))
