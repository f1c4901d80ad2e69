"""Verify a mapping: the mapped blocks, as differential pairs, must compute what the network computes."""

import gc
from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.chip import Adc, Chip, Input
from cimc.errors import CimcError
from cimc.mapping import Mapping as ChipMapping
from cimc.program import Floats, LayerProgram, Program
from cimc.units import pair_targets
from passes.chip_network import chip_network
from passes.crossbar_functions import crossbar_layers
from passes.graph_edit import constant, float_constant
from passes.scan_body import seen_from_outside
from passes.verify import Arrays, Feeds, difference, random_inputs, run, tolerance

# Of the largest output: what float32 rounding in another order can make, with a wide margin.
TOLERANCE = 1e-3


def mapping_differences(
    reference: ir.Model, lowered: ir.Model, mapping: ChipMapping, chip: Chip, batch: int = 2, seed: int = 0
) -> tuple[float, float | None]:
    """Largest absolute differences of the outputs from the original network, in onnxruntime on random inputs.

    Returns:
        With ideal converters and any conductance, and with the chip's converters and levels (input ranges set to the
        largest input seen); no noise.
        For a chip that is not simulated: of the lowered network, and None.

    Raises:
        CimcError: with ideal converters the outputs differ by more than rounding.
    """
    feeds = random_inputs(reference, batch, seed, mapping.input_range)
    expected = run(reference, feeds)
    if chip.not_simulated is not None:
        found = difference(expected, run(lowered, feeds))
        _check(found, expected, reference, "lowered")
        return found, None
    peaks = _largest_inputs(lowered, feeds)
    continuous = chip.cell.model_copy(update={"levels": None, "level_uS": None})
    ideal = chip.model_copy(update={"input": Input(), "adc": Adc(), "cell": continuous})
    differences = []
    for variant in (ideal, chip):
        program = Program(_LayerPrograms(lowered, variant, peaks), {})
        computed = run(chip_network(lowered, mapping, variant, program), feeds)
        gc.collect()  # networks are full of reference cycles, and this one holds a copy of all conductances
        differences.append(difference(expected, computed))
    _check(differences[0], expected, reference, "mapped")
    return differences[0], differences[1]


def _check(found: float, expected: Arrays, reference: ir.Model, what: str) -> None:
    peak = max(float(np.max(np.abs(array), initial=1.0)) for array in expected)
    if not found <= tolerance(reference, TOLERANCE) * peak:
        raise CimcError(
            f"the {what} network differs from the model by {found:.2g} in onnxruntime; report this as a fault"
        )


class _LayerPrograms(Mapping[str, LayerProgram]):
    """Programs of the layers, each made when it is asked for: together they take twice the memory of the weights."""

    def __init__(self, lowered: ir.Model, chip: Chip, peaks: dict[str, np.float32]) -> None:
        self.layers, self.chip, self.peaks = crossbar_layers(lowered), chip, peaks

    def __getitem__(self, name: str) -> LayerProgram:
        node = self.layers[name][0]
        weight = float_constant(node.inputs[1])
        assert weight is not None
        bias: Floats | None = float_constant(node.inputs[2]) if len(node.inputs) > 2 else None
        weight_range = np.float32(np.max(np.abs(weight))) or np.float32(1)
        targets = pair_targets(weight, weight_range, self.chip)
        return LayerProgram(targets, weight_range, self.peaks[name], np.float32(1), bias)

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)


def _largest_inputs(lowered: ir.Model, feeds: Feeds) -> dict[str, np.float32]:
    """The largest absolute input of every crossbar layer."""
    probe = lowered.clone()
    inputs = {layer: [node.inputs[0] for node in nodes] for layer, nodes in crossbar_layers(probe).items()}
    sources = {
        layer: [seen_from_outside(probe.graph, value) for value in values if value is not None]
        for layer, values in inputs.items()
    }
    known = [value.name for value in (*probe.graph.inputs, *probe.graph.outputs)]
    wanted = {value.name: value for values in sources.values() for value in values}
    probe.graph.outputs.extend(
        value for name, value in wanted.items() if name not in known and not value.is_initializer()
    )
    arrays: dict[str | None, npt.NDArray[np.generic]] = dict(feeds.items())
    arrays |= zip([value.name for value in probe.graph.outputs], run(probe, feeds), strict=True)
    arrays |= {name: array for name, value in wanted.items() if (array := constant(value)) is not None}
    return {layer: _peak([arrays[value.name] for value in values]) for layer, values in sources.items()}


def _peak(arrays: Arrays) -> np.float32:
    """The largest absolute value; 1 where all are 0."""
    return np.float32(max(np.max(np.abs(array.astype(np.float32)), initial=0) for array in arrays)) or np.float32(1)
