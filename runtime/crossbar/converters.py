"""Input converters (DAC) and output converters (ADC): what they round and what they clip."""

import jax.numpy as jnp
from jax import Array

from runtime.crossbar.crossbar import Reading
from runtime.crossbar.xla import rounded


def dac(x: Array, input_range: Array, reading: Reading) -> Array:
    """Input codes, as float32: round(x top / range), clipped to +-top, the largest code; of an ideal converter x.

    Which of it drives the rows, and when, planes say (`cimc.planes`).
    """
    if not reading.converts_inputs:
        return x
    top = reading.figures.top_input
    return jnp.clip(jnp.round(x * rounded(top / input_range)), -top, top)


def adc(level: Array, reading: Reading) -> Array:
    """Codes: round(level), level being what the column gives in LSB, clipped to the ADC's. Ideal: the level itself."""
    if not reading.converts_sums:
        return level
    return jnp.clip(jnp.round(level), reading.figures.least_code, reading.figures.top_code)
