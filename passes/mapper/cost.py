"""Cost of one image on the arrays: array count, MVMs, latency, energy (the rules of Table 2, arXiv 2305.14547).

Arrays with their converters only, the layers one after the other; `passes.mapper.schedule` has the latency with digital
work, data movement and overlap. `passes.mapper.components` adds digital work and data movement, each apart.
"""

from collections import Counter

from cimc.chip import Chip
from cimc.layer_settings import priced_chip
from cimc.mapping import MappedLayer
from cimc.mapping_cost import Cost, LayerCost
from passes.mapper.plan import Plan
from passes.mapper.reads import Read, columns_of, most_parts, parts_of, phases_of, positions_of_copy, rows_of


def layer_cost(layer: MappedLayer, reads: dict[int, list[Read]], *, chip: Chip) -> LayerCost:
    """Cost of one layer: its arrays work in parallel, its copies share the positions.

    The chip file states time and energy of an MVM, most of which its conversions take. So whatever is a further read of
    an array takes them again: the second phase of signed inputs, and rows that are not driven with the others.
    """
    chip = priced_chip(chip, layer.settings, layer.signed_input)
    arrays = len(reads) * chip.physical_per_array
    tile_ops = chip.physical_per_array * sum(read.count for of_array in reads.values() for read in of_array)
    # Blocks of a layer that cannot be read at once follow one another, and so do the reads of a block.
    rounds = positions_of_copy(layer, 0) * most_parts(reads)
    if chip.cost.mvm_nj is not None:
        energy_mj = tile_ops * chip.cost.mvm_nj * 1e-6
    else:
        every = (read for of_array in reads.values() for read in of_array)
        read_rows = layer.read_rows
        energy_mj = sum(sum(mvm_pj(read, read_rows, chip).values()) * read.mvms for read in every) * 1e-9
    used = layer.rows * layer.columns * layer.copies * chip.devices_per_weight
    return LayerCost(
        name=layer.name,
        arrays=arrays,
        copies=layer.copies,
        positions=layer.positions,
        tile_ops=tile_ops,
        latency_ms=rounds * phases_of(layer, chip) * chip.cost.mvm_us * 1e-3,
        energy_mj=energy_mj,
        utilization=used / (arrays * chip.array.rows * chip.array.columns),
    )


def network_cost(plan: Plan) -> Cost:
    """Cost of the whole network: latency is the sum over layers, the pipelined interval that of the slowest layer."""
    layers, table, chip = plan.layers, plan.table, plan.chip
    costs = tuple(layer_cost(layer, table.by_layer[layer.name], chip=chip) for layer in layers)
    copied = sum(layer.rows * layer.columns * layer.copies for layer in layers)
    arrays = len(table.by_array)
    crossbars, devices = arrays * chip.physical_per_array, copied * chip.devices_per_weight + _reference_cells(plan)
    kinds, sizes = arrays_of_kinds(plan), chip.sizes
    cells = sum(
        count * chip.physical_per_array * sizes[kind].rows * sizes[kind].columns for kind, count in kinds.items()
    )
    return Cost(
        crossbars=crossbars,
        chips=max((-(-count // chip.of_kind(kind).arrays_per_chip) for kind, count in kinds.items()), default=0),
        weights=sum(layer.weights for layer in layers),
        devices=devices,
        flops=sum(2 * layer.weights * layer.positions for layer in layers),
        mvm_positions=sum(cost.positions for cost in costs),
        tile_ops=sum(cost.tile_ops for cost in costs),
        latency_ms=sum(cost.latency_ms for cost in costs),
        pipelined_latency_ms=max((cost.latency_ms for cost in costs), default=0.0),
        energy_mj=sum(cost.energy_mj for cost in costs),
        utilization=devices / cells if cells else 0.0,
        layers=costs,
    )


def arrays_of_kinds(plan: Plan) -> Counter[str]:
    """Arrays of the mapping in use, by their kind."""
    return Counter(reads[0].kind for reads in plan.table.by_array.values())


def _reference_cells(plan: Plan) -> int:
    """Cells of reference columns: one in every word line of weights, of an array that may hold several layers."""
    if plan.chip.scheme.reference is None:
        return 0
    cells = 0
    by_array: dict[int, list[tuple[int, int]]] = {}
    for layer in plan.layers:
        for block in layer.blocks:
            by_array.setdefault(block.array, []).append(rows_of(block, plan.chip))
    for spans in by_array.values():
        end = 0
        for start, stop in sorted(spans):
            cells += max(stop - max(start, end), 0)
            end = max(end, stop)
    return cells


def mvm_pj(read: Read, read_rows: int, chip: Chip) -> dict[str, float]:
    """Energy of one MVM (in all parts and bit slices) by component, pJ, for a chip that states it so.

    Only the converters of rows and columns in use are counted, with those of the offset columns: columns in every part,
    a row in that in which it is driven.
    """
    rows = {rows_of(block, chip) for block in read.blocks}
    columns = {columns_of(block, chip): parts_of(block, read_rows) for block in read.blocks}
    conversions = sum((stop - start) * parts for (start, stop), parts in columns.items())
    conversions += read.parts * chip.weights.offset_columns
    conversions *= chip.input.conversions * chip.physical_per_array
    cost = chip.cost
    return {
        "ADC": conversions * (cost.adc_pj or 0.0),
        "DAC": sum(stop - start for start, stop in rows) * chip.physical_per_array * (cost.dac_pj or 0.0),
        "array": read.parts * chip.physical_per_array * (cost.array_pj or 0.0),
        "shift-add": conversions * (cost.shift_add_pj or 0.0),
    }
