"""Remap: the network of a `.cim` file on the chip that it is exported to."""

from collections.abc import Mapping as Dictionary
from dataclasses import replace
from typing import Literal

from cimc.artifact import Artifact
from cimc.by_layer import ALL, NOTHING
from cimc.chip import Chip
from cimc.mapping import Mapping
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions

Numbers = Dictionary[str, int]


def remap(
    artifact: Artifact, chip: Chip | None, *, rows_per_read: Numbers = NOTHING, groups_per_read: Numbers = NOTHING
) -> Mapping:
    """The mapping of the file, or a new one of its network.

    Args:
        artifact: the file.
        chip: the chip, with one copy of every layer; None: the file's own, with what it was mapped for.
        rows_per_read, groups_per_read: by layer, in place of the file's; "" stands for all others.

    Raises:
        CimcError: a layer that the network has not, or as `map_network` does.
    """
    own = artifact.mapping
    if chip is None and not rows_per_read and not groups_per_read:
        return own
    options = MappingOptions(
        input_range=own.input_range,
        rows_per_read=_joined(own, "rows_per_read", rows_per_read),
        groups_per_read=_joined(own, "groups_per_read", groups_per_read),
    )
    if chip is not None:
        return map_network(artifact.network, chip, options=options)
    options = replace(options, row_split=own.row_split)
    if own.result is not None:
        result = own.result
        options = replace(options, objective=result.objective, arrays=result.budget, seed=result.seed)
    return map_network(artifact.network, artifact.chip, options=options)


def _joined(own: Mapping, field: Literal["rows_per_read", "groups_per_read"], given: Numbers) -> dict[str, int]:
    """The numbers of a mapping, with those given in their place."""
    kept = {layer.name: number for layer in own.layers if (number := getattr(layer, field)) is not None}
    return {**({} if ALL in given else kept), **given}
