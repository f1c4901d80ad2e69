"""What keeps a device from what an act would do: a stuck one, one that is worn out, one that leaks."""

import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from runtime.devices.traits import Traits


def keep_stuck(conductance: Array, traits: Traits) -> Array:
    """Conductances [..] in uS, stuck devices at their own."""
    stuck = traits.get("stuck")
    return conductance if stuck is None else jnp.where(jnp.isnan(stuck), conductance, stuck)


def wear(before: Array, after: Array, acts: Array, new_acts: Array, traits: Traits, *, cell: Cell) -> Array:
    """What devices hold after an act of writing, worn ones kept.

    Args:
        before, after: conductances [..] in uS, before the act and as it would leave them (stuck ones at their own).
        acts: trials or pulses that each device took before [..].
        new_acts: those of this act [..].
        traits: of the devices; without `endurance` nothing wears.
        cell: the device.
    """
    endurance = traits.get("endurance")
    if endurance is None or cell.endurance is None:
        return after
    held = jnp.where(acts >= endurance, before, after)
    if cell.endurance.then == "keeps":
        return held
    low, high = cell.conductance_min_uS, cell.conductance_max_uS
    fallen = (acts < endurance) & (acts + new_acts >= endurance)
    return keep_stuck(jnp.where(fallen, jnp.float32(low if cell.endurance.then == "low" else high), held), traits)


def leak(conductance: Array, traits: Traits, *, cell: Cell) -> Array:
    """Conductances [..] in uS a training step later: each its part of the way to the rest state further."""
    if cell.leak is None or "leak" not in traits:
        return conductance
    return keep_stuck(conductance + traits["leak"] * (jnp.float32(cell.leak.rest_uS) - conductance), traits)
