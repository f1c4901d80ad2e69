"""The least interval between images, layer-pipelined: copies for it, and what no layout can be below."""

import math
from collections.abc import Sequence
from dataclasses import replace

from cimc.chip import Chip
from cimc.mapping import Mapping
from passes.mapper.bounds import arrays_at_least, interval_floor, time_in_segments
from passes.mapper.copies import Copies, copies_for, least_units, unit_steps
from passes.mapper.lay_out import lay_out_copies, on_blocks
from passes.mapper.layers import Layer
from passes.mapper.layout import copied_blocks
from passes.mapper.objective import Objective
from passes.mapper.place import Unit, assign_cores, units_of
from passes.mapper.plan import Task
from passes.mapper.reads import read_table
from passes.mapper.traffic import bus_bytes, memory_bytes

# Between states of the interval search where cores, not only arrays, limit it: first from one copy to one read each,
# then around the best of these.
COARSE = 0.7
FINE = 0.97
ENOUGH = 1.03  # times what no placement can be below


def least_interval(task: Task, budget: int) -> Copies:
    """Copies for the least interval: exact where only arrays limit it, else the best of a family of placed states.

    Copies that make arrays faster than the cores can start MVMs only make the cores' shares finer.
    """
    layers, stages, chip = task.layers, task.stages, task.chip
    least = least_units(layers, budget)
    unit_ns = task.unit_us * 1e3
    memory_ns = memory_bytes(stages, chip) / (chip.cores.global_bytes_per_ns or math.inf)
    floor = int(max(interval_floor(task), memory_ns) / unit_ns) if unit_ns else 0
    if chip.cores.mvm_start_ns is None or not unit_ns:
        return copies_for(layers, max(least, floor))
    moved = bus_bytes(stages) / (chip.cores.bus_bytes_per_ns or math.inf)
    enough = max(floor * unit_ns * ENOUGH, moved)
    best, value = least, math.inf
    # The finest shares first: with them a state is most often limited by what no state avoids.
    for step in reversed([step for step in unit_steps(layers, COARSE) if step > least] + [least]):
        best, value = _better(task, step, best=best, value=value)
        if value <= enough or task.late:
            return copies_for(layers, best)
    around = [step for step in unit_steps(layers, FINE) if max(least, COARSE * best) < step < best / COARSE]
    for step in around:
        best, value = _better(task, step, best=best, value=value)
        if value <= enough or task.late:
            break
    return copies_for(layers, best)


def _better(task: Task, step: int, *, best: int, value: float) -> tuple[int, float]:
    """The better of the state with `step` units an array and the best so far: units, and interval in ns when placed."""
    chip = task.chip
    reading = step * task.unit_us * 1e3
    if reading >= value:
        return best, value
    copies = copies_for(task.layers, step)
    units = [unit for layer in task.layers for unit in _units(layer, copies[layer.name])]
    found = max(reading, _busy_ns(units, chip, moved=bus_bytes(task.stages)))
    return (step, found) if found < value * (1 - 1e-9) else (best, value)


def _units(layer: Layer, copies: int) -> list[Unit]:
    """The units of a layer, their arrays numbered from 0."""
    if layer.groups > 1 and layer.row_blocks == 1:  # every array is one; there can be thousands
        return [Unit((array,), layer.reads(copies)) for array in range(layer.arrays(copies))]
    laid = on_blocks(layer, copied_blocks(layer, copies, 0), copies=copies)
    return units_of(read_table([laid], layer.chip), layer.chip)


def _busy_ns(units: Sequence[Unit], chip: Chip, *, moved: int) -> float:
    """For how long the busiest core starts MVMs, or the bus is busy, when the units are placed."""
    first, numbered = 0, []
    for unit in units:
        numbered.append(replace(unit, arrays=tuple(range(first, first + len(unit.arrays)))))
        first += len(unit.arrays)
    return assign_cores(numbered, chip, moved=moved)[1]


def bound(task: Task, budget: int) -> float:
    """No layout within the budget has a shorter interval, ms."""
    units = least_units(task.layers, budget, arrays_at_least(task, budget))
    return max(units * task.unit_us * 1e-3, interval_floor(task) * 1e-6)


def _reached(mapping: Mapping) -> float:
    # In segments an image is done before the next one begins.
    return mapping.cost.latency_ms if mapping.schedule is None else mapping.schedule.interval_ns * 1e-6


OBJECTIVE = Objective(
    unit="ms",
    search=lambda task, budget: lay_out_copies(task.layers, least_interval(task, budget)),
    reached=_reached,
    bound=bound,
    bound_in_segments=time_in_segments,
)
