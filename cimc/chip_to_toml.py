"""A chip in memory as the TOML text of a chip file."""

from cimc.chip import Chip
from cimc.toml_text import comment_lines, toml_text


def chip_to_toml(chip: Chip, origin: str = "Written from a chip in memory.") -> str:
    """TOML text that `cimc.chip.parse_chip` reads back as an equal chip; the sources of its values are not in it.

    origin: where the chip comes from, the first line.
    """
    return comment_lines(origin) + toml_text(chip.model_dump(exclude_none=True))
