"""Reads in which no conversion errs: one product of integers in place of all planes and bit slices.

Inputs bit by bit and weights in bit slices are converted (planes x slices) times a column, to be shifted and added. If
every code is the whole number that the digits of the column make, the sum over all of them is the product of the input
codes and the stored weights

    W = sum over k  s_k round(N_k / LSB)  -  t round(G_ref / LSB)  -  offset / LSB

What the devices hold decides, at the read: all that they are off whole codes, summed over a column with all rows
driven, moves no code, and no column can leave the ADC's range. A device that is stuck at a state, or has drifted by
less than that, so counts as what it holds; where one column fails, all of the layer is converted.
Sums of up to `Digits.rows` rows are whole numbers of float32; only their sums beyond 2^24 are rounded, as those of
conversions are.
"""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.planes import Planes
from cimc.scheme import net, weighted_sum
from runtime.crossbar.crossbar import Reading
from runtime.crossbar.digits import Digits
from runtime.crossbar.groups import as_sets, sets_of
from runtime.crossbar.xla import jit, once

HALF_CODE = 0.45  # what cells may be off together; the rest is for float32 in what is converted


def codes_are_exact(reading: Reading, conductance: Array) -> Array:
    """Whether no conversion of these conductances [devices, rows, columns] in uS can err, whatever the inputs."""
    if reading.groups_at_once > 1:
        cells = sets_of(reading, conductance.shape[-2]).join_cells(conductance, reading.figures.idle_uS)
        return codes_are_exact(as_sets(reading), cells)
    figures, exact, driven = reading.figures, jnp.bool(True), _digits(reading).top_drive
    for level in _levels(reading, conductance):
        code = jnp.round(level)
        exact &= jnp.max(_by_read(reading, jnp.abs(level - code))) * driven < HALF_CODE
        exact &= jnp.max(_by_read(reading, jnp.maximum(code, 0))) * driven <= figures.top_code
        exact &= jnp.max(_by_read(reading, jnp.maximum(-code, 0))) * driven <= -figures.least_code
    stored, bits = stored_integers(reading, conductance), sum(_digits(reading).weights)
    exact &= jnp.max(jnp.abs(stored)) <= 2**bits
    return exact & (figures.exact_offset == jnp.round(figures.exact_offset))


def stored_integers(reading: Reading, conductance: Array) -> Array:
    """What the weights count [rows, columns]: integers, without an ADC whatever the devices hold."""
    cells, *reference = [jnp.round(x) if reading.converts_sums else x for x in _levels(reading, conductance)]
    total = weighted_sum(cells, reading.signs)
    if reference:
        assert reading.reference_times is not None
        total = total - reference[0][0, 0, 0] * np.float32(reading.reference_times)
    return total - reading.figures.exact_offset if reading.has_offset else total


def plain_reading(reading: Reading) -> Reading:
    """The read without an ADC that gives the same digital sums d of `stored_digits`."""
    digits = _digits(reading)
    return replace(
        reading,
        planes=Planes(widths=digits.inputs),
        signs=Planes(widths=digits.weights).weights,
        in_rows=False,
        has_offset=False,
        reference_times=None,
        converts_sums=False,
        read_rows=digits.rows if reading.converts_sums else reading.read_rows,
        groups_at_once=1,
        digits=None,
        figures=reading.figures._replace(per_product=np.float32(1)),
    )


def stored_digits(reading: Reading, conductance: Array) -> Array:
    """The digits of `stored_integers`, in the place of the conductances of devices [digits, rows, columns]."""
    rest, parts = stored_integers(reading, conductance), []
    for bits in _digits(reading).weights[:-1]:
        above = jnp.floor(rest * np.float32(2.0**-bits))
        parts.append(rest - above * np.float32(2**bits))
        rest = above
    return once(jnp.stack([*parts, rest]))


def decided(reading: Reading, conductance: Array) -> tuple[Reading, Array]:
    """The read of devices, and what stands for their conductances in it, where these are known: outside of programs.

    conductance: [..., devices, rows, columns] in uS, as reads see them; one read for all of them.
    """
    if reading.digits is None:
        return reading, conductance
    each = conductance.reshape(-1, *conductance.shape[-3:])
    if reading.converts_sums and not bool(_all_exact(reading, each)):
        return replace(reading, digits=None), conductance
    stored = _stored(reading, each)
    return plain_reading(reading), stored.reshape(*conductance.shape[:-3], *stored.shape[1:])


@jit
def _all_exact(reading: Reading, each: Array) -> Array:
    return jnp.all(jax.vmap(partial(codes_are_exact, reading))(each))


@jit
def _stored(reading: Reading, each: Array) -> Array:
    return jax.vmap(partial(stored_digits, reading))(each)


def _digits(reading: Reading) -> Digits:
    assert reading.digits is not None
    return reading.digits


def _levels(reading: Reading, conductance: Array) -> list[Array]:
    """What a unit of input makes of each cell, in codes: of weights [conversions, rows, columns], and, where there is
    a reference column, of it [1, rows, 1].
    """
    found = [net(conductance, reading.in_rows)]
    if reading.reference_times is not None:
        found.append(jnp.full((1, conductance.shape[1], 1), reading.figures.reference_uS))
    return [cells * reading.figures.per_product for cells in found]


def _by_read(reading: Reading, cells: Array) -> Array:
    """Sums over the rows that are driven at once: [conversions, rows, columns] -> [conversions, reads, columns]."""
    kinds, rows, columns = cells.shape
    size = min(reading.read_rows, rows)
    filled = jnp.pad(cells, [(0, 0), (0, -rows % size), (0, 0)])
    return filled.reshape(kinds, -1, size, columns).sum(axis=2)
