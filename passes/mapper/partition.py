"""Partition: cut a layer's weight matrix into pieces that fit one array each. All sizes in weights, not in cells."""

from collections.abc import Sequence
from typing import NamedTuple

from cimc.chip import Chip
from cimc.options import RowSplit


class Piece(NamedTuple):
    """A part of a weight matrix that goes into one array: its rows and its columns."""

    row_start: int
    row_stop: int
    column_start: int
    column_stop: int

    @property
    def height(self) -> int:
        """Weight rows."""
        return self.row_stop - self.row_start

    @property
    def width(self) -> int:
        """Weight columns."""
        return self.column_stop - self.column_start


def row_block_size(kernel_size: int, chip: Chip) -> tuple[int, RowSplit]:
    """Rows of a full row block and the split used.

    `channel` splits on whole input channels (kernel_size rows each), floor(R / kernel_size) channels a block; a channel
    larger than an array falls back to `flat`, which fills every array to its last row.
    """
    rows = chip.weight_rows
    if chip.row_split == "flat" or kernel_size > rows:
        return rows, RowSplit.flat
    return rows // kernel_size * kernel_size, RowSplit.channel


def partition(rows: int, columns: int, *, kernel_size: int, chip: Chip, groups: int = 1) -> tuple[Piece, ...]:
    """Pieces of a rows x columns weight matrix, group by group, row block by row block.

    An array takes `chip.weight_rows` x `chip.weight_columns` weights. Columns of different groups have different inputs
    and never share a piece.
    """
    row_step, _ = row_block_size(kernel_size, chip)
    width = columns // groups
    return tuple(
        Piece(row, min(row + row_step, rows), column, min(column + chip.weight_columns, group_start + width))
        for group_start in range(0, columns, width)
        for row in range(0, rows, row_step)
        for column in range(group_start, group_start + width, chip.weight_columns)
    )


def pieces_at_once(piece: Piece, chip: Chip) -> int:
    """How many pieces of that size one array takes on disjoint rows and disjoint columns, so that all are read at once.

    In a read every driven row reaches every column; so pieces with different inputs may share neither.
    """
    return min(chip.weight_rows // piece.height, chip.weight_columns // piece.width)


def sizes(pieces: Sequence[Piece]) -> dict[tuple[int, int], list[Piece]]:
    """The pieces by (height, width)."""
    by_size: dict[tuple[int, int], list[Piece]] = {}
    for piece in pieces:
        by_size.setdefault((piece.height, piece.width), []).append(piece)
    return by_size
