"""What the steps of the mapper hand on: the task, and a plan of its layers on arrays."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cimc.chip import Chip
from cimc.mapping import MappedLayer, Placement
from cimc.schedule import Stage
from passes.mapper.layers import Layer
from passes.mapper.reads import ReadTable, read_table


@dataclass(frozen=True)
class Task:
    """What is to be mapped.

    Attributes:
        layers: those that go on arrays, in network order.
        stages: of the whole network, without times.
        chip: the chip, its rows split as was asked for.
        deadline: of `time.monotonic`; from then on the best so far is taken.
    """

    layers: tuple[Layer, ...]
    stages: tuple[Stage, ...]
    chip: Chip
    deadline: float = math.inf

    @property
    def unit_us(self) -> float:
        """The time unit of `Layer.read_units`: where all layers are read alike, that of a read."""
        slowest = max(self.layers, key=lambda layer: layer.chip.cost.mvm_us)
        return slowest.chip.cost.mvm_us / slowest.read_units

    @property
    def late(self) -> bool:
        """Whether no more is to be tried."""
        return time.monotonic() > self.deadline


@dataclass(frozen=True)
class Plan:
    """The layers of a task on arrays.

    Attributes:
        layers: with their blocks.
        stages: of the whole network, without times.
        chip: the chip.
        table: the reads of the blocks.
        placement: the cores of the arrays; None before they are placed, and on several chips.
    """

    layers: tuple[MappedLayer, ...]
    stages: tuple[Stage, ...]
    chip: Chip
    table: ReadTable
    placement: Placement | None = None


def plan_layers(task: Task, layers: Sequence[MappedLayer]) -> Plan:
    """The plan of these layers; their arrays have no place yet."""
    return Plan(tuple(layers), task.stages, task.chip, read_table(layers, task.chip))
