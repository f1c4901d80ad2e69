"""What a caller may hand in: a `.cim` file by its path or in memory, a chip by its name, its path or in memory."""

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from cimc.artifact import Artifact, read_artifact
from cimc.chip import Chip, chip_text, parse_chip
from cimc.chip_to_toml import chip_to_toml
from cimc.dataset import Dataset
from cimc.errors import CimcError


class HasArtifact(Protocol):
    """What `compile` or `train` gave."""

    @property
    def artifact(self) -> Artifact:
        """What the `.cim` file holds."""


Source = str | Path | Artifact | HasArtifact


def artifact_of(source: Source) -> tuple[Artifact, str]:
    """The contents of a `.cim` file, and what errors call it. Raises CimcError as `read_artifact` does."""
    if isinstance(source, str | Path):
        return read_artifact(source), str(source)
    artifact = source if isinstance(source, Artifact) else getattr(source, "artifact", None)
    if not isinstance(artifact, Artifact):
        raise CimcError(
            f"a {type(source).__name__} was given for a .cim file; give its path, or what compile or train gave"
        )
    return artifact, artifact.model


def require_data(data: object, name: str = "the data") -> None:
    """Raises CimcError, with what the argument is called: it is no data set, such as its name or a table."""
    if not isinstance(data, Dataset):
        given = "nothing" if data is None else f"a {type(data).__name__}"
        raise CimcError(f"{given} was given for {name}; give what cimc.load_data gives")


def chip_of(
    chip: str | Path | Chip,
    device: str | Path | None = None,
    *,
    settings: Mapping[str, Any] = MappingProxyType({}),
) -> tuple[Chip, str]:
    """The chip, and a text that stands alone: its file, or where that names a device, all values with the device's.

    A chip in memory is checked as a file is: `model_copy` may have put anything into it.

    Args:
        chip: name, path, or a chip in memory.
        device: name or path of a device in place of the chip's; see `cimc.chip.parse_chip`.
        settings: further values; likewise.

    Raises:
        CimcError: as `chip_text` and `parse_chip`.
    """
    text = chip_to_toml(chip) if isinstance(chip, Chip) else chip_text(chip)
    described = parse_chip(
        text, f"of {chip.name}" if isinstance(chip, Chip) else str(chip), device=device, settings=settings
    )
    named = device or settings.get("cell", {}).get("device") or tomllib.loads(text)["cell"].get("device")
    if named is None and not settings:
        return described, text
    origin = [f"Chip {described.name}"]
    if named is not None:
        origin.append(f"with the device {named}")
    if settings:
        origin.append(f"with {', '.join(sorted(_keys(settings)))} set")
    return described, chip_to_toml(described, f"{', '.join(origin)}; the sources of values stand in their files.")


def _keys(tables: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """The dotted keys of all values but that of the device."""
    for key, value in tables.items():
        if isinstance(value, Mapping):
            yield from _keys(value, f"{path}{key}.")
        elif f"{path}{key}" != "cell.device":
            yield f"{path}{key}"
