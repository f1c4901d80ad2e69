"""Traits: what is a device's own, drawn once a chip. Where a description states no spread there are none."""

import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from cimc.device_pulse import Pulse
from cimc.device_time import Faults
from runtime.crossbar.normal import normal
from runtime.devices.pulse_laws import bounds_uS

# By name, arrays like the devices [..]:
#   step_up, step_down   change by a SET and by a RESET pulse where the law's mean is the stated step, uS
#   high, low            bounds of blind pulses, uS
#   stuck                conductance of a stuck device, uS; NaN of all others
#   endurance            acts of writing (trials or pulses) after which a device is worn out; in a run that goes on
#                        from a trained file: those left
#   leak                 part of the way to the rest state that a device takes in a training step
Traits = Mapping[str, Array]

OF_PULSES = ("step_up", "step_down", "high", "low")


def trait_names(cell: Cell) -> tuple[str, ...]:
    """Names of the traits that a device of this description has."""
    return (
        *(OF_PULSES if cell.pulse is not None and cell.pulse.varies else ()),
        *(("stuck",) if cell.faults is not None and cell.faults.share else ()),
        *(("endurance",) if cell.endurance is not None else ()),
        *(("leak",) if cell.leak is not None else ()),
    )


def draw_traits(key: Array, shape: tuple[int, ...], *, cell: Cell) -> dict[str, Array]:
    """The traits of devices of a chip, by name, each of that shape.

    Args:
        key: a `jax.random` key of the chip (and layer).
        shape: of the devices, such as [devices, rows, columns].
        cell: the device.
    """
    names, traits = trait_names(cell), dict[str, Array]()
    pulse_key, fault_key, wear_key, leak_key = jax.random.split(key, 4)
    if "step_up" in names and cell.pulse is not None:
        traits |= _pulse_traits(pulse_key, shape, cell, cell.pulse)
    if "stuck" in names and cell.faults is not None:
        traits["stuck"] = _stuck(fault_key, shape, cell, cell.faults)
    if cell.endurance is not None:
        spread = cell.endurance.spread_decades * math.log(10)
        traits["endurance"] = cell.endurance.writes * jnp.exp(spread * normal(wear_key, shape))
    if cell.leak is not None:
        steps = cell.leak.steps * jnp.exp(cell.leak.steps_d2d * normal(leak_key, shape))
        traits["leak"] = -jnp.expm1(-1 / steps)
    return traits


def _pulse_traits(key: Array, shape: tuple[int, ...], cell: Cell, pulse: Pulse) -> dict[str, Array]:
    """Steps a+- = step |g +- rho|, bounds middle +- half |1 + s z| (Rasch et al. 2024, Methods; each s z drawn apart).

    Magnitudes, so that no device's SET pulse goes down and no upper bound lies below the middle, however wide the
    spread: what aihwkit calls consistent. Where limits are stated, bounds spread around these, and none lies beyond.
    """
    step_key, asymmetry_key, high_key, low_key = jax.random.split(key, 4)
    spread = pulse.step_d2d * normal(step_key, shape)
    factor = jnp.exp(spread) if pulse.step_d2d_law == "log-normal" else 1 + spread
    rho = pulse.asymmetry_d2d * normal(asymmetry_key, shape)
    half = cell.window_uS / 2
    middle = cell.conductance_min_uS + half
    low, high = bounds_uS(cell)
    own_high = middle + jnp.abs(high - middle + half * pulse.high_d2d * normal(high_key, shape))
    own_low = middle - jnp.abs(middle - low + half * pulse.low_d2d * normal(low_key, shape))
    if cell.limits_uS is not None:
        own_low, own_high = jnp.maximum(own_low, low), jnp.minimum(own_high, high)
    return {
        "step_up": pulse.step_uS * jnp.abs(factor + rho),
        "step_down": pulse.down_uS * jnp.abs(factor - rho),
        "high": own_high,
        "low": own_low,
    }


def _stuck(key: Array, shape: tuple[int, ...], cell: Cell, faults: Faults) -> Array:
    kind_key, value_key = jax.random.split(key)
    place = jax.random.uniform(kind_key, shape)
    low = cell.conductance_min_uS if faults.low_uS is None else faults.low_uS
    high = cell.conductance_max_uS if faults.high_uS is None else faults.high_uS
    stuck = jnp.full(shape, jnp.nan, jnp.float32)
    if faults.stuck_anywhere:
        drawn = jax.random.uniform(value_key, shape, minval=cell.conductance_min_uS, maxval=cell.conductance_max_uS)
        stuck = jnp.where(place < faults.share, drawn, stuck)
    stuck = jnp.where(place < faults.stuck_low + faults.stuck_high, jnp.float32(high), stuck)
    return jnp.where(place < faults.stuck_low, jnp.float32(low), stuck)
