"""Numbers by layer: one for all layers, others for some of them by name; the name "" stands for all that have none."""

import difflib
from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import Any

from cimc.errors import CimcError
from cimc.options import check_whole

ALL = ""
NOTHING: Mapping[str, int] = MappingProxyType({})
NAMES_SHOWN = 8
MOST_FILLED_ROWS = 1 << 16  # weight rows of a layer: beyond it a slip of the keyboard


def check_by_layer(field: str, value: Any, least: int, most: int | None = None) -> Mapping[str, int]:
    """`value`, a number for all layers or a mapping of layer names to numbers, as the latter; None: no numbers.

    Raises:
        CimcError: a number is no whole number from `least` to `most`, or a name no text; `field` is named.
    """
    if value is None:
        return NOTHING
    if not isinstance(value, Mapping):
        return MappingProxyType({ALL: check_whole(field, value, least, most)})
    unnamed = [name for name in value if not isinstance(name, str)]
    if unnamed:
        raise CimcError(f"{field} is for a layer {unnamed[0]!r}; give names of layers, or '' for all others")
    checked = {
        name: check_whole(f"{field} of {name}" if name else field, number, least, most)
        for name, number in value.items()
    }
    return MappingProxyType(checked)


def number_of(layer: str, numbers: Mapping[str, int]) -> int | None:
    """The number of a layer, or that of all others; None where there is neither."""
    return numbers.get(layer, numbers.get(ALL))


def check_layers(field: str, numbers: Mapping[str, int], layers: Collection[str]) -> None:
    """Raise CimcError where a number is for a layer that is not among `layers`."""
    for name in numbers:
        if name != ALL and name not in layers:
            near = difflib.get_close_matches(name, layers, n=1)
            shown = ", ".join(list(layers)[:NAMES_SHOWN]) + (", ..." if len(layers) > NAMES_SHOWN else "")
            hint = f"; did you mean {near[0]}?" if near else ""
            raise CimcError(f"{field} is for {name!r}, which is no crossbar layer of the network ({shown}){hint}")
