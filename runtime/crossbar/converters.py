"""Input converters (DAC) and output converters (ADC): what they round and what they clip."""

import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.units import dac_gain
from runtime.crossbar.xla import rounded


def dac(x: Array, input_range: Array, chip: Chip) -> Array:
    """Integers applied to the word lines, as float32: round(x (2^bits - 1) / range), clipped to +-(2^bits - 1).

    The sign is resolved later, by phases. An ideal converter passes x on.
    """
    if chip.input.bits is None:
        return x
    top = float(2**chip.input.bits - 1)
    return jnp.clip(jnp.round(x * rounded(dac_gain(input_range, chip))), -top, top)


def adc(level: Array, chip: Chip) -> Array:
    """Codes: clip(round(level), 0, 2^bits - 1), level being the column's current in LSB. Ideal: the level itself."""
    if chip.adc.bits is None:
        return level
    return jnp.clip(jnp.round(level), 0.0, float(2**chip.adc.bits - 1))
