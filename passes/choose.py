"""Choose: blocks and copies of all layers for an objective under a budget of arrays, with the bound of the result."""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from cimc.chip import Chip
from cimc.mapping import Block, MappedLayer, Mapping, Objective, Result
from passes.copies import Copies, area_of, arrays_of, copies_for, least_energy, least_reads, one_each, read_steps
from passes.latency import latency_bound, latency_states
from passes.layers import Layer
from passes.layout import copied_blocks, plain_blocks
from passes.pack import pack
from passes.place import Unit, assign_cores, place, units_of
from passes.reads import read_table
from passes.schedule import schedule
from passes.stages import StageShape
from passes.traffic import bus_bytes, memory_bytes, network_bytes

# Between states of the interval search where cores, not only arrays, limit it.
STEP = 0.99
FINER = 0.7
ENOUGH = 1.03  # times what no placement can be below
WORTH = 0.99  # of the interval before: what gains less fails, and so many failures in a row end the search
PATIENCE = 4
LOOKS = 6  # states of the latency search that are placed


def mapped(layer: Layer, blocks: tuple[Block, ...], copies: int = 1) -> MappedLayer:
    """The layer on its blocks."""
    return MappedLayer(
        name=layer.name,
        operator=layer.operator,
        rows=layer.rows,
        columns=layer.columns,
        kernel_size=layer.kernel_size,
        groups=layer.groups,
        positions=layer.positions,
        signed_input=layer.signed_input,
        row_split=layer.row_split,
        blocks=blocks,
        copies=copies,
    )


def plain(layers: Sequence[Layer]) -> list[MappedLayer]:
    """One copy each, one block an array (groups block-diagonal), in network order."""
    result = []
    first = 0
    for layer in layers:
        result.append(mapped(layer, plain_blocks(layer, first)))
        first = 1 + max(block.array for block in result[-1].blocks)
    return result


def packed(layers: Sequence[Layer], chip: Chip) -> list[MappedLayer]:
    """One copy each in the fewest arrays, several layers in one."""
    return [mapped(layer, blocks) for layer, blocks in zip(layers, pack(layers, chip).blocks, strict=True)]


def copied(layers: Sequence[Layer], copies: Copies) -> list[MappedLayer]:
    """That many copies of each layer, every array for one layer."""
    result = []
    first = 0
    for layer in layers:
        count = copies[layer.name]
        result.append(mapped(layer, copied_blocks(layer, count, first), count))
        first += layer.arrays(count)
    return result


def choose(
    layers: Sequence[Layer], stages: Sequence[StageShape], chip: Chip, objective: Objective, budget: int
) -> list[MappedLayer]:
    """Map for an objective; the arrays of one copy, packed if need be, must fit the budget.

    latency: of one image, row-pipelined. interval: between images, layer-pipelined. energy: of reading arrays.
    arrays: the fewest, several layers in one array. Where one copy does not fit without packing, the network is packed.
    """
    if objective == "arrays" or arrays_of(layers, one_each(layers)) > budget:
        return packed(layers, chip)
    if objective == "latency":
        return copied(layers, _placed_latency(layers, stages, budget, chip))
    if objective == "energy":
        return copied(layers, least_energy(layers, budget, lambda layer, count: read_energy(layer, count, chip)))
    return copied(layers, least_interval(layers, stages, budget, chip))


def _placed_latency(layers: Sequence[Layer], stages: Sequence[StageShape], budget: int, chip: Chip) -> Copies:
    """Of the states of least estimated latency the one that is fastest when placed; none is faster than estimated."""
    best, value = one_each(layers), math.inf
    for estimate, copies in islice(latency_states(layers, stages, budget, chip), LOOKS):
        if estimate >= value:
            break
        result = copied(layers, copies)
        table = read_table(result, chip)
        found = schedule(result, table, stages, place(result, table, stages, chip), chip).latency_ns
        if found < value:
            best, value = copies, found
    return best


def result_of(
    mapping: Mapping,
    layers: Sequence[Layer],
    stages: Sequence[StageShape],
    chip: Chip,
    objective: Objective,
    budget: int,
    seed: int,
) -> Result:
    """What a mapping reached for an objective, and the bound."""
    assert mapping.schedule is not None
    value, unit = {
        "latency": (mapping.schedule.latency_ns * 1e-6, "ms"),
        "interval": (mapping.schedule.interval_ns * 1e-6, "ms"),
        "energy": (mapping.cost.energy_mj, "mJ"),
        "arrays": (float(mapping.arrays), "arrays"),
    }[objective]
    bound = _bound(layers, stages, chip, objective, budget)
    return Result(
        objective=objective,
        budget=budget,
        seed=seed,
        value=value,
        bound=min(bound, value),
        unit=unit,
        exact=value <= bound * (1 + 1e-9),
    )


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
    steps = [step for step in read_steps(layers, STEP) if step >= reads]
    finer: list[int] = []
    for step in steps:
        if step <= floor and (not finer or step <= FINER * finer[-1]):
            finer.append(step)
    best, value, failed = copies_for(layers, steps[-1]), float("inf"), 0
    for step in [*finer, *(step for step in reversed(steps) if step > floor)]:
        if step * round_ns >= value:
            break
        copies = copies_for(layers, step)
        units = [unit for layer in layers for unit in _units(layer, copies[layer.name], chip)]
        found = max(step * round_ns, _busy_ns(units, bus_bytes(stages), chip))
        failed = failed + 1 if found > value * WORTH else 0
        if found < value * (1 - 1e-9):
            best, value = copies, found
        if value <= max(floor * round_ns * ENOUGH, moved) or failed == PATIENCE:
            break
    return best


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


def read_energy(layer: Layer, copies: int, chip: Chip) -> float:
    """Energy of the layer's reads for one image with that many copies, mJ."""
    arrays = layer.arrays(copies) * chip.physical_per_array * layer.reads(copies)
    cost = chip.cost
    if cost.mvm_nj is not None:
        return arrays * cost.mvm_nj * 1e-6
    conversion = ((cost.adc_pj or 0.0) + (cost.shift_add_pj or 0.0)) * chip.input.conversions
    converted = sum(piece.width for piece in layer.pieces) * chip.columns_per_weight * conversion
    driven = sum(piece.height for piece in layer.pieces) * chip.rows_per_weight * (cost.dac_pj or 0.0)
    once = layer.positions * layer.phases * (converted + driven) * chip.physical_per_array
    return (once + arrays * ((cost.array_pj or 0.0) + chip.weights.offset_columns * conversion)) * 1e-9


def least_read_energy(layer: Layer, chip: Chip) -> float:
    """No number of copies has less: every array filled to the last place, read once for all it holds, mJ."""
    filled = sum(count / size for count, size in layer.classes) * layer.positions * layer.phases
    arrays = layer.arrays(1) * chip.physical_per_array * layer.reads(1)
    each = read_energy(layer, 1, chip)
    if chip.cost.mvm_nj is not None:
        return each * filled * chip.physical_per_array / arrays
    conversion = ((chip.cost.adc_pj or 0.0) + (chip.cost.shift_add_pj or 0.0)) * chip.input.conversions
    idle = (chip.cost.array_pj or 0.0) + chip.weights.offset_columns * conversion
    return each - (arrays - filled * chip.physical_per_array) * idle * 1e-9


def _bound(
    layers: Sequence[Layer], stages: Sequence[StageShape], chip: Chip, objective: Objective, budget: int
) -> float:
    if objective == "arrays":
        return float(pack(layers, chip).bound)
    if objective == "energy":
        return sum(least_read_energy(layer, chip) for layer in layers)
    # Where one copy only fits packed, several layers in one array, the weights' area is what no layout is below.
    arrays = arrays_of if arrays_of(layers, one_each(layers)) <= budget else area_of
    if objective == "latency":
        # No layout is faster than the busiest of the cores; where values need not move, they take no time.
        apart = {"bus_bytes_per_ns": None, "link_bytes_per_ns": None, "global_bytes_per_ns": None}
        still = chip.model_copy(update={"cores": chip.cores.model_copy(update=apart)})
        found = latency_bound(layers, stages, budget, still, arrays)
        return max(found, interval_floor(layers, stages, chip)) * 1e-6
    reads = least_reads(layers, budget, arrays)
    return max(reads * chip.cost.mvm_us * 1e-3, interval_floor(layers, stages, chip) * 1e-6)
