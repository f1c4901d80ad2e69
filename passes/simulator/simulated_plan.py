"""The plan of a simulation: all that is the same in every run of a mapped network."""

from collections import defaultdict
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence
from dataclasses import dataclass, replace

import onnx_ir as ir

from cimc.chip import Chip
from cimc.mapping import Mapping, Placement
from cimc.schedule import Stage
from passes.mapper.layers import layers_of
from passes.mapper.stages import stages_of
from passes.simulator.row_flow import Flow, row_flow
from passes.simulator.simulated_chip import ArraysOfLayer, arrays_of_layer, rivals_of

BUSY_CORES = 16  # of a layer whose vector units are followed, those with the most work


@dataclass(frozen=True)
class Plan:
    """What is the same in all runs of a mapped network."""

    chip: Chip
    placement: Placement | None
    shapes: tuple[Stage, ...]
    flows: dict[str, Flow]
    arrays: dict[str, ArraysOfLayer]
    positions: dict[str, int]
    rivals: dict[str, frozenset[str]]


def plan_of(model: ir.Model, mapping: Mapping, chip: Chip) -> Plan:
    """The plan of a mapping on one chip (without a placement: on several)."""
    chip = chip.model_copy(update={"row_split": mapping.row_split})
    rows = {layer.name: layer.rows_per_read for layer in mapping.layers if layer.rows_per_read is not None}
    settings = {layer.name: layer.settings for layer in mapping.layers}
    layers = layers_of(model, chip, mapping.input_range, rows, settings=settings)
    shapes = tuple(stages_of(model, layers, chip))
    arrays = {layer.name: arrays_of_layer(layer, mapping.placement, chip) for layer in mapping.layers}
    return Plan(
        chip=chip,
        placement=mapping.placement,
        shapes=shapes,
        flows=row_flow(model),
        arrays=_busy_cores(arrays, shapes),
        positions={layer.name: layer.positions for layer in mapping.layers},
        rivals=rivals_of(mapping.layers, chip),
    )


def _busy_cores(arrays: Dictionary[str, ArraysOfLayer], shapes: Sequence[Stage]) -> dict[str, ArraysOfLayer]:
    """The layers with the cores that have the most digital work of all: the others are done before them."""
    work: defaultdict[int, float] = defaultdict(float)
    for shape in shapes:
        if shape.layer in arrays:
            for core, share in arrays[shape.layer].cores.items():
                work[core] += share * shape.operations
    found = {}
    for name, layer in arrays.items():
        largest = max(layer.cores, key=lambda core: layer.cores[core])
        busiest = {*sorted(layer.cores, key=lambda core: -work[core])[:BUSY_CORES], largest}
        found[name] = replace(layer, cores={core: layer.cores[core] for core in sorted(busiest)})
    return found
