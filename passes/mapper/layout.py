"""Layout: the pieces of all copies of a layer get arrays and places in them, so that nothing must wait."""

from cimc.chip import Chip
from cimc.mapping import Block
from passes.mapper.layers import Layer
from passes.mapper.partition import Piece, sizes


def plain_blocks(layer: Layer, first_array: int) -> tuple[Block, ...]:
    """One copy, numbered from `first_array`: one piece an array, several where they are groups of a convolution."""
    if layer.groups > 1:
        return copied_blocks(layer, 1, first_array)
    return tuple(Block(*piece, first_array + index) for index, piece in enumerate(layer.pieces))


def copied_blocks(layer: Layer, copies: int, first_array: int) -> tuple[Block, ...]:
    """Blocks of `copies` copies, copy by copy; pieces of one size fill arrays along the diagonal.

    Pieces on disjoint rows and disjoint columns are read at once: groups of a convolution (block-diagonal), copies,
    and the small pieces at a matrix's edge. The layer takes `layer.arrays(copies)` arrays.
    """
    blocks: dict[tuple[int, Piece], Block] = {}
    down, right = layer.chip.rows_per_weight, layer.chip.columns_per_weight
    for same in sizes(layer.pieces).values():
        size = layer.pieces_per_array(same[0])
        height, width = same[0].height * down, same[0].width * right
        wanted = [(copy, piece) for copy in range(copies) for piece in same]
        for index, (copy, piece) in enumerate(wanted):
            array, place = divmod(index, size)
            blocks[copy, piece] = Block(*piece, first_array + array, place * height, place * width, copy)
        first_array += -(-len(wanted) // size)
    return tuple(blocks[copy, piece] for copy in range(copies) for piece in layer.pieces)


def place_piece(piece: Piece, array: int, *, row: int, column: int, chip: Chip) -> Block:
    """The block of a piece whose first weight is weight (row, column) of an array."""
    return Block(*piece, array, row * chip.rows_per_weight, column * chip.columns_per_weight)
