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


def codes_are_exact(reading: Reading, conductance: Array, reference: Array | None = None) -> Array:
    """Whether no conversion of these conductances [devices, rows, columns] in uS can err, whatever the inputs.

    reference: of the reference columns [rows, groups x column blocks] in uS; None: as they are to be.
    """
    if reading.groups_at_once > 1:
        sets = sets_of(reading, conductance.shape[-2])
        cells = sets.join_cells(conductance, reading.figures.idle_uS)
        if reference is None:
            return codes_are_exact(as_sets(reading), cells)
        # Idle cells count 0 beside a reference column as it is to be, and are left out of the product.
        held, goal = (jnp.round(uS * reading.figures.per_product) for uS in (reference, reading.figures.reference_uS))
        return jnp.all(held == goal) & codes_are_exact(as_sets(reading), cells, sets.join_references(reference))
    figures, exact, driven = reading.figures, jnp.bool(True), _digits(reading).top_drive
    for level in _levels(reading, conductance, reference):
        code = jnp.round(level)
        exact &= jnp.max(_by_read(reading, jnp.abs(level - code))) * driven < HALF_CODE
        exact &= jnp.max(_by_read(reading, jnp.maximum(code, 0))) * driven <= figures.top_code
        exact &= jnp.max(_by_read(reading, jnp.maximum(-code, 0))) * driven <= -figures.least_code
    stored, bits = stored_integers(reading, conductance, reference), sum(_digits(reading).weights)
    exact &= jnp.max(jnp.abs(stored)) <= 2**bits
    return exact & (figures.exact_offset == jnp.round(figures.exact_offset))


def stored_integers(reading: Reading, conductance: Array, reference: Array | None = None) -> Array:
    """What the weights count [rows, columns]: integers, without an ADC whatever the devices hold."""
    cells, *columns = [jnp.round(x) if reading.converts_sums else x for x in _levels(reading, conductance, reference)]
    total = weighted_sum(cells, reading.signs)
    if columns:
        assert reading.reference_times is not None
        total = total - _by_column(reading, columns[0][0], total.shape[1]) * np.float32(reading.reference_times)
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


def stored_digits(reading: Reading, conductance: Array, reference: Array | None = None) -> Array:
    """The digits of `stored_integers`, in the place of the conductances of devices [digits, rows, columns]."""
    rest, parts = stored_integers(reading, conductance, reference), []
    for bits in _digits(reading).weights[:-1]:
        above = jnp.floor(rest * np.float32(2.0**-bits))
        parts.append(rest - above * np.float32(2**bits))
        rest = above
    return once(jnp.stack([*parts, rest]))


def decided(reading: Reading, conductance: Array, reference: Array | None = None) -> tuple[Reading, Array]:
    """The read of devices, and what stands for their conductances in it, where these are known: outside of programs.

    conductance: [..., devices, rows, columns] in uS, as reads see them; one read for all of them. reference: of the
    reference columns [..., rows, groups x column blocks]; None: as they are to be.
    """
    if reading.digits is None:
        return reading, conductance
    each = conductance.reshape(-1, *conductance.shape[-3:])
    columns = None if reference is None else reference.reshape(-1, *reference.shape[-2:])
    if reading.converts_sums and not bool(_all_exact(reading, each, columns)):
        return replace(reading, digits=None), conductance
    stored = _stored(reading, each, columns)
    return plain_reading(reading), stored.reshape(*conductance.shape[:-3], *stored.shape[1:])


@jit
def _all_exact(reading: Reading, each: Array, reference: Array | None) -> Array:
    return jnp.all(jax.vmap(partial(codes_are_exact, reading))(each, reference))


@jit
def _stored(reading: Reading, each: Array, reference: Array | None) -> Array:
    return jax.vmap(partial(stored_digits, reading))(each, reference)


def _digits(reading: Reading) -> Digits:
    assert reading.digits is not None
    return reading.digits


def _levels(reading: Reading, conductance: Array, reference: Array | None) -> list[Array]:
    """What a unit of input makes of each cell, in codes: of weights [conversions, rows, columns], and, where there are
    reference columns, of them [1, rows, groups x column blocks], or of all alike [1, rows, 1].
    """
    found = [net(conductance, reading.in_rows)]
    if reading.reference_times is not None:
        same = jnp.full((conductance.shape[1], 1), reading.figures.reference_uS)
        found.append((same if reference is None else reference)[None])
    return [cells * reading.figures.per_product for cells in found]


def _by_column(reading: Reading, references: Array, columns: int) -> Array:
    """Reference columns [rows, groups x column blocks], or one for all, as [rows, columns] or [rows, 1]."""
    if references.shape[1] == 1:
        return references
    of_groups = references.reshape(len(references), reading.groups, -1)
    by_column = jnp.repeat(of_groups, reading.column_block, axis=2)[..., : columns // reading.groups]
    return by_column.reshape(len(references), columns)


def _by_read(reading: Reading, cells: Array) -> Array:
    """Sums over the rows that are driven at once: [conversions, rows, columns] -> [conversions, reads, columns]."""
    kinds, rows, columns = cells.shape
    size = min(reading.read_rows, rows)
    filled = jnp.pad(cells, [(0, 0), (0, -rows % size), (0, 0)])
    return filled.reshape(kinds, -1, size, columns).sum(axis=2)
