"""Placement: arrays on cores, and cores on the mesh, so that cores are equally busy and bytes travel a short way."""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.mapping import Link, Placement
from passes.mapper.plan import Plan
from passes.mapper.reads import ReadTable
from passes.mapper.traffic import bus_bytes, distances, link_bytes, traffic_between

SWEEPS = 8  # of the local search; it ends at the first sweep that finds nothing


@dataclass(frozen=True)
class Unit:
    """Arrays of one kind that should lie in one core, the MVM starts that takes for one image, and the bytes of partial
    sums that travel if they do not.
    """

    arrays: tuple[int, ...]
    starts: int
    partial_bytes: float = 0.0
    kind: str = ""


def units_of(table: ReadTable, chip: Chip) -> list[Unit]:
    """The units in network order: arrays with the same inputs or the same outputs, whose partial sums need not move.

    These are a copy of a layer with all its row blocks (and copies that share an array with it); of a grouped
    convolution, the arrays of a group. A unit that is larger than a core is cut between its row blocks.
    """
    import networkx as nx  # here: chips whose cores are filled in order need no graph, and its import takes 0.15 s

    units: list[Unit] = []
    seen: set[int] = set()
    for of_layer in table.by_layer.values():
        size = chip.of_kind(next(iter(of_layer.values()))[0].kind).arrays_per_core
        if not any(b.row_start for reads in of_layer.values() for read in reads for b in read.blocks):
            # Without partial sums arrays belong together that have the same inputs; there can be thousands.
            same: defaultdict[frozenset[tuple[int, ...]], list[int]] = defaultdict(list)
            for array in sorted(of_layer.keys() - seen):
                same[of_layer[array][0].inputs].append(array)
            seen |= of_layer.keys()
            cut = (arrays[start : start + size] for arrays in same.values() for start in range(0, len(arrays), size))
            units += (_unit(arrays, table, chip) for arrays in cut)
            continue
        graph = nx.Graph()
        for array, reads in of_layer.items():
            if array not in seen:
                graph.add_node(array)
                inputs = {("in", *driven) for read in reads for driven in read.inputs}
                outputs = {("out", b.copy, b.column_start) for read in reads for b in read.blocks}
                graph.add_edges_from((array, line) for line in sorted(inputs | outputs))
        seen |= of_layer.keys()
        for members in nx.connected_components(graph):
            arrays = sorted(
                (member for member in members if not isinstance(member, tuple)),
                key=lambda array: (min(of_layer[array][0].inputs), array),
            )
            if len(arrays) <= size:
                units.append(_unit(arrays, table, chip))
                continue
            rows = [list(row) for _, row in groupby(arrays, key=lambda array: min(of_layer[array][0].inputs))]
            units += (_unit(part, table, chip) for part in _parts(rows, size))
    return units


def _parts(rows: Sequence[list[int]], size: int) -> Iterator[list[int]]:
    """Neighbouring row blocks, at least a quarter of a core together: few partial sums, and no hole in a core."""
    part: list[int] = []
    for row in rows:
        if part and (len(part) >= size // 4 or len(part) + len(row) > size):
            yield part
            part = []
        part = part + row
        while len(part) > size:
            yield part[:size]
            part = part[size:]
    if part:
        yield part


def _unit(arrays: Sequence[int], table: ReadTable, chip: Chip) -> Unit:
    together: dict[tuple[str, frozenset[tuple[int, ...]]], int] = {}
    for array in arrays:
        for read in table.by_array[array]:
            key = read.layer, read.inputs
            together[key] = max(together.get(key, 0), read.count)
    partial = sum(
        read.mvms * (block.column_stop - block.column_start)
        for array in arrays
        for read in table.by_array[array]
        for block in read.blocks
        if block.row_start
    )
    kind = table.by_array[arrays[0]][0].kind
    return Unit(tuple(arrays), sum(together.values()), partial * chip.cores.activation_bytes, kind)


def assign_cores(units: Sequence[Unit], chip: Chip, *, moved: int) -> tuple[dict[int, int], float]:
    """The core of each array, and for how long the busiest core starts MVMs or the bus is busy, ns.

    `moved`: bytes on the bus beside the partial sums.

    Where a core starts MVMs one after the other, the cores get equal starts; else the cores are filled in network
    order, which keeps neighbours together.
    """
    if chip.cores.mvm_start_ns is None:
        filled: dict[int, int] = {}
        for kind in chip.sizes:
            arrays = (array for unit in units if unit.kind == kind for array in unit.arrays)
            size = chip.of_kind(kind).arrays_per_core
            filled |= {array: index // size for index, array in enumerate(arrays)}
        return filled, 0.0
    large = chip.arrays_per_core // 4
    # What is hard to find room for first, or what is started most: the one or the other is better.
    by_size = sorted(units, key=lambda unit: (-max(len(unit.arrays), large), -unit.starts))
    by_starts = sorted(units, key=lambda unit: (-unit.starts, -len(unit.arrays)))
    return min((_even(order, moved, chip) for order in (by_size, by_starts)), key=lambda found: found[1])


def _even(units: Sequence[Unit], moved: float, chip: Chip) -> tuple[dict[int, int], float]:
    """Each unit in turn to the core with the fewest starts that has room; where none has, its arrays are spread."""
    rooms = {kind: np.full(chip.cores.count, chip.of_kind(kind).arrays_per_core) for kind in chip.sizes}
    left = np.sum(list(rooms.values()), axis=0)
    load = np.zeros(chip.cores.count, np.int64)
    cores: dict[int, int] = {}
    queue = [(0, core) for core in range(chip.cores.count)]
    for unit in units:
        full, room = [], rooms[unit.kind]
        while queue and room[queue[0][1]] < len(unit.arrays):
            full.append(heapq.heappop(queue))
        if queue:
            core = heapq.heappop(queue)[1]
            cores |= dict.fromkeys(unit.arrays, core)
            room[core] -= len(unit.arrays)
            left[core] -= len(unit.arrays)
            load[core] += unit.starts
            full.append((int(load[core]), core))
        else:
            touched = set()
            for array in unit.arrays:
                core = int(np.argmax(room))
                cores[array] = core
                room[core] -= 1
                left[core] -= 1
                touched.add(core)
            for core in touched:  # each of them starts its share of the row blocks, at most all
                load[core] += unit.starts
            moved += unit.partial_bytes
            full = [(int(load[core]), core) for _, core in full]
        for entry in full:
            if left[entry[1]]:
                heapq.heappush(queue, entry)
    starting = int(load.max()) * (chip.cores.mvm_start_ns or 0.0)
    return cores, max(starting, moved / (chip.cores.bus_bytes_per_ns or math.inf))


def place(plan: Plan, *, seed: int = 0) -> Placement | None:
    """Place the arrays of a plan on one chip; None where they need several chips.

    On a bus it does not matter where a core is, and no links are listed. On a mesh, the cores are placed by a local
    search from the order along a snake: two cores change places while that saves byte hops, in an order that `seed`
    sets.
    """
    table, chip = plan.table, plan.chip
    mesh = (chip.cores.mesh_rows, chip.cores.mesh_columns)
    kinds = Counter(reads[0].kind for reads in table.by_array.values())
    if any(count > chip.of_kind(kind).arrays_per_chip for kind, count in kinds.items()):
        return None
    cores, _ = assign_cores(units_of(table, chip), chip, moved=bus_bytes(plan.stages))
    bus = chip.cores.bus_bytes_per_ns is not None
    count, width = chip.cores.count, chip.cores.activation_bytes
    if bus:
        traffic = np.zeros((count, count))
    else:
        traffic = traffic_between(plan.layers, plan.stages, cores, count=count, width=width)
    hops = distances(mesh, count)
    spots = _snake(mesh, count)
    snake = _move_cores(traffic, spots)
    if not bus:
        spots = _search(traffic, hops, spots, np.random.default_rng(seed))
    moved = _move_cores(traffic, spots)
    return Placement(
        mesh_rows=mesh[0],
        mesh_columns=mesh[1],
        cores=tuple(int(spots[cores[array]]) for array in range(len(table.by_array))),
        links=tuple(Link(*link) for link in link_bytes(moved, mesh)),
        byte_hops=round(float(np.sum(moved * hops))),
        byte_hops_bound=int(_bound(traffic + traffic.T, hops)),
        byte_hops_unplaced=round(float(np.sum(snake * hops))),
    )


def _move_cores(traffic: npt.NDArray[np.float64], spots: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """The traffic by place on the mesh."""
    moved = np.zeros_like(traffic)
    moved[np.ix_(spots, spots)] = traffic
    return moved


def _snake(mesh: tuple[int, int], count: int) -> npt.NDArray[np.int64]:
    """The first `count` places of a mesh, row by row, every other row backwards: neighbours in order are neighbours."""
    places = np.arange(mesh[0] * mesh[1]).reshape(mesh)
    places[1::2] = places[1::2, ::-1]
    inside = places.reshape(-1)
    return inside[inside < count]


def _search(
    traffic: npt.NDArray[np.float64],
    hops: npt.NDArray[np.float64],
    spots: npt.NDArray[np.int64],
    random: np.random.Generator,
) -> npt.NDArray[np.int64]:
    """Exchange cores while the sum of traffic x hops falls: quadratic assignment, the best exchange of each in turn."""
    flow = traffic + traffic.T
    np.fill_diagonal(flow, 0)
    spots = spots.copy()
    busy = np.flatnonzero(flow.any(axis=1))
    for _ in range(SWEEPS):
        improved = False
        for core in random.permutation(busy):
            away = hops[np.ix_(spots, spots)]
            # What the exchange of `core` with each other core changes, all at once.
            own = flow[core] @ away
            theirs = np.einsum("ij,ij->i", flow, away)
            cross = flow @ away[core]
            change = own - flow[core] @ away[core] + cross - theirs + 2 * flow[core] * away[core]
            change[core] = 0
            best = int(np.argmin(change))
            if change[best] < -0.5:
                spots[core], spots[best] = spots[best], spots[core]
                improved = True
        if not improved:
            break
    return spots


def _bound(flow: npt.NDArray[np.float64], hops: npt.NDArray[np.float64]) -> float:
    """No places of these cores have fewer byte hops: each core's largest flows at the least distances there are.

    Rows of `flow` in falling order against the rising distances of the most central place, half of it for each end.
    """
    flow = flow.copy()
    np.fill_diagonal(flow, 0)
    if not flow.any():
        return 0.0
    nearest = np.sort(np.sort(hops, axis=1)[:, 1:], axis=0)[0]
    largest = -np.sort(-flow, axis=1)[:, :-1]
    return float(np.floor(np.sum(largest * nearest) / 2))


def core_starts(table: ReadTable, cores: Sequence[int] | Mapping[int, int]) -> dict[str, Counter[int]]:
    """MVM starts of each layer for one image in each core: arrays of a core with the same inputs start together."""
    result: dict[str, Counter[int]] = {}
    for layer, of_layer in table.by_layer.items():
        together: defaultdict[tuple[int, frozenset[tuple[int, ...]]], int] = defaultdict(int)
        for array, reads in of_layer.items():
            for read in reads:
                key = cores[array], read.inputs
                together[key] = max(together[key], read.count)
        result[layer] = Counter()
        for (core, _), count in together.items():
            result[layer][core] += count
    return result
