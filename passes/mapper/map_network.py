"""The mapper: every crossbar layer of a lowered network gets arrays, and every weight an address in each copy."""

from collections.abc import Iterator, Sequence
from typing import Any

import onnx_ir as ir

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import MappedLayer, Mapping, Segment
from cimc.options import Objective, RowSplit
from passes.mapper.choose import choose, reached, result_of
from passes.mapper.components import with_components
from passes.mapper.copies import arrays_of, one_each
from passes.mapper.cost import network_cost
from passes.mapper.layers import Layer, layers_of
from passes.mapper.mapped import partly_packed, plain
from passes.mapper.pack import area_bound, pack
from passes.mapper.place import place
from passes.mapper.reads import read_table
from passes.mapper.schedule import schedule
from passes.mapper.segments import cut, segmented_cost, segmented_result
from passes.mapper.stages import StageShape, stages_of

MOST_ALONE = 16  # layers that get arrays of their own, tried one by one, where the others must be packed


def map_network(
    model: ir.Model,
    chip: Chip,
    input_range: tuple[float, float] = (0.0, 1.0),
    max_chips: int | None = None,
    row_split: RowSplit | None = None,
    objective: Objective | None = None,
    arrays: int | None = None,
    seed: int = 0,
) -> Mapping:
    """Assign the weights of every crossbar layer to arrays, time the network on them, and count what it costs.

    Args:
        model: a network lowered by `passes.pipeline.lower`.
        chip: the chip.
        input_range: least and greatest value of the network's input; decides whether the first layer needs two phases.
        max_chips: an upper limit on the chips.
        row_split: how rows are split, in place of the chip's own rule.
        objective: what the copies are for; None: one copy each, one block an array, in network order, over as many
            chips as it takes.
        arrays: the budget of an objective; None: those of one chip. A network that does not fit it, packed, is cut into
            segments.
        seed: of the local search that places the cores.

    Raises:
        CimcError: no crossbar layer; more arrays needed than `max_chips` chips have; a budget without an objective; or
            segments on a chip that does not state the time to program them.
    """
    if row_split is not None:
        chip = chip.model_copy(update={"row_split": row_split})
    if arrays is not None and objective is None:
        raise CimcError("--arrays is the budget of an objective; add --objective latency, interval, energy or arrays")
    layers = layers_of(model, chip, input_range)
    if not layers:
        raise CimcError("the network has no Conv, Gemm or MatMul with constant weights; there is nothing to map")
    stages = stages_of(model, layers, chip)
    if objective is None:
        return _mapping(plain(layers), stages, chip, input_range, max_chips, seed)
    budget = chip.arrays_per_chip if arrays is None else arrays
    if max_chips is not None:
        budget = min(budget, max_chips * chip.arrays_per_chip)
    found = [
        mapping
        for size in dict.fromkeys((budget, min(budget, chip.arrays_per_chip)))
        for mapping in _for_objective(layers, stages, chip, input_range, max_chips, objective, size, seed)
    ]
    # A larger budget brings other ways to lay a network out, over several chips or packed; they need not be better.
    best = min(found, key=lambda mapping: reached(mapping, objective)[0])
    if best.segments:
        return best
    return best.model_copy(update={"result": result_of(best, layers, stages, chip, objective, budget, seed)})


def _for_objective(
    layers: Sequence[Layer],
    stages: Sequence[StageShape],
    chip: Chip,
    input_range: tuple[float, float],
    max_chips: int | None,
    objective: Objective,
    budget: int,
    seed: int,
) -> Iterator[Mapping]:
    """The ways to lay the network out: with copies; where one copy is too large, packed, partly packed, in segments."""
    plainly = arrays_of(layers, one_each(layers)) <= budget
    fits = plainly or (area_bound(layers, chip) <= budget and pack(layers, chip).arrays <= budget)
    if fits:
        yield _mapping(choose(layers, stages, chip, objective, budget), stages, chip, input_range, max_chips, seed)
    if fits and not plainly and objective != "arrays":
        for alone in range(1, min(len(layers), MOST_ALONE)):
            laid = partly_packed(layers, chip, alone)
            if 1 + max(block.array for layer in laid for block in layer.blocks) > budget:
                break
            yield _mapping(laid, stages, chip, input_range, max_chips, seed)
    if not fits or (not plainly and objective != "arrays" and chip.cost.row_write_us is not None):
        yield _in_segments(layers, stages, chip, input_range, objective, budget, seed)


def _mapping(
    layers: Sequence[MappedLayer],
    stages: Sequence[StageShape],
    chip: Chip,
    input_range: tuple[float, float],
    max_chips: int | None,
    seed: int,
) -> Mapping:
    arrays = 1 + max(block.array for layer in layers for block in layer.blocks)
    if max_chips is not None and arrays > max_chips * chip.arrays_per_chip:
        missing = arrays - max_chips * chip.arrays_per_chip
        raise CimcError(
            f"the network needs {arrays} arrays but {max_chips} x {chip.name} has {max_chips * chip.arrays_per_chip}: "
            f"{missing} missing; raise --max-chips to {-(-arrays // chip.arrays_per_chip)} or choose a larger chip"
        )
    table = read_table(layers, chip)
    placement = place(layers, table, stages, chip, seed)
    timed = schedule(layers, table, stages, placement, chip)
    cost = network_cost(layers, table, chip)
    array = next((limit.busy_ns for limit in timed.limits if limit.kind == "array"), 0.0)
    # Layers that share an array wait for each other; without such arrays it is the slowest layer's time to the bit.
    shared = max(cost.pipelined_latency_ms, array * 1e-6)
    if shared > cost.pipelined_latency_ms * (1 + 1e-9):
        cost = cost.model_copy(update={"pipelined_latency_ms": shared})
    cost = with_components(cost, layers, table, stages, placement, chip)
    return Mapping(
        **_of_chip(chip, input_range),
        arrays=arrays,
        layers=tuple(layers),
        cost=cost,
        schedule=timed,
        placement=placement,
    )


def _in_segments(
    layers: Sequence[Layer],
    stages: Sequence[StageShape],
    chip: Chip,
    input_range: tuple[float, float],
    objective: Objective,
    budget: int,
    seed: int,
) -> Mapping:
    mapped = plain(layers)
    segments: tuple[Segment, ...] = cut(mapped, budget, chip)
    table = read_table(mapped, chip)
    cost = segmented_cost(network_cost(mapped, table, chip), mapped, segments, chip)
    return Mapping(
        **_of_chip(chip, input_range),
        arrays=1 + max(block.array for layer in mapped for block in layer.blocks),
        layers=tuple(mapped),
        cost=with_components(cost, mapped, table, stages, None, chip),
        segments=segments,
        result=segmented_result(cost, layers, segments, objective, budget, seed),
    )


def _of_chip(chip: Chip, input_range: tuple[float, float]) -> dict[str, Any]:
    return {
        "chip": chip.name,
        "arrays_per_chip": chip.arrays_per_chip,
        "columns_per_weight": chip.columns_per_weight,
        "rows_per_weight": chip.rows_per_weight,
        "physical_per_array": chip.physical_per_array,
        "input_range": input_range,
    }
