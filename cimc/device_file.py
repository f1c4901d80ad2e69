"""Device descriptions: one TOML file a device, the keys of `[cell]` with a name and a line of description.

A chip names one, `[cell] device = "pcm-nandakumar"`, and its own keys of `[cell]` go before the device's.
"""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import Field, ValidationError

from cimc.chip_cell import Cell
from cimc.errors import CimcError
from cimc.explain_invalid import explain_invalid
from cimc.named_text import named_text
from cimc.plugins import plugins

DEVICES_FOLDER = Path(__file__).parent / "devices"


class DeviceFile(Cell):
    """A device file: what `[cell]` of a chip holds, and whose it is."""

    name: str = Field(min_length=1, description="name of the device, as tables show it")
    description: str = Field(description="the device in one line, with its source")


def device_names() -> list[str]:
    """Names of the built-in devices, sorted, then of those of plug-ins. Raises CimcError as `plugins` does."""
    return [*sorted(_built_in()), *_plugged_in()]


def device_text(name_or_path: str | Path, folder: Path | None = None) -> str:
    """The TOML text of a device: built in, of a plug-in, or in a file; a `Path` is always a file.

    Args:
        name_or_path: name, or path.
        folder: that relative paths start from; None: the working directory.

    Raises:
        CimcError: no such device or file, or not readable as text.
    """
    name = str(name_or_path)
    is_path = isinstance(name_or_path, Path) or name.endswith(".toml") or "/" in name
    file = (folder or Path()) / name if is_path else None
    # Plug-ins are looked for only where nothing else has the name.
    plugged_in = {} if is_path or name in _built_in() else _plugged_in()
    return named_text(name, file, kind="device", folder=DEVICES_FOLDER, built_in=_built_in(), plugged_in=plugged_in)


def parse_device(text: str, source: str) -> DeviceFile:
    """Check a device description and return it. `source` names it in errors.

    Raises:
        CimcError: not TOML, an unknown or missing key, a wrong unit, or a value out of range; the first one is named.
    """
    try:
        return DeviceFile.model_validate(_table(text, source))
    except ValidationError as error:
        raise CimcError(f"device file {source}: {explain_invalid(error, DeviceFile)}") from None


def load_device(name_or_path: str | Path) -> DeviceFile:
    """The device of that name, or in that file. Raises CimcError as `device_text` and `parse_device` do."""
    return parse_device(device_text(name_or_path), str(name_or_path))


def with_device(chip: Mapping[str, Any], source: str) -> dict[str, Any]:
    """The tables of a chip with the device that its `[cell]` names written out, where it names one.

    Args:
        chip: as TOML has it.
        source: of the chip; a relative path of a device starts from its folder.

    Raises:
        CimcError: as `device_text` and `parse_device`.
    """
    cell = chip.get("cell")
    if not isinstance(cell, Mapping) or "device" not in cell:
        return dict(chip)
    named = cell["device"]
    if not isinstance(named, str):
        raise CimcError(f"chip file {source}: cell.device is {named!r:.60}; give the name of a device, or a path")
    text = device_text(named, Path(source).parent if Path(source).is_file() else None)
    parse_device(text, named)  # an error in the device is told as the device's
    device = {key: value for key, value in _table(text, named).items() if key not in ("name", "description")}
    own = {key: value for key, value in cell.items() if key != "device"}
    return {**chip, "cell": merged(device, own)}


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Tables with the keys of others before theirs; a pulse of another law replaces the whole of one."""
    tables = dict(below)
    for key, value in above.items():
        old = below.get(key)
        if (
            isinstance(value, Mapping)
            and isinstance(old, Mapping)
            and value.get("law", old.get("law")) == old.get("law")
        ):
            tables[key] = merged(old, value)
        else:
            tables[key] = value
    return tables


def _table(text: str, source: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # TOML's own errors, numbers of thousands of digits, deep nesting
        raise CimcError(f"device file {source} is not valid TOML: {str(error)[:200]}; correct that line") from None


def _built_in() -> frozenset[str]:
    return frozenset(path.stem for path in DEVICES_FOLDER.glob("*.toml"))


def _plugged_in() -> dict[str, Any]:
    """The path of a TOML file, or its text, by device name."""
    return plugins("cimc.devices", built_in=_built_in())
