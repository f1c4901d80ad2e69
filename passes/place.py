"""Placement: arrays on cores, and cores on the mesh, so that cores are equally busy and bytes travel a short way."""

import heapq
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.mapping import Link, MappedLayer, Placement
from passes.reads import Read, reads_of
from passes.stages import StageShape
from passes.traffic import core_traffic, distances, link_bytes

SWEEPS = 8  # of the local search; it ends at the first sweep that finds nothing


@dataclass(frozen=True)
class Unit:
    """Arrays of one core that are started together, and the starts that takes for one image."""

    arrays: tuple[int, ...]
    starts: int


def units_of(layers: Sequence[MappedLayer], chip: Chip) -> list[Unit]:
    """The units in network order: arrays with the same inputs (column blocks of the same row blocks).

    What other layers have in these arrays is started apart. A unit is never larger than a core.
    """
    reads = reads_of(layers, chip)
    members: defaultdict[tuple[str, frozenset[tuple[int, ...]]], list[int]] = defaultdict(list)
    groups = {layer.name: (layer.groups, layer.columns) for layer in layers}
    for array in sorted(reads):
        first = reads[array][0]
        members[first.layer, _inputs(first, *groups[first.layer])].append(array)
    size = chip.arrays_per_core
    return [
        _unit(arrays[start : start + size], reads)
        for arrays in members.values()
        for start in range(0, len(arrays), size)
    ]


def _inputs(read: Read, groups: int, columns: int) -> frozenset[tuple[int, ...]]:
    return frozenset((b.copy, b.column_start * groups // columns, b.row_start) for b in read.blocks)


def _unit(arrays: list[int], reads: dict[int, list[Read]]) -> Unit:
    together = max(reads[array][0].count for array in arrays)
    return Unit(tuple(arrays), together + sum(read.count for array in arrays for read in reads[array][1:]))


def assign_cores(units: Sequence[Unit], chip: Chip) -> dict[int, int]:
    """The core of each array.

    Where a core starts MVMs one after the other, the cores get equal starts (the largest units first, each to the core
    with the fewest starts that has room); else the cores are filled in network order, which keeps neighbours together.
    """
    room = np.full(chip.cores.count, chip.arrays_per_core)
    cores: dict[int, int] = {}
    if chip.cores.mvm_start_ns is None:
        for index, array in enumerate(array for unit in units for array in unit.arrays):
            cores[array] = index // chip.arrays_per_core
        return cores
    queue = [(0, core) for core in range(chip.cores.count)]
    for unit in sorted(units, key=lambda unit: (-len(unit.arrays), -unit.starts)):
        full = []
        while queue and room[queue[0][1]] < len(unit.arrays):
            full.append(heapq.heappop(queue))
        if queue:
            starts, core = heapq.heappop(queue)
            cores |= dict.fromkeys(unit.arrays, core)
            room[core] -= len(unit.arrays)
            if room[core]:
                heapq.heappush(queue, (starts + unit.starts, core))
        else:  # no core has room for all: its arrays are spread
            for array in unit.arrays:
                core = int(np.argmax(room))
                cores[array] = core
                room[core] -= 1
        for entry in full:
            if room[entry[1]]:
                heapq.heappush(queue, entry)
    return cores


def place(layers: Sequence[MappedLayer], stages: Sequence[StageShape], chip: Chip, seed: int = 0) -> Placement | None:
    """Place the arrays of a mapping on one chip; None where they need several chips.

    The cores are placed by a local search from the order along a snake: two cores change places while that saves byte
    hops, in an order that `seed` sets.
    """
    mesh = (chip.cores.mesh_rows, chip.cores.mesh_columns)
    arrays = len({block.array for layer in layers for block in layer.blocks})
    if arrays > chip.arrays_per_chip:
        return None
    cores = assign_cores(units_of(layers, chip), chip)
    traffic = core_traffic(layers, stages, cores, chip)
    hops = distances(mesh, chip.cores.count)
    snake = _snake(mesh, chip.cores.count)
    spots = _search(traffic, hops, snake, np.random.default_rng(seed))
    moved = np.zeros_like(traffic)
    moved[np.ix_(spots, spots)] = traffic
    symmetric = traffic + traffic.T
    return Placement(
        mesh_rows=mesh[0],
        mesh_columns=mesh[1],
        cores=tuple(int(spots[cores[array]]) for array in range(arrays)),
        links=tuple(Link(*link) for link in link_bytes(moved, mesh)),
        byte_hops=round(float(np.sum(moved * hops))),
        byte_hops_bound=int(_bound(symmetric, hops)),
        byte_hops_unplaced=round(float(np.sum(traffic * hops))),
    )


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


def core_starts(layers: Sequence[MappedLayer], cores: Sequence[int], chip: Chip) -> dict[str, Counter[int]]:
    """MVM starts of each layer for one image in each core: arrays of a core with the same inputs start together."""
    reads = reads_of(layers, chip)
    groups = {layer.name: (layer.groups, layer.columns) for layer in layers}
    together: dict[tuple[str, int, frozenset[tuple[int, ...]]], int] = {}
    for array, of_array in reads.items():
        for read in of_array:
            key = (read.layer, cores[array], _inputs(read, *groups[read.layer]))
            together[key] = max(together.get(key, 0), read.count)
    starts: defaultdict[str, Counter[int]] = defaultdict(Counter)
    for (layer, core, _), count in together.items():
        starts[layer][core] += count
    return dict(starts)
