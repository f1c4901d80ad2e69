"""Options of single layers: the tables `[layer.NAME]` of a compile options file, for the layers of a network."""

import difflib
import fnmatch
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cimc.by_layer import MOST_FILLED_ROWS
from cimc.chip import Chip
from cimc.dotted import dotted
from cimc.errors import CimcError
from cimc.layer_settings import SETTABLE_KEYS, Settings, nearest, settings_of
from cimc.options import check_whole

NUMBERS = ("rows_per_read", "groups_per_read", "fill_rows")  # as the options of that name
OF_CHIP = ("array", *SETTABLE_KEYS)  # `array` is the kind of arrays that a layer lies on
KEYS = ("digital", *NUMBERS, *OF_CHIP)
NAMES_SHOWN = 8
SOURCE = "options"  # what errors call tables in memory

Tables = Mapping[str, Any]


@dataclass(frozen=True)
class LayerOptions:
    """What is asked for single layers, by name.

    digital: layers left to the digital side. numbers: by option (`NUMBERS`), of layers on arrays. settings: likewise.
    """

    digital: tuple[str, ...] = ()
    numbers: Mapping[str, Mapping[str, int]] = field(default_factory=lambda: {key: {} for key in NUMBERS})
    settings: Mapping[str, Settings] = field(default_factory=dict)


def layer_options(
    options: str | Path | Tables | None, layers: Collection[str], *, chip: Chip, digital: Mapping[str, str]
) -> LayerOptions:
    """The options of the layers of a network.

    A table is for the layer of its name, or for all layers that its name matches as a pattern (`*`, `?`). A layer's own
    table goes before patterns, and of several patterns the later one, key by key.

    Args:
        options: an options file, or its tables; None: nothing.
        layers: the names of all crossbar layers.
        chip: the chip that they go on.
        digital: layers that are left digital anyway, and why.

    Raises:
        CimcError: the file cannot be read, or a layer, a key or a value is wrong; it is named, with what there is.
    """
    if options is None:
        return LayerOptions()
    source = SOURCE if isinstance(options, Mapping) else f"options file {options}"
    tables = _layer_tables(options if isinstance(options, Mapping) else _read(options), source)
    named = {name: _checked(table, f"{source}: layer.{name}") for name, table in tables.items()}
    for name in named:
        if not _matching(name, layers):
            raise CimcError(
                f"{source}: layer.{name}: no layer of the network has that name, or fits it{_hint(name, layers)}"
            )
    given = {layer: _merged(layer, named) for layer in layers}
    left = [layer for layer, values in given.items() if values.get("digital", False)]
    reasons = {**dict.fromkeys(left, "its digital = true"), **digital}
    for layer in reasons:
        own = next((key for key in named.get(layer, {}) if key != "digital"), None)
        if own is not None:
            raise CimcError(
                f"{source}: layer.{layer} is left digital ({reasons[layer]}), where {own} means nothing; "
                f"leave one of them out"
            )
    on_arrays = {layer: values for layer, values in given.items() if layer not in reasons}
    numbers = {key: {name: values[key] for name, values in on_arrays.items() if key in values} for key in NUMBERS}
    settings = {}
    for layer, values in on_arrays.items():
        # Also where none is left: they are in place of others that the layer had.
        if of_chip := {key: value for key, value in values.items() if key in OF_CHIP}:
            settings[layer] = settings_of(chip, of_chip, f"{source}: layer.{layer}")
    return LayerOptions(tuple(left), numbers, settings)


def layer_key(path: str) -> tuple[str, str]:
    """Layer (or pattern) and key of `NAME.KEY`, such as `conv1.adc.bits`; names may have dots.

    Raises:
        CimcError: it does not end with a key.
    """
    key = next((key for key in KEYS if path.endswith(f".{key}") and len(path) > len(key) + 1), None)
    if key is None:
        raise CimcError(f"{path!r} is not a layer and a key, such as conv1.adc.bits; keys are {', '.join(KEYS)}")
    return path.removesuffix(f".{key}"), key


def _read(path: str | Path) -> Tables:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise CimcError(f"cannot read options file {path}: {error.strerror or error}; check the path") from None
    except (ValueError, RecursionError) as error:
        raise CimcError(f"options file {path} is not valid TOML: {str(error)[:200]}; correct that line") from None


def _layer_tables(tables: Tables, source: str) -> dict[str, Tables]:
    """The tables by layer name or pattern, in the order of the file."""
    unknown = next((key for key in tables if key != "layer"), None)
    if unknown is not None:
        raise CimcError(f"{source}: no key {unknown!r}; it has tables [layer.NAME]")
    layers = tables.get("layer", {})
    if not isinstance(layers, Mapping):
        raise CimcError(f"{source}: layer is {layers!r:.60}; it has tables [layer.NAME]")
    for name, table in layers.items():
        if not isinstance(name, str) or not isinstance(table, Mapping):
            raise CimcError(f"{source}: layer.{name} is {table!r:.60}; write a table [layer.NAME]")
    return dict(layers)


def _checked(table: Tables, where: str) -> dict[str, Any]:
    """The values of a table by dotted key; those of the converters are checked with the chip."""
    values = dotted(table)
    for key, value in values.items():
        if key not in KEYS:
            raise CimcError(f"{where} has no key {key}{nearest(key, KEYS)}")
        if key == "digital" and not isinstance(value, bool):
            raise CimcError(f"{where}: digital is {value!r:.60}; give true or false")
        if key in NUMBERS:
            check_whole(f"{where}: {key}", value, 1, MOST_FILLED_ROWS if key == "fill_rows" else None)
    return values


def _matching(name: str, layers: Collection[str]) -> bool:
    return name in layers or any(fnmatch.fnmatchcase(layer, name) for layer in layers)


def _merged(layer: str, named: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The values of a layer: of the patterns that it matches, and before them its own."""
    values: dict[str, Any] = {}
    for name, table in named.items():
        if name != layer and fnmatch.fnmatchcase(layer, name):
            values |= table
    return {**values, **named.get(layer, {})}


def _hint(name: str, layers: Collection[str]) -> str:
    close = difflib.get_close_matches(name, layers, n=1)
    shown = ", ".join(list(layers)[:NAMES_SHOWN]) + (", ..." if len(layers) > NAMES_SHOWN else "")
    return f"; did you mean {close[0]}?" if close else f"; there are {shown}"
