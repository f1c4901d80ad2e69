"""Stochastic rounding: to a multiple of a unit, up or down by chance, so that the mean is the value itself."""

import jax
import jax.numpy as jnp
from jax import Array


def round_randomly(values: Array, unit: Array | float, key: Array) -> Array:
    """Values [..] rounded to multiples of the unit, scalar or [..], above 0; whole multiples stay."""
    return jnp.floor(values / unit + jax.random.uniform(key, values.shape)) * unit
