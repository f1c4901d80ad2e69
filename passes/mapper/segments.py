"""Segments: a network larger than the chip runs part by part, the arrays programmed anew for each."""

from collections.abc import Sequence

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import Cost, MappedLayer, Result, Segment
from cimc.options import Objective
from passes.mapper.layers import Layer
from passes.mapper.reads import phases_of, share


def cut(layers: Sequence[MappedLayer], budget: int, chip: Chip) -> tuple[Segment, ...]:
    """Every `budget` arrays of a plain mapping, in network order, are a segment; a layer may reach over several.

    All arrays of a segment are programmed at once, row by row, all rows of each.

    Raises:
        CimcError: the chip file does not say what programming a row takes.
    """
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


def segmented_cost(cost: Cost, layers: Sequence[MappedLayer], segments: Sequence[Segment], chip: Chip) -> Cost:
    """The cost with reprogramming: segment after segment, layer after layer in each, so one image at a time."""
    once = {layer.name: share(layer, 0) * phases_of(layer, chip) * chip.cost.mvm_us * 1e-3 for layer in layers}
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


def segmented_result(
    cost: Cost, layers: Sequence[Layer], segments: Sequence[Segment], objective: Objective, budget: int, seed: int
) -> Result:
    """What the objective came to. The bound: the fewest segments that hold the weights, and every array always busy."""
    chip = layers[0].chip
    weights = sum(layer.rows * layer.columns for layer in layers)
    held = chip.weight_rows * chip.weight_columns
    fewest = -(-weights // (held * budget))
    reads = sum(layer.positions * layer.phases * layer.rows * layer.columns for layer in layers) / (held * budget)
    if objective in ("latency", "interval"):
        value, unit = cost.latency_ms, "ms"
        bound = fewest * segments[0].program_ms + reads * chip.cost.mvm_us * 1e-3
    elif objective == "energy":
        value, unit = cost.energy_mj, "mJ"
        bound = cost.reprogramming_mj / sum(s.arrays for s in segments) * -(-weights // held)
    else:
        value, bound, unit = float(budget), float(budget), "arrays"
    exact = value <= bound * (1 + 1e-9)
    return Result(
        objective=objective, budget=budget, seed=seed, value=value, bound=min(bound, value), unit=unit, exact=exact
    )
