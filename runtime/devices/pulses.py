"""Blind pulses: devices after some SET or RESET pulses, by the laws of `runtime.devices.pulse_laws`."""

from collections.abc import Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from cimc.device_pulse import Binary, Pulse
from runtime.crossbar.figures import figure
from runtime.crossbar.normal import normal
from runtime.devices.pulse_laws import bounds_uS, pulse_response, step_factor, switching

NO_TRAITS: Mapping[str, Array] = MappingProxyType({})


def apply_pulses(
    conductance: Array, pulses: Array, key: Array, *, cell: Cell, traits: Mapping[str, Array] = NO_TRAITS
) -> Array:
    """Conductances in uS after that many blind pulses, which stop at the bounds of each device.

    A device that a write has left beyond its bounds is not taken further, nor set back by a pulse the other way.
    Pulses of the linear law add up to one draw; those of a law that follows the state are taken one by one.

    Args:
        conductance: what the devices hold [..], uS.
        pulses: whole numbers [..], negative: RESET, which does nothing where a device only goes up; 0 leaves a device
            as it is.
        key: a `jax.random` key.
        cell: the device; its `pulse.law` says how far a pulse moves it.
        traits: what each device has of its own, [..] in uS: step_up, step_down, low, high. `seen`: what is seen of a
            device beside what it holds, from the write before (`draw_write_noise`). Those left out: the description's,
            and nothing.

    Raises:
        ValueError: the device has no pulse response.
    """
    pulse = pulse_response(cell)
    if pulse.directions == "up":
        pulses = jnp.maximum(pulses, 0)
    lowest, highest = bounds_uS(cell)
    low, high = traits.get("low", lowest), traits.get("high", highest)
    held = conductance - traits["seen"] if "seen" in traits else conductance
    if isinstance(pulse, Binary):
        moved = _switched(held, pulses, key, pulse, (low, high))
    elif pulse.law_name == "linear":
        step = _own_step(pulses, pulse, traits)
        moved = _bounded(_summed(held, pulses, key, step, cell), held, low, high)
    else:
        moved = _one_by_one(held, pulses, key, cell, (low, high), _own_step(pulses, pulse, traits))
    if pulse.write_noise_uS:
        moved = moved + draw_write_noise(key, conductance.shape, cell=cell)
    return jnp.where(pulses == 0, conductance, moved)


def draw_write_noise(key: Array, shape: tuple[int, ...], *, cell: Cell) -> Array:
    """What `apply_pulses` with that key lets be seen of pulsed devices beside what they hold [..], uS.

    Whoever keeps it for the devices that were pulsed, and gives it as the trait `seen` to their next pulses, keeps it
    from adding up from write to write.
    """
    return figure(pulse_response(cell).write_noise_uS) * normal(jax.random.fold_in(key, 0x5EE), shape)


def seen_after(seen: Array, pulses: Array, key: Array, *, cell: Cell) -> Array:
    """What is seen of devices beside what they hold [..], uS, after `apply_pulses` with these pulses and that key."""
    return jnp.where(pulses == 0, seen, draw_write_noise(key, seen.shape, cell=cell))


def _own_step(pulses: Array, pulse: Pulse, traits: Mapping[str, Array]) -> float | Array:
    """The step of each device in the direction of its pulses, uS, positive: a number where all have the same."""
    up, down = traits.get("step_up", pulse.step_uS), traits.get("step_down", pulse.down_uS)
    if not isinstance(up, Array) and not isinstance(down, Array) and up == down:
        return figure(up)
    up, down = (step if isinstance(step, Array) else figure(step) for step in (up, down))
    return jnp.where(pulses < 0, down, up)


def _bounded(moved: Array, before: Array, low: float | Array, high: float | Array) -> Array:
    return jnp.clip(moved, jnp.minimum(before, low), jnp.maximum(before, high))


def _summed(held: Array, pulses: Array, key: Array, step: float | Array, cell: Cell) -> Array:
    """n pulses of the linear law: n step + sqrt(|n|) c2c z, wherever the device is; z standard normal."""
    pulse = pulse_response(cell)
    spread = jnp.sqrt(jnp.abs(pulses)) * (figure(pulse.c2c) * normal(key, held.shape))
    if pulse.c2c_of == "window":
        return held + step * pulses + cell.window_uS * spread
    return held + step * (pulses + spread)


def _one_by_one(
    held: Array, pulses: Array, key: Array, cell: Cell, bounds: tuple[float | Array, float | Array], step: float | Array
) -> Array:
    """Every pulse from where the one before has left the device, with noise of its own, within the bounds."""
    pulse = pulse_response(cell)
    low, high = bounds
    up, count = pulses > 0, jnp.abs(pulses)
    signed = jnp.where(up, step, -step)

    def take(n: Array, now: Array) -> Array:
        mean = signed * step_factor(now, up=up, low=low, high=high, cell=cell)
        moved = now + mean
        if pulse.c2c:
            of = {"step": mean, "nominal-step": step, "window": cell.window_uS}[pulse.c2c_of]
            moved = moved + figure(pulse.c2c) * of * normal(jax.random.fold_in(key, n), held.shape)
        return jnp.where(n < count, _bounded(moved, now, low, high), now)

    return jax.lax.fori_loop(0, jnp.max(count, initial=0).astype(jnp.int32), take, held)


def _switched(
    held: Array, pulses: Array, key: Array, pulse: Binary, bounds: tuple[float | Array, float | Array]
) -> Array:
    """The devices that one of the pulses switches, at their bound."""
    up, down = switching(pulse)
    stays = jnp.where(pulses > 0, 1 - up, 1 - down) ** jnp.abs(pulses)
    switches = jax.random.uniform(key, held.shape) >= stays
    return jnp.where(switches, jnp.where(pulses > 0, bounds[1], bounds[0]), held)
