"""Copies for the least row-pipelined latency: a family of states, evaluated exactly, and a lower bound.

The latency is, roughly, what the slowest layer takes plus what every layer makes the next one wait for its first rows.
So each state of the family gives every layer the copies for at most r reads an array, and no fewer than in proportion
to sqrt(wait / arrays), the minimum of sum(wait / copies) under a budget of sum(arrays x copies) (Lagrange).
"""

import math
from collections.abc import Iterator, Mapping, Sequence

from cimc.chip import Chip
from passes.mapper.copies import Arrays, Copies, arrays_of, copies_for, one_each, read_steps
from passes.mapper.layers import Layer
from passes.mapper.row_pipeline import StageTime, timeline
from passes.mapper.schedule import LayerTime, stage_times
from passes.mapper.stages import StageShape

READ_RATIO = 0.8  # between states in reads an array
WAIT_RATIO = math.sqrt(2)  # between states in copies for their wait


def estimated_times(layers: Sequence[Layer], copies: Mapping[str, int], chip: Chip) -> dict[str, LayerTime]:
    """The pace of the layers before their arrays are placed: evenly spread over as many cores as they can be.

    No placement is faster, so that an estimate is a bound of its state.
    """
    times = {}
    for layer in layers:
        count = copies[layer.name]
        cores = min(chip.cores.count, layer.arrays(count))
        starts = layer.starts / cores
        times[layer.name] = LayerTime(chip.cost.mvm_us * 1e3 * layer.phases, count, starts, cores)
    return times


def estimated_latency(
    layers: Sequence[Layer], stages: Sequence[StageShape], copies: Mapping[str, int], chip: Chip
) -> float:
    """Row-pipelined latency of one image with these copies, ns, before placement."""
    positions = {layer.name: layer.positions for layer in layers}
    times = stage_times(stages, estimated_times(layers, copies, chip), positions, chip)
    return timeline(stages, times, {layer.name: frozenset({layer.name}) for layer in layers}).latency_ns


def latency_states(
    layers: Sequence[Layer], stages: Sequence[StageShape], budget: int, chip: Chip
) -> list[tuple[float, Copies]]:
    """(estimated latency in ns, copies) of the states that fit the budget, the fastest first, then the smallest."""
    one = one_each(layers)
    found = [(estimated_latency(layers, stages, one, chip), arrays_of(layers, one), one)]
    round_ns, least = chip.cost.mvm_us * 1e3, found[0][0]
    for copies in _family(layers, stages, budget):
        if (
            max(layer.reads(copies[layer.name]) for layer in layers) * round_ns < least
        ):  # else its slowest layer alone takes longer than a state that is known
            found.append((estimated_latency(layers, stages, copies, chip), arrays_of(layers, copies), copies))
            least = min(least, found[-1][0])
    return [(latency, copies) for latency, _, copies in sorted(found, key=lambda state: state[:2])]


def _family(layers: Sequence[Layer], stages: Sequence[StageShape], budget: int) -> Iterator[Copies]:
    """The states within the budget."""
    waits = _waits(layers, stages)
    weight = {layer.name: math.sqrt(max(waits[layer.name], 1e-9) / layer.arrays(1)) for layer in layers}
    seen: set[tuple[int, ...]] = set()
    for reads in read_steps(layers, READ_RATIO):
        base = copies_for(layers, reads)
        if arrays_of(layers, base) > budget:
            return
        scale = 1 / max(weight.values())
        while True:
            copies = {
                layer.name: max(base[layer.name], min(layer.positions, math.ceil(scale * weight[layer.name])))
                for layer in layers
            }
            if arrays_of(layers, copies) > budget:
                break
            if (key := tuple(copies.values())) not in seen:
                seen.add(key)
                yield copies
            if all(copies[layer.name] == layer.positions for layer in layers):
                break
            scale *= WAIT_RATIO


def _waits(layers: Sequence[Layer], stages: Sequence[StageShape]) -> dict[str, float]:
    """MVMs of one copy of each layer that its readers wait for before their first row."""
    made = {stage.name: stage for stage in stages if stage.kind == "crossbar"}
    phases = {layer.name: layer.phases for layer in layers}
    waits = dict.fromkeys(phases, 0.0)
    through: dict[str, list[tuple[str, float]]] = {}
    for stage in stages:
        # Digital stages hand on what their readers wait for.
        behind = [(source, max(1, min(source.first_rows, source.source_rows))) for source in stage.inputs]
        sources = [
            (name, part) for source, rows in behind for name, part in _origins(source.source, rows, through, made)
        ]
        if stage.kind == "crossbar":
            for name, rows in sources:
                origin = made[name]
                part = min(1.0, rows / origin.rows) * origin.positions * phases[origin.layer]
                waits[origin.layer] = max(waits[origin.layer], part)
        else:
            through[stage.name] = sources
    for stage in made.values():
        waits[stage.layer] = max(waits[stage.layer], stage.positions / stage.rows * phases[stage.layer])
    return waits


def _origins(
    source: str, rows: float, through: Mapping[str, list[tuple[str, float]]], made: Mapping[str, StageShape]
) -> list[tuple[str, float]]:
    """The crossbar stages behind a value and the rows of them that `rows` of the value need, at least."""
    if source in made:
        return [(source, rows)]
    return [(name, max(rows, part)) for name, part in through.get(source, [])]


def latency_bound(
    layers: Sequence[Layer], stages: Sequence[StageShape], budget: int, chip: Chip, arrays: Arrays = arrays_of
) -> float:
    """No copies within the budget have a lower row-pipelined latency, ns; `arrays` counts what they take.

    With L, a layer has L - head - tail for its positions: head, until its first row can start, and tail, from its last
    row to the end, both with as many copies as there are positions. The least L whose copies fit is the bound.
    """
    unlimited = {layer.name: layer.positions for layer in layers}
    positions = dict(unlimited)
    round_ns = {layer.name: chip.cost.mvm_us * 1e3 * layer.phases for layer in layers}
    free = {name: LayerTime(round_ns[name], unlimited[name], 0, chip.cores.count) for name in unlimited}
    times = stage_times(stages, free, positions, chip)
    line = timeline(stages, times, {})
    tails = _tails(stages, times)
    crossbar = [stage for stage in stages if stage.kind == "crossbar"]
    # No stage can use more copies than it has positions.
    fixed = {stage.name: line.ready[stage.name][0] + tails[stage.name] for stage in crossbar}
    by_name = {layer.name: layer for layer in layers}

    def fits(latency: float) -> bool:
        copies: Copies = dict.fromkeys(by_name, 1)
        for stage in crossbar:
            left = latency - fixed[stage.name]
            needed = math.ceil(stage.positions * round_ns[stage.layer] / left - 1e-9) if left > 0 else stage.positions
            copies[stage.layer] = max(copies[stage.layer], min(needed, stage.positions))
        return arrays(layers, copies) <= budget

    low, high = line.latency_ns, estimated_latency(layers, stages, one_each(layers), chip)
    if fits(low) or low >= high:
        return min(low, high)
    for _ in range(40):
        middle = (low + high) / 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return low


def _tails(stages: Sequence[StageShape], times: Mapping[str, StageTime]) -> dict[str, float]:
    """The least time from the end of each stage's last row to the end of the network, ns."""
    tails = {stage.name: 0.0 for stage in stages}
    for stage in reversed(stages):
        for source in stage.inputs:
            if source.source and source.rows_needed(stage.rows - 1) == source.source_rows:
                tail = times[stage.name].first_ns + tails[stage.name]
                tails[source.source] = max(tails[source.source], tail)
    return tails
