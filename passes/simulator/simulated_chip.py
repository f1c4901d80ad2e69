"""What the simulator knows of a mapping: the arrays that are read together, their cores, and the ways between cores."""

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise
from typing import NamedTuple

import networkx as nx
import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.layer_settings import priced_chip
from cimc.mapping import Block, MappedLayer, Placement

Link = tuple[int, int]


class GangArrays(NamedTuple):
    """Copies of a layer that share arrays and so are read together; most gangs are one copy.

    positions: one MVM computes so many. round_ns: its time. starts: MVM starts it takes in each core. local_bytes: what
    it moves between the arrays and the memory of each core.
    """

    positions: int
    round_ns: float
    starts: Mapping[int, float]
    local_bytes: Mapping[int, float]


@dataclass(frozen=True)
class ArraysOfLayer:
    """A layer on its arrays.

    gangs: work side by side. cores: the fraction of its arrays in each core, which share its digital work. outputs,
    inputs: the fraction of its output that each core makes, of its input that each core reads (more than 1 together
    where several read the same). partial_bytes: of partial sums between cores for one image, by (from, to).
    """

    gangs: tuple[GangArrays, ...]
    cores: Mapping[int, float]
    outputs: Mapping[int, float]
    inputs: Mapping[int, float]
    partial_bytes: Mapping[Link, float]


class Geometry:
    """Where blocks lie in their array, and which of them can be read at once."""

    def __init__(self, layer: MappedLayer, chip: Chip) -> None:
        self._layer, self._chip = layer, chip
        self._serial: dict[tuple[tuple[object, ...], ...], int] = {}
        self._first_rows = [start for start, _ in layer.read_bounds]

    def lines(self, block: Block) -> tuple[range, range]:
        """The array rows and columns of a block."""
        rows = (block.row_stop - block.row_start) * self._chip.rows_per_weight
        columns = (block.column_stop - block.column_start) * self._chip.columns_per_weight
        return (
            range(block.array_row, block.array_row + rows),
            range(block.array_column, block.array_column + columns),
        )

    def inputs(self, block: Block) -> tuple[int, int, int]:
        """What drives a block's rows: the copy, the group of channels, the first row."""
        return block.copy, block.column_start * self._layer.groups // self._layer.columns, block.row_start

    def parts(self, block: Block) -> int:
        """Reads of one block: parts of its rows that are driven one after the other."""
        return bisect_left(self._first_rows, block.row_stop) - bisect_left(self._first_rows, block.row_start)

    def reads(self, blocks: Sequence[Block]) -> int:
        """Reads that the blocks of one array take: those that share lines but not inputs follow one another."""
        if len(blocks) == 1:
            return self.parts(blocks[0])
        key = tuple((*self.lines(block), self.inputs(block)) for block in blocks)
        if key not in self._serial:
            graph = nx.Graph()
            graph.add_nodes_from(range(len(blocks)))
            graph.add_edges_from(
                (a, b) for a, b in combinations(range(len(blocks)), 2) if self._apart(blocks[a], blocks[b])
            )
            longest: defaultdict[int, int] = defaultdict(int)
            for block, color in nx.greedy_color(graph).items():
                longest[color] = max(longest[color], self.parts(blocks[block]))
            self._serial[key] = sum(longest.values())
        return self._serial[key]

    def _apart(self, a: Block, b: Block) -> bool:
        (rows_a, columns_a), (rows_b, columns_b) = self.lines(a), self.lines(b)
        same_input = self.inputs(a) == self.inputs(b) and rows_a == rows_b
        if cross(columns_a, columns_b) or (cross(rows_a, rows_b) and not same_input):
            return True
        together = self._layer.groups_per_read
        if together is None or self.inputs(a) == self.inputs(b):
            return False
        (copy_a, group_a, _), (copy_b, group_b, _) = self.inputs(a), self.inputs(b)
        return copy_a != copy_b or group_a // together != group_b // together or together == 1


def cross(a: range, b: range) -> bool:
    """Whether two ranges have a common element."""
    return a.start < b.stop and b.start < a.stop


def arrays_of_layer(layer: MappedLayer, placement: Placement | None, chip: Chip, apart: bool = False) -> ArraysOfLayer:
    """A layer of a mapping on its arrays; without a placement (several chips) in a core of its own without limits.

    apart: as if copies that share arrays could be read one by one at no cost.
    """
    geometry = Geometry(layer, chip)
    phases = 2 if layer.signed_input and chip.input.signed == "two-phase" else 1
    core = dict(enumerate(placement.cores)) if placement is not None else {b.array: 0 for b in layer.blocks}
    held: defaultdict[int, list[Block]] = defaultdict(list)
    for block in layer.blocks:
        held[block.array].append(block)
    together = nx.Graph()
    together.add_nodes_from(range(layer.copies))
    for blocks in held.values():
        nx.add_path(together, sorted({block.copy for block in blocks}))
    components = [sorted(copies) for copies in nx.connected_components(together)]
    gang_of = {copy: number for number, copies in enumerate(components) for copy in copies}
    arrays: list[dict[int, list[Block]]] = [{} for _ in components]
    for array, blocks in held.items():
        arrays[gang_of[blocks[0].copy]][array] = blocks
    mvm_us = priced_chip(chip, layer.settings, layer.signed_input).cost.mvm_us
    gangs = [
        _gang(arrays[number], len(copies), phases, core, geometry, chip, mvm_us)
        for number, copies in enumerate(components)
    ]
    return ArraysOfLayer(
        gangs=tuple(gangs if placement is not None else (gang._replace(starts={}, local_bytes={}) for gang in gangs)),
        cores=_fractions((core[array], 1.0) for array in held),
        outputs=_fractions(
            (core[b.array], float(b.column_stop - b.column_start)) for b in layer.blocks if b.row_start == 0
        ),
        inputs=_inputs(layer, core, geometry),
        partial_bytes=_partial_sums(layer, core, chip),
    )


def _gang(
    arrays: Mapping[int, Sequence[Block]],
    copies: int,
    phases: int,
    core: Mapping[int, int],
    geometry: Geometry,
    chip: Chip,
    mvm_us: float,
) -> GangArrays:
    serial = max(geometry.reads(blocks) for blocks in arrays.values())
    starts: defaultdict[int, dict[object, int]] = defaultdict(dict)
    local: defaultdict[int, float] = defaultdict(float)
    for array, blocks in arrays.items():
        driven = frozenset(geometry.inputs(block) for block in blocks)
        started = starts[core[array]]
        first = driven not in started
        started[driven] = max(started.get(driven, 0), geometry.reads(blocks))
        values = sum((block.column_stop - block.column_start) * geometry.parts(block) for block in blocks)
        if first:
            values += sum({geometry.inputs(b): b.row_stop - b.row_start for b in blocks}.values())
        local[core[array]] += values * chip.cores.activation_bytes
    return GangArrays(
        positions=copies,
        round_ns=mvm_us * 1e3 * phases * serial,
        starts={place: phases * sum(reads.values()) for place, reads in starts.items()},
        local_bytes=dict(local),
    )


def one_by_one(layer: ArraysOfLayer) -> ArraysOfLayer:
    """As if copies that share arrays could be read one by one at no cost."""
    return replace(layer, gangs=tuple(_part(gang) for gang in layer.gangs for _ in range(gang.positions)))


def _part(gang: GangArrays) -> GangArrays:
    """One of a gang's copies."""
    starts = {core: count / gang.positions for core, count in gang.starts.items()}
    local = {core: size / gang.positions for core, size in gang.local_bytes.items()}
    return GangArrays(1, gang.round_ns, starts, local)


def _fractions(parts: Iterable[tuple[int, float]]) -> dict[int, float]:
    total: defaultdict[int, float] = defaultdict(float)
    for core, amount in parts:
        total[core] += amount
    whole = sum(total.values())
    return {core: amount / whole for core, amount in total.items()}


def _inputs(layer: MappedLayer, core: Mapping[int, int], geometry: Geometry) -> dict[int, float]:
    """Cores that hold column blocks of the same rows read the same input, each for itself."""
    read = {(core[b.array], geometry.inputs(b)): b.row_stop - b.row_start for b in layer.blocks}
    fractions: defaultdict[int, float] = defaultdict(float)
    for (place, _), rows in read.items():
        fractions[place] += rows / (layer.rows * layer.groups * layer.copies)
    return dict(fractions)


def _partial_sums(layer: MappedLayer, core: Mapping[int, int], chip: Chip) -> dict[Link, float]:
    """A core adds up what it has of a copy's columns; the sum goes to the core of the first row block."""
    homes = np.zeros((layer.copies, layer.columns), np.int64)
    held: defaultdict[tuple[int, int], npt.NDArray[np.bool_]] = defaultdict(lambda: np.zeros(layer.columns, bool))
    for block in layer.blocks:
        columns = slice(block.column_start, block.column_stop)
        held[core[block.array], block.copy][columns] = True
        if block.row_start == 0:
            homes[block.copy, columns] = core[block.array]
    moved: defaultdict[Link, float] = defaultdict(float)
    each = layer.positions / layer.copies * chip.cores.activation_bytes
    for (place, copy), columns_here in held.items():
        for home, count in zip(*np.unique(homes[copy][columns_here], return_counts=True), strict=True):
            if place != home:
                moved[place, int(home)] += int(count) * each
    return dict(moved)


def rivals_of(layers: Sequence[MappedLayer], chip: Chip) -> dict[str, frozenset[str]]:
    """For each layer the others that have blocks on the same rows or columns of an array."""
    held: defaultdict[int, list[tuple[str, Block]]] = defaultdict(list)
    geometry = {layer.name: Geometry(layer, chip) for layer in layers}
    for layer in layers:
        for block in layer.blocks:
            held[block.array].append((layer.name, block))
    rivals: defaultdict[str, set[str]] = defaultdict(set)
    for blocks in held.values():
        if len({name for name, _ in blocks}) < 2:
            continue
        for (a, block_a), (b, block_b) in combinations(blocks, 2):
            if a != b and b not in rivals[a]:
                (rows_a, columns_a), (rows_b, columns_b) = geometry[a].lines(block_a), geometry[b].lines(block_b)
                if cross(rows_a, rows_b) or cross(columns_a, columns_b):
                    rivals[a].add(b)
                    rivals[b].add(a)
    return {name: frozenset(others) for name, others in rivals.items()}


@dataclass(frozen=True)
class Mesh:
    """The mesh of cores; packets go along their row first, then along the column."""

    columns: int

    def way(self, source: int, target: int) -> list[Link]:
        """The links from one core to another."""
        (row, column), (last_row, last_column) = divmod(source, self.columns), divmod(target, self.columns)
        stops = [(row, column)]
        while column != last_column:
            column += 1 if last_column > column else -1
            stops.append((row, column))
        while row != last_row:
            row += 1 if last_row > row else -1
            stops.append((row, column))
        cores = [self.columns * r + c for r, c in stops]
        return list(pairwise(cores))

    def loads(self, flows: Mapping[Link, float]) -> dict[Link, float]:
        """Bytes on every link when `flows` (bytes by source and target) are on their way."""
        carried: defaultdict[Link, float] = defaultdict(float)
        for (source, target), amount in flows.items():
            for link in self.way(source, target):
                carried[link] += amount
        return dict(carried)
