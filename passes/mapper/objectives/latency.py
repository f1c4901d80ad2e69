"""The least row-pipelined latency of one image: a family of states, the best of them placed, and a lower bound.

The latency is, roughly, what the slowest layer takes plus what every layer makes the next one wait for its first rows.
So each state of the family gives every layer the copies for at most r reads an array, and no fewer than in proportion
to sqrt(wait / arrays), the minimum of sum(wait / copies) under a budget of sum(arrays x copies) (Lagrange).
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from cimc.mapping import MappedLayer
from cimc.mapping import Mapping as ChipMapping
from cimc.schedule import Stage
from passes.mapper.bounds import arrays_at_least, arrays_per_copy, interval_floor, time_in_segments
from passes.mapper.copies import Arrays, Copies, arrays_of, copies_for, one_each, unit_steps
from passes.mapper.lay_out import lay_out_copies
from passes.mapper.objective import Objective
from passes.mapper.objectives.interval import least_interval
from passes.mapper.paths import latency_floor
from passes.mapper.place import place
from passes.mapper.plan import Task, plan_layers
from passes.mapper.row_pipeline import StageTime, timeline
from passes.mapper.schedule import LayerTime, schedule, stage_times

LOOKS = 6  # states that are placed
READ_RATIO = 0.8  # between states in reads an array
WAIT_RATIO = math.sqrt(2)  # between states in copies for their wait


def search(task: Task, budget: int) -> list[MappedLayer]:
    """Of the states of least estimated latency, and that of least interval, the one that is fastest when placed.

    No state is faster than estimated.
    """
    best, value = one_each(task.layers), math.inf
    states = list(islice(latency_states(task, budget), LOOKS))
    for estimate, copies in [*states, (0.0, least_interval(task, budget))]:
        if estimate >= value:
            continue
        if task.late and value < math.inf:
            break
        plan = plan_layers(task, lay_out_copies(task.layers, copies))
        found = schedule(replace(plan, placement=place(plan))).latency_ns
        if found < value:
            best, value = copies, found
    return lay_out_copies(task.layers, best)


def estimated_times(task: Task, copies: Mapping[str, int]) -> dict[str, LayerTime]:
    """The pace of the layers before their arrays are placed: evenly spread over as many cores as they can be.

    No placement is faster, so that an estimate is a bound of its state.
    """
    times, chip = {}, task.chip
    for layer in task.layers:
        count = copies[layer.name]
        cores = min(chip.cores.count, layer.arrays(count))
        starts = layer.starts / cores
        times[layer.name] = LayerTime(layer.mvm_ns, count, starts, cores)
    return times


def estimated_latency(task: Task, copies: Mapping[str, int]) -> float:
    """Row-pipelined latency of one image with these copies, ns, before placement."""
    positions = {layer.name: layer.positions for layer in task.layers}
    times = stage_times(task.stages, estimated_times(task, copies), positions=positions, chip=task.chip)
    return timeline(task.stages, times, {name: frozenset({name}) for name in positions}).latency_ns


def latency_states(task: Task, budget: int) -> list[tuple[float, Copies]]:
    """(estimated latency in ns, copies) of the states that fit the budget, the fastest first, then the smallest."""
    layers = task.layers
    one = one_each(layers)
    found = [(estimated_latency(task, one), arrays_of(layers, one), one)]
    unit_ns, least = task.unit_us * 1e3, found[0][0]
    for copies in _family(task, budget):
        if task.late:
            break
        # Else its slowest layer alone takes longer than a state that is known.
        if max(layer.units(copies[layer.name]) for layer in layers) * unit_ns < least:
            found.append((estimated_latency(task, copies), arrays_of(layers, copies), copies))
            least = min(least, found[-1][0])
    return [(latency, copies) for latency, _, copies in sorted(found, key=lambda state: state[:2])]


def _family(task: Task, budget: int) -> Iterator[Copies]:
    """The states within the budget."""
    layers, waits = task.layers, _waits(task)
    weight = {layer.name: math.sqrt(max(waits[layer.name], 1e-9) / layer.arrays(1)) for layer in layers}
    seen: set[tuple[int, ...]] = set()
    for units in unit_steps(layers, READ_RATIO):
        base = copies_for(layers, units)
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


def _waits(task: Task) -> dict[str, float]:
    """Time units of one copy of each layer that its readers wait for before their first row."""
    made = {stage.name: stage for stage in task.stages if stage.kind == "crossbar"}
    units = {layer.name: layer.units_per_mvm for layer in task.layers}
    waits = dict.fromkeys(units, 0.0)
    through: dict[str, list[tuple[str, float]]] = {}
    for stage in task.stages:
        # Digital stages hand on what their readers wait for.
        behind = [(source, max(1, min(source.first_rows, source.source_rows))) for source in stage.inputs]
        sources = [
            (name, part) for source, rows in behind for name, part in _origins(source.source, rows, through, made)
        ]
        if stage.kind == "crossbar":
            for name, rows in sources:
                origin = made[name]
                part = min(1.0, rows / origin.rows) * origin.positions * units[origin.layer]
                waits[origin.layer] = max(waits[origin.layer], part)
        else:
            through[stage.name] = sources
    for stage in made.values():
        waits[stage.layer] = max(waits[stage.layer], stage.positions / stage.rows * units[stage.layer])
    return waits


def _origins(
    source: str, rows: float, through: Mapping[str, list[tuple[str, float]]], made: Mapping[str, Stage]
) -> list[tuple[str, float]]:
    """The crossbar stages behind a value and the rows of them that `rows` of the value need, at least."""
    if source in made:
        return [(source, rows)]
    return [(name, max(rows, part)) for name, part in through.get(source, [])]


def latency_bound(task: Task, budget: int, *, arrays: Arrays) -> float:
    """No copies within the budget have a lower row-pipelined latency, ns; `arrays` counts what they take.

    With L, a layer has L - head - tail for its positions: head, until its first row can start, and tail, from its last
    row to the end, both with as many copies as there are positions. The least L whose copies fit is the bound.
    """
    layers, stages, chip = task.layers, task.stages, task.chip
    unlimited = {layer.name: layer.positions for layer in layers}
    positions = dict(unlimited)
    round_ns = {layer.name: layer.mvm_ns for layer in layers}
    free = {name: LayerTime(round_ns[name], unlimited[name], 0, chip.cores.count) for name in unlimited}
    times = stage_times(stages, free, positions=positions, chip=chip)
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

    low, high = line.latency_ns, estimated_latency(task, one_each(layers))
    if fits(low) or low >= high:
        return min(low, high)
    for _ in range(40):
        middle = (low + high) / 2
        if fits(middle):
            high = middle
        else:
            low = middle
    return low


def _tails(stages: Sequence[Stage], times: Mapping[str, StageTime]) -> dict[str, float]:
    """The least time from the end of each stage's last row to the end of the network, ns."""
    tails = {stage.name: 0.0 for stage in stages}
    for stage in reversed(stages):
        for source in stage.inputs:
            if source.source and source.rows_needed(stage.rows - 1) == source.source_rows:
                tail = times[stage.name].first_ns + tails[stage.name]
                tails[source.source] = max(tails[source.source], tail)
    return tails


def bound(task: Task, budget: int) -> float:
    """No layout within the budget has a shorter latency, ms: none is faster than the busiest of the cores."""
    # Where values need not move, they take no time.
    apart = {"bus_bytes_per_ns": None, "link_bytes_per_ns": None, "global_bytes_per_ns": None}
    still = task.chip.model_copy(update={"cores": task.chip.cores.model_copy(update=apart)})
    at_rest = replace(task, chip=still)
    found = latency_bound(at_rest, budget, arrays=arrays_at_least(task, budget))
    path = latency_floor(at_rest, arrays_per_copy(task, budget), budget)
    return max(found, path, interval_floor(task)) * 1e-6


def _reached(mapping: ChipMapping) -> float:
    return mapping.cost.latency_ms if mapping.schedule is None else mapping.schedule.latency_ns * 1e-6


OBJECTIVE = Objective(unit="ms", search=search, reached=_reached, bound=bound, bound_in_segments=time_in_segments)
