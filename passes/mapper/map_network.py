"""The mapper: every crossbar layer of a lowered network gets arrays, and every weight an address in each copy."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import onnx_ir as ir

from cimc.chip import Chip
from cimc.chip_kinds import FIRST
from cimc.errors import CimcError
from cimc.mapping import MappedLayer, Mapping, Result
from passes.mapper.components import add_components
from passes.mapper.copies import arrays_of, one_each
from passes.mapper.cost import network_cost
from passes.mapper.kinds import choose_kinds
from passes.mapper.lay_out import lay_out_packed, lay_out_partly_packed, lay_out_plain
from passes.mapper.layers import layers_of
from passes.mapper.objective import Objective, find_objective
from passes.mapper.options import MappingOptions
from passes.mapper.pack import area_bound, pack
from passes.mapper.place import place
from passes.mapper.plan import Plan, Task, plan_layers
from passes.mapper.schedule import schedule
from passes.mapper.segments import add_programming, cut_segments
from passes.mapper.stages import stages_of

# Layers that get arrays of their own, tried one by one, where the others must be packed: so many, and so many layouts
# of a layer in all, since each of these ways lays out and times the whole network.
MOST_ALONE, MOST_LAID = 16, 8000
DEFAULTS = MappingOptions()


def map_network(model: ir.Model, chip: Chip, *, options: MappingOptions = DEFAULTS) -> Mapping:
    """Assign the weights of every crossbar layer to arrays, time the network on them, and count what it costs.

    Args:
        model: a network lowered by `passes.pipeline.lower`.
        chip: the chip.
        options: what the copies are for, and within which budget.

    Raises:
        CimcError: no crossbar layer; rows per read of a layer that is not there; more arrays needed than `max_chips`
            chips have; or segments on a chip that does not state the time to program them.
    """
    if options.row_split is not None:
        chip = chip.model_copy(update={"row_split": str(options.row_split)})
    settings = choose_kinds(model, chip, options)
    layers = layers_of(model, chip, options.input_range, options.rows_per_read, options.groups_per_read, settings)
    if not layers:
        raise CimcError("the network has no Conv, Gemm or MatMul with constant weights; there is nothing to map")
    deadline = math.inf if options.seconds is None else time.monotonic() + options.seconds
    task = Task(tuple(layers), tuple(stages_of(model, layers, chip)), chip, deadline)
    if options.objective is None:
        return _map_layers(task, lay_out_plain(layers), options=options)
    objective = find_objective(options.objective)
    if any(layer.kind for layer in layers):
        return _map_kinds(task, objective, options=options)
    budget = chip.arrays_per_chip if options.arrays is None else options.arrays
    if options.max_chips is not None:
        budget = min(budget, options.max_chips * chip.arrays_per_chip)
    found = [(mapping, budget) for mapping in _ways(task, objective, budget=budget, options=options)]
    # A larger budget brings other ways to lay a network out, over several chips or packed; they need not be better. But
    # what fits the budget is not cut into segments for the sake of one chip.
    one_chip = min(budget, chip.arrays_per_chip)
    if one_chip < budget and not task.late and (_fits(task, one_chip) or all(mapping.segments for mapping, _ in found)):
        found += [(mapping, one_chip) for mapping in _ways(task, objective, budget=one_chip, options=options)]
    best, size = min(found, key=lambda way: objective.reached(way[0]))
    result = _result(best, task, budget=size if best.segments else budget, options=options)
    return best.model_copy(update={"result": result})


def _map_kinds(task: Task, objective: Objective, *, options: MappingOptions) -> Mapping:
    """The network packed, layers of each kind by themselves; what needs one budget for all is refused."""
    chip = task.chip
    if not objective.packs or options.arrays is not None:
        what = f"--objective {options.objective}" if not objective.packs else "--arrays"
        raise CimcError(
            f"{what} counts arrays of the first kind, and layers lie on others of {chip.name}; leave it out, or put "
            f'all on the first by --options with [layer."*"] array = "{FIRST}"'
        )
    chips = options.max_chips or 1
    budget = chips * sum(_per_chip(chip).values())
    mapping = _map_layers(task, objective.search(task, budget), options=replace(options, max_chips=chips))
    return mapping.model_copy(update={"result": _result(mapping, task, budget=budget, options=options)})


def _per_chip(chip: Chip) -> dict[str, int]:
    """Arrays of the mapping on one chip, by kind."""
    return {kind: chip.of_kind(kind).arrays_per_chip for kind in chip.sizes}


def _ways(task: Task, objective: Objective, *, budget: int, options: MappingOptions) -> Iterator[Mapping]:
    """The ways to lay the network out: with copies; where one copy is too large, packed, partly packed, in segments."""
    layers, chip = task.layers, task.chip
    plainly, fits = arrays_of(layers, one_each(layers)) <= budget, _fits(task, budget)
    if fits:
        laid = objective.search(task, budget) if plainly else lay_out_packed(layers, chip)
        yield _map_layers(task, laid, options=options)
    if fits and not plainly and not objective.packs:
        for alone in range(1, min(len(layers), MOST_ALONE, 1 + MOST_LAID // len(layers))):
            if task.late:
                break
            laid = lay_out_partly_packed(layers, chip, alone=alone)
            if _arrays(laid) > budget:
                break
            yield _map_layers(task, laid, options=options)
    if not fits or (not plainly and not objective.packs and chip.cost.row_write_us is not None):
        yield _map_segments(task, budget, options=options)


def _fits(task: Task, budget: int) -> bool:
    """Whether one copy of the network fits so many arrays, packed if need be."""
    if arrays_of(task.layers, one_each(task.layers)) <= budget:
        return True
    return area_bound(task.layers, task.chip) <= budget and pack(task.layers, task.chip).arrays <= budget


def _arrays(layers: Sequence[MappedLayer]) -> int:
    return 1 + max(block.array for layer in layers for block in layer.blocks)


def _map_layers(task: Task, layers: Sequence[MappedLayer], *, options: MappingOptions) -> Mapping:
    arrays = _arrays(layers)
    if options.max_chips is not None:
        _require_chips(layers, task.chip, options.max_chips)
    plan = plan_layers(task, layers)
    plan = replace(plan, placement=place(plan, seed=options.seed))
    timed, cost = schedule(plan), network_cost(plan)
    array = next((limit.busy_ns for limit in timed.limits if limit.kind == "array"), 0.0)
    # Layers that share an array wait for each other; without such arrays it is the slowest layer's time to the bit.
    shared = max(cost.pipelined_latency_ms, array * 1e-6)
    if shared > cost.pipelined_latency_ms * (1 + 1e-9):
        cost = cost.model_copy(update={"pipelined_latency_ms": shared})
    return _mapping(
        plan, options, arrays=arrays, cost=add_components(cost, plan), schedule=timed, placement=plan.placement
    )


def _require_chips(layers: Sequence[MappedLayer], chip: Chip, most: int) -> None:
    """Raises CimcError where so many chips have too few arrays, of any kind."""
    kinds = {block.array: layer.kind for layer in layers for block in layer.blocks}
    for kind, arrays in Counter(kinds.values()).items():
        per_chip = chip.of_kind(kind).arrays_per_chip
        if arrays > most * per_chip:
            of_kind = f" {kind or FIRST}" if chip.kinds else ""
            raise CimcError(
                f"the network needs {arrays} arrays{of_kind} but {most} x {chip.name} has {most * per_chip}: "
                f"{arrays - most * per_chip} missing; raise --max-chips to {-(-arrays // per_chip)} or choose a larger "
                f"chip"
            )


def _map_segments(task: Task, budget: int, *, options: MappingOptions) -> Mapping:
    plan = plan_layers(task, lay_out_plain(task.layers))
    segments = cut_segments(plan, budget)
    cost = add_components(add_programming(network_cost(plan), plan, segments=segments), plan)
    return _mapping(plan, options, arrays=_arrays(plan.layers), cost=cost, segments=segments)


def _mapping(plan: Plan, options: MappingOptions, **found: Any) -> Mapping:
    chip = plan.chip
    further = tuple((kind, count) for kind, count in _per_chip(chip).items() if kind)
    return Mapping(
        chip=chip.name,
        arrays_per_chip=chip.arrays_per_chip,
        kinds=further if any(layer.kind for layer in plan.layers) else (),
        columns_per_weight=chip.columns_per_weight,
        rows_per_weight=chip.rows_per_weight,
        physical_per_array=chip.physical_per_array,
        input_range=options.input_range,
        layers=plan.layers,
        **found,
    )


def _result(mapping: Mapping, task: Task, *, budget: int, options: MappingOptions) -> Result:
    """What a mapping reached for the objective, and the bound."""
    assert options.objective is not None
    objective = find_objective(options.objective)
    value = objective.reached(mapping)
    if mapping.segments:
        bound = objective.bound_in_segments(task, mapping, budget)
        exact = value <= bound * (1 + 1e-9)
    else:
        chips = max(mapping.chips, -(-budget // task.chip.arrays_per_chip))
        bound = objective.bound(replace(task, chip=_join_chips(task.chip, chips)), budget)
        exact = math.isclose(value, bound, rel_tol=1e-9)
    return Result(
        objective=options.objective,
        budget=budget,
        seed=options.seed,
        value=value,
        bound=min(bound, value) if exact or mapping.segments else bound,  # equal but for rounding
        unit=objective.unit,
        exact=exact,
    )


def _join_chips(chip: Chip, count: int) -> Chip:
    """The cores, buses and memories of several chips as one: no network on them is faster than on this."""
    if count == 1:
        return chip
    cores = chip.cores
    rates = {
        key: rate * count
        for key in ("bus_bytes_per_ns", "link_bytes_per_ns", "global_bytes_per_ns")
        if (rate := getattr(cores, key)) is not None
    }
    return chip.model_copy(update={"cores": cores.model_copy(update={"count": cores.count * count, **rates})})
