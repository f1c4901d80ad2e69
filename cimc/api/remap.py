"""Remap: the network of a `.cim` file on the chip that it is exported to."""

from collections.abc import Container
from collections.abc import Mapping as Dictionary
from dataclasses import replace
from types import MappingProxyType
from typing import Literal

import onnx_ir as ir

from cimc.artifact import Artifact
from cimc.by_layer import ALL, NOTHING
from cimc.chip import Chip
from cimc.layer_settings import KIND, Settings
from cimc.mapping import Mapping
from passes.crossbar_functions import crossbar_layers
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions

Numbers = Dictionary[str, int]
NAMES_SHOWN = 4


def remap(
    artifact: Artifact,
    network: ir.Model,
    *,
    chip: Chip | None,
    rows_per_read: Numbers = NOTHING,
    groups_per_read: Numbers = NOTHING,
    settings: Dictionary[str, Settings] = MappingProxyType({}),
) -> Mapping:
    """The mapping of the file, or a new one of its network.

    Args:
        artifact: the file.
        network: the file's own, or that with fewer layers on arrays.
        chip: the chip, with one copy of every layer; None: the file's own, with what it was mapped for.
        rows_per_read, groups_per_read: by layer, in place of the file's; "" stands for all others.
        settings: by layer, in place of the file's; those of the file hold on the chip of that name alone.

    Raises:
        CimcError: a layer that the network has not, or as `map_network` does.
    """
    own = artifact.mapping
    if chip is None and network is artifact.network and not rows_per_read and not groups_per_read and not settings:
        return own
    layers = crossbar_layers(network)
    same = chip is None or chip.name == own.chip
    # Of several kinds of arrays, a layer stays on that of the file, the first one too.
    several = bool((artifact.chip if chip is None else chip).kinds)
    stays = [layer for layer in own.layers if (layer.settings or several) and layer.name in layers]
    kept = {layer.name: layer.settings for layer in stays}
    options = MappingOptions(
        input_range=own.input_range,
        rows_per_read=_joined(own, layers, "rows_per_read", rows_per_read),
        groups_per_read=_joined(own, layers, "groups_per_read", groups_per_read),
        settings={**(kept if same else {}), **settings},
    )
    if chip is not None:
        return map_network(network, chip, options=options)
    options = replace(options, row_split=own.row_split)
    if own.result is not None:
        result = own.result
        arrays = None if own.kinds else result.budget
        options = replace(options, objective=result.objective, arrays=arrays, seed=result.seed)
    return map_network(network, artifact.chip, options=options)


def dropped_settings(before: Mapping, after: Mapping) -> str | None:
    """A line for the layers whose settings another chip does not have; None: there are none."""
    names = [layer.name for layer in before.layers if any(one[:2] != KIND for one in layer.settings)]
    if before.chip == after.chip or not names:
        return None
    shown = ", ".join(names[:NAMES_SHOWN]) + (", ..." if len(names) > NAMES_SHOWN else "")
    return (
        f"converters of their own, which {shown} had on {before.chip}, are not taken over to {after.chip}; "
        "say with --options what they are there"
    )


def _joined(
    own: Mapping, layers: Container[str], field: Literal["rows_per_read", "groups_per_read"], given: Numbers
) -> dict[str, int]:
    """The numbers of a mapping for these layers, with those given in their place."""
    kept = {layer.name: getattr(layer, field) for layer in own.layers if layer.name in layers}
    kept = {name: number for name, number in kept.items() if number is not None}
    return {**({} if ALL in given else kept), **given}
