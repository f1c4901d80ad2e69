"""Packing: several layers in one array, for the fewest arrays.

The rows of a weight matrix stay cut as they are (each cut is a conversion and an addition more); its columns can be cut
anywhere, for every column is converted by itself. So the columns of an array are bins of `weight_rows` rows, and the
columns of all layers, as high as their row block, go into them: one-dimensional cutting stock, solved by column
generation (Gilmore and Gomory 1961), whose linear relaxation is the bound.

Blocks that come to share rows or columns cannot be read at once; `passes.mapper.reads` and the schedule account for it.
"""

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.mapping import Block
from passes.mapper.kinds import by_kind
from passes.mapper.layers import Layer
from passes.mapper.layout import place_piece
from passes.mapper.partition import Piece, sizes

Pattern = tuple[int, ...]  # of each height, how many in one column


@dataclass(frozen=True)
class Strip:
    """Columns of one layer that are equally high and stay side by side unless cut between two of them.

    Groups of a convolution lie in it along the diagonal, so that one read serves them all: parts are the pieces with
    their first row and column in the strip.
    """

    layer: int
    height: int
    width: int
    parts: tuple[tuple[Piece, int, int], ...]


@dataclass(frozen=True)
class Packing:
    """Blocks of each layer, the arrays they take, and the number of arrays below which nobody can pack them.

    The bound is that of the weights' area and, where no layer is grouped, of the linear relaxation for the rows as cut.
    """

    blocks: list[tuple[Block, ...]]
    arrays: int
    bound: int


def pack(layers: Sequence[Layer], chip: Chip) -> Packing:
    """One copy of every layer in as few arrays as the cutting stock heuristic finds; those of each kind by themselves.

    `chip` tells the arrays where all layers lie on its first kind.
    """
    if all(not layer.kind for layer in layers):
        return _pack_one_kind(layers, chip)
    blocks: dict[str, tuple[Block, ...]] = {}
    arrays = bound = 0
    for of_kind in by_kind(layers).values():
        packed = _pack_one_kind(of_kind, of_kind[0].chip)
        for layer, own in zip(of_kind, packed.blocks, strict=True):
            blocks[layer.name] = tuple(block._replace(array=block.array + arrays) for block in own)
        arrays, bound = arrays + packed.arrays, bound + packed.bound
    return Packing([blocks[layer.name] for layer in layers], arrays, bound)


def _pack_one_kind(layers: Sequence[Layer], chip: Chip) -> Packing:
    strips = [strip for index, layer in enumerate(layers) for strip in _strips(index, layer, chip)]
    heights = sorted({strip.height for strip in strips}, reverse=True)
    demand = np.array([sum(strip.width for strip in strips if strip.height == height) for height in heights])
    patterns, counts = _solve(np.array(heights), demand, chip.weight_rows)
    whole = _round(np.array(heights), demand, patterns, counts, chip.weight_rows)
    blocks, arrays = _fill(strips, heights, whole, len(layers), chip)
    bound = area_bound(layers, chip)
    if all(layer.groups == 1 for layer in layers):
        bound = max(bound, math.ceil(float(np.sum(counts)) / chip.weight_columns - 1e-6))
    return Packing(blocks, arrays, bound)


def area_bound(layers: Sequence[Layer], chip: Chip) -> int:
    """Arrays that hold as many weights, however they are cut."""
    weights = sum(layer.rows * layer.columns for layer in layers)
    return math.ceil(weights / (chip.weight_rows * chip.weight_columns))


def _strips(index: int, layer: Layer, chip: Chip) -> list[Strip]:
    if layer.groups == 1:
        bounds = sorted({(piece.row_start, piece.row_stop) for piece in layer.pieces})
        whole = (Piece(start, stop, 0, layer.columns) for start, stop in bounds)
        return [Strip(index, piece.height, piece.width, ((piece, 0, 0),)) for piece in whole]
    strips = []
    for same in sizes(layer.pieces).values():
        size = layer.pieces_per_array(same[0])
        for start in range(0, len(same), size):
            parts = same[start : start + size]
            height, width = parts[0].height, parts[0].width
            diagonal = tuple((part, place * height, place * width) for place, part in enumerate(parts))
            strips.append(Strip(index, height * len(parts), width * len(parts), diagonal))
    return strips


def _solve(
    heights: npt.NDArray[np.int64], demand: npt.NDArray[np.int64], rows: int
) -> tuple[list[Pattern], npt.NDArray[np.float64]]:
    """Patterns and how often each is used in the linear relaxation: the fewest columns, fractions allowed."""
    from scipy.optimize import linprog  # here: most commands need no solver, and its import takes 0.3 s

    patterns = [tuple(rows // height if i == j else 0 for j in range(len(heights))) for i, height in enumerate(heights)]
    while True:
        matrix = np.array(patterns, np.float64).T
        result = linprog(np.ones(len(patterns)), A_ub=-matrix, b_ub=-demand, method="highs")
        worth = -result.ineqlin.marginals
        value, pattern = _best_pattern(heights, worth, rows)
        if value <= 1 + 1e-7 or pattern in patterns:
            return patterns, result.x
        patterns.append(pattern)


def _best_pattern(heights: npt.NDArray[np.int64], worth: npt.NDArray[np.float64], rows: int) -> tuple[float, Pattern]:
    """The column of most worth: unbounded knapsack by dynamic programming over the rows."""
    best = np.zeros(rows + 1)
    taken = np.full(rows + 1, -1)
    for row in range(1, rows + 1):
        best[row], taken[row] = best[row - 1], -1
        fitting = np.flatnonzero(heights <= row)
        if len(fitting):
            values = best[row - heights[fitting]] + worth[fitting]
            chosen = int(np.argmax(values))
            if values[chosen] > best[row] + 1e-12:
                best[row], taken[row] = values[chosen], fitting[chosen]
    counts, row = [0] * len(heights), rows
    while row > 0:
        if taken[row] < 0:
            row -= 1
        else:
            counts[taken[row]] += 1
            row -= int(heights[taken[row]])
    return float(best[rows]), tuple(counts)


def _round(
    heights: npt.NDArray[np.int64],
    demand: npt.NDArray[np.int64],
    patterns: Sequence[Pattern],
    counts: npt.NDArray[np.float64],
    rows: int,
) -> list[tuple[Pattern, int]]:
    """Whole columns: the relaxation rounded down, and the rest first-fit decreasing. Nothing more than is asked for."""
    left = demand.copy()
    used: list[tuple[Pattern, int]] = []
    for pattern, count in sorted(zip(patterns, counts, strict=True), key=lambda pair: -pair[1]):
        per_column = np.array(pattern)
        times = min(math.floor(count + 1e-6), *(int(left[i] // n) for i, n in enumerate(pattern) if n))
        if times:
            used.append((pattern, times))
            left -= times * per_column
    while left.any():
        # The fullest column of what is left, as often as it is left.
        free, pattern_left = rows, np.zeros(len(heights), np.int64)
        for index, height in enumerate(heights):
            pattern_left[index] = min(free // height, left[index])
            free -= int(pattern_left[index] * height)
        times = int(np.min(left[pattern_left > 0] // pattern_left[pattern_left > 0]))
        used.append((tuple(pattern_left.tolist()), times))
        left -= times * pattern_left
    return used


def _fill(
    strips: Sequence[Strip], heights: Sequence[int], columns: Sequence[tuple[Pattern, int]], layers: int, chip: Chip
) -> tuple[list[tuple[Block, ...]], int]:
    """Lay the strips into the columns of the arrays, left to right."""
    waiting = {height: deque((strip, 0) for strip in strips if strip.height == height) for height in heights}
    blocks: list[list[Block]] = [[] for _ in range(layers)]
    column = 0
    for pattern, count in columns:
        row = 0
        for height, times in zip(heights, pattern, strict=True):
            for _ in range(times):
                _lay(waiting[height], row, column, count, blocks, chip)
                row += height
        column += count
    arrays = -(-column // chip.weight_columns)
    return [tuple(sorted(of_layer)) for of_layer in blocks], arrays


def _lay(
    waiting: deque[tuple[Strip, int]], row: int, column: int, count: int, blocks: list[list[Block]], chip: Chip
) -> None:
    """Lay the next `count` columns of the waiting strips at (row, column), cut where an array or a strip ends."""
    while count:
        strip, done = waiting.popleft()
        array, at = divmod(column, chip.weight_columns)
        width = min(count, strip.width - done, chip.weight_columns - at)
        for piece, down, right in strip.parts:
            start, stop = max(done, right), min(done + width, right + piece.width)
            if start < stop:
                first = piece.column_start + start - right
                part = piece._replace(column_start=first, column_stop=first + stop - start)
                blocks[strip.layer].append(
                    place_piece(part, array, row=row + down, column=at + start - done, chip=chip)
                )
        if done + width < strip.width:
            waiting.appendleft((strip, done + width))
        column, count = column + width, count - width
