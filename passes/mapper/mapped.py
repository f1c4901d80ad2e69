"""Mapped layers: every layer with its blocks, for the three ways to lay a network out."""

from collections.abc import Mapping, Sequence

from cimc.chip import Chip
from cimc.mapping import Block, MappedLayer
from passes.mapper.layers import Layer
from passes.mapper.layout import copied_blocks, plain_blocks
from passes.mapper.pack import pack


def mapped(layer: Layer, blocks: tuple[Block, ...], copies: int = 1) -> MappedLayer:
    """The layer on its blocks."""
    return MappedLayer(
        name=layer.name,
        operator=layer.operator,
        rows=layer.rows,
        columns=layer.columns,
        kernel_size=layer.kernel_size,
        groups=layer.groups,
        positions=layer.positions,
        signed_input=layer.signed_input,
        row_split=layer.row_split,
        blocks=blocks,
        copies=copies,
    )


def plain(layers: Sequence[Layer]) -> list[MappedLayer]:
    """One copy each, one block an array (groups block-diagonal), in network order."""
    result = []
    first = 0
    for layer in layers:
        result.append(mapped(layer, plain_blocks(layer, first)))
        first = 1 + max(block.array for block in result[-1].blocks)
    return result


def packed(layers: Sequence[Layer], chip: Chip) -> list[MappedLayer]:
    """One copy each in the fewest arrays, several layers in one."""
    return [mapped(layer, blocks) for layer, blocks in zip(layers, pack(layers, chip).blocks, strict=True)]


def partly_packed(layers: Sequence[Layer], chip: Chip, alone: int) -> list[MappedLayer]:
    """One copy each: the `alone` layers with the most reads in arrays of their own, the others packed together."""
    by_reads = sorted(layers, key=lambda layer: -layer.reads(1))
    own = {layer.name: laid for layer, laid in zip(by_reads[:alone], plain(by_reads[:alone]), strict=True)}
    first = 1 + max((block.array for laid in own.values() for block in laid.blocks), default=-1)
    others = [layer for layer in layers if layer.name not in own]
    for layer, laid in zip(others, packed(others, chip) if others else [], strict=True):
        blocks = tuple(block._replace(array=block.array + first) for block in laid.blocks)
        own[layer.name] = laid.model_copy(update={"blocks": blocks})
    return [own[layer.name] for layer in layers]


def copied(layers: Sequence[Layer], copies: Mapping[str, int]) -> list[MappedLayer]:
    """That many copies of each layer, every array for one layer."""
    result = []
    first = 0
    for layer in layers:
        count = copies[layer.name]
        result.append(mapped(layer, copied_blocks(layer, count, first), count))
        first += layer.arrays(count)
    return result
