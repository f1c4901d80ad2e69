"""Reads: which blocks of one array can be read at once, and how long an array is busy for one image.

In a read every driven row reaches every column, so two blocks with different inputs can be read at once only on
disjoint rows and disjoint columns. Blocks that share their inputs may share rows.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise

from cimc.chip import Chip
from cimc.layer_settings import priced_chip
from cimc.mapping import Block, MappedLayer


@dataclass(frozen=True)
class Read:
    """Blocks of one layer in one array that are read at once.

    kind: of the array. mvms: for one image, all phases. parts: array reads of each, where not all rows are driven at
    once. each_ns: time of a read. inputs: (copy, group, first row) of all that is driven; arrays of one core with the
    same inputs are started together.
    """

    layer: str
    blocks: tuple[Block, ...]
    mvms: int
    parts: int
    each_ns: float
    inputs: frozenset[tuple[int, ...]]
    kind: str = ""

    @property
    def count(self) -> int:
        """Reads of the array for one image."""
        return self.mvms * self.parts

    @property
    def busy_ns(self) -> float:
        """The time of all of them."""
        return self.count * self.each_ns


def phases_of(layer: MappedLayer, chip: Chip) -> int:
    """Phases of one MVM: positive and negative inputs one after the other, unless the converter takes both."""
    return 2 if layer.signed_input and chip.input.signed == "two-phase" else 1


def parts_of(block: Block, read_rows: int) -> int:
    """Reads of a block of which so many weight rows are driven at once."""
    return -(-(block.row_stop - block.row_start) // read_rows)


def positions_of_copy(layer: MappedLayer, copy: int) -> int:
    """Positions of one image that a copy computes."""
    return layer.positions // layer.copies + (copy < layer.positions % layer.copies)


@dataclass(frozen=True)
class ReadTable:
    """All reads of a mapping: by layer and array, and by array. Reads of one layer in one array follow one another."""

    by_layer: dict[str, dict[int, list[Read]]]
    by_array: dict[int, list[Read]]


def most_parts(reads: Mapping[int, list[Read]]) -> int:
    """Reads in one array, one after the other, for one phase of an MVM: the most of the arrays."""
    return max(sum(read.parts for read in of_array) for of_array in reads.values())


def read_table(layers: Iterable[MappedLayer], chip: Chip) -> ReadTable:
    """The reads of these layers."""
    by_layer = {layer.name: _reads_of(layer, chip) for layer in layers}
    by_array: defaultdict[int, list[Read]] = defaultdict(list)
    for of_layer in by_layer.values():
        for array, reads in of_layer.items():
            by_array[array] += reads
    return ReadTable(by_layer, dict(by_array))


def _reads_of(layer: MappedLayer, chip: Chip) -> dict[int, list[Read]]:
    in_array: defaultdict[int, list[Block]] = defaultdict(list)
    for block in layer.blocks:
        in_array[block.array].append(block)
    phases = phases_of(layer, chip)
    shares = [phases * positions_of_copy(layer, copy) for copy in range(layer.copies)]
    read_rows, each_ns = layer.read_rows, priced_chip(chip, layer.settings, layer.signed_input).cost.mvm_us * 1e3
    return {
        array: [
            Read(
                layer.name,
                tuple(group),
                mvms=max(shares[block.copy] for block in group),
                parts=max(parts_of(block, read_rows) for block in group),
                each_ns=each_ns,
                inputs=_all_inputs(layer, group),
                kind=layer.kind,
            )
            for group in _groups(layer, blocks, chip)
        ]
        for array, blocks in in_array.items()
    }


def _groups(layer: MappedLayer, blocks: list[Block], chip: Chip) -> list[list[Block]]:
    if _at_once(layer, blocks, chip):
        return [blocks]
    groups: list[list[Block]] = []
    for block in blocks:
        for group in groups:
            if not any(_conflict(layer, block, other, chip) for other in group):
                group.append(block)
                break
        else:
            groups.append([block])
    return groups


def _at_once(layer: MappedLayer, blocks: list[Block], chip: Chip) -> bool:
    """Whether no two blocks conflict, seen from neighbours in order alone (no may be a yes that is not seen)."""
    if len(blocks) == 1:
        return True
    if any(not _may_be_together(layer, a, b) for a, b in pairwise(blocks)):
        return False
    columns = sorted(columns_of(block, chip) for block in blocks)
    if any(overlap(a, b) for a, b in pairwise(columns)):
        return False
    rows = sorted((rows_of(block, chip), _inputs(layer, block)) for block in blocks)
    return all(not overlap(a, b) or inputs == others for (a, inputs), (b, others) in pairwise(rows))


def _all_inputs(layer: MappedLayer, blocks: Iterable[Block]) -> frozenset[tuple[int, ...]]:
    return frozenset((b.copy, b.column_start * layer.groups // layer.columns, b.row_start) for b in blocks)


def _conflict(layer: MappedLayer, a: Block, b: Block, chip: Chip) -> bool:
    if overlap(columns_of(a, chip), columns_of(b, chip)):
        return True
    if not overlap(rows_of(a, chip), rows_of(b, chip)):
        return not _may_be_together(layer, a, b)
    return _inputs(layer, a) != _inputs(layer, b)


def _may_be_together(layer: MappedLayer, a: Block, b: Block) -> bool:
    """Whether the layer drives both in one read, as far as its groups go: those of one set, of `groups_per_read`."""
    if layer.groups_per_read is None:
        return True
    sets = layer.groups // layer.groups_per_read
    of_a, of_b = ((block.copy, block.column_start * sets // layer.columns) for block in (a, b))
    return of_a == of_b and (layer.groups_per_read > 1 or a.row_start == b.row_start)


def _inputs(layer: MappedLayer, block: Block) -> tuple[int, ...]:
    """What is driven: the copy, the group, the rows and where they lie."""
    group = block.column_start * layer.groups // layer.columns
    return block.copy, group, block.row_start, block.row_stop, block.array_row


def share_lines(a: Iterable[Block], b: Iterable[Block], chip: Chip) -> bool:
    """Whether a block of `a` and one of `b`, of different layers in one array, share a row or a column."""
    others = list(b)
    return any(
        overlap(rows_of(one, chip), rows_of(other, chip)) or overlap(columns_of(one, chip), columns_of(other, chip))
        for one in a
        for other in others
    )


def busy_ns(reads: Sequence[Read], chip: Chip) -> float:
    """How long one array is busy for one image, reads that can be at once counted once (greedy, the longest first).

    An upper bound that a schedule reaches: reads of a class run side by side, the classes one after the other.
    """
    classes: list[list[Read]] = []
    for read in sorted(reads, key=lambda read: -read.busy_ns):
        for same in classes:
            if not any(read.layer == other.layer or share_lines(read.blocks, other.blocks, chip) for other in same):
                same.append(read)
                break
        else:
            classes.append([read])
    counts: Counter[float] = Counter()
    for same in classes:
        counts[same[0].each_ns] += same[0].count
    return sum(count * each_ns for each_ns, count in counts.items())


def exclusive_layers(reads: Iterable[Sequence[Read]], chip: Chip) -> set[frozenset[str]]:
    """Pairs of layers that can never be read at the same time, from the reads of each array."""
    pairs: set[frozenset[str]] = set()
    for of_array in reads:
        if len(of_array) < 2:
            continue
        for a, b in combinations(of_array, 2):
            pair = frozenset((a.layer, b.layer))
            if a.layer != b.layer and pair not in pairs and share_lines(a.blocks, b.blocks, chip):
                pairs.add(pair)
    return pairs


def rows_of(block: Block, chip: Chip) -> tuple[int, int]:
    """The array rows (start, stop) that a block occupies."""
    return block.array_row, block.array_row + (block.row_stop - block.row_start) * chip.rows_per_weight


def columns_of(block: Block, chip: Chip) -> tuple[int, int]:
    """The array columns (start, stop) that a block occupies."""
    return block.array_column, block.array_column + (block.column_stop - block.column_start) * chip.columns_per_weight


def overlap(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether two ranges (start, stop) have a common element."""
    return a[0] < b[1] and b[0] < a[1]
