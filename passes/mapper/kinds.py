"""Kinds: on which kind of arrays each layer lies, of a chip that has several.

A layer whose settings are given lies where they say, on the first kind where they name none. For every other layer, in
network order, that kind is taken on which one copy takes the fewest cells, of the kinds that still have so many arrays
on one chip; of all kinds, where none has. Of equal ones it is the first in the chip file.
"""

from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING

from cimc.chip import Chip
from cimc.layer_settings import Settings, on_kind

if TYPE_CHECKING:
    from passes.mapper.layers import Layer


def choose_kinds(
    layers: "Sequence[Layer]", chip: Chip, given: Container[str], layer_on: "Callable[[str, Settings], Layer]"
) -> "list[Layer]":
    """The layers, each on the kind of arrays that the rule above gives.

    Args:
        layers: as their settings have them, in network order.
        chip: the chip.
        given: names of those whose kind is not to be chosen.
        layer_on: the layer of that name with these settings.
    """
    left = {kind: chip.of_kind(kind).arrays_per_chip for kind in chip.sizes}
    for layer in layers:
        if layer.name in given:
            left[layer.kind] -= plain_arrays(layer)
    chosen = []
    for layer in layers:
        taken = layer
        if layer.name not in given:
            ways = [layer_on(layer.name, on_kind(kind)) for kind in left]
            taken = min([way for way in ways if plain_arrays(way) <= left[way.kind]] or ways, key=cells)
            left[taken.kind] -= plain_arrays(taken)
        chosen.append(taken)
    return chosen


def plain_arrays(layer: "Layer") -> int:
    """Arrays of one copy, one block an array (groups block-diagonal)."""
    return len(layer.pieces) if layer.groups == 1 else layer.arrays(1)


def cells(layer: "Layer") -> int:
    """Cells of these arrays."""
    array = layer.chip.array
    return plain_arrays(layer) * layer.chip.physical_per_array * array.rows * array.columns


def by_kind(layers: "Sequence[Layer]") -> "dict[str, list[Layer]]":
    """The layers of each kind, in network order; the kinds as they first come."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.kind, []).append(layer)
    return found
