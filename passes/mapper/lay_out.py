"""Lay out: every layer with its blocks, for the three ways to lay a network out."""

from collections.abc import Mapping, Sequence

from cimc.chip import Chip
from cimc.mapping import Block, LayerShape, MappedLayer
from passes.mapper.layers import Layer
from passes.mapper.layout import copied_blocks, plain_blocks
from passes.mapper.pack import pack


def on_blocks(layer: Layer, blocks: tuple[Block, ...], *, copies: int = 1) -> MappedLayer:
    """The layer on its blocks."""
    shape = {name: getattr(layer, name) for name in LayerShape.model_fields}
    return MappedLayer(**shape, blocks=blocks, copies=copies)


def lay_out_plain(layers: Sequence[Layer]) -> list[MappedLayer]:
    """One copy each, one block an array (groups block-diagonal), in network order."""
    result = []
    first = 0
    for layer in layers:
        result.append(on_blocks(layer, plain_blocks(layer, first)))
        first = 1 + max(block.array for block in result[-1].blocks)
    return result


def lay_out_packed(layers: Sequence[Layer], chip: Chip) -> list[MappedLayer]:
    """One copy each in the fewest arrays, several layers in one."""
    return [on_blocks(layer, blocks) for layer, blocks in zip(layers, pack(layers, chip).blocks, strict=True)]


def lay_out_partly_packed(layers: Sequence[Layer], chip: Chip, *, alone: int) -> list[MappedLayer]:
    """One copy each: the `alone` layers that are read longest in arrays of their own, the others packed together."""
    slowest = sorted(layers, key=lambda layer: -layer.units(1))[:alone]
    own = {layer.name: laid for layer, laid in zip(slowest, lay_out_plain(slowest), strict=True)}
    first = 1 + max((block.array for laid in own.values() for block in laid.blocks), default=-1)
    others = [layer for layer in layers if layer.name not in own]
    for layer, laid in zip(others, lay_out_packed(others, chip) if others else [], strict=True):
        blocks = tuple(block._replace(array=block.array + first) for block in laid.blocks)
        own[layer.name] = laid.model_copy(update={"blocks": blocks})
    return [own[layer.name] for layer in layers]


def lay_out_copies(layers: Sequence[Layer], copies: Mapping[str, int]) -> list[MappedLayer]:
    """That many copies of each layer, every array for one layer."""
    result = []
    first = 0
    for layer in layers:
        count = copies[layer.name]
        result.append(on_blocks(layer, copied_blocks(layer, count, first), copies=count))
        first += layer.arrays(count)
    return result
