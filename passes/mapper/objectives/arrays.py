"""The fewest arrays: one copy of every layer, several layers in one array."""

from cimc.mapping import Mapping
from passes.mapper.lay_out import lay_out_packed
from passes.mapper.objective import Objective
from passes.mapper.pack import pack


def _reached(mapping: Mapping) -> float:
    return float(max((segment.arrays for segment in mapping.segments), default=mapping.arrays))


OBJECTIVE = Objective(
    unit="arrays",
    search=lambda task, budget: lay_out_packed(task.layers, task.chip),
    reached=_reached,
    bound=lambda task, budget: float(pack(task.layers, task.chip).bound),
    bound_in_segments=lambda task, mapping, budget: float(budget),
    packs=True,
)
