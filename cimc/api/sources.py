"""What a caller may hand in: a `.cim` file by its path or in memory, a chip by its name, its path or in memory."""

from pathlib import Path

from cimc.artifact import Artifact, read_artifact
from cimc.chip import Chip, chip_text, parse_chip
from cimc.chip_to_toml import chip_to_toml


def artifact_of(source: str | Path | Artifact) -> tuple[Artifact, str]:
    """The contents of a `.cim` file, and what errors call it. Raises CimcError as `read_artifact` does."""
    if isinstance(source, Artifact):
        return source, source.model
    return read_artifact(source), str(source)


def chip_of(chip: str | Path | Chip) -> tuple[Chip, str]:
    """The chip and the text of its file. Raises CimcError as `chip_text` and `parse_chip` do.

    A chip in memory is checked as a file is: `model_copy` may have put anything into it.
    """
    text = chip_to_toml(chip) if isinstance(chip, Chip) else chip_text(chip)
    return parse_chip(text, f"of {chip.name}" if isinstance(chip, Chip) else str(chip)), text
