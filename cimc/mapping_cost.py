"""What a mapping costs: of each layer, of each kind of component, and in all. Written by the mapper."""

from typing import NamedTuple

from cimc.schedule import Record


class LayerCost(Record):
    """Cost of one layer for one image, arrays only. latency_ms: of all its positions, shared among its copies.

    arrays: physical ones; an array that holds blocks of several layers counts at each of them. digital_mj: of the
    digital operators on its cores, apart; None where the chip file does not say.
    """

    name: str
    arrays: int
    copies: int = 1
    positions: int
    tile_ops: int
    latency_ms: float
    energy_mj: float
    utilization: float
    digital_mj: float | None = None


class Component(NamedTuple):
    """Energy of one image in one kind of component, and the area of all of them.

    None: the chip file does not say, or, of what lies between cores, the network is on several chips or in segments.
    """

    name: str
    energy_mj: float | None
    area_mm2: float | None


class Cost(Record):
    """Cost of one image. Arrays with their converters only, but for `components`, which has digital work and data
    movement too, each apart.

    crossbars: physical arrays in use. latency: the layers one after the other. pipelined: the interval between images
    that the slowest array sets. reprogramming: of a network larger than the chip, between segments, once an image (or
    once a batch, if images come in batches).
    """

    crossbars: int
    chips: int
    weights: int
    devices: int
    flops: int
    mvm_positions: int
    tile_ops: int
    latency_ms: float
    pipelined_latency_ms: float
    energy_mj: float
    utilization: float
    reprogramming_ms: float = 0.0
    reprogramming_mj: float = 0.0
    components: tuple[Component, ...] = ()
    layers: tuple[LayerCost, ...]

    @property
    def spent_mj(self) -> float:
        """Energy of one image in all components that state theirs; of a file without components, of its arrays."""
        if not self.components:
            return self.energy_mj
        return sum(part.energy_mj for part in self.components if part.energy_mj is not None)
