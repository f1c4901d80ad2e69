"""Choose: blocks and copies of all layers for an objective under a budget of arrays, with the bound of the result."""

import math
from collections.abc import Sequence
from functools import partial
from itertools import islice

from cimc.chip import Chip
from cimc.mapping import MappedLayer, Mapping, Result
from cimc.options import Objective
from passes.mapper.copies import Copies, area_of, arrays_of, least_reads, one_each
from passes.mapper.cost import layer_cost
from passes.mapper.energy import least_energy, least_read_energy, read_energy
from passes.mapper.interval import interval_floor, least_interval
from passes.mapper.latency import latency_bound, latency_states
from passes.mapper.layers import Layer
from passes.mapper.layout import copied_blocks
from passes.mapper.mapped import copied, mapped, packed
from passes.mapper.pack import pack
from passes.mapper.place import place
from passes.mapper.reads import read_table
from passes.mapper.schedule import schedule
from passes.mapper.stages import StageShape

LOOKS = 6  # states of the latency search that are placed


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
        quick, counted = (partial(energy, chip=chip) for energy in (read_energy, _counted_energy))
        return copied(layers, least_energy(layers, budget, quick, counted))
    return copied(layers, least_interval(layers, stages, budget, chip))


def _placed_latency(layers: Sequence[Layer], stages: Sequence[StageShape], budget: int, chip: Chip) -> Copies:
    """Of the states of least estimated latency, and that of least interval, the one that is fastest when placed.

    No state is faster than estimated.
    """
    best, value = one_each(layers), math.inf
    states = list(islice(latency_states(layers, stages, budget, chip), LOOKS))
    for estimate, copies in [*states, (0.0, least_interval(layers, stages, budget, chip))]:
        if estimate >= value:
            continue
        result = copied(layers, copies)
        table = read_table(result, chip)
        found = schedule(result, table, stages, place(result, table, stages, chip), chip).latency_ns
        if found < value:
            best, value = copies, found
    return best


def _counted_energy(layer: Layer, copies: int, chip: Chip) -> float:
    """Energy of the layer's reads for one image with that many copies, as the cost counts it, mJ."""
    laid = mapped(layer, copied_blocks(layer, copies, 0), copies)
    return layer_cost(laid, read_table([laid], chip).by_layer[layer.name], chip).energy_mj


def reached(mapping: Mapping, objective: Objective) -> tuple[float, str]:
    """What a mapping has of what the objective wants little of, and its unit."""
    if mapping.result is not None:  # of segments
        return mapping.result.value, mapping.result.unit
    assert mapping.schedule is not None
    return {
        "latency": (mapping.schedule.latency_ns * 1e-6, "ms"),
        "interval": (mapping.schedule.interval_ns * 1e-6, "ms"),
        "energy": (mapping.cost.energy_mj, "mJ"),
        "arrays": (float(mapping.arrays), "arrays"),
    }[objective]


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
    chips = max(mapping.chips, -(-budget // chip.arrays_per_chip))
    value, unit = reached(mapping, objective)
    bound = _bound(layers, stages, _joined(chip, chips), objective, budget)
    exact = math.isclose(value, bound, rel_tol=1e-9)
    return Result(
        objective=objective,
        budget=budget,
        seed=seed,
        value=value,
        bound=min(bound, value) if exact else bound,  # equal but for rounding
        unit=unit,
        exact=exact,
    )


def _joined(chip: Chip, chips: int) -> Chip:
    """The cores, buses and memories of several chips as one: no network on them is faster than on this."""
    cores = chip.cores
    rates = {
        key: rate * chips
        for key in ("bus_bytes_per_ns", "link_bytes_per_ns", "global_bytes_per_ns")
        if (rate := getattr(cores, key)) is not None
    }
    joined = cores.model_copy(update={"count": cores.count * chips, **rates})
    return chip if chips == 1 else chip.model_copy(update={"cores": joined})


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
