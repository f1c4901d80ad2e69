"""Limits: the resources of the chip and how long one image keeps each busy; none can be shorter than the interval."""

from collections import Counter
from collections.abc import Mapping

from cimc.chip import Chip
from cimc.mapping import MappedLayer, Placement
from cimc.schedule import Limit
from passes.mapper.place import core_starts
from passes.mapper.plan import Plan
from passes.mapper.reads import ReadTable, busy_ns
from passes.mapper.traffic import bus_bytes, memory_bytes, partial_sums


def limits_of(plan: Plan) -> tuple[Limit, ...]:
    """The busiest resource of each kind that the chip file states, the largest first."""
    chip, found = plan.chip, [_arrays(plan.table, plan.chip)]
    if plan.placement is not None:
        found += _cores(plan, plan.placement)
        found += _links(plan, plan.placement)
    if chip.cores.global_bytes_per_ns is not None:
        found.append(Limit("global memory", "chip", memory_bytes(plan.stages, chip) / chip.cores.global_bytes_per_ns))
    return tuple(sorted((limit for limit in found if limit.busy_ns > 0), key=lambda limit: -limit.busy_ns))


def _arrays(table: ReadTable, chip: Chip) -> Limit:
    busiest, where = 0.0, ""
    for reads in table.by_array.values():
        # Most arrays hold one read; the others are worth a closer look only if they can be the busiest.
        if sum(read.busy_ns for read in reads) > busiest and (busy := busy_ns(reads, chip)) > busiest:
            busiest, where = busy, " + ".join(dict.fromkeys(read.layer for read in reads))
    least = busiest * (1 - 1e-9)
    likewise = {
        read.layer
        for reads in table.by_array.values()
        if sum(read.busy_ns for read in reads) >= least and busy_ns(reads, chip) >= least
        for read in reads
    }.difference(where.split(" + "))
    return Limit("array", f"{where} and {len(likewise)} more" if likewise else where, busiest)


def _cores(plan: Plan, placement: Placement) -> list[Limit]:
    layers, stages, chip = plan.layers, plan.stages, plan.chip
    starts = core_starts(plan.table, placement.cores)
    found = []
    if chip.cores.mvm_start_ns is not None:
        total: Counter[int] = Counter()
        for of_layer in starts.values():
            total.update(of_layer)
        found.append(_busiest("core starts", total, chip.cores.mvm_start_ns))
    spread = {layer.name: core_shares(layer, placement) for layer in layers}
    width = chip.cores.activation_bytes
    if chip.cores.vector_bytes_per_ns is not None:
        work: Counter[int] = Counter()
        for stage in stages:
            for core, fraction in spread.get(stage.layer, {0: 1.0}).items():
                work[core] += stage.operations * width * fraction  # type: ignore[assignment]
        found.append(_busiest("vector unit", work, 1 / chip.cores.vector_bytes_per_ns))
    if chip.cores.local_bytes_per_ns is not None:
        traffic: Counter[int] = Counter()
        for layer in layers:
            outputs = layer.positions * layer.columns * len(layer.read_bounds)
            for core, fraction in spread[layer.name].items():
                traffic[core] += outputs * fraction * width  # type: ignore[assignment]
            for core, count in starts[layer.name].items():
                traffic[core] += count * layer.read_rows * width  # type: ignore[assignment]
        found.append(_busiest("local memory", traffic, 1 / chip.cores.local_bytes_per_ns))
    return found


def core_shares(layer: MappedLayer, placement: Placement) -> dict[int, float]:
    """The fraction of the layer's arrays in each core."""
    arrays = {block.array for block in layer.blocks}
    counts = Counter(placement.cores[array] for array in arrays)
    return {core: count / len(arrays) for core, count in counts.items()}


def _busiest(kind: str, load: Mapping[int, float], ns: float) -> Limit:
    core = max(load, key=lambda core: (load[core], -core), default=0)
    return Limit(kind, f"core {core}", load.get(core, 0) * ns)


def _links(plan: Plan, placement: Placement) -> list[Limit]:
    chip = plan.chip
    if chip.cores.bus_bytes_per_ns is not None:
        moved = bus_bytes(plan.stages) + partial_sum_bytes(plan)
        return [Limit("bus", "chip", moved / chip.cores.bus_bytes_per_ns)]
    if chip.cores.link_bytes_per_ns is None or not placement.links:
        return []
    link = max(placement.links, key=lambda link: (link.bytes, -link.source, -link.target))
    return [Limit("link", f"core {link.source} to {link.target}", link.bytes / chip.cores.link_bytes_per_ns)]


def partial_sum_bytes(plan: Plan) -> float:
    """Bytes of partial sums on the bus, 0 before arrays are placed.

    Each core adds up those of its own row blocks and sends them to the first's.
    """
    if plan.placement is None:
        return 0.0
    cores, width = plan.placement.cores, plan.chip.cores.activation_bytes
    return sum(moved for layer in plan.layers for *_, moved in partial_sums(layer, cores, width=width))
