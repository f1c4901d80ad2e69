"""Lay a lowered network out on a chip: some layers digital, rows of small ones repeated, the rest mapped."""

from collections.abc import Mapping as Dictionary
from dataclasses import replace
from typing import TypeVar

import onnx_ir as ir

from cimc.by_layer import ALL
from cimc.chip import Chip
from cimc.mapping import Mapping
from passes.leave_digital import leave_digital
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.repeat_rows import repeat_rows

Numbers = Dictionary[str, int]
T = TypeVar("T")
NAMES_SHOWN = 4


def lay_out(
    lowered: ir.Model, chip: Chip, options: MappingOptions, fill_rows: Numbers, reasons: Dictionary[str, str]
) -> tuple[ir.Model, Mapping]:
    """The network that runs on the chip, and its mapping.

    Args:
        lowered: the network with every layer on arrays once.
        chip: the chip.
        options: of the mapper; numbers and settings of layers that are digital are left out.
        fill_rows: word lines by layer (`repeat_rows`), of digital ones too.
        reasons: why, of every layer that is left digital.

    Raises:
        CimcError: a layer that the network has not, or as `map_network` does.
    """

    def on_arrays(of_layers: Dictionary[str, T]) -> dict[str, T]:
        return {name: value for name, value in of_layers.items() if name not in reasons}

    network = repeat_rows(leave_digital(lowered, reasons), on_arrays(fill_rows))
    options = replace(
        options,
        rows_per_read=on_arrays(options.rows_per_read),
        groups_per_read=on_arrays(options.groups_per_read),
        settings=on_arrays(options.settings),
    )
    return network, map_network(network, chip, options=options)


def note_without_groups(mapping: Mapping, groups_per_read: Numbers) -> tuple[str, ...]:
    """A line for the layers that `groups_per_read` names, or for all of the network, where they have no groups."""
    grouped = {layer.name for layer in mapping.layers if layer.groups > 1}
    idle = [name for name in groups_per_read if name != ALL and name not in grouped]
    if ALL in groups_per_read and not grouped:
        return ("--groups-per-read changes nothing: no layer on arrays is a convolution with groups",)
    if not idle:
        return ()
    shown = ", ".join(idle[:NAMES_SHOWN]) + (", ..." if len(idle) > NAMES_SHOWN else "")
    return (f"--groups-per-read changes nothing for {shown}: only convolutions on arrays have groups",)
