"""The scales of a layer on a chip, chosen so that its output errs least on inputs it will see.

Columns: each has its own weight range, so that one of small weights fills the window too. Channels: inputs are divided
and weights multiplied by a factor, between the largest inputs and the largest weights (SmoothQuant, arXiv 2211.10438;
NORA, DATE 2025), so that a channel of small inputs fills the DAC. The input range: between what it clips, and the steps
of both converters. All are judged by the layer's output as the chip computes it, converters and noise included; to it
comes the spread of what writing leaves, by its law.

What is chosen on some samples is taken only where others say so too: few inputs tell little of how large a channel can
become, and scales that follow them closely clip what comes later.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.units import device_targets
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Floats, Held, read_in_pieces
from runtime.system.weight_range import best_column_ranges, write_errors

# Share of the largest input in the factor of a channel: 0 no factor, 1 all channels fill the DAC.
BALANCES = (0.0, 0.5, 1.0)
# Input ranges tried, as multiples of the largest input, with each factor; then beside the best.
COARSE, FINE = tuple(1.37**power for power in (-3, -1, 1, 3, 5)), (1 / 1.37, 1.0, 1.37)
# Weight ranges of a column, as multiples of that which holds its weights best: smaller ones clip, larger ones drive
# less current.
SPANS = (0.5, 0.71, 1.41, 2.0, 2.83, 4.0)
WEIGHTS_AT_ONCE = 1 << 20  # columns of so many weights are tried together
# Factors are taken where they leave at most so much of the error, 0.5 dB: each channel's largest input is known less
# well than the layer's, and for less they were not worth what they clip (file types: -5, -11 %, and rare files lost).
WORTH_FACTORS = 0.9
# No channel gets less than this part of the largest factor: what is silent in the calibration may speak later.
LEAST_FACTOR = 1 / 64
Values = TypeVar("Values", Floats, Array)


@dataclass(frozen=True, eq=False)
class Seen:
    """What a layer sees in some samples: vectors [MVMs, rows of all groups] of some of its MVMs, and the largest input
    of each channel [channels] in all of them.
    """

    vectors: Floats
    largest: Floats


@dataclass(frozen=True, eq=False)
class Case:
    """A layer to be fitted.

    chosen_on, judged_on: of different samples, of which the first choose and the others judge. weight: [rows, columns].
    gain: digital, scalar or [columns]. key: of the noise of reads; None: none. What writing leaves counts in any case.
    """

    layer: Crossbar
    chosen_on: Seen
    judged_on: Seen
    weight: Floats
    gain: Floats
    key: Array | None
    number: int


@dataclass(frozen=True, eq=False)
class Scales:
    """What a layer is tried with.

    factor: of each channel; None: none. weight: times the factors. base: the weight range of each column that holds its
    weights best. peak: the largest input over its channel's factor.
    """

    factor: Floats | None
    weight: Floats
    base: Floats
    peak: float

    def weight_range(self, span: Floats | float) -> Floats:
        """Of each column, so many times that which holds its weights best."""
        return (self.base * np.asarray(span, np.float32)).astype(np.float32)


def fit_scales(case: Case) -> Held:
    """What the chip and the digital side hold of the layer, without its bias.

    First the factor with a coarse input range, then each column's weight range, then the input range again.
    """
    largest = np.maximum(case.chosen_on.largest, case.judged_on.largest)
    if case.layer.chip.input.bits is None:
        return _held(case, _scales(case, 0, largest), 1.0, 1.0)
    chosen, judge = _Trial(case, case.chosen_on), _Trial(case, case.judged_on)
    balance, part = _balance_and_part(case, chosen, judge)
    scales = _scales(case, balance, largest)
    span = _span(scales, part, chosen, judge)
    parts = [part * fine for fine in FINE]
    errors = sum(trial.errors(scales, span, parts).sum(axis=1) for trial in (chosen, judge))
    return _held(case, scales, span, scales.peak * parts[int(np.argmin(errors))])


def _balance_and_part(case: Case, chosen: "_Trial", judge: "_Trial") -> tuple[float, float]:
    """The balance, and the part of the largest input that its range is; a factor only where it is worth it on both.

    Here the factors know the largest inputs of the samples that choose, so that the others show what they clip.
    """
    found = []
    for balance in BALANCES:
        scales = _scales(case, balance, case.chosen_on.largest)
        if scales.factor is None and balance:
            continue
        errors = chosen.errors(scales, 1.0, COARSE).sum(axis=1)
        part = COARSE[int(np.argmin(errors))]
        found.append((float(errors.min()), float(judge.errors(scales, 1.0, [part]).sum()), balance, part))
    plain, best = found[0], min(found)
    gains = best[0] < WORTH_FACTORS * plain[0] and best[1] < WORTH_FACTORS * plain[1]
    _, _, balance, part = best if gains else plain
    return balance, part


def _span(scales: Scales, part: float, chosen: "_Trial", judge: "_Trial") -> Floats:
    """The span of each column that errs least; another than 1 only where both samples want it."""
    tried = np.array((1.0, *SPANS), np.float32)
    best = tried[np.argmin([chosen.errors(scales, span, [part])[0] for span in tried.tolist()], axis=0)]
    taken = judge.errors(scales, best, [part])[0] < judge.errors(scales, 1.0, [part])[0]
    return np.where(taken, best, np.float32(1))


def _scales(case: Case, balance: float, largest: Floats) -> Scales:
    """What a layer is tried with first: factors of that balance, none where they are all alike."""
    factor = _factor(case, balance, largest) if balance else None
    weight = case.weight
    if factor is not None:
        weight = weight * rows_of_channels(factor, case.layer, weight)
        largest = (largest / factor).astype(np.float32)
    peak = max(float(largest.max(initial=0)), 1e-6)
    return Scales(factor, weight, best_column_ranges(weight, case.layer.chip), peak)


def _factor(case: Case, balance: float, largest: Floats) -> Floats | None:
    """The factors of the channels; None where they are nearly alike."""
    inputs = np.where(largest > 0, largest / (largest.max(initial=0) or 1), np.float32(1))  # silent ones may speak yet
    weights = _largest_weights(case.weight, len(largest), case.layer.groups)
    weights /= weights.max(initial=0) or 1
    factor = inputs**balance / np.maximum(weights, LEAST_FACTOR) ** (1 - balance)
    factor = np.maximum(factor / (factor.max(initial=0) or 1), LEAST_FACTOR)
    return factor.astype(np.float32) if factor.min(initial=1) < 0.9 else None


class _Trial:
    """A layer on vectors, for any scales: some columns at a time, as a large layer is more than all else in memory."""

    def __init__(self, case: Case, seen: Seen) -> None:
        groups, (rows, columns) = case.layer.groups, case.weight.shape
        # Some of the columns lie on no wires; what these take is the digital side's to correct.
        self._case, self._layer = case, replace(case.layer, window=None, wires=None)
        self._vectors = seen.vectors[None]
        by_group = seen.vectors.reshape(-1, groups, rows).swapaxes(0, 1)
        weight = case.weight.reshape(rows, groups, -1).swapaxes(0, 1)
        self._expected = (by_group @ weight).swapaxes(0, 1).reshape(-1, columns) * case.gain
        # Mean square of the input of each weight, [rows, columns or 1].
        self._powers = rows_of_channels(np.mean(np.square(seen.vectors), axis=0), case.layer, case.weight)

    def errors(self, scales: Scales, span: Floats | float, parts: Sequence[float]) -> NDArray[np.float64]:
        """Mean square error of each column [parts, columns], what writing errs by its law included.

        parts: of the largest input, as input ranges.
        """
        weight_range = scales.weight_range(span)
        found = np.empty((len(parts), len(weight_range)))
        for some in self._columns():
            found[:, some] = self._errors(scales, weight_range[some], parts, some)
        return found

    def _columns(self) -> Iterator[slice]:
        """The columns in parts of one size, so of one program; the last overlaps. Grouped layers are small."""
        rows, columns = self._case.weight.shape
        parts = 1 if self._layer.groups > 1 else -(-rows * columns // WEIGHTS_AT_ONCE)
        width = -(-columns // max(parts, 1))
        return (slice(min(first, columns - width), min(first + width, columns)) for first in range(0, columns, width))

    def _errors(
        self, scales: Scales, weight_range: Floats, parts: Sequence[float], some: slice
    ) -> list[NDArray[np.float64]]:
        gain = self._case.gain[some] if self._case.gain.ndim else self._case.gain
        targets = device_targets(scales.weight[:, some], weight_range, self._layer.chip)
        factor = None if scales.factor is None else jax.device_put(self._of_rows(scales.factor))
        conductance, ranges, scale = jax.device_put((targets, weight_range, gain))
        written = self._write_powers(scales, targets, some) * np.square(weight_range * gain)
        errors = []
        for part in parts:
            held = Held(conductance, ranges, jax.device_put(np.float32(scales.peak * part)), scale, None, factor)
            y = read_in_pieces(self._layer, self._vectors, held, self._case.key, number=self._case.number)[0]
            errors.append(np.mean(np.square(y - self._expected[:, some], dtype=np.float64), axis=0) + written)
        return errors

    def _write_powers(self, scales: Scales, targets: Floats, some: slice) -> NDArray[np.float64]:
        """Expected squared error of each column from the errors of writes, by their law, of a weight range of 1."""
        cell, whole = self._layer.chip.cell, self._case.weight
        spread = 1.0 if scales.factor is None else rows_of_channels(scales.factor, self._case.layer, whole)
        powers = np.broadcast_to(self._powers / np.square(spread), whole.shape)[:, some]
        _, sd = write_errors(targets.astype(np.float64), cell)
        found: NDArray[np.float64] = np.einsum("drc,drc,rc->c", sd, sd, powers, dtype=np.float64)
        return found / cell.window_uS**2

    def _of_rows(self, factor: Floats) -> Floats:
        """Factors of channels as those of their rows, of all groups."""
        return np.repeat(factor, self._vectors.shape[-1] // len(factor))


def _held(case: Case, scales: Scales, span: Floats | float, input_range: float) -> Held:
    weight_range = scales.weight_range(span)
    targets = device_targets(scales.weight, weight_range, case.layer.chip)
    factor = None if scales.factor is None else jax.device_put(scales.factor)
    conductance, ranges, largest, gain = jax.device_put((targets, weight_range, np.float32(input_range), case.gain))
    return Held(conductance, ranges, largest, gain, None, factor)


def largest_inputs(inputs: Floats, layer: Crossbar) -> Floats:
    """The largest input of each channel, of inputs as of `read_in_pieces`."""
    axes = tuple(range(inputs.ndim - 1)) if layer.window is None else (0, *range(2, inputs.ndim))
    largest: Floats = np.maximum(np.max(inputs, axis=axes, initial=0), -np.min(inputs, axis=axes, initial=0))
    return largest


def _largest_weights(weight: Floats, channels: int, groups: int) -> Floats:
    """The largest weight of each channel."""
    by_group = weight.reshape(channels // groups, -1, groups, weight.shape[1] // groups)
    found: Floats = np.maximum(by_group.max(axis=(1, 3)), -by_group.min(axis=(1, 3))).T.reshape(-1)
    return found


def rows_of_channels(channels: Values, layer: Crossbar, weight: Values) -> Values:
    """One value a channel as one a weight: [rows, columns], or [rows, 1] of a layer of one group."""
    groups = layer.groups
    kernel = len(weight) * groups // len(channels)
    rows = channels.reshape(groups, -1).repeat(kernel, axis=1).T  # [rows, groups]
    return rows if groups == 1 else rows.repeat(weight.shape[1] // groups, axis=1)


def divide_channels(inputs: Floats, factor: Floats, layer: Crossbar) -> Floats:
    """Inputs, as of `read_in_pieces`, over the factors of their channels."""
    shape = (-1,) if layer.window is None else (-1, *(1,) * (inputs.ndim - 2))
    divided: Floats = inputs / factor.reshape(shape)
    return divided
