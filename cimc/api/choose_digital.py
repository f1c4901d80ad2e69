"""Which layers to leave to the digital side: those that cost the outputs most for what they compute, by measurement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from cimc.by_layer import NOTHING
from cimc.chip import Chip
from cimc.dataset import Dataset
from passes.digital_products import products_of
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.repeat_rows import repeat_rows
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.network.load import load_network
from runtime.system.calibration import calibrate, calibration_index
from runtime.system.inputs import match_data
from runtime.system.sensitivity import Sensitivity, layers_apart, sensitivities
from runtime.system.state import build_system, initial_state
from runtime.system.weight_range import best_weight_range

NEGLIGIBLE = 1e-3  # of the errors of all layers


@dataclass(frozen=True)
class Candidate:
    """Layers that can be left digital together. share: of all multiply-accumulates. alone: only they on the arrays."""

    share: float
    alone: Sensitivity
    chosen: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """Their names: one, or those in the body of a Scan."""
        return self.alone.layers


@dataclass(frozen=True)
class DigitalChoice:
    """What was measured without noise on so many samples, and chosen within the budget.

    before: all layers on the arrays. after: all but the chosen ones. candidates: in network order.
    """

    budget: float
    samples: int
    before: Sensitivity
    after: Sensitivity
    candidates: tuple[Candidate, ...]

    @property
    def reasons(self) -> dict[str, str]:
        """Of each chosen layer why it is left digital, in one line."""
        return {
            layer: f"--digital-budget: alone on its arrays it leaves the outputs {_text(candidate.alone)}"
            for candidate in self.candidates
            if candidate.chosen
            for layer in candidate.layers
        }


def choose_digital(
    lowered: ir.Model,
    chip: Chip,
    options: MappingOptions,
    data: Dataset,
    budget: float,
    *,
    fill_rows: Mapping[str, int] = NOTHING,
    seed: int,
) -> DigitalChoice:
    """Measure each layer of a lowered network on its arrays, and choose.

    Once for each layer the outputs with only that layer on its arrays, with exact targets and without noise, are
    compared with the exact ones. The power of the error over the layer's share of the multiply-accumulates is what it
    is worth to leave it digital; the layers are taken in falling order of that where they fit the budget.

    Args:
        lowered: the network, without the layers that are digital anyway.
        chip: the chip.
        options: the range of its inputs, the split of its rows, and how its layers are read.
        data: its first training samples in a random order set the input ranges and are measured on.
        budget: share of the multiply-accumulates, 0 to 1; those of repeated rows count once.
        fill_rows: word lines that the layers fill when they are measured (`passes.repeat_rows`).
        seed: of that order and of calibration.

    Raises:
        CimcError: the chip is not simulated, the data does not fit, or no output is of floats.
    """
    use_compilation_cache()
    used = MappingOptions(
        input_range=options.input_range,
        row_split=options.row_split,
        rows_per_read=options.rows_per_read,
        groups_per_read=options.groups_per_read,
        settings=options.settings,
    )
    counted = map_network(lowered, chip, options=used)
    filled = repeat_rows(lowered, fill_rows)
    system = build_system(load_network(filled), map_network(filled, chip, options=used), chip)
    data = match_data(system.network, data, free_batch=False)
    samples = data.train.take(calibration_index(seed, len(data.train)))
    state = initial_state(system, weight_range=best_weight_range)
    state = calibrate(system, state, samples, data.preprocess, new_key(seed))
    macs = {layer.name: layer.rows * layer.columns * layer.positions for layer in counted.layers}
    whole = products_of(lowered, counted, chip).macs
    groups = layers_apart(system.network)
    every = frozenset(system.crossbars)
    before, *found = sensitivities(system, state, samples, data.preprocess, [every, *map(frozenset, groups)])
    candidates = choose_within(
        budget, [Candidate(sum(map(macs.__getitem__, one.layers)) / whole, one) for one in found]
    )
    chosen = {layer for candidate in candidates if candidate.chosen for layer in candidate.layers}
    (after,) = sensitivities(system, state, samples, data.preprocess, [every - chosen])
    return DigitalChoice(budget, len(samples), before, after, tuple(candidates))


def choose_within(budget: float, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates in their order, some of them chosen: the largest error for their share first, if they fit.

    Those of negligible error stay on the arrays, and so does one at least.
    """
    least = NEGLIGIBLE * sum(candidate.alone.error for candidate in candidates)
    worthy = [candidate for candidate in candidates if candidate.alone.error > least]
    chosen, left = set[tuple[str, ...]](), budget
    for candidate in sorted(worthy, key=lambda one: one.alone.error / max(one.share, 1e-12), reverse=True):
        if candidate.share <= left and len(chosen) < len(candidates) - 1:
            chosen.add(candidate.layers)
            left -= candidate.share
    return [replace(candidate, chosen=candidate.layers in chosen) for candidate in candidates]


def _text(measured: Sensitivity) -> str:
    return "no error" if measured.snr_db is None else f"{measured.snr_db:.1f} dB"
