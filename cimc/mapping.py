"""The mapping: which block of which layer sits where, and what that costs. Written by the mapper, read by others."""

from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, ValidationError

from cimc.errors import CimcError


class Block(NamedTuple):
    """The part of a layer's weight matrix in one array: weight rows and columns, and the place in the array.

    Weight column c of the block occupies the array columns `array_column + 2 (c - column_start)` (G+) and the next
    one (G-).
    """

    row_start: int
    row_stop: int
    column_start: int
    column_stop: int
    array: int
    array_row: int = 0
    array_column: int = 0


class Address(NamedTuple):
    """Where one weight sits: the chip, the array on that chip, the word line, and the bit lines of G+ and G-."""

    chip: int
    array: int
    row: int
    column_plus: int
    column_minus: int


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class MappedLayer(_Record):
    """A crossbar layer on arrays. `rows` x `columns` is the weight matrix (inputs x outputs).

    groups: of a grouped convolution; each has its own `rows` inputs and the next `columns` / `groups` columns, and no
    block spans two. positions: MVMs of one image, over all nodes that use the layer.
    """

    name: str
    operator: str
    rows: int
    columns: int
    kernel_size: int
    groups: int = 1
    positions: int
    signed_input: bool
    row_split: Literal["channel", "flat"]
    blocks: tuple[Block, ...]

    @property
    def row_bounds(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each row block, in order."""
        return tuple(sorted({(block.row_start, block.row_stop) for block in self.blocks}))

    @property
    def column_bounds(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each column block in weight columns, in order."""
        return tuple(sorted({(block.column_start, block.column_stop) for block in self.blocks}))


class LayerCost(_Record):
    """Cost of one layer for one image."""

    name: str
    arrays: int
    positions: int
    tile_ops: int
    latency_ms: float
    energy_mj: float
    utilization: float


class Cost(_Record):
    """Cost of one image, arrays only: MVMs with their converters (no digital operators, no data movement).

    latency: the layers one after the other. pipelined: the interval between images, set by the slowest layer.
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
    layers: tuple[LayerCost, ...]


class Mapping(_Record):
    """Every crossbar layer of a network on the arrays of one kind of chip."""

    chip: str
    arrays_per_chip: int
    arrays: int
    input_range: tuple[float, float]
    layers: tuple[MappedLayer, ...]
    cost: Cost

    @property
    def chips(self) -> int:
        """Chips needed."""
        return -(-self.arrays // self.arrays_per_chip)

    def layer(self, name: str) -> MappedLayer:
        """The layer of that name; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def address(self, layer: str, row: int, column: int) -> Address:
        """Where weight (row, column) of a layer sits. KeyError or IndexError if there is no such weight."""
        for block in self.layer(layer).blocks:
            if block.row_start <= row < block.row_stop and block.column_start <= column < block.column_stop:
                plus = block.array_column + 2 * (column - block.column_start)
                chip, array = divmod(block.array, self.arrays_per_chip)
                return Address(chip, array, block.array_row + row - block.row_start, plus, plus + 1)
        raise IndexError(f"{layer} has no weight ({row}, {column})")


def parse_mapping(text: str | bytes, source: str) -> Mapping:
    """Read a mapping from JSON. Raises CimcError naming `source` when it is not one."""
    try:
        return Mapping.model_validate_json(text)
    except ValidationError as error:
        where = ".".join(str(part) for part in error.errors()[0]["loc"])
        raise CimcError(f"{source} holds no valid mapping (at {where or 'top'}); compile the model again") from None
