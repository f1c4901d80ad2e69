"""The scales of a layer on a chip, chosen so that its output errs least on inputs it will see.

Columns: each has its own weight range, so that one of small weights fills the window too. Channels: inputs are divided
and weights multiplied by a factor, between the largest inputs and the largest weights (SmoothQuant, arXiv 2211.10438;
NORA, DATE 2025), so that a channel of small inputs fills the DAC. The input range: between what it clips, and the steps
of both converters. All are judged by the layer's output as the chip computes it, converters and noise included; to it
comes the spread of what writing leaves, by its law.

What is chosen on some samples is taken only where others say so too: few inputs tell little of how large a channel can
become, and scales that follow them closely clip what comes later.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

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
# Input ranges tried, as multiples of the largest input, with each factor; then beside the best.
COARSE, FINE = tuple(1.37**power for power in (-3, -1, 1, 3, 5)), (1 / 1.37, 1.0, 1.37)
# Weight ranges of a column, as multiples of that which holds its weights best: smaller ones clip, larger ones drive
# less current.
SPANS = (0.5, 0.71, 1.41, 2.0, 2.83, 4.0)
WEIGHTS_AT_ONCE = 1 << 20  # columns of so many weights are tried together
# No channel gets less than this part of the largest factor: what is silent in the calibration may speak later.
LEAST_FACTOR = 1 / 64


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
    weights best. peak: the largest input over its channel's factor. span, part: of these two, what is used.
    """

    factor: Floats | None
    weight: Floats
    base: Floats
    peak: np.float32
    span: Floats | float = 1.0
    part: float = 1.0

    @property
    def weight_range(self) -> Floats:
        """Of each column."""
        return (self.base * np.asarray(self.span, np.float32)).astype(np.float32)

    @property
    def input_range(self) -> np.float32:
        """Of the layer."""
        return np.float32(self.peak * np.float32(self.part))


def fit_scales(case: Case) -> Held:
    """What the chip and the digital side hold of the layer, without its bias.

    First the factor with a coarse input range, then each column's weight range, then the input range again.
    """
    both = np.maximum(case.chosen_on.largest, case.judged_on.largest)
    if case.layer.chip.input.bits is None:
        return _held(case, _scales(case, 0.0, both))
    chosen, judge = _Trial(case, case.chosen_on), _Trial(case, case.judged_on)
    balance, part = _balance_and_part(case, chosen, judge)
    scales = replace(_scales(case, balance, both), part=part)
    scales = replace(scales, span=_spans(scales, chosen, judge))
    errors = [sum(trial.errors(replace(scales, part=part * fine)).sum() for trial in (chosen, judge)) for fine in FINE]
    return _held(case, replace(scales, part=part * FINE[int(np.argmin(errors))]))


def _balance_and_part(case: Case, chosen: "_Trial", judge: "_Trial") -> tuple[float, float]:
    """The balance, and the part of the largest input that its range is; a factor only where both samples want it.

    Here the factors know the largest inputs of the samples that choose, so that the others show what they clip.
    """
    found = []
    for balance in BALANCES:
        scales = _scales(case, balance, case.chosen_on.largest)
        if scales.factor is None and balance:
            continue
        errors = [float(chosen.errors(replace(scales, part=part)).sum()) for part in COARSE]
        part = COARSE[int(np.argmin(errors))]
        found.append((min(errors), float(judge.errors(replace(scales, part=part)).sum()), balance, part))
    plain, best = found[0], min(found)
    _, _, balance, part = best if best[1] < plain[1] else plain
    return balance, part


def _spans(scales: Scales, chosen: "_Trial", judge: "_Trial") -> Floats:
    """The span of each column that errs least; another than 1 only where both samples want it."""
    plain = chosen.errors(scales)
    tried = np.stack([plain, *(chosen.errors(replace(scales, span=span)) for span in SPANS)])
    spans = np.array((1.0, *SPANS), np.float32)[np.argmin(tried, axis=0)]
    taken = judge.errors(replace(scales, span=spans)) < judge.errors(scales)
    return np.where(taken, spans, np.float32(1))


def _scales(case: Case, balance: float, largest: Floats) -> Scales:
    """What a layer is tried with first: factors of that balance, none where they are all alike."""
    factor = _factor(case, balance, largest) if balance else None
    weight = case.weight
    if factor is not None:
        weight = weight * rows_of_channels(factor, case.layer, weight)
        largest = (largest / factor).astype(np.float32)
    peak = np.float32(max(largest.max(initial=0), 1e-6))
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
        self._case, self._layer, self._vectors = case, replace(case.layer, window=None), seen.vectors[None]
        by_group = seen.vectors.reshape(-1, groups, rows).swapaxes(0, 1)
        weight = case.weight.reshape(rows, groups, -1).swapaxes(0, 1)
        self._expected = (by_group @ weight).swapaxes(0, 1).reshape(-1, columns) * case.gain
        # Mean square of the input of each weight, [rows, columns or 1].
        self._powers = rows_of_channels(np.mean(np.square(seen.vectors), axis=0), case.layer, case.weight)

    def errors(self, scales: Scales) -> NDArray[np.float64]:
        """Mean square error of each column [columns], what writing errs by its law included."""
        found = np.empty(self._case.weight.shape[1])
        for some in self._columns():
            found[some] = self._errors(scales, some)
        return found

    def _columns(self) -> Iterator[slice]:
        """The columns in parts of one size, so of one program; the last overlaps. Grouped layers are small."""
        rows, columns = self._case.weight.shape
        parts = 1 if self._layer.groups > 1 else -(-rows * columns // WEIGHTS_AT_ONCE)
        width = -(-columns // max(parts, 1))
        return (slice(min(first, columns - width), min(first + width, columns)) for first in range(0, columns, width))

    def _errors(self, scales: Scales, some: slice) -> NDArray[np.float64]:
        chip, weight_range, gain = self._layer.chip, scales.weight_range[some], self._case.gain
        targets = pair_targets(scales.weight[:, some], weight_range, chip)
        held = Held(
            *map(jax.device_put, (targets, weight_range, scales.input_range, gain[some] if gain.ndim else gain)),
            bias=None,
            input_factor=None if scales.factor is None else jax.device_put(self._of_rows(scales.factor)),
        )
        y = read_in_pieces(self._layer, self._vectors, held, self._case.key, number=self._case.number)[0]
        errors = np.mean(np.square(y - self._expected[:, some], dtype=np.float64), axis=0)
        return errors + self._write_powers(scales, some, targets)

    def _write_powers(self, scales: Scales, some: slice, targets: Floats) -> NDArray[np.float64]:
        """Expected squared error of each column from the errors of writes, by their law."""
        cell, gain = self._layer.chip.cell, self._case.gain
        powers = np.broadcast_to(self._powers, self._case.weight.shape)[:, some]
        if scales.factor is not None:
            spread = rows_of_channels(scales.factor, self._case.layer, self._case.weight)
            powers = powers / np.square(np.broadcast_to(spread, self._case.weight.shape)[:, some])
        _, sd = write_errors(targets.astype(np.float64), cell)
        scale = scales.weight_range[some] / cell.window_uS * (gain[some] if gain.ndim else gain)
        errors: NDArray[np.float64] = (np.square(sd).sum(axis=0) * powers).sum(axis=0) * np.square(scale)
        return errors

    def _of_rows(self, factor: Floats) -> Floats:
        """Factors of channels as those of their rows, of all groups."""
        return np.repeat(factor, self._vectors.shape[-1] // len(factor))


def _held(case: Case, scales: Scales) -> Held:
    chip = case.layer.chip
    input_range = np.float32(1) if chip.input.bits is None else scales.input_range
    targets = pair_targets(scales.weight, scales.weight_range, chip)
    return Held(
        *map(jax.device_put, (targets, scales.weight_range, input_range, case.gain)),
        bias=None,
        input_factor=None if scales.factor is None else jax.device_put(scales.factor),
    )


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
