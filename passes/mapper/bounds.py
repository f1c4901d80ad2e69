"""Bounds that several objectives share: what no layout of a task is below."""

import numpy as np
from numpy.typing import NDArray

from cimc.mapping import Mapping
from passes.mapper.copies import Arrays, area_of, arrays_of, one_each
from passes.mapper.plan import Task
from passes.mapper.traffic import network_bytes


def arrays_at_least(task: Task, budget: int) -> Arrays:
    """How to count the arrays of copies for a bound.

    Where one copy only fits packed, several layers in one array, the weights' area is what no layout is below.
    """
    return arrays_of if arrays_of(task.layers, one_each(task.layers)) <= budget else area_of


def arrays_per_copy(task: Task, budget: int) -> NDArray[np.float64]:
    """Of each layer: copies take no fewer arrays than so many each; by area where `arrays_at_least` counts that."""
    if arrays_at_least(task, budget) is area_of:
        held = task.chip.weight_rows * task.chip.weight_columns
        return np.array([layer.rows * layer.columns / held for layer in task.layers])
    return np.array([sum(of.per_copy / of.at_once for of in layer.classes) for layer in task.layers])


def interval_floor(task: Task) -> float:
    """What cores, vector units and network inputs and outputs take for one image, whatever the layout, ns."""
    chip = task.chip
    cores, width = chip.cores, chip.cores.activation_bytes
    found = [0.0]
    if cores.mvm_start_ns is not None:
        starts = sum(layer.starts for layer in task.layers)
        found.append(starts * cores.mvm_start_ns / cores.count)
    if cores.vector_bytes_per_ns is not None:
        work = sum(stage.operations for stage in task.stages if stage.layer) * width
        found.append(work / (cores.vector_bytes_per_ns * cores.count))
    if cores.global_bytes_per_ns is not None:
        found.append(network_bytes(task.stages, chip) / cores.global_bytes_per_ns)
    return max(found)


def time_in_segments(task: Task, mapping: Mapping, budget: int) -> float:
    """Of one image in segments, ms: the fewest that hold the weights, and every array always busy."""
    layers, chip = task.layers, task.chip
    weights = sum(layer.rows * layer.columns for layer in layers)
    held = chip.weight_rows * chip.weight_columns
    fewest = -(-weights // (held * budget))
    # A read of an array serves no more than all weights in it.
    read = (
        layer.positions * layer.phases * layer.reads_of(piece) * piece.height * piece.width * layer.read_units
        for layer in layers
        for piece in layer.pieces
    )
    units = sum(read) / (held * budget)
    return fewest * mapping.segments[0].program_ms + units * task.unit_us * 1e-3


def energy_in_segments(task: Task, mapping: Mapping) -> float:
    """Of one image in segments, mJ: programming the fewest arrays that hold the weights."""
    weights = sum(layer.rows * layer.columns for layer in task.layers)
    held = task.chip.weight_rows * task.chip.weight_columns
    arrays = sum(segment.arrays for segment in mapping.segments)
    return mapping.cost.reprogramming_mj / arrays * -(-weights // held)
