"""Traffic: the bytes that one image moves between cores, and over which links of the mesh."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.mapping import Block, MappedLayer
from cimc.schedule import Stage

Bytes = npt.NDArray[np.float64]


def traffic_between(
    layers: Sequence[MappedLayer],
    stages: Sequence[Stage],
    cores: Mapping[int, int] | Sequence[int],
    *,
    count: int,
    width: float,
) -> Bytes:
    """Bytes of one image from core to core: [count, count]; the diagonal, what stays in a core, is 0.

    A layer's output is spread over the cores of its columns; every core of the next layer takes what its rows and its
    copies' share of the positions need. Where row blocks of a copy lie in several cores, their partial sums go to the
    core of the first one. `cores` may stand for other places of the arrays, such as chips.

    Args:
        layers: with their blocks.
        stages: of the whole network.
        cores: of each array.
        count: of the cores.
        width: bytes of a value.
    """
    traffic = np.zeros((count, count))
    by_name = {layer.name: layer for layer in layers}
    sources = {name: _outputs(layer, cores, count) for name, layer in by_name.items()}
    needs = {name: _inputs(layer, cores, count) for name, layer in by_name.items()}
    homes = {stage.name: stage.layer for stage in stages}
    for stage in stages:
        if stage.layer not in by_name:
            continue
        for source in stage.inputs:
            home = homes.get(source.source, "")
            if home not in by_name or (home == stage.layer and stage.kind == "digital"):
                continue
            wanted = needs[stage.layer] if stage.kind == "crossbar" else sources[stage.layer]
            traffic += source.bytes * np.outer(sources[home], wanted)
    for layer in layers:
        for start, end, moved in partial_sums(layer, cores, width=width):
            traffic[start, end] += moved
    np.fill_diagonal(traffic, 0)
    return traffic


def _outputs(layer: MappedLayer, cores: Mapping[int, int] | Sequence[int], count: int) -> Bytes:
    """The fraction of the layer's output that each core makes (the first row block's core adds the partial sums)."""
    made = np.zeros(count)
    for block in layer.blocks:
        if block.row_start == 0:
            made[cores[block.array]] += block.column_stop - block.column_start
    return made / made.sum()


def _inputs(layer: MappedLayer, cores: Mapping[int, int] | Sequence[int], count: int) -> Bytes:
    """The fraction of the layer's input that each core needs."""
    needed: dict[tuple[int, int, int, int], int] = {}
    for block in layer.blocks:
        group = block.column_start * layer.groups // layer.columns
        needed[cores[block.array], block.copy, group, block.row_start] = block.row_stop - block.row_start
    fractions = np.zeros(count)
    for (core, *_), rows in needed.items():
        fractions[core] += rows / (layer.rows * layer.groups * layer.copies)
    return fractions


def partial_sums(
    layer: MappedLayer, cores: Mapping[int, int] | Sequence[int], *, width: float
) -> list[tuple[int, int, float]]:
    """(from, to, bytes) of the layer's partial sums for one image: `width` bytes a value.

    A core adds up the row blocks that it has of a copy's columns; the sums go to the core of the first row block.
    """
    homes: defaultdict[int, list[Block]] = defaultdict(list)
    for block in layer.blocks:
        if block.row_start == 0:
            homes[block.copy].append(block)
    # Columns that lie at the same place need no search; packing cuts them anywhere.
    same = {(b.copy, b.column_start, b.column_stop): b for of_copy in homes.values() for b in of_copy}
    sums: dict[tuple[int, int, int], set[tuple[int, int]]] = {}
    for block in layer.blocks:
        if not block.row_start:
            continue
        home = same.get((block.copy, block.column_start, block.column_stop))
        for other in homes[block.copy] if home is None else [home]:
            columns = max(block.column_start, other.column_start), min(block.column_stop, other.column_stop)
            source, target = cores[block.array], cores[other.array]
            if columns[0] < columns[1] and source != target:
                sums.setdefault((source, target, block.copy), set()).add(columns)
    share = layer.positions / layer.copies * width
    return [(source, target, _count_covered(columns) * share) for (source, target, _), columns in sums.items()]


def _count_covered(ranges: Iterable[tuple[int, int]]) -> int:
    """Places in any of the ranges (start, stop)."""
    count, end = 0, 0
    for start, stop in sorted(ranges):
        count += max(0, stop - max(start, end))
        end = max(end, stop)
    return count


def distances(mesh: tuple[int, int], count: int) -> Bytes:
    """Links between the first `count` places of a mesh: [count, count]."""
    row, column = np.divmod(np.arange(count), mesh[1])
    return (np.abs(row[:, None] - row) + np.abs(column[:, None] - column)).astype(np.float64)


def link_bytes(traffic: Bytes, mesh: tuple[int, int]) -> list[tuple[int, int, int]]:
    """(from, to, bytes) of each link in use when packets go along their mesh row first, then along the column."""
    rows, columns = mesh
    # One more place in each direction for the ends of the ranges.
    loads = {step: np.zeros((rows + 1, columns + 1)) for step in ("right", "left", "down", "up")}
    sources, targets = np.nonzero(traffic)
    amount = traffic[sources, targets]
    (r0, c0), (r1, c1) = np.divmod(sources, columns), np.divmod(targets, columns)
    for step, (line, start, stop) in {"right": (r0, c0, c1), "left": (r0, c1, c0)}.items():
        ahead = stop > start
        np.add.at(loads[step], (line[ahead], start[ahead]), amount[ahead])
        np.add.at(loads[step], (line[ahead], stop[ahead]), -amount[ahead])
    for step, (line, start, stop) in {"down": (c1, r0, r1), "up": (c1, r1, r0)}.items():
        ahead = stop > start
        np.add.at(loads[step], (start[ahead], line[ahead]), amount[ahead])
        np.add.at(loads[step], (stop[ahead], line[ahead]), -amount[ahead])
    links = []
    for step, load in loads.items():
        across = step in ("right", "left")
        carried = np.cumsum(load, axis=1 if across else 0)[:rows, :columns]
        for row, column in zip(*np.nonzero(carried > 0.5), strict=True):
            near = int(row * columns + column)
            far = near + (1 if across else columns)
            ends = (near, far) if step in ("right", "down") else (far, near)
            links.append((*ends, round(float(carried[row, column]))))
    return sorted(links)


def network_bytes(stages: Sequence[Stage], chip: Chip) -> int:
    """Bytes of the network's inputs and outputs, which lie in the shared memory."""
    used = {source.source for stage in stages for source in stage.inputs}
    inputs = {source.network_input: source.bytes for stage in stages for source in stage.inputs if not source.source}
    outputs = sum(
        stage.elements * (stage.name not in used) if stage.network_outputs is None else stage.network_outputs
        for stage in stages
    )
    return sum(inputs.values()) + round(outputs * chip.cores.activation_bytes)


def memory_bytes(stages: Sequence[Stage], chip: Chip) -> int:
    """Bytes to and from the shared memory: inputs and outputs of the network, and the values that go through it.

    These are written once, and read once by each layer that reads them.
    """
    written = _moved(stages, "memory")
    read = {
        (source.source, stage.layer): source.bytes
        for stage in stages
        for source in stage.inputs
        if source.source in written and source.route == "memory"
    }
    return network_bytes(stages, chip) + sum(written.values()) + sum(read.values())


def bus_bytes(stages: Sequence[Stage]) -> int:
    """Bytes of the values that go over the bus, each once for all that read it."""
    return sum(_moved(stages, "bus").values())


def _moved(stages: Sequence[Stage], route: str) -> dict[str, int]:
    return {s.source: s.bytes for stage in stages for s in stage.inputs if s.source and s.route == route}
