"""The schedule of a mapped network: times of its stages, row-pipelined latency, interval, buffers, critical path."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cimc.chip import Chip
from cimc.layer_settings import priced_chip
from cimc.schedule import Limit, Schedule, Stage
from passes.mapper.limits import core_shares, limits_of
from passes.mapper.place import core_starts
from passes.mapper.plan import Plan
from passes.mapper.reads import exclusive_layers, most_parts, phases_of
from passes.mapper.row_pipeline import StageTime, Timeline, buffer_bytes, critical_path, timeline


@dataclass(frozen=True)
class LayerTime:
    """What sets the pace of a layer.

    round_ns: of one MVM, all phases and reads. copies: work side by side. busiest_starts: MVM starts for one image in
    the core that has most of them. cores: that share its digital work.
    """

    round_ns: float
    copies: int
    busiest_starts: float
    cores: int


def layer_times(plan: Plan) -> dict[str, LayerTime]:
    """The pace of every layer of a plan, from its blocks and their cores (all in one core without a placement)."""
    table, placement, chip = plan.table, plan.placement, plan.chip
    starts = {} if placement is None else core_starts(table, placement.cores)
    times = {}
    for layer in plan.layers:
        mvm_us = priced_chip(chip, layer.settings, layer.signed_input).cost.mvm_us
        round_ns = mvm_us * 1e3 * phases_of(layer, chip) * most_parts(table.by_layer[layer.name])
        busiest = max(starts[layer.name].values()) if placement is not None else 0
        cores = 1 if placement is None else len(core_shares(layer, placement))
        times[layer.name] = LayerTime(round_ns, layer.copies, busiest, cores)
    return times


def stage_times(
    stages: Sequence[Stage], layers: Mapping[str, LayerTime], *, positions: Mapping[str, int], chip: Chip
) -> dict[str, StageTime]:
    """Times of every stage.

    A row of W positions takes ceil(W / copies) MVMs alone; in a row of rows the copies go on with the next one, W /
    copies each. A row goes no faster than its core can start the MVMs, its inputs can be moved, and the vector unit
    can finish its outputs.

    Args:
        stages: of the network.
        layers: by name.
        positions: of each layer for one image, over all its stages.
        chip: the chip.
    """
    times = {}
    homes = {stage.name: stage.layer for stage in stages}
    for stage in stages:
        layer = layers.get(stage.layer)
        vector = _vector_ns(stage, chip, cores=1 if layer is None else layer.cores)
        moved = _moving_ns(stage, chip, homes=homes, layers=layers)
        if stage.kind == "digital" or layer is None:
            times[stage.name] = StageTime(0.0, max(vector, moved), vector + moved)
            continue
        row = stage.positions / stage.rows
        starts = layer.busiest_starts * row / positions[stage.layer] * (chip.cores.mvm_start_ns or 0.0)
        spaced = layer.round_ns * row / layer.copies
        alone = layer.round_ns * -(-row // layer.copies)
        times[stage.name] = StageTime(
            layer.round_ns, max(spaced, starts, vector, moved), max(alone, starts) + vector + moved
        )
    return times


def _vector_ns(stage: Stage, chip: Chip, *, cores: int) -> float:
    """The vector units' time for one row; they share its outputs."""
    if chip.cores.vector_bytes_per_ns is None:
        return 0.0
    return stage.operations * chip.cores.activation_bytes / (chip.cores.vector_bytes_per_ns * cores * stage.rows)


def _moving_ns(stage: Stage, chip: Chip, *, homes: Mapping[str, str], layers: Mapping[str, LayerTime]) -> float:
    """The time to bring the inputs of one row from other cores (or the shared memory).

    On a mesh, as many links work side by side as both ends have cores; a bus and a memory are one.
    """
    cores, total = chip.cores, 0.0
    for source in stage.inputs:
        if source.route == "memory":
            total += source.bytes / (cores.global_bytes_per_ns or math.inf)
        elif source.route == "bus":
            total += source.bytes / (cores.bus_bytes_per_ns or math.inf)
        elif source.route == "mesh" and cores.link_bytes_per_ns is not None:
            ends = [layers[name].cores for name in (homes[source.source], stage.layer) if name in layers]
            total += source.bytes / (cores.link_bytes_per_ns * min(ends, default=1))
    return total / stage.rows


def exclusive_of(plan: Plan) -> dict[str, frozenset[str]]:
    """For every layer those that cannot be read at the same time, itself included."""
    rivals = {layer: {layer} for layer in plan.table.by_layer}
    for pair in exclusive_layers(plan.table.by_array.values(), plan.chip):
        for name in pair:
            rivals[name] |= pair
    return {name: frozenset(names) for name, names in rivals.items()}


def schedule(plan: Plan) -> Schedule:
    """The schedule of a plan on one chip."""
    stages, positions = plan.stages, {layer.name: layer.positions for layer in plan.layers}
    times = stage_times(stages, layer_times(plan), positions=positions, chip=plan.chip)
    line = timeline(stages, times, exclusive_of(plan))
    timed = tuple(_time_stage(stage, times[stage.name], line=line) for stage in stages)
    limits = limits_of(plan)
    busiest = max(timed, key=lambda stage: stage.busy_ns)
    if not limits or busiest.busy_ns > limits[0].busy_ns * (1 + 1e-9):
        limits = (Limit("stage", busiest.name, busiest.busy_ns), *limits)
    return Schedule(
        # All that an image needs of one resource takes its time, however the rows interleave.
        latency_ns=max(line.latency_ns, limits[0].busy_ns),
        sequential_ns=sum(_sequential_ns(stage) for stage in timed),
        interval_ns=limits[0].busy_ns,
        limits=limits,
        critical_path=critical_path(stages, times, line),
        buffer_bytes=sum(source.buffer_bytes for stage in timed for source in stage.inputs),
        stages=timed,
    )


def _sequential_ns(stage: Stage) -> float:
    """The time of all rows of a stage that has its inputs; the next step of a sequence waits for the one before."""
    return stage.first_ns + (stage.rows - 1) * (stage.first_ns if stage.scan else stage.row_ns)


def _time_stage(stage: Stage, time: StageTime, *, line: Timeline) -> Stage:
    inputs = (
        source._replace(
            buffer_bytes=buffer_bytes(source, stage.rows, line.ends[source.source], line.ends[stage.name])
            if source.source
            else 0
        )
        for source in stage.inputs
    )
    found = {
        **time._asdict(),
        "start_ns": float(line.ready[stage.name][0]),
        "stop_ns": float(line.ends[stage.name][-1]),
        "inputs": tuple(inputs),
    }
    return Stage(**{**dict(stage), **found})
