"""Noise on what the columns sum up: read noise of the cells and noise of the ADC, drawn once per column and MVM."""

from collections.abc import Callable
from functools import reduce

import jax.numpy as jnp
from jax import Array

from cimc.scheme import together
from runtime.crossbar.crossbar import Reading
from runtime.crossbar.currents import currents
from runtime.crossbar.normal import normal
from runtime.crossbar.xla import once


def with_noise(
    reading: Reading, level: Array, vectors: Array, conductance: Array, totals: Array | None, key: Array | None
) -> Array:
    """Levels with read noise of the cells and noise of the ADC; without a key as they are.

    Read noise is Gaussian for each cell and MVM; its sum over a column is drawn at once with the exact variance
    sum_r u[r]^2 sigma^2(G[r, c]): where the noise follows the state that is one more product, and else one sum for all
    columns.

    Args:
        reading: read noise and ADC noise.
        level: [blocks, columns, MVMs] in LSB, columns of all conversions of a weight.
        vectors: what made them [blocks, rows, MVMs], DAC integers.
        conductance: what made them [devices, blocks * rows, columns], uS, as the devices hold it.
        totals: by which the sums of columns are divided before they are converted [blocks, columns, 1]; None: by 1.
        key: for the draw; None: no noise.
    """
    if key is None or not reading.noisy:
        return level
    figures = reading.figures
    if reading.noise_by_state is not None:
        of_cells = once(reading.noise_by_state.read_noise_variance(conductance) * figures.squared_per_product)
        variance = once(currents(jnp.square(vectors), together(of_cells, reading.in_rows)))
    else:
        variance = once(_power(vectors)) * figures.read_variance
    if totals is not None:
        variance = variance / jnp.square(totals)
    sigma = once(jnp.sqrt(variance + figures.adc_variance))
    return level + sigma * normal(key, level.shape)


def _power(vectors: Array) -> Array:
    """Sum of squares over the rows of each block: [blocks, rows, n] -> [blocks, 1, n]."""
    return sum_rows(vectors, jnp.square)


def sum_rows(vectors: Array, function: Callable[[Array], Array] = lambda rows: rows) -> Array:
    """Sum of a function of each element over the rows of each block: [blocks, rows, n] -> [blocks, 1, n].

    Up to 16 rows are added at a time and the rest by a product: XLA's own sum over a leading axis is ten times slower.
    """
    blocks, rows, n = vectors.shape
    terms = max(count for count in range(1, 17) if rows % count == 0)
    groups = vectors.reshape(blocks, terms, rows // terms, n)
    partial_sums = reduce(jnp.add, [function(groups[:, term]) for term in range(terms)])
    return jnp.ones((blocks, 1, rows // terms), jnp.float32) @ partial_sums
