"""Components: where the energy of one image goes and what area is in use, digital work and data movement apart."""

from collections import Counter

from cimc.chip import Area
from cimc.layer_settings import priced_chip
from cimc.mapping_cost import Component, Cost
from passes.mapper.cost import arrays_of_kinds, mvm_pj
from passes.mapper.limits import partial_sum_bytes
from passes.mapper.plan import Plan
from passes.mapper.traffic import bus_bytes, memory_bytes

PJ = 1e-9  # in mJ
PRICES = {"ADC": "adc_pj", "DAC": "dac_pj", "array": "array_pj", "shift-add": "shift_add_pj"}  # of a chip's [cost]


def add_components(cost: Cost, plan: Plan) -> Cost:
    """The cost with its components and the digital work of each layer; what the chip file does not state is None."""
    digital = Counter[str]()
    for stage in plan.stages:
        digital[stage.layer] += stage.operations
    price = plan.chip.cost.digital_op_pj
    of_layers = tuple(
        layer.model_copy(update={"digital_mj": None if price is None else digital[layer.name] * price * PJ})
        for layer in cost.layers
    )
    parts = [*_arrays(cost, plan), *_beside(cost, plan)]
    return cost.model_copy(update={"components": tuple(parts), "layers": of_layers})


def _arrays(cost: Cost, plan: Plan) -> list[Component]:
    chip = plan.chip
    areas = _areas(cost, plan)
    if not chip.cost.by_component:
        stated = [value for value in areas.values() if value is not None]
        # 0.0 is how a chip file says that it does not know.
        return [Component("MVM", cost.energy_mj - cost.reprogramming_mj or None, sum(stated) if stated else None)]
    energy: dict[str, float] = {}
    for layer in plan.layers:
        read_rows, of_layer = layer.read_rows, priced_chip(chip, layer.settings, layer.signed_input)
        for reads in plan.table.by_layer[layer.name].values():
            for read in reads:
                for name, pj in mvm_pj(read, read_rows, of_layer).items():
                    if getattr(of_layer.cost, PRICES[name]) is not None:
                        energy[name] = energy.get(name, 0.0) + pj * read.mvms
    return [Component(name, energy[name] * PJ if name in energy else None, areas[name]) for name in PRICES]


def _areas(cost: Cost, plan: Plan) -> dict[str, float | None]:
    """The area of the physical arrays in use, of every kind, and of their converters; None: not stated."""
    areas: dict[str, float | None] = dict.fromkeys(PRICES)
    counts = arrays_of_kinds(plan)
    for kind, count in counts.items():
        chip = plan.chip.of_kind(kind)
        # In segments, those of the largest one.
        crossbars = cost.crossbars if len(counts) == 1 else count * chip.physical_per_array
        converters = crossbars * -(-chip.array.columns // chip.array.columns_per_adc)
        area = chip.area or Area()
        for name, number, each in (
            ("ADC", converters, area.adc_mm2),
            ("DAC", crossbars * chip.array.rows, area.dac_mm2),
            ("array", crossbars, area.array_mm2),
            ("shift-add", converters, area.shift_add_mm2),
        ):
            if each is not None:
                areas[name] = (areas[name] or 0.0) + number * each
    return areas


def _beside(cost: Cost, plan: Plan) -> list[Component]:
    layers, stages, placement, chip = plan.layers, plan.stages, plan.placement, plan.chip
    prices, width = chip.cost, chip.cores.activation_bytes
    operations = sum(stage.operations for stage in stages)
    local = sum(layer.positions * (layer.rows * layer.groups + layer.columns) for layer in layers) * width
    # Without a place for every array on one chip nobody knows which values cross from core to core, nor how many cores
    # there are.
    between = logic = None
    if placement is not None:
        on_a_bus = chip.cores.bus_bytes_per_ns is not None
        between = bus_bytes(stages) + partial_sum_bytes(plan) if on_a_bus else placement.byte_hops
        core_mm2 = None if chip.area is None else chip.area.core_mm2
        logic = None if core_mm2 is None else len(set(placement.cores)) * core_mm2
    parts = [
        Component("digital operators", _energy(operations, prices.digital_op_pj), logic),
        Component("local memory", _energy(local, prices.local_byte_pj), None),
        Component("between cores", _energy(between, prices.link_byte_pj), None),
        Component("shared memory", _energy(memory_bytes(stages, chip), prices.global_byte_pj), None),
    ]
    if cost.reprogramming_ms:
        parts.append(Component("reprogramming", None if prices.row_write_nj is None else cost.reprogramming_mj, None))
    return parts


def _energy(count: float | None, pj: float | None) -> float | None:
    return None if pj is None or count is None else count * pj * PJ
