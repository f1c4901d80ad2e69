"""Conversions of what columns sum up, for all row blocks, and what their codes count.

Of one read (row block) and plane, with the conversions k of a weight (`cimc.scheme`), in the unit of d, one LSB of a
current,

    sum over k  s_k D_k  -  offset / LSB sum_r u[r]                            the offset is known exactly
    sum over k  s_k D_k  -  t D_ref  -  (offset - t G_ref) / LSB sum_r u[r]    with a reference column: reads of it err
    sum over k  s_k D_k sum_r (G+ + G-)[r, c]                                  of a voltage, the mean over the column

The total conductance of a column is the one that it has: measured once, when it is programmed.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.scheme import net, together, weighted_sum
from runtime.crossbar.converters import adc
from runtime.crossbar.crossbar import Reading
from runtime.crossbar.currents import currents
from runtime.crossbar.ir_drop import less_ir_drop
from runtime.crossbar.keys import derive
from runtime.crossbar.read_noise import sum_rows, with_noise
from runtime.crossbar.xla import rounded


class Applied(NamedTuple):
    """What is read at once: inputs [rows, MVMs] as they drive the rows, conductances [devices, rows, columns] in uS,
    those of the reference columns [rows, column blocks] where the chip has one, and a key or None.
    """

    u: Array
    conductance: Array
    reference: Array | None
    key: Array | None


def row_blocks(applied: Applied, read_rows: int) -> Iterator[Applied]:
    """Parts with equal row blocks: the full ones, and a shorter last one.

    The full row blocks are one batched product: to fill the last one up with zeros would copy all inputs and, for 3 x 3
    kernels, nearly double the product.
    """
    u, conductance, reference, key = applied
    rows = len(u)
    full = rows // read_rows * read_rows
    if full in (0, rows):
        yield applied
        return
    yield Applied(u[:full], conductance[:, :full], None if reference is None else reference[:full], key)
    rest_key = None if key is None else derive(key, 2)
    yield Applied(u[full:], conductance[:, full:], None if reference is None else reference[full:], rest_key)


def convert(reading: Reading, applied: Applied) -> Array:
    """ADC codes [blocks, conversions of a weight, columns, MVMs] of equal row blocks, or of one."""
    vectors = _by_block(applied.u, reading.read_rows)
    seen = net(applied.conductance, reading.in_rows)
    drawn, totals = currents(vectors, seen), None
    if reading.ir_drop is not None:
        wires, top = reading.ir_drop
        drawn = less_ir_drop(drawn, vectors, seen, wires, top=top)
    if reading.of_voltages:
        totals = column_totals(reading, applied.conductance, len(vectors)).reshape(len(vectors), -1, 1)
        drawn = rounded(drawn / totals)
    level = drawn * reading.figures.per_product
    level = with_noise(reading, level, vectors, applied.conductance, totals, applied.key)
    columns, mvms = applied.conductance.shape[2], vectors.shape[2]
    return adc(level, reading).reshape(len(vectors), -1, columns, mvms)


def count_codes(reading: Reading, codes: Array, applied: Applied) -> Array:
    """What codes [blocks, conversions, columns, MVMs] of `convert` count [blocks, columns, MVMs]."""
    vectors, column_block = _by_block(applied.u, reading.read_rows), reading.column_block
    if reading.of_voltages:
        codes = codes * column_totals(reading, applied.conductance, len(vectors))[..., None]
    counted = weighted_sum(jnp.moveaxis(codes, 1, 0), reading.signs)
    if not reading.has_offset:
        return counted
    if reading.reference_times is not None:
        own = applied.reference
        if own is None:  # as programmed without errors
            own = jnp.full((len(applied.u), -(-codes.shape[2] // column_block)), reading.figures.reference_uS)
        key = None if applied.key is None else derive(applied.key, 3)
        read = convert(reading, Applied(applied.u, own[None], None, key))[:, 0]
        counted -= jnp.repeat(read, column_block, axis=1)[:, : counted.shape[1]] * np.float32(reading.reference_times)
    return counted - rounded(reading.figures.exact_offset * sum_rows(vectors))


def column_totals(reading: Reading, conductance: Array, blocks: int) -> Array:
    """Total conductances [blocks, conversions, columns] of the columns of equal row blocks."""
    devices, rows, columns = conductance.shape
    total = conductance.reshape(devices, blocks, rows // blocks, columns).sum(axis=2)
    return jnp.moveaxis(together(total, reading.in_rows), 0, 1)


def _by_block(u: Array, read_rows: int) -> Array:
    """[blocks, rows, MVMs]"""
    return u.reshape(-1, min(read_rows, len(u)), u.shape[1])
