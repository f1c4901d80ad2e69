"""Which layers to leave to the digital side: those that cost the outputs most for what they compute, by measurement."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from cimc.chip import Chip
from cimc.dataset import Dataset
from passes.digital_products import products_of
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.network.load import load_network
from runtime.system.calibration import calibrate, calibration_index
from runtime.system.inputs import match_data
from runtime.system.sensitivity import Sensitivity, layers_apart, sensitivities
from runtime.system.state import build_system, initial_state
from runtime.system.weight_range import best_weight_range


@dataclass(frozen=True)
class Candidate:
    """Layers that can be left digital together. share: of the network's multiply-accumulates. exact: with them exact."""

    share: float
    exact: Sensitivity
    chosen: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        """Their names: one, or those in the body of a Scan."""
        return self.exact.layers


@dataclass(frozen=True)
class DigitalChoice:
    """What was measured without noise on so many samples, and chosen within the budget.

    before: all candidates on the arrays. after: the chosen ones exact, all at once. candidates: in network order.
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
            layer: f"--digital-budget: exact, the outputs have {_text(candidate.exact)} for {_text(self.before)}"
            for candidate in self.candidates
            if candidate.chosen
            for layer in candidate.layers
        }


def choose_digital(
    lowered: ir.Model, chip: Chip, options: MappingOptions, data: Dataset, budget: float, *, seed: int
) -> DigitalChoice:
    """Measure each layer of a lowered network on its arrays, and choose.

    The outputs of the network on its arrays, with exact targets and without noise, are compared with the exact ones;
    then once for each layer with that layer exact. What that takes off the power of the error, over the layer's share
    of the multiply-accumulates, is its worth; the layers are taken in falling order of worth where they fit the budget.

    Args:
        lowered: the network, without the layers that are digital anyway.
        chip: the chip.
        options: the range of its inputs and the split of its rows.
        data: its first training samples in a random order set the input ranges and are measured on.
        budget: share of the multiply-accumulates, 0 to 1.
        seed: of that order and of calibration.

    Raises:
        CimcError: the chip is not simulated, the data does not fit, or no output is of floats.
    """
    use_compilation_cache()
    used = MappingOptions(input_range=options.input_range, row_split=options.row_split)
    mapping = map_network(lowered, chip, options=used)
    system = build_system(load_network(lowered), mapping, chip)
    data = match_data(system.network, data, free_batch=False)
    samples = data.train.take(calibration_index(seed, len(data.train)))
    state = initial_state(system, weight_range=best_weight_range)
    state = calibrate(system, state, samples, data.preprocess, new_key(seed))
    macs = {layer.name: layer.rows * layer.columns * layer.positions for layer in mapping.layers}
    whole = products_of(lowered, mapping, chip).macs
    groups = layers_apart(system.network)
    before, *found = sensitivities(system, state, samples, data.preprocess, [frozenset(), *map(frozenset, groups)])
    candidates = choose_within(
        budget, before, [Candidate(sum(macs[name] for name in one.layers) / whole, one) for one in found]
    )
    chosen = frozenset(layer for candidate in candidates if candidate.chosen for layer in candidate.layers)
    (after,) = sensitivities(system, state, samples, data.preprocess, [chosen])
    return DigitalChoice(budget, len(samples), before, after, tuple(candidates))


def choose_within(budget: float, before: Sensitivity, candidates: Sequence[Candidate]) -> list[Candidate]:
    """The candidates in their order, with those chosen: the largest gain for their share first, no loss, if they fit."""

    def worth(candidate: Candidate) -> float:
        return (before.error - candidate.exact.error) / max(candidate.share, 1e-12)

    chosen, left = set[tuple[str, ...]](), budget
    for candidate in sorted(candidates, key=worth, reverse=True):
        if worth(candidate) > 0 and candidate.share <= left and len(chosen) < len(candidates) - 1:
            chosen.add(candidate.layers)
            left -= candidate.share
    return [replace(candidate, chosen=candidate.layers in chosen) for candidate in candidates]


def _text(measured: Sensitivity) -> str:
    return "no error" if measured.snr_db is None else f"{measured.snr_db:.1f} dB"
