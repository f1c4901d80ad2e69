"""Blind pulses: the laws by which a pulse moves a device, by name in `PULSE_LAWS`, and which pulses a change takes."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from cimc.device_pulse import Pulse
from runtime.crossbar.normal import normal

# (conductance [..] in uS, pulses [..], negative for RESET, key, cell) -> the conductance after, bounds not yet applied.
PulseLaw = Callable[[Array, Array, Array, Cell], Array]


def apply_pulses(conductance: Array, pulses: Array, key: Array, *, cell: Cell) -> Array:
    """Conductances in uS after that many blind pulses, which stop at the limits or the window.

    A device that a write has left beyond the window is not taken further, nor set back by a pulse the other way.

    Args:
        conductance: what the devices hold [..], uS.
        pulses: whole numbers [..], negative: RESET; 0 leaves a device as it is.
        key: a `jax.random` key.
        cell: the device; its `pulse.law` says how far a pulse moves it.

    Raises:
        ValueError: the device has no pulse response.
    """
    moved = PULSE_LAWS[_response(cell).law_name](conductance, pulses, key, cell)
    low, high = cell.limits_uS or (cell.conductance_min_uS, cell.conductance_max_uS)
    bounded = jnp.clip(moved, jnp.minimum(conductance, low), jnp.maximum(conductance, high))
    return jnp.where(pulses == 0, conductance, bounded)


def _linear(conductance: Array, pulses: Array, key: Array, cell: Cell) -> Array:
    """n pulses move a device by n step + sqrt(|n|) step c2c z, wherever it is.

    The cycle-to-cycle errors of single pulses add up; z is standard normal.
    """
    pulse = _response(cell)
    spread = jnp.sqrt(jnp.abs(pulses)) * (pulse.c2c * normal(key, conductance.shape))
    return conductance + pulse.step_uS * (pulses + spread)


PULSE_LAWS: dict[str, PulseLaw] = {
    "linear": _linear,
}


def plan_pulses(
    change: Array, base: Array, *, weight_range: Array, held: Array | None = None, cell: Cell
) -> tuple[Array, Array]:
    """Whole pulses for G+ and G- [2, ..], and the weight [..] they aim at.

    trunc(change / step) pulses (Nandakumar et al. 2020) of the mean step, whatever the law: blind pulses do not know
    the state. An increase first takes G- down to its minimum, then G+ up; a decrease the reverse, so that the idle
    device of a pair stays at G_min. A device takes no more pulses than lead to its bound.

    Args:
        change: of the weights [..].
        base: the weights before, as the digital copy or a read has them [..].
        weight_range: scalar or [..].
        held: what the devices were read to hold [2, ..], uS; None: where `base` has them.
        cell: the device.

    Raises:
        ValueError: the device has no pulse response.
    """
    step_uS = _response(cell).step_uS
    step = step_uS / cell.window_uS * weight_range
    count = jnp.trunc(change / step)
    if held is None:
        held = cell.conductance_min_uS + jnp.stack([jnp.maximum(base, 0), jnp.maximum(-base, 0)]) / step * step_uS
    high = cell.limits_uS[1] if cell.limits_uS else cell.conductance_max_uS
    to_low = jnp.maximum(jnp.round((held - cell.conductance_min_uS) / step_uS), 0)
    to_high = jnp.maximum(jnp.round((high - held) / step_uS), 0)
    wanted = jnp.stack([jnp.maximum(count, 0), jnp.maximum(-count, 0)])
    down = jnp.minimum(wanted[::-1], to_low)
    up = jnp.minimum(wanted - down[::-1], to_high)
    pulses = up - down
    return pulses, base + (pulses[0] - pulses[1]) * step


def _response(cell: Cell) -> Pulse:
    if cell.pulse is None:
        raise ValueError("the chip has no [cell.pulse]")
    return cell.pulse
