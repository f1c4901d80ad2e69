"""Verify a mapping: the mapped blocks, as differential pairs, must compute what the network computes."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir

from cimc.chip import Adc, Chip, Input
from cimc.errors import CimcError
from cimc.mapping import Mapping
from cimc.program import Floats, LayerProgram, Program
from cimc.units import pair_targets
from passes.chip_network import chip_network
from passes.crossbar_functions import is_crossbar
from passes.graph_edit import float_constant
from passes.verify import difference, random_inputs, run

# Of the largest output: what float32 rounding in another order can make, with a wide margin.
TOLERANCE = 1e-3


def mapping_differences(
    reference: ir.Model, lowered: ir.Model, mapping: Mapping, chip: Chip, batch: int = 2, seed: int = 0
) -> tuple[float, float]:
    """Largest absolute differences of the outputs from the original network, in onnxruntime on random inputs.

    Returns:
        With ideal converters, and with the chip's converters (input ranges set to the largest input seen); no noise.

    Raises:
        CimcError: with ideal converters the outputs differ by more than rounding.
    """
    feeds = random_inputs(reference, batch, seed, mapping.input_range)
    expected = run(reference, feeds)
    peaks = _largest_inputs(lowered, feeds)
    ideal = chip.model_copy(update={"input": Input(), "adc": Adc()})
    differences = []
    for variant in (ideal, chip):
        computed = run(chip_network(lowered, mapping, variant, _program(lowered, variant, peaks)), feeds)
        differences.append(difference(expected, computed))
    peak = max(float(np.max(np.abs(array), initial=1.0)) for array in expected)
    if not differences[0] <= TOLERANCE * peak:
        raise CimcError(
            f"the mapped network differs from the model by {differences[0]:.2g} in onnxruntime; report this as a fault"
        )
    return differences[0], differences[1]


def _program(lowered: ir.Model, chip: Chip, peaks: dict[str, np.float32]) -> Program:
    layers = {}
    for node in lowered.graph:
        if is_crossbar(node):
            weight = float_constant(node.inputs[1])
            assert weight is not None
            bias: Floats | None = float_constant(node.inputs[2]) if len(node.inputs) > 2 else None
            weight_range = np.float32(np.max(np.abs(weight))) or np.float32(1)
            targets = pair_targets(weight, weight_range, chip)
            name = node.name or ""
            layers[name] = LayerProgram(targets, weight_range, peaks[name], np.float32(1), bias)
    return Program(layers, {})


def _largest_inputs(lowered: ir.Model, feeds: dict[str, npt.NDArray[np.float32]]) -> dict[str, np.float32]:
    """The largest absolute input of every crossbar layer."""
    probe = lowered.clone()
    layers = [node for node in probe.graph if is_crossbar(node)]
    sources = {node.name or "": node.inputs[0] for node in layers}
    known = [value.name for value in (*probe.graph.inputs, *probe.graph.outputs)]
    probe.graph.outputs.extend({v.name: v for v in sources.values() if v is not None and v.name not in known}.values())
    arrays = dict(zip([value.name for value in probe.graph.outputs], run(probe, feeds), strict=True)) | feeds
    return {
        layer: np.float32(np.max(np.abs(arrays[source.name or ""]))) or np.float32(1)
        for layer, source in sources.items()
        if source is not None
    }
