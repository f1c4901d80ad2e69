"""Segments: a network larger than the chip runs part by part, the arrays programmed anew for each."""

from collections.abc import Sequence

from cimc.errors import CimcError
from cimc.layer_settings import priced_chip
from cimc.mapping import MappedLayer, Segment
from cimc.mapping_cost import Cost
from passes.mapper.plan import Plan
from passes.mapper.reads import most_parts, phases_of, positions_of_copy


def cut_segments(plan: Plan, budget: int) -> tuple[Segment, ...]:
    """Every `budget` arrays of a plain mapping, in network order, are a segment; a layer may reach over several.

    All arrays of a segment are programmed at once, row by row, all rows of each.

    Raises:
        CimcError: the chip file does not say what programming a row takes.
    """
    layers, chip = plan.layers, plan.chip
    assert not any(layer.kind for layer in layers), "the arrays of a segment are of the first kind"
    arrays = 1 + max(block.array for layer in layers for block in layer.blocks)
    if chip.cost.row_write_us is None:
        raise CimcError(
            f"the network needs {arrays} arrays, --arrays and {chip.name} give {budget}, and its file has no "
            f"cost.row_write_us to program them anew with; raise --arrays or state that time"
        )
    program_ms = chip.array.rows * chip.cost.row_write_us * 1e-3
    row_mj = (chip.cost.row_write_nj or 0.0) * 1e-6 * chip.array.rows * chip.physical_per_array
    spans = _spans(layers)
    segments = []
    for first in range(0, arrays, budget):
        count = min(budget, arrays - first)
        names = tuple(name for name, (start, stop) in spans.items() if start < first + count and first < stop)
        segments.append(
            Segment(layers=names, first_array=first, arrays=count, program_ms=program_ms, program_mj=count * row_mj)
        )
    return tuple(segments)


def _spans(layers: Sequence[MappedLayer]) -> dict[str, tuple[int, int]]:
    """The arrays (start, stop) of each layer, which a plain mapping numbers without a gap."""
    return {
        layer.name: (min(b.array for b in layer.blocks), 1 + max(b.array for b in layer.blocks)) for layer in layers
    }


def add_programming(cost: Cost, plan: Plan, *, segments: Sequence[Segment]) -> Cost:
    """The cost with reprogramming: segment after segment, layer after layer in each, so one image at a time."""
    chip = plan.chip
    parts = {layer.name: most_parts(plan.table.by_layer[layer.name]) for layer in plan.layers}
    mvm_us = {layer.name: priced_chip(chip, layer.settings, layer.signed_input).cost.mvm_us for layer in plan.layers}
    once = {
        layer.name: positions_of_copy(layer, 0) * phases_of(layer, chip) * parts[layer.name] * mvm_us[layer.name] * 1e-3
        for layer in plan.layers
    }
    compute_ms = sum(once[name] for segment in segments for name in segment.layers)
    program_ms = sum(segment.program_ms for segment in segments)
    program_mj = sum(segment.program_mj for segment in segments)
    return cost.model_copy(
        update={
            "crossbars": max(segment.arrays for segment in segments) * chip.physical_per_array,
            "chips": -(-max(segment.arrays for segment in segments) // chip.arrays_per_chip),
            "latency_ms": compute_ms + program_ms,
            "pipelined_latency_ms": compute_ms + program_ms,
            "energy_mj": cost.energy_mj + program_mj,
            "reprogramming_ms": program_ms,
            "reprogramming_mj": program_mj,
        }
    )
