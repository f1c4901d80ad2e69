"""Input converters (DAC) and output converters (ADC): what they round and what they clip."""

import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.units import dac_gain
from runtime.crossbar.xla import rounded


def dac(x: Array, input_range: Array, chip: Chip, signed: bool) -> Array:
    """Input codes, as float32: round(x top / range), clipped to +-top, the largest code; of an ideal converter x.

    Which of it drives the rows, and when, planes say (`cimc.planes`). signed: inputs may be negative.
    """
    if chip.input.bits is None:
        return x
    top = float(chip.top_input(signed))
    return jnp.clip(jnp.round(x * rounded(dac_gain(input_range, chip, signed))), -top, top)


def adc(level: Array, chip: Chip, signed: bool) -> Array:
    """Codes: round(level), level being what the column gives in LSB, clipped to the ADC's. Ideal: the level itself."""
    if chip.adc.bits is None:
        return level
    top = float(chip.top_code(signed))
    return jnp.clip(jnp.round(level), -top if chip.bipolar(signed) else 0.0, top)
