"""Partition: cut a layer's weight matrix into blocks that fit one array each."""

from typing import Literal

from cimc.chip import Chip
from cimc.mapping import Block


def row_block_size(kernel_size: int, chip: Chip) -> tuple[int, Literal["channel", "flat"]]:
    """Rows of a full row block and the split used.

    `channel` splits on whole input channels (kernel_size rows each), floor(R / kernel_size) channels a block; a channel
    larger than an array falls back to `flat`, which fills every array to its last row.
    """
    rows = chip.array.rows
    if chip.row_split == "flat" or kernel_size > rows:
        return rows, "flat"
    return rows // kernel_size * kernel_size, "channel"


def partition(
    rows: int, columns: int, kernel_size: int, first_array: int, chip: Chip, groups: int = 1
) -> tuple[Block, ...]:
    """Blocks of a rows x columns weight matrix, one array each, numbered from `first_array`, row block by row block.

    A weight takes two adjacent columns (differential pair), so an array holds floor(C / 2) weight columns. Columns of
    different groups have different inputs and never share a block.
    """
    row_step, _ = row_block_size(kernel_size, chip)
    column_step = chip.array.columns // 2
    blocks: list[Block] = []
    width = columns // groups
    for group_start in range(0, columns, width):
        group_stop = group_start + width
        for row in range(0, rows, row_step):
            for column in range(group_start, group_stop, column_step):
                row_stop, column_stop = min(row + row_step, rows), min(column + column_step, group_stop)
                blocks.append(Block(row, row_stop, column, column_stop, first_array + len(blocks)))
    return tuple(blocks)
