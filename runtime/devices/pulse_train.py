"""Write-verify as it runs: read, a pulse towards the goal, read again, until within tolerance or out of pulses."""

from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from runtime.devices.pulse_laws import bounds_uS, pulse_response
from runtime.devices.pulses import NO_TRAITS, apply_pulses, seen_after
from runtime.devices.reads import read_devices
from runtime.devices.wear import keep_stuck
from runtime.devices.write_verify import Written


class _Loop(NamedTuple):
    """Before a pulse [..]. pending: not yet read to be within tolerance. strength: of the pulse before, signed.

    seen: as of `Written`.
    """

    pulse: Array
    conductance: Array
    pulses: Array
    pending: Array
    strength: Array
    seen: Array | None


def write_by_pulses(
    goal: Array,
    key: Array,
    *,
    cell: Cell,
    traits: Mapping[str, Array] = NO_TRAITS,
    held: Array | None = None,
) -> Written:
    """Program every device by pulses of `[cell.pulse]` and noisy reads, as `[cell.programming.train]` says.

    A device is read before every pulse and after its last one: reads are `(trials + 1) * train.reads`. One that only
    goes up and is read above its goal is reset to its lower bound, which counts as a pulse, and begins anew. A stuck
    one is pulsed as any other, to the last pulse where it is not read within tolerance.

    Args:
        goal: conductances [..], uS.
        key: a `jax.random` key.
        cell: the device.
        traits: as of `apply_pulses`.
        held: what the devices hold before, uS [..]; None: G_min.

    Returns:
        Conductances, as trials the pulses that each device took, and what is seen beside what they hold.

    Raises:
        ValueError: the device has no pulse response, or no `programming.train`.
    """
    train, tolerance, pulse = cell.programming.train, cell.programming.tolerance_uS, pulse_response(cell)
    if train is None or tolerance is None:
        raise ValueError("the chip has no [cell.programming.train]")
    low = traits.get("low", bounds_uS(cell)[0])
    # A pulse through the whole window: growth without end would be infinite, and that of a step of 0 no number.
    strongest = max(cell.window_uS / min(pulse.step_uS, pulse.down_uS), 1.0)

    def missing(conductance: Array, n: Array) -> Array:
        read_key = jax.random.fold_in(jax.random.fold_in(key, n), 1)
        return goal - read_devices(conductance, read_key, train.reads, cell=cell)

    def take(loop: _Loop) -> _Loop:
        # The read before this pulse: devices within tolerance are done for good.
        miss = missing(loop.conductance, loop.pulse)
        pending = loop.pending & (jnp.abs(miss) > tolerance)
        direction = jnp.sign(miss)
        strength = direction
        if train.amplitude == "stepped":
            again = direction * loop.strength > 0
            grown = jnp.clip(loop.strength * train.growth, -strongest, strongest)
            strength = jnp.where(again, grown, direction)
        pulse_key = jax.random.fold_in(key, loop.pulse)
        own, seen = _scaled(traits, strength, cell), loop.seen
        if seen is not None:
            own = {**own, "seen": seen}
            seen = jnp.where(pending, seen_after(seen, direction, pulse_key, cell=cell), seen)
        moved = apply_pulses(loop.conductance, direction, pulse_key, cell=cell, traits=own)
        if pulse.directions == "up":
            moved = jnp.where(direction < 0, low, moved)
            seen = None if seen is None else jnp.where(pending & (direction < 0), 0, seen)
        moved = keep_stuck(moved, traits)
        return _Loop(
            loop.pulse + 1,
            jnp.where(pending, moved, loop.conductance),
            loop.pulses + pending,
            pending,
            jnp.where(pending, strength, loop.strength),
            seen,
        )

    def goes_on(loop: _Loop) -> Array:
        return (loop.pulse < train.pulses) & jnp.any(loop.pending)

    start = jnp.full(goal.shape, cell.conductance_min_uS, jnp.float32) if held is None else held
    start = keep_stuck(start, traits)
    none = jnp.zeros(goal.shape, jnp.int32)
    zeros = jnp.zeros(goal.shape, jnp.float32)
    seen = traits.get("seen", zeros) if pulse.write_noise_uS else None
    loop = _Loop(jnp.int32(0), start, none, jnp.ones(goal.shape, bool), zeros, seen)
    done = jax.lax.while_loop(goes_on, take, loop)
    return Written(done.conductance, done.pulses, done.seen)


def _scaled(traits: Mapping[str, Array], strength: Array, cell: Cell) -> Mapping[str, Array]:
    """The traits with steps that many times as large."""
    train, pulse = cell.programming.train, pulse_response(cell)
    if train is None or train.amplitude == "fixed":
        return traits
    up, down = traits.get("step_up", pulse.step_uS), traits.get("step_down", pulse.down_uS)
    return {**traits, "step_up": up * jnp.abs(strength), "step_down": down * jnp.abs(strength)}
