"""Pulses."""

import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip


def plan_pulses(chip: Chip, base: Array, total: Array, weight_range: Array, held: Array | None) -> tuple[Array, Array]:
    """Whole pulses for G+ and G- [2, ..], and the weight [..] they aim at.

    trunc(acc / step) pulses (Nandakumar et al. 2020). An increase first takes G- down to its minimum, then G+ up; a
    decrease the reverse, so that the idle device of a pair stays at G_min. A device takes no more pulses than lead to
    its bound, from where it was read to be (`held`) or, with None, from where the digital copy has it.
    """
    assert chip.cell.pulse is not None
    cell, step_uS = chip.cell, chip.cell.pulse.step_uS
    step = step_uS / cell.window_uS * weight_range
    count = jnp.trunc(total / step)
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
