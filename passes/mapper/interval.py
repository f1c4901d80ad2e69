"""Copies for the least interval between images, and what no layout can be below."""

import math
from collections.abc import Sequence
from dataclasses import replace

from cimc.chip import Chip
from passes.mapper.copies import Copies, copies_for, least_reads, read_steps
from passes.mapper.layers import Layer
from passes.mapper.layout import copied_blocks
from passes.mapper.mapped import mapped
from passes.mapper.place import Unit, assign_cores, units_of
from passes.mapper.reads import read_table
from passes.mapper.stages import StageShape
from passes.mapper.traffic import bus_bytes, memory_bytes, network_bytes

# Between states of the interval search where cores, not only arrays, limit it: first from one copy to one read each,
# then around the best of these.
COARSE = 0.7
FINE = 0.97
ENOUGH = 1.03  # times what no placement can be below


def least_interval(layers: Sequence[Layer], stages: Sequence[StageShape], budget: int, chip: Chip) -> Copies:
    """Copies for the least interval: exact where only arrays limit it, else the best of a family of placed states.

    Copies that make arrays faster than the cores can start MVMs only make the cores' shares finer.
    """
    reads = least_reads(layers, budget)
    round_ns = chip.cost.mvm_us * 1e3
    memory_ns = memory_bytes(stages, chip) / (chip.cores.global_bytes_per_ns or math.inf)
    floor = int(max(interval_floor(layers, stages, chip), memory_ns) / round_ns) if round_ns else 0
    if chip.cores.mvm_start_ns is None or not round_ns:
        return copies_for(layers, max(reads, floor))
    moved = bus_bytes(stages) / (chip.cores.bus_bytes_per_ns or math.inf)
    enough = max(floor * round_ns * ENOUGH, moved)
    best, value = reads, math.inf
    # The finest shares first: with them a state is most often limited by what no state avoids.
    for step in reversed([step for step in read_steps(layers, COARSE) if step > reads] + [reads]):
        best, value = _better(step, best, value, layers, stages, chip)
        if value <= enough:
            return copies_for(layers, best)
    around = [step for step in read_steps(layers, FINE) if max(reads, COARSE * best) < step < best / COARSE]
    for step in around:
        best, value = _better(step, best, value, layers, stages, chip)
        if value <= enough:
            break
    return copies_for(layers, best)


def _better(
    step: int, best: int, value: float, layers: Sequence[Layer], stages: Sequence[StageShape], chip: Chip
) -> tuple[int, float]:
    """The better of the state with `step` reads an array and the best so far: reads, and interval in ns when placed."""
    reading = step * chip.cost.mvm_us * 1e3
    if reading >= value:
        return best, value
    copies = copies_for(layers, step)
    units = [unit for layer in layers for unit in _units(layer, copies[layer.name], chip)]
    found = max(reading, _busy_ns(units, bus_bytes(stages), chip))
    return (step, found) if found < value * (1 - 1e-9) else (best, value)


def _units(layer: Layer, copies: int, chip: Chip) -> list[Unit]:
    """The units of a layer, their arrays numbered from 0."""
    if layer.groups > 1 and layer.row_blocks == 1:  # every array is one; there can be thousands
        return [Unit((array,), layer.reads(copies)) for array in range(layer.arrays(copies))]
    return units_of(read_table([mapped(layer, copied_blocks(layer, copies, 0), copies)], chip), chip)


def _busy_ns(units: Sequence[Unit], moved: int, chip: Chip) -> float:
    """For how long the busiest core starts MVMs, or the bus is busy, when the units are placed."""
    first, numbered = 0, []
    for unit in units:
        numbered.append(replace(unit, arrays=tuple(range(first, first + len(unit.arrays)))))
        first += len(unit.arrays)
    return assign_cores(numbered, moved, chip)[1]


def interval_floor(layers: Sequence[Layer], stages: Sequence[StageShape], chip: Chip) -> float:
    """What cores, vector units and network inputs and outputs take for one image, whatever the layout, ns."""
    cores, width = chip.cores, chip.cores.activation_bytes
    found = [0.0]
    if cores.mvm_start_ns is not None:
        starts = sum(layer.starts for layer in layers)
        found.append(starts * cores.mvm_start_ns / cores.count)
    if cores.vector_bytes_per_ns is not None:
        work = sum(stage.operations for stage in stages if stage.layer) * width
        found.append(work / (cores.vector_bytes_per_ns * cores.count))
    if cores.global_bytes_per_ns is not None:
        found.append(network_bytes(stages, chip) / cores.global_bytes_per_ns)
    return max(found)
