"""Lay a lowered network out on a chip: some layers digital, rows of small ones repeated, the rest mapped."""

from collections.abc import Mapping as Dictionary
from dataclasses import replace

import onnx_ir as ir

from cimc.by_layer import ALL
from cimc.chip import Chip
from cimc.mapping import Mapping
from passes.leave_digital import leave_digital
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.repeat_rows import repeat_rows

Numbers = Dictionary[str, int]
NAMES_SHOWN = 4


def lay_out(
    lowered: ir.Model, chip: Chip, options: MappingOptions, fill_rows: Numbers, reasons: Dictionary[str, str]
) -> tuple[ir.Model, Mapping]:
    """The network that runs on the chip, and its mapping.

    Args:
        lowered: the network with every layer on arrays once.
        chip: the chip.
        options: of the mapper; numbers of layers that are digital are left out.
        fill_rows: word lines by layer (`repeat_rows`), of digital ones too.
        reasons: why, of every layer that is left digital.

    Raises:
        CimcError: a layer that the network has not, or as `map_network` does.
    """

    def on_arrays(numbers: Numbers) -> Numbers:
        return {name: number for name, number in numbers.items() if name not in reasons}

    network = repeat_rows(leave_digital(lowered, reasons), chip, on_arrays(fill_rows))
    rows, groups = on_arrays(options.rows_per_read), on_arrays(options.groups_per_read)
    return network, map_network(network, chip, options=replace(options, rows_per_read=rows, groups_per_read=groups))


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
