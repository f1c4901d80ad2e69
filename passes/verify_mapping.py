"""Verify a mapping: the mapped blocks, as differential pairs, must compute what the network computes.

Two comparisons, each by its own rule. The lowered network against the original: strictly (`passes.judge`). The mapped
network with ideal converters against the lowered one with the weights that its conductances stand for: strictly too;
what the grid of the conductances adds is no fault, and is reported.
"""

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.chip import Adc, Chip, Input
from cimc.errors import CimcError
from cimc.layer_settings import chip_of_layer
from cimc.mapping import Mapping as ChipMapping
from cimc.mapping_file import require_fitting
from cimc.program import Floats, LayerProgram, Program
from cimc.units import device_targets, weight_of
from passes.chip_network import chip_network
from passes.crossbar_functions import crossbar_layers
from passes.graph_edit import constant, float_constant, new_node
from passes.judge import (
    Sensitivity,
    disagreement,
    first_difference,
    move_by_rounding,
    require_numbers,
    sensitivity_of,
    size_of,
)
from passes.scan_body import seen_from_outside
from passes.set_constants import set_constants
from passes.verify import Arrays, Feeds, differences, random_inputs, rms_share, run

# What rounding at each addition of a sum makes, beside rounding of its terms.
SUM_ROUNDING = 4.0
LARGEST_BYTES = 3 * 2**29  # of the values that one run holds at a time, with the arrays


@dataclass(frozen=True)
class Verification:
    """How far the outputs are from those of the original network in onnxruntime, on random inputs, without noise.

    ideal: the largest absolute difference with ideal converters and any conductance; of the lowered network where the
    mapped one was not run. ideal_relative: the same, as a share of the output's largest value. chip: with the chip's
    converters and levels, input ranges set to the largest input seen. chip_relative: the root mean square of that
    difference, as a share of the output's; of the output that it is largest in. chip_snr_db: the same in decibels; None
    where nothing differs. not_mapped: why the mapped network was not run, or empty.
    """

    ideal: float
    ideal_relative: float
    chip: float | None = None
    chip_relative: float | None = None
    chip_snr_db: float | None = None
    not_mapped: str = ""


def verify_mapping(
    reference: ir.Model, lowered: ir.Model, mapping: ChipMapping, chip: Chip, seed: int = 0
) -> Verification:
    """Compare the original with the lowered and the mapped network in onnxruntime.

    Inputs are two images, or one where the values of two would take much memory.

    Raises:
        CimcError: a block reaches beyond its array; the network itself computes no numbers; or the lowered network, or
            the mapped one with ideal converters, differs by more than rounding.
    """
    require_fitting(mapping, chip, "the mapping")
    batch = 2 if _held_bytes(lowered, mapping, chip, 2) <= LARGEST_BYTES / 4 else 1
    feeds = random_inputs(reference, batch, seed, mapping.input_range)
    expected = run(reference, feeds)
    require_numbers(reference, feeds, expected)
    sensitivity = sensitivity_of(reference, feeds, expected)
    computed = run(lowered, feeds)
    wrong = disagreement(reference, expected, computed, sensitivity)
    if wrong is not None:
        where = first_difference(reference, lowered, feeds)
        raise CimcError(
            f"the lowered network differs from the model by {wrong}{where and f', first in {where}'}; "
            f"find the pass that errs with --verify-each, and report this as a fault"
        )
    not_mapped = chip.not_simulated and f"{chip.name} itself is not simulated ({chip.not_simulated})"
    held = _held_bytes(lowered, mapping, chip, batch)
    if not not_mapped and held > LARGEST_BYTES:
        not_mapped = f"the mapped network would take {held / 2**30:.1f} GiB"
    if not_mapped:
        return Verification(*_largest(expected, computed), not_mapped=not_mapped)
    peaks = _largest_inputs(lowered, feeds)
    ideal, plain = _ideal(chip), _without_settings(mapping)
    computed = _run_mapped(lowered, plain, ideal, peaks, feeds)
    if disagreement(reference, expected, computed, sensitivity) is not None:
        _check_arrays(lowered, plain, ideal, peaks, feeds, computed, sensitivity)
    on_chip = _run_mapped(lowered, mapping, chip, peaks, feeds)
    share = rms_share(expected, on_chip)
    return Verification(
        *_largest(expected, computed),
        chip=max(differences(expected, on_chip), default=0.0),
        chip_relative=share,
        chip_snr_db=-20 * math.log10(share) if share else None,
    )


def _ideal(chip: Chip) -> Chip:
    """The chip with ideal converters and devices that hold any conductance."""
    continuous = chip.cell.model_copy(update={"levels": None, "level_uS": None})
    scheme = "offset" if chip.weights.scheme == "single" else chip.weights.scheme  # a code needs bits
    whole = chip.weights.model_copy(update={"scheme": scheme, "bits": None, "bits_per_cell": None, "offset_columns": 0})
    return chip.model_copy(update={"input": Input(), "adc": Adc(), "cell": continuous, "weights": whole})


def _without_settings(mapping: ChipMapping) -> ChipMapping:
    """The mapping with all layers read by the converters of the chip, their rows cut as they are."""
    if not any(layer.settings for layer in mapping.layers):
        return mapping
    return mapping.model_copy(
        update={"layers": tuple(layer.model_copy(update={"settings": ()}) for layer in mapping.layers), "kinds": ()}
    )


def _run_mapped(
    lowered: ir.Model, mapping: ChipMapping, chip: Chip, peaks: dict[str, np.float32], feeds: Feeds
) -> Arrays:
    chips = {layer.name: chip_of_layer(chip, layer.settings) for layer in mapping.layers}
    mapped = chip_network(lowered, mapping, chip, Program(_LayerPrograms(lowered, chips, peaks), {}))
    computed = run(mapped, feeds)
    del mapped
    gc.collect()  # networks are full of reference cycles, and this one holds a copy of all conductances
    return computed


def _check_arrays(
    lowered: ir.Model,
    mapping: ChipMapping,
    chip: Chip,
    peaks: dict[str, np.float32],
    feeds: Feeds,
    computed: Arrays,
    sensitivity: Sensitivity,
) -> None:
    """Raise CimcError where the arrays do not compute the product with the weights that their conductances hold."""
    programs = _LayerPrograms(lowered, {layer.name: chip for layer in mapping.layers}, peaks)
    held = {}
    for name, program in programs.items():
        weight = programs.layers[name][0].inputs[1]
        assert weight is not None
        held[weight.name or ""] = weight_of(program.targets, program.weight_range, chip).astype(np.float32)
    on_grid, mapped = set_constants(lowered, held), chip_network(lowered, mapping, chip, Program(programs, {}))

    @cache
    def with_pairs() -> Sequence[float]:
        """Both devices of a pair sum up more than their difference, which so is rounded more coarsely."""
        random = np.random.default_rng(0)
        constants = [(name, constant(value)) for name, value in mapped.graph.initializers.items()]
        pairs = {name: array for name, array in constants if array is not None and name.endswith(".pair")}
        moved = set_constants(mapped, {name: move_by_rounding(array, random) for name, array in pairs.items()})
        found = [SUM_ROUNDING * one for one in differences(computed, run(moved, feeds))]
        return [max(both) for both in zip(sensitivity(), found, strict=True)]

    wrong = disagreement(lowered, run(on_grid, feeds), computed, with_pairs)
    if wrong is not None:
        where = first_difference(on_grid, mapped, feeds)
        raise CimcError(
            f"the mapped network differs from the model by {wrong}{where and f', first in {where}'}: its arrays do not "
            f"compute the product with the weights that they hold; report this as a fault"
        )


def _largest(expected: Arrays, computed: Arrays) -> tuple[float, float]:
    """The largest difference of all outputs, and the largest as a share of its output's size."""
    found = differences(expected, computed)
    shares = [one / (size_of(array) or 1.0) for one, array in zip(found, expected, strict=True)]
    return max(found, default=0.0), max(shares, default=0.0)


def _held_bytes(lowered: ir.Model, mapping: ChipMapping, chip: Chip, batch: int) -> float:
    """About the most that a run of the mapped network holds: products of a layer before their blocks are added."""
    largest = 0.0
    layers = {layer.name: layer for layer in mapping.layers}
    values = [(value, 3.0) for node in lowered.graph for value in node.outputs]
    for name, nodes in crossbar_layers(lowered).items():
        if name in layers and chip.not_simulated is None:
            blocks = len(layers[name].read_bounds) * len(chip.scheme.signs)
            values += [(node.outputs[0], 7.0 * blocks) for node in nodes]  # as read, scaled, rounded, clipped
    for value, copies in values:
        elements = math.prod(size if isinstance(size, int) else batch for size in value.shape or ())
        largest = max(largest, 4 * copies * elements)
    return largest


class _LayerPrograms(Mapping[str, LayerProgram]):
    """Programs of the layers, each made when it is asked for: together they take twice the memory of the weights."""

    def __init__(self, lowered: ir.Model, chips: dict[str, Chip], peaks: dict[str, np.float32]) -> None:
        self.layers, self.chips, self.peaks = crossbar_layers(lowered), chips, peaks

    def __getitem__(self, name: str) -> LayerProgram:
        node = self.layers[name][0]
        weight = float_constant(node.inputs[1])
        assert weight is not None
        bias: Floats | None = float_constant(node.inputs[2]) if len(node.inputs) > 2 else None
        weight_range = np.float32(np.max(np.abs(weight))) or np.float32(1)
        targets = device_targets(weight, weight_range, self.chips[name])
        return LayerProgram(targets, weight_range, self.peaks[name], np.float32(1), bias)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def _largest_inputs(lowered: ir.Model, feeds: Feeds) -> dict[str, np.float32]:
    """The largest absolute input of every crossbar layer; 1 where all are 0. The network itself finds the maxima."""
    probe = lowered.clone()
    inputs = {layer: [node.inputs[0] for node in nodes] for layer, nodes in crossbar_layers(probe).items()}
    sources = {
        layer: {
            value.name: value
            for value in (seen_from_outside(probe.graph, value) for value in values if value is not None)
        }
        for layer, values in inputs.items()
    }
    wanted = {name: value for values in sources.values() for name, value in values.items()}
    known = {name: _peak(array) for name, value in wanted.items() if (array := constant(value)) is not None}
    probe.graph.outputs.clear()
    for name, value in wanted.items():
        if name not in known and 0 not in (value.shape or ()):
            size = new_node("Abs", [value], f"{name}.size")
            peak = new_node("ReduceMax", [size.outputs[0]], f"{name}.peak", [ir.AttrInt64("keepdims", 0)])
            size.outputs[0].name, peak.outputs[0].name = f"{name}.size", f"{name}.peak"
            probe.graph.extend([size, peak])
            probe.graph.outputs.append(peak.outputs[0])
    found = run(probe, feeds) if probe.graph.outputs else []
    names = [(value.name or "").removesuffix(".peak") for value in probe.graph.outputs]
    known |= {name: float(array) for name, array in zip(names, found, strict=True)}
    return {
        layer: np.float32(max((known.get(name, 0.0) for name in values), default=0.0)) or np.float32(1)
        for layer, values in sources.items()
    }


def _peak(array: npt.NDArray[np.generic]) -> float:
    return float(np.max(np.abs(array.astype(np.float32)), initial=0))
