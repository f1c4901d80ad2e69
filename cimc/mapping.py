"""The mapping: which block of which layer sits where, and what that costs. Written by the mapper, read by others."""

from collections import Counter
from collections.abc import Mapping as Dictionary
from functools import cached_property
from itertools import takewhile
from typing import Any, NamedTuple

from pydantic import SerializerFunctionWrapHandler, model_serializer

from cimc.layer_settings import Settings, kind_of
from cimc.mapping_cost import Cost
from cimc.options import RowSplit
from cimc.schedule import Record, Schedule


class Block(NamedTuple):
    """The part of a layer's weight matrix in one array: weight rows and columns, the place in the array, the copy.

    Weight (r, c) of the block occupies `rows_per_weight` array rows from `array_row + rows_per_weight (r - row_start)`
    and `columns_per_weight` array columns from `array_column + columns_per_weight (c - column_start)`: a differential
    pair has G+ first, then G-; bit slices come most significant first, each with its pair.
    """

    row_start: int
    row_stop: int
    column_start: int
    column_stop: int
    array: int
    array_row: int = 0
    array_column: int = 0
    copy: int = 0


class Address(NamedTuple):
    """Where one weight sits: the chip, the array on that chip, the word lines and the bit lines it occupies."""

    chip: int
    array: int
    rows: tuple[int, ...]
    columns: tuple[int, ...]

    @property
    def row(self) -> int:
        """The first word line."""
        return self.rows[0]

    @property
    def column_plus(self) -> int:
        """The bit line of G+ of a differential pair (of its most significant slice)."""
        return self.columns[0]

    @property
    def column_minus(self) -> int:
        """The bit line of G- of a differential pair (of its most significant slice)."""
        return self.columns[1]


class LayerShape(Record):
    """What a crossbar layer is, wherever its blocks lie. `rows` x `columns` is the weight matrix (inputs x outputs).

    groups: of a grouped convolution; each has its own `rows` inputs and the next `columns` / `groups` columns, and no
    block spans two. positions: MVMs of one image, over all nodes that use the layer. row_split: how its rows are cut,
    by the chip's rule or the one that took its place. rows_per_read: most weight rows of a block that are driven at
    once; the others follow in further reads, whose codes are added. None: all. groups_per_read: of an array, how many
    are driven at once; cells beside them stand at G_min, so that a column has the idle current of these groups' rows.
    None: all, and cells without a weight carry no current. row_copies: how often each row of the network's weight is
    among `rows`. settings: the kind of arrays, if not the first, and converters that differ from the chip's
    (`cimc.layer_settings`).
    """

    name: str
    operator: str
    rows: int
    columns: int
    kernel_size: int
    groups: int = 1
    positions: int
    signed_input: bool
    row_split: RowSplit
    row_copies: int = 1
    rows_per_read: int | None = None
    groups_per_read: int | None = None
    settings: Settings = ()

    @property
    def kind(self) -> str:
        """The kind of arrays that all of its blocks lie on; "" is the first."""
        return kind_of(self.settings)

    @property
    def weights(self) -> int:
        """Weights of the network that it holds, however often."""
        return self.rows * self.columns // self.row_copies

    def rows_at_once(self, height: int) -> int:
        """Weight rows of a full read, where a full row block has `height`.

        All row blocks are read alike, so of several it divides the height.
        """
        most = min(self.rows_per_read or height, height)
        return most if height >= self.rows else max(size for size in range(1, most + 1) if height % size == 0)


class MappedLayer(LayerShape):
    """A crossbar layer on arrays. copies: each holds all weights and takes its share of the positions."""

    blocks: tuple[Block, ...]
    copies: int = 1

    @property
    def row_bounds(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each row block, in order."""
        return tuple(sorted({(block.row_start, block.row_stop) for block in self.blocks}))

    @property
    def read_rows(self) -> int:
        """Weight rows of a full read."""
        return self.rows_at_once(max(block.row_stop - block.row_start for block in self.blocks))

    @property
    def read_bounds(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of the weight rows that are driven at once, in order."""
        step, rows = self.read_rows, self.row_bounds[-1][1]
        return tuple((start, min(start + step, rows)) for start in range(0, rows, step))

    @property
    def read_in_parts(self) -> bool:
        """Whether not all rows of a block are driven at once."""
        return len(self.read_bounds) > len(self.row_bounds)

    @property
    def at_once(self) -> str:
        """The rows of a block that are driven at once, of how many groups where that is set, as tables have it."""
        rows = str(self.read_rows) if self.read_in_parts else "all"
        return rows if self.groups_per_read is None else f"{self.groups_per_read} x {rows}"

    @property
    def column_block(self) -> int:
        """Weight columns of a full array, at most those of a group."""
        start, stop = self.column_bounds[0]
        return stop - start

    @property
    def reference_starts(self) -> tuple[int, ...]:
        """The first weight column of those that each reference column serves, where arrays have one."""
        size, block = self.columns // self.groups, self.column_block  # which looks at all blocks
        groups = range(0, self.columns, size)
        return tuple(first + start for first in groups for start in range(0, size, block))

    @property
    def column_bounds(self) -> tuple[tuple[int, int], ...]:
        """(start, stop) of each column block in weight columns, in order."""
        return tuple(sorted({(block.column_start, block.column_stop) for block in self.blocks}))

    @property
    def grid(self) -> tuple[int, int]:
        """Row blocks and column blocks of one group; where row blocks are cut at different columns, the most of one."""
        columns = Counter(block.row_start for block in self.blocks if block.copy == 0)
        return len(columns), -(-max(columns.values()) // self.groups)

    @property
    def grid_text(self) -> str:
        """Blocks as tables have them: row blocks x column blocks, of several groups with their number first.

        Packing may cut each row block at columns of its own; then it is the number of blocks.
        """
        rows, columns = self.grid
        of_one_copy = sum(block.copy == 0 for block in self.blocks)
        if of_one_copy != self.groups * rows * columns:
            return f"{of_one_copy} blocks"
        return " x ".join(str(count) for count in (self.groups, rows, columns)[self.groups == 1 :])


class Link(NamedTuple):
    """Bytes of one image over the mesh link from one core to a neighbour."""

    source: int
    target: int
    bytes: int


class Placement(Record):
    """Arrays on cores and cores on the mesh; core k stands in mesh row k // mesh_columns.

    cores: the core of each array. byte_hops: bytes times links passed, for one image; `byte_hops_bound`: no places of
    these cores on the mesh have less (other arrays in them might). byte_hops_unplaced: cores in network order, for
    comparison.
    """

    mesh_rows: int
    mesh_columns: int
    cores: tuple[int, ...]
    links: tuple[Link, ...]
    byte_hops: int
    byte_hops_bound: int
    byte_hops_unplaced: int


class Segment(Record):
    """A part of a network larger than the chip: arrays that are on the chip together, and what programming them takes.

    first_array, arrays: of the mapping's arrays, those of this segment; they take the place of the last segment's.
    """

    layers: tuple[str, ...]
    first_array: int
    arrays: int
    program_ms: float
    program_mj: float


class Result(Record):
    """What the mapper was asked for, what it reached, and what nobody can fall below under its rules.

    The rules: rows are cut as the chip says, columns at the width of an array, and an array holds blocks of one layer
    and, of its copies, pieces of one size. Where one copy does not fit so, the bound is that of the weights' area. For
    the fewest arrays columns are cut anywhere; rows stay as cut. value, bound: in `unit`; gap: value / bound - 1.
    exact: the value is proven to be the least by these rules.
    """

    objective: str
    budget: int
    seed: int
    value: float
    bound: float
    unit: str
    exact: bool

    @property
    def gap(self) -> float:
        """How far the result is above the bound, as a fraction of it."""
        return self.value / self.bound - 1 if self.bound else 0.0


class Mapping(Record):
    """Every crossbar layer of a network on the arrays of one kind of chip.

    arrays_per_chip: of the first kind. kinds: each further kind and its arrays on a chip, in the order of its file;
    nothing where no layer lies on one. arrays: in use, of all kinds; those of several segments stand on the chip one
    after the other. physical_per_array: physical arrays in each (more than one where bit slices have arrays of their
    own). result: None for the plain mapping, one copy, one block an array.

    Arrays are numbered through all kinds, and each is of the kind of the layers in it. The first of a kind stands on
    the first such place of the first chip, and so on; on a chip the first kind's places come first.
    """

    chip: str
    arrays_per_chip: int
    kinds: tuple[tuple[str, int], ...] = ()
    arrays: int
    columns_per_weight: int = 2
    rows_per_weight: int = 1
    physical_per_array: int = 1
    input_range: tuple[float, float]
    layers: tuple[MappedLayer, ...]
    cost: Cost
    schedule: Schedule | None = None
    placement: Placement | None = None
    segments: tuple[Segment, ...] = ()
    result: Result | None = None

    @model_serializer(mode="wrap")
    def _serialize(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """All fields; no `kinds` where there are none, as files had it before."""
        return {key: value for key, value in handler(self).items() if key != "kinds" or value}

    def model_copy(self, *, update: Dictionary[str, Any] | None = None, deep: bool = False) -> "Mapping":
        """As of any model, without what was found of the old layers."""
        copy = super().model_copy(update=update, deep=deep)
        for name in ("kinds_in_use", "kind_of_arrays", "places"):
            copy.__dict__.pop(name, None)
        return copy

    @property
    def latency_ms(self) -> float:
        """The time of one image: row by row where that is scheduled, else layer after layer."""
        return self.cost.latency_ms if self.schedule is None else self.schedule.latency_ns * 1e-6

    @property
    def chips(self) -> int:
        """Chips needed, by the kind that needs most; segments stand on the chips of the largest one after the other."""
        if self.kinds:
            return max(-(-count // self.all_kinds[kind]) for kind, count in Counter(self.kind_of_arrays).items())
        arrays = max((segment.arrays for segment in self.segments), default=self.arrays)
        return -(-arrays // self.arrays_per_chip)

    @property
    def row_split(self) -> RowSplit:
        """The rule by which rows were split: the chip's own, or the one that `--row-split` put in its place.

        The chip's file stays as it was given; where the two differ, this is what holds. Of a "channel" split, layers
        whose channels are larger than an array are "flat" all the same.
        """
        return RowSplit.channel if any(layer.row_split == "channel" for layer in self.layers) else RowSplit.flat

    @property
    def by_settings(self) -> dict[Settings, list[str]]:
        """The names of layers that have settings of their own, by these, in network order."""
        found: dict[Settings, list[str]] = {}
        for layer in self.layers:
            if layer.settings:
                found.setdefault(layer.settings, []).append(layer.name)
        return found

    @property
    def all_kinds(self) -> dict[str, int]:
        """The arrays of every kind on a chip, the first ("") first."""
        return {"": self.arrays_per_chip, **dict(self.kinds)}

    @cached_property
    def kinds_in_use(self) -> list[str]:
        """The kinds that layers lie on, in the order of the chip file."""
        in_use = {layer.kind for layer in self.layers}
        return [kind for kind in self.all_kinds if kind in in_use]

    @cached_property
    def kind_of_arrays(self) -> tuple[str, ...]:
        """The kind of every array, by its number."""
        other = {block.array: layer.kind for layer in self.layers if layer.kind for block in layer.blocks}
        return tuple(other.get(array, "") for array in range(self.arrays))

    def kind_of(self, array: int) -> str:
        """The kind of an array; of one that is not in use the first."""
        return self.kind_of_arrays[array] if array < self.arrays else ""

    @cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """The chip of every array, and its number among the arrays of its kind on that chip; of no segments."""
        used, places = Counter[str](), []
        for kind in self.kind_of_arrays:
            places.append(divmod(used[kind], self.all_kinds[kind]))
            used[kind] += 1
        return tuple(places)

    def layer(self, name: str) -> MappedLayer:
        """The layer of that name; KeyError if there is none."""
        for layer in self.layers:
            if layer.name == name:
                return layer
        raise KeyError(name)

    def lines_of(self, block: Block) -> tuple[range, range]:
        """The word lines and the bit lines of its array that a block occupies."""
        rows = self.rows_per_weight * (block.row_stop - block.row_start)
        columns = self.columns_per_weight * (block.column_stop - block.column_start)
        return (
            range(block.array_row, block.array_row + rows),
            range(block.array_column, block.array_column + columns),
        )

    def place_of(self, array: int) -> tuple[int, int]:
        """The chip of an array, and the array's number on that chip; each segment begins with the first chip."""
        if self.kinds:  # and so no segments
            chip, place = self.places[array]
            before = takewhile(lambda kind: kind != self.kind_of_arrays[array], self.all_kinds)
            return chip, place + sum(self.all_kinds[kind] for kind in before)
        first_array = max((s.first_array for s in self.segments if s.first_array <= array), default=0)
        return divmod(array - first_array, self.arrays_per_chip)

    def address(self, layer: str, row: int, column: int, copy: int = 0) -> Address:
        """Where weight (row, column) of a copy of a layer sits. KeyError or IndexError if there is no such weight."""
        block = self.block_of(layer, row, column, copy)
        chip, array = self.place_of(block.array)
        rows, columns = self.lines_of(block)
        first_row = self.rows_per_weight * (row - block.row_start)
        first_column = self.columns_per_weight * (column - block.column_start)
        return Address(
            chip,
            array,
            tuple(rows[first_row : first_row + self.rows_per_weight]),
            tuple(columns[first_column : first_column + self.columns_per_weight]),
        )

    def block_of(self, layer: str, row: int, column: int, copy: int = 0) -> Block:
        """The block of weight (row, column) of a copy of a layer. KeyError or IndexError if there is no such weight."""
        for block in self.layer(layer).blocks:
            rows, columns = range(block.row_start, block.row_stop), range(block.column_start, block.column_stop)
            if block.copy == copy and row in rows and column in columns:
                return block
        raise IndexError(f"{layer} has no weight ({row}, {column}) in copy {copy}")
