"""Input converters (DAC) and output converters (ADC): what they round, what they clip, and their scales."""

import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip


def dac(x: Array, input_range: Array, chip: Chip) -> Array:
    """Integers applied to the word lines, as float32: round(x / range (2^bits - 1)), clipped to +-(2^bits - 1).

    The sign is resolved later, by phases. An ideal converter passes x on.
    """
    if chip.input.bits is None:
        return x
    top = float(2**chip.input.bits - 1)
    return jnp.clip(jnp.round(x * (top / input_range)), -top, top)


def dac_step(input_range: Array, chip: Chip) -> Array:
    """The input that one DAC unit stands for: range / (2^bits - 1); 1 for an ideal converter."""
    if chip.input.bits is None:
        return jnp.ones_like(input_range)
    return input_range * jnp.float32(1.0 / (2**chip.input.bits - 1))


def adc(level: Array, chip: Chip) -> Array:
    """Codes: clip(round(level), 0, 2^bits - 1), level being the column's current in LSB. Ideal: the level itself."""
    if chip.adc.bits is None:
        return level
    return jnp.clip(jnp.round(level), 0.0, float(2**chip.adc.bits - 1))


def levels_per_product(chip: Chip) -> float:
    """ADC levels that one unit of u G (DAC integer times uS) makes: V / (2^input bits LSB); 1 for an ideal ADC.

    Accumulating and halving the bit currents gives the current of u / 2^bits.
    """
    if chip.adc.bits is None or chip.input.bits is None:
        return 1.0
    return chip.cell.read_voltage_V / (2**chip.input.bits * chip.adc.lsb_uA)
