"""The crossbar product cell by cell: plain loops in float64, written from the equations and from nothing of `runtime`.

Slow on purpose. Every current is a sum over single cells, every conversion is rounded by itself. What a scheme makes of
weights and inputs is in `tests/reference_schemes.py`.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.device_time import StateLaw, state_law_at
from tests.reference_schemes import (
    code_bounds,
    conversions,
    dac_code,
    largest_input,
    lsb,
    pair_target,
    planes,
    senses_voltage,
    signal_per_product,
    subtracted,
    weight_per_uS,
)

__all__ = ["dac_code", "pair_target"]

Floats = npt.NDArray[np.float64]
Bounds = list[tuple[int, int]]

# A level this close to a rounding threshold, and a part of the level, may fall on either side of it in float32.
TIE, TIE_OF_LEVEL = 1e-4, 1e-6


class Sums(NamedTuple):
    """Digital sums d [columns, images, positions], with `draws` in a last axis, and by how much conversions on a
    rounding tie may change each.
    """

    d: Floats
    ties: Floats


class ConvWindow(NamedTuple):
    """A convolution; pads hold all begins, then all ends."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]


def row_bounds(rows: int, kernel_size: int, chip: Chip) -> Bounds:
    """(start, stop) of the row blocks: whole input channels, or every array filled to its last row."""
    step = chip.array.rows
    if chip.row_split == "channel" and kernel_size <= step:
        step -= step % kernel_size
    return [(start, min(start + step, rows)) for start in range(0, rows, step)]


def dac_codes(x: npt.ArrayLike, input_range: float, chip: Chip, signed: bool = False) -> Floats:
    """`dac_code` of every input."""
    x = np.asarray(x, np.float64)
    return np.array([dac_code(value, input_range, chip, signed) for value in x.ravel()], np.float64).reshape(x.shape)


def vectors(x: npt.ArrayLike, window: ConvWindow | None) -> Floats:
    """Input vectors [rows, images, positions] of a product over the last axis or a convolution of [N, C, *spatial]."""
    x = np.asarray(x, np.float64)
    if window is None:
        return x.reshape(-1, x.shape[-1]).T[:, :, None]
    images, channels, *spatial = x.shape
    axes = len(spatial)
    padded = [n + window.pads[a] + window.pads[axes + a] for a, n in enumerate(spatial)]
    spans = [(k - 1) * dilation + 1 for k, dilation in zip(window.kernel, window.dilations, strict=True)]
    outputs = [(n - span) // s + 1 for n, span, s in zip(padded, spans, window.strides, strict=True)]
    result = np.zeros((channels * math.prod(window.kernel), images, math.prod(outputs)))
    for image in range(images):
        for position, output in enumerate(itertools.product(*map(range, outputs))):
            row = 0
            for channel in range(channels):
                for offset in itertools.product(*map(range, window.kernel)):
                    place = [
                        output[a] * window.strides[a] + offset[a] * window.dilations[a] - window.pads[a]
                        for a in range(axes)
                    ]
                    if all(0 <= p < n for p, n in zip(place, spatial, strict=True)):
                        result[row, image, position] = x[(image, channel, *place)]
                    row += 1
    return result


def bit_serial_current(u: Sequence[int], conductance: Sequence[float], chip: Chip) -> float:
    """Current in uA at the ADC: one pulse a bit, least significant first, each added to the sum so far and halved."""
    assert chip.input.bits is not None
    accumulated = 0.0
    for bit in range(chip.input.bits):
        current = 0.0
        for code, g in zip(u, conductance, strict=True):
            if int(code) >> bit & 1:
                current += chip.cell.read_voltage_V * float(g)
        accumulated = (accumulated + current) / 2
    return accumulated


def read_sd(conductance: float, chip: Chip) -> float:
    """Sd in uS of one read of a cell: a constant, a polynomial in g / G_max and 1/f noise, added as variances."""
    cell, flicker = chip.cell, chip.cell.flicker
    x = min(max(conductance, cell.conductance_min_uS), cell.conductance_max_uS) / cell.conductance_max_uS
    parts = [cell.read_noise_uS, sum(c * x**power for power, c in enumerate(cell.read_noise_polynomial_uS))]
    if flicker is not None:
        q = float(state_law_at(flicker.q or flicker.q_uS or StateLaw(), np.asarray(x)))
        spread = math.sqrt(math.log((flicker.after_s + flicker.read_s) / (2 * flicker.read_s)))
        parts.append(q * spread * (1.0 if flicker.q is None else conductance))
    return math.hypot(*parts)


def column_current(
    u: Sequence[float],
    conductance: Sequence[float],
    chip: Chip,
    random: np.random.Generator | None,
    *,
    signed: bool = False,
    draws: int | None = None,
) -> Any:
    """Current in uA at the ADC of one column in one MVM, with the read noise of every cell; one of each draw.

    Without an ADC the products are summed as they are.
    """
    total: Any = 0.0
    for code, g in zip(u, conductance, strict=True):
        noise = 0.0 if random is None else random.normal(0.0, read_sd(float(g), chip), draws)
        total += code * (g + noise)
    return total * signal_per_product(chip, signed)


def conversion(
    current: Any, chip: Chip, random: np.random.Generator | None, *, signed: bool = False, draws: int | None = None
) -> tuple[Any, Any]:
    """The ADC's code for a current, and 1 if its level lies on a rounding tie; of every draw."""
    if chip.adc.bits is None:
        return current, 0
    low, top = code_bounds(chip, signed)
    level = current / lsb(chip, signed)
    if random is not None:
        level = level + random.normal(0.0, chip.adc.noise_lsb, draws)
    within = (level > low - 1) & (level < top + 1)
    tie = (np.abs(level - np.floor(level) - 0.5) < TIE + TIE_OF_LEVEL * np.abs(level)) & within
    return np.clip(np.rint(level), low, top), np.asarray(tie, np.int64)


def sums(
    chip: Chip,
    u: Floats,
    conductance: npt.ArrayLike,
    bounds: Bounds,
    signed: bool,
    random: np.random.Generator | None,
    *,
    reference_column: npt.ArrayLike | None = None,
    draws: int | None = None,
) -> Sums:
    """d of every MVM, of columns in one array.

    Args:
        chip: the chip.
        u: [rows, images, positions] DAC codes.
        conductance: [devices, rows, columns] in uS, devices in the order of `reference_schemes.device`.
        bounds: the row blocks.
        signed: whether inputs may be negative.
        random: for noise; None: no noise.
        reference_column: [rows] in uS, what the array's reference column holds, where the chip has one.
        draws: repeat every MVM so often, each with noise of its own.
    """
    g = np.asarray(conductance, np.float64)
    _, images, positions = u.shape
    taken, exact = subtracted(chip), signal_per_product(chip, signed) / lsb(chip, signed)
    d = np.zeros((g.shape[2], images, positions, draws or 1))
    ties = np.zeros(d.shape)

    def convert(cells: list[tuple[float, float]]) -> tuple[Any, Any]:
        """What the cells (applied, conductance) of one column make, and what a tie may change."""
        applied, held = [cell[0] for cell in cells], [cell[1] for cell in cells]
        total = sum(held) if senses_voltage(chip) else 1.0
        current = column_current(applied, held, chip, random, signed=signed, draws=draws) / total
        code, tie = conversion(current, chip, random, signed=signed, draws=draws)
        return code * total, tie * total

    for image, position, (start, stop) in itertools.product(range(images), range(positions), bounds):
        vector = u[start:stop, image, position].tolist()
        for weight, applied in planes(vector, chip, signed):
            reference, reference_tie = 0.0, 0.0
            if taken.reference_codes:
                held = np.asarray(reference_column, np.float64)[start:stop].tolist()
                reference, reference_tie = convert(list(zip(applied, held, strict=True)))
            for column in range(g.shape[2]):
                place = column, image, position
                for devices, counts in conversions(chip):
                    cells = [
                        (sign * code, held)
                        for device, sign in devices
                        for code, held in zip(applied, g[device, start:stop, column].tolist(), strict=True)
                    ]
                    code, tie = convert(cells)
                    d[place] += weight * counts * code
                    ties[place] += abs(weight * counts) * tie
                d[place] -= weight * (taken.reference_codes * reference + taken.exactly_uS * exact * sum(applied))
                ties[place] += abs(weight) * taken.reference_codes * reference_tie
    return Sums(d, ties) if draws else Sums(d[..., 0], ties[..., 0])


def output_scale(weight_range: float, input_range: float, chip: Chip, signed: bool = False) -> float:
    """The value of one unit of d in units of x W."""
    scale = weight_per_uS(float(weight_range), chip) * lsb(chip, signed) / signal_per_product(chip, signed)
    return scale if chip.input.bits is None else scale * float(input_range) / largest_input(chip, signed)


def layer(
    d: Floats,
    weight_range: float,
    input_range: float,
    gain: float,
    bias: npt.ArrayLike | None,
    chip: Chip,
    signed: bool = False,
) -> Floats:
    """The layer's output [columns, images, positions]: d in the network's own unit, times the gain, plus the bias."""
    y = d * output_scale(weight_range, input_range, chip, signed) * gain
    return y if bias is None else y + np.asarray(bias, np.float64)[:, None, None]


def input_gradient(
    chip: Chip, y_bar: npt.ArrayLike, conductance: npt.ArrayLike, column_block: int, weight_range: float
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The gradient [rows, images, positions] by a transposed read without noise, and its ties.

    First phase: positive gradients drive G+, negative ones G-; second phase the reverse. An array holds `column_block`
    weight columns; the codes of several arrays are added.
    """
    y_bar = np.asarray(y_bar, np.float64)
    g = np.asarray(conductance, np.float64)
    largest = float(np.abs(y_bar).max())
    u = dac_codes(y_bar, largest, chip)
    columns, images, positions = u.shape
    rows = g.shape[1]
    d = np.zeros((rows, images, positions))
    ties = np.zeros(d.shape, np.int64)
    starts = range(0, columns, column_block)
    for image, row, position, start in itertools.product(range(images), range(rows), range(positions), starts):
        stop = min(start + column_block, columns)
        codes = u[start:stop, image, position].tolist()
        plus, minus = [max(c, 0) for c in codes], [max(-c, 0) for c in codes]
        devices = g[0, row, start:stop].tolist() + g[1, row, start:stop].tolist()
        for sign, driven in ((1, plus + minus), (-1, minus + plus)):
            code, tie = conversion(column_current(driven, devices, chip, None), chip, None)
            d[row, image, position] += sign * code
            ties[row, image, position] += tie
    return d * output_scale(weight_range, largest, chip), ties
