"""Kinds: on which kind of arrays each layer lies, of a chip that has several.

A layer whose settings are given lies where they say, on the first kind where they name none. For every other layer, in
network order, that kind is taken on which one copy takes the fewest cells, of the kinds that still have so many arrays
on one chip; of all kinds, where none has. Of equal ones it is the first in the chip file.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from cimc.chip import Chip
from cimc.layer_settings import Settings, on_kind
from passes.crossbar_functions import crossbar_layers
from passes.mapper.layers import Layer, layers_of
from passes.mapper.options import MappingOptions


def choose_kinds(model: ir.Model, chip: Chip, options: MappingOptions) -> Mapping[str, Settings]:
    """The settings of `options`, with those of every other layer that say which kind it lies on by the rule above."""
    if not chip.kinds:
        return options.settings
    ways: dict[str, list[Layer]] = {}  # all layers on each kind but those whose settings are given
    for kind in chip.sizes:
        settings = {**dict.fromkeys(crossbar_layers(model), on_kind(kind)), **options.settings}
        ways[kind] = layers_of(
            model, chip, options.input_range, options.rows_per_read, options.groups_per_read, settings
        )
    chosen = dict(options.settings)
    left = {kind: chip.of_kind(kind).arrays_per_chip for kind in chip.sizes}
    for layer in ways[""]:
        if layer.name in chosen:
            left[layer.kind] -= plain_arrays(layer)
    for of_layer in zip(*ways.values(), strict=True):
        if of_layer[0].name not in chosen:
            layer = min([way for way in of_layer if plain_arrays(way) <= left[way.kind]] or of_layer, key=cells)
            left[layer.kind] -= plain_arrays(layer)
            chosen[layer.name] = layer.settings
    return chosen


def plain_arrays(layer: Layer) -> int:
    """Arrays of one copy, one block an array (groups block-diagonal)."""
    return len(layer.pieces) if layer.groups == 1 else layer.arrays(1)


def cells(layer: Layer) -> int:
    """Cells of these arrays."""
    array = layer.chip.array
    return plain_arrays(layer) * layer.chip.physical_per_array * array.rows * array.columns


def by_kind(layers: Sequence[Layer]) -> dict[str, list[Layer]]:
    """The layers of each kind, in network order; the kinds as they first come."""
    found: dict[str, list[Layer]] = {}
    for layer in layers:
        found.setdefault(layer.kind, []).append(layer)
    return found
