"""The scales of a layer on a chip, chosen so that its output errs least on inputs it will see.

Columns: each has its own weight range, so that one of small weights fills the window too. Channels: inputs are divided
and weights multiplied by a factor, between the largest inputs and the largest weights (SmoothQuant, arXiv 2211.10438;
NORA, DATE 2025), so that a channel of small inputs fills the DAC. The input range: between what it clips, and the steps
of both converters. All are judged by the layer's output as the chip computes it, converters and noise included; to it
comes the spread of what writing leaves, by its law.
"""

from dataclasses import dataclass

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.units import pair_targets
from runtime.crossbar.pieces import Floats, Held, read_in_pieces
from runtime.crossbar.product import Crossbar
from runtime.system.weight_range import best_column_ranges, write_errors

# Share of the largest input in the factor of a channel: 0 no factor, 1 all channels fill the DAC.
BALANCES = (0.0, 0.5, 1.0)
# Input ranges tried, as multiples of the largest input, with the first of each factor; then beside the best.
COARSE, FINE = tuple(1.37**power for power in (-3, -1, 1, 3, 5)), (1 / 1.37, 1.0, 1.37)
# Weight ranges of a column, as multiples of that which holds its weights best: smaller ones clip, larger ones drive
# less current.
SPANS = (0.5, 0.71, 1.0, 1.41, 2.0, 2.83, 4.0)
WRITES_AT_ONCE = 1 << 20  # weights whose errors are computed together
# No channel gets less than this part of the largest factor: what is silent in the calibration may speak later.
LEAST_FACTOR = 1 / 64


@dataclass(frozen=True)
class Case:
    """A layer to be fitted. inputs: as of `read_in_pieces`. expected: its exact outputs. weight: [rows, columns].

    largest: the largest input of each channel, of more inputs than the scales are tried on. key: of the noise of
    reads; None: none. What writing leaves counts in any case: without it scales follow the few inputs too closely, and
    text direction kept 91 of 100 answers, not 95.
    """

    layer: Crossbar
    inputs: Floats
    largest: Floats
    expected: Floats
    weight: Floats
    held: Held
    key: Array | None
    number: int


def fit_scales(case: Case) -> Held:
    """What the chip and the digital side hold of the layer, with the scales that err least.

    First the factor and a coarse input range, then each column's weight range, then the input range again.
    """
    factors = _factors(case)
    if case.layer.chip.input.bits is None:
        return _attempt(case, _Scales(case, None), 1.0, 1.0)[0]
    coarse = [_coarse(case, factor) for factor in factors]
    best = int(np.argmin([error for error, _ in coarse]))
    scales, start = _Scales(case, factors[best]), coarse[best][1]
    by_span = np.stack([_attempt(case, scales, span, start)[1] for span in SPANS])
    spans = np.array(SPANS, np.float32)[np.argmin(by_span, axis=0)]
    # One at a time: what is held is twice the weights.
    errors = [_attempt(case, scales, spans, start * part)[1].sum() for part in FINE]
    return _attempt(case, scales, spans, start * FINE[int(np.argmin(errors))])[0]


def _coarse(case: Case, factor: Floats | None) -> tuple[float, float]:
    """The least error with these factors over the coarse input ranges, and the part of the largest input there."""
    scales = _Scales(case, factor)
    return min((float(_attempt(case, scales, 1.0, part)[1].sum()), part) for part in COARSE)


class _Scales:
    """What follows from the factors of the channels alone.

    factor: None: none. weight: times the factors. powers: mean square of the input of each weight. peak: the largest
    input. base: the weight range of each column that holds its weights best.
    """

    def __init__(self, case: Case, factor: Floats | None) -> None:
        self.factor, self.weight, self.powers = factor, case.weight, _powers(case)
        largest = case.largest
        if factor is not None:
            spread = rows_of_channels(factor, case.layer, case.weight)
            self.weight = case.weight * spread
            self.powers = (self.powers / np.square(spread)).astype(np.float32)
            largest = (case.largest / factor).astype(np.float32)
        self.peak = np.maximum(largest.max(initial=0), np.float32(1e-6))
        self.base = best_column_ranges(self.weight, case.layer.chip)


def _attempt(case: Case, scales: _Scales, span: Floats | float, part: float) -> tuple[Held, NDArray[np.float64]]:
    """What is held with these parts of the columns' weight ranges and of the largest input, and each column's error.

    The error is a mean square; what writing errs comes to it by its law.
    """
    chip, layer = case.layer.chip, case.layer
    weight_range = (scales.base * np.float32(span)).astype(np.float32)
    input_range = np.float32(1) if chip.input.bits is None else scales.peak * np.float32(part)
    targets = pair_targets(scales.weight, weight_range, chip)
    held = case.held._replace(
        conductance=jax.device_put(targets),
        weight_range=jax.device_put(weight_range),
        input_range=jax.device_put(input_range),
        input_factor=None if scales.factor is None else jax.device_put(scales.factor),
    )
    y = read_in_pieces(layer, case.inputs, held, case.key, number=case.number)
    errors = np.mean(np.square(y - case.expected, dtype=np.float64), axis=_all_but_channels(y, layer))
    return held, errors + _write_powers(targets, weight_range, scales.powers, case)


def _factors(case: Case) -> list[Floats | None]:
    """The factors of the channels that are tried; None: none."""
    peak = case.largest.max(initial=0) or 1
    inputs = np.where(case.largest > 0, case.largest / peak, np.float32(1))  # what was silent may speak later
    weights = _largest_weights(case)
    weights /= weights.max(initial=0) or 1
    found: list[Floats | None] = []
    for balance in BALANCES:
        if balance == 0:
            found.append(None)
            continue
        factor = inputs**balance / np.maximum(weights, LEAST_FACTOR) ** (1 - balance)
        factor = np.maximum(factor / (factor.max(initial=0) or 1), LEAST_FACTOR)
        if factor.min(initial=1) < 0.9:
            found.append(factor.astype(np.float32))
    return found


def largest_inputs(inputs: Floats, layer: Crossbar) -> Floats:
    """The largest input of each channel, of inputs as of `read_in_pieces`."""
    largest: Floats = np.max(np.abs(inputs), axis=_all_but_channels(inputs, layer), initial=0)
    return largest


def _all_but_channels(array: Floats, layer: Crossbar) -> tuple[int, ...]:
    """The axes of inputs or outputs, as of `read_in_pieces`, but that of channels or columns."""
    return tuple(range(array.ndim - 1)) if layer.window is None else (0, *range(2, array.ndim))


def _largest_weights(case: Case) -> Floats:
    """The largest weight of each channel."""
    groups, channels = case.layer.groups, len(case.largest)
    by_group = case.weight.reshape(channels // groups, -1, groups, case.weight.shape[1] // groups)
    found: Floats = np.abs(by_group).max(axis=(1, 3)).T.reshape(-1)
    return found


def rows_of_channels(channels: Floats, layer: Crossbar, weight: Floats) -> Floats:
    """One value a channel as one a weight: [rows, columns], or [rows, 1] of a layer of one group."""
    groups = layer.groups
    kernel = len(weight) * groups // len(channels)
    rows = np.repeat(channels.reshape(groups, -1), kernel, axis=1).T  # [rows, groups]
    return rows if groups == 1 else np.repeat(rows, weight.shape[1] // groups, axis=1)


def divide_channels(inputs: Floats, factor: Floats, layer: Crossbar) -> Floats:
    """Inputs, as of `read_in_pieces`, over the factors of their channels."""
    shape = (-1,) if layer.window is None else (-1, *(1,) * (inputs.ndim - 2))
    divided: Floats = inputs / factor.reshape(shape)
    return divided


def _powers(case: Case) -> Floats:
    """Mean square of the input of each weight, [rows, columns or 1]."""
    powers = np.mean(np.square(case.inputs), axis=_all_but_channels(case.inputs, case.layer))
    return rows_of_channels(powers, case.layer, case.weight)


def _write_powers(targets: Floats, weight_range: Floats, powers: Floats, case: Case) -> NDArray[np.float64]:
    """Expected squared error of each column from the errors of writes, by their law; some columns at a time."""
    cell, (_, rows, columns) = case.layer.chip.cell, targets.shape
    scale = np.broadcast_to(weight_range / cell.window_uS * np.asarray(case.held.gain), columns)
    powers = np.broadcast_to(powers, (rows, columns))
    found, step = np.zeros(columns), max(WRITES_AT_ONCE // max(rows, 1), 1)
    for first in range(0, columns, step):
        some = slice(first, first + step)
        _, sd = write_errors(targets[:, :, some].astype(np.float64), cell)
        found[some] = (np.square(sd).sum(axis=0) * powers[:, some]).sum(axis=0) * np.square(scale[some])
    return found
