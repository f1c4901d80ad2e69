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

from cimc.chip import Chip
from cimc.scheme import weighted_sum
from cimc.units import levels_per_product, reference_target
from runtime.crossbar.converters import adc
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


def convert(chip: Chip, signed: bool, applied: Applied, read_rows: int) -> Array:
    """ADC codes [blocks, conversions of a weight, columns, MVMs] of equal row blocks of `read_rows`, or of one."""
    vectors = _by_block(applied.u, read_rows)
    per_product: Array | float = levels_per_product(chip, signed)
    seen = chip.scheme.net(applied.conductance)
    drawn = currents(vectors, seen)
    if chip.wires.ir_drop == "per-input" and not chip.bipolar(signed):
        drawn = less_ir_drop(drawn, vectors, seen, chip.wires, top=chip.top_drive(signed))
    if chip.adc.sense == "voltage":
        totals = column_totals(chip, applied.conductance, len(vectors)).reshape(len(vectors), -1, 1)
        drawn, per_product = rounded(drawn / totals), per_product / totals
    level = drawn * jnp.float32(levels_per_product(chip, signed))
    level = with_noise(chip, level, vectors, applied.conductance, per_product, applied.key)
    columns, mvms = applied.conductance.shape[2], vectors.shape[2]
    return adc(level, chip, signed).reshape(len(vectors), -1, columns, mvms)


def count_codes(chip: Chip, signed: bool, codes: Array, applied: Applied, read_rows: int, column_block: int) -> Array:
    """What codes [blocks, conversions, columns, MVMs] count [blocks, columns, MVMs].

    Arguments as `convert`, and the weight columns of a full array.
    """
    scheme, vectors = chip.scheme, _by_block(applied.u, read_rows)
    if chip.adc.sense == "voltage":
        codes = codes * column_totals(chip, applied.conductance, len(vectors))[..., None]
    counted = weighted_sum(jnp.moveaxis(codes, 1, 0), scheme.signs)
    if not scheme.offset_uS:
        return counted
    exact_uS = scheme.offset_uS
    if scheme.reference is not None:
        times = scheme.reference.times
        own = applied.reference
        if own is None:  # as programmed without errors
            own = jnp.full((len(applied.u), -(-codes.shape[2] // column_block)), reference_target(chip), jnp.float32)
        key = None if applied.key is None else derive(applied.key, 3)
        read = convert(chip, signed, Applied(applied.u, own[None], None, key), read_rows)[:, 0]
        counted -= jnp.repeat(read, column_block, axis=1)[:, : counted.shape[1]] * np.float32(times)
        exact_uS -= times * scheme.reference.target_uS
    exact = np.float32(exact_uS * levels_per_product(chip, signed))
    return counted - exact * sum_rows(vectors) if exact else counted


def column_totals(chip: Chip, conductance: Array, blocks: int) -> Array:
    """Total conductances [blocks, conversions, columns] of the columns of equal row blocks."""
    devices, rows, columns = conductance.shape
    total = conductance.reshape(devices, blocks, rows // blocks, columns).sum(axis=2)
    return jnp.moveaxis(chip.scheme.together(total), 0, 1)


def _by_block(u: Array, read_rows: int) -> Array:
    """[blocks, rows, MVMs]"""
    return u.reshape(-1, min(read_rows, len(u)), u.shape[1])
