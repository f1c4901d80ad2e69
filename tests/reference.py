"""The crossbar product cell by cell: plain loops in float64, written from the equations and from nothing of `runtime`.

Slow on purpose. Every current is a sum over single cells, every conversion is a Python integer.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.device_time import StateLaw, state_law_at

Floats = npt.NDArray[np.float64]
Bounds = list[tuple[int, int]]

# A level this close to a rounding threshold may fall on either side of it in float32.
TIE = 1e-4


class Sums(NamedTuple):
    """Digital sums d [columns, images, positions], and how many of the conversions in each lie on a rounding tie."""

    d: Floats
    ties: npt.NDArray[np.int64]


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


def nearest_level(g: float, chip: Chip) -> float:
    """The conductance in uS that can be programmed nearest to g; g itself on a chip without levels."""
    cell = chip.cell
    if cell.level_uS is not None:
        return min(cell.level_uS, key=lambda level: abs(level - g))
    if cell.levels is None:
        return g
    spacing = (cell.conductance_max_uS - cell.conductance_min_uS) / (cell.levels - 1)
    return cell.conductance_min_uS + spacing * round((g - cell.conductance_min_uS) / spacing)


def pair_target(weight: float, weight_range: float, chip: Chip) -> tuple[float, float]:
    """Targets (G+, G-) in uS of a weight, clipped to the range."""
    cell = chip.cell
    fraction = max(-1.0, min(1.0, weight / weight_range))
    window = cell.conductance_max_uS - cell.conductance_min_uS
    plus, minus = (cell.conductance_min_uS + window * max(side, 0.0) for side in (fraction, -fraction))
    return nearest_level(plus, chip), nearest_level(minus, chip)


def dac_code(x: float, input_range: float, chip: Chip) -> float:
    """What is applied to a word line for the input x; negative codes take the second phase."""
    if chip.input.bits is None:
        return float(x)
    top = 2**chip.input.bits - 1
    return max(-top, min(top, round(float(x) / float(input_range) * top)))


def dac_codes(x: npt.ArrayLike, input_range: float, chip: Chip) -> Floats:
    """`dac_code` of every input."""
    x = np.asarray(x, np.float64)
    return np.array([dac_code(value, input_range, chip) for value in x.ravel()], np.float64).reshape(x.shape)


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
    u: Sequence[float], conductance: Sequence[float], chip: Chip, random: np.random.Generator | None
) -> float:
    """Current in uA at the ADC of one column in one MVM, with the read noise of every cell.

    Without an ADC the products are summed as they are.
    """
    total = 0.0
    for code, g in zip(u, conductance, strict=True):
        noise = 0.0 if random is None else random.normal(0.0, read_sd(float(g), chip))
        total += code * (g + noise)
    if chip.adc.bits is None or chip.input.bits is None:
        return total
    return total * chip.cell.read_voltage_V / 2**chip.input.bits


def conversion(current: float, chip: Chip, random: np.random.Generator | None) -> tuple[float, int]:
    """The ADC's code for a current, and 1 if its level lies on a rounding tie."""
    if chip.adc.bits is None or chip.adc.range_uA is None:
        return current, 0
    top = 2**chip.adc.bits - 1
    level = current / (chip.adc.range_uA / top)
    if random is not None:
        level += random.normal(0.0, chip.adc.noise_lsb)
    tie = abs(level - math.floor(level) - 0.5) < TIE and level < top + 1
    return max(0, min(top, round(level))), int(tie)


def sums(
    chip: Chip, u: Floats, conductance: npt.ArrayLike, bounds: Bounds, signed: bool, random: np.random.Generator | None
) -> Sums:
    """d of every MVM.

    Args:
        chip: the chip.
        u: [rows, images, positions] DAC codes.
        conductance: [2, rows, columns] in uS, G+ and G-.
        bounds: the row blocks.
        signed: whether inputs may be negative: then two phases.
        random: for noise; None: no noise.
    """
    g = np.asarray(conductance, np.float64)
    _, images, positions = u.shape
    columns = g.shape[2]
    d = np.zeros((columns, images, positions))
    ties = np.zeros(d.shape, np.int64)
    for image, position, (start, stop) in itertools.product(range(images), range(positions), bounds):
        vector = u[start:stop, image, position].tolist()
        phases = [(1, [max(c, 0) for c in vector]), (-1, [max(-c, 0) for c in vector])] if signed else [(1, vector)]
        for (sign, codes), column, (device, device_sign) in itertools.product(
            phases, range(columns), ((0, 1), (1, -1))
        ):
            current = column_current(codes, g[device, start:stop, column].tolist(), chip, random)
            code, tie = conversion(current, chip, random)
            d[column, image, position] += sign * device_sign * code
            ties[column, image, position] += tie
    return Sums(d, ties)


def output_scale(weight_range: float, input_range: float, chip: Chip) -> float:
    """The value of one unit of d in units of x W."""
    weight_per_uS = float(weight_range) / (chip.cell.conductance_max_uS - chip.cell.conductance_min_uS)
    if chip.input.bits is None:
        return weight_per_uS
    input_per_code = float(input_range) / (2**chip.input.bits - 1)
    if chip.adc.bits is None or chip.adc.range_uA is None:
        return weight_per_uS * input_per_code
    lsb = chip.adc.range_uA / (2**chip.adc.bits - 1)
    return weight_per_uS * input_per_code * lsb * 2**chip.input.bits / chip.cell.read_voltage_V


def layer(
    d: Floats, weight_range: float, input_range: float, gain: float, bias: npt.ArrayLike | None, chip: Chip
) -> Floats:
    """The layer's output [columns, images, positions]: d in the network's own unit, times the gain, plus the bias."""
    y = d * output_scale(weight_range, input_range, chip) * gain
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
