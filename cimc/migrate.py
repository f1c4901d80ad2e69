"""Chip texts of earlier `.cim` files and packages, in the words of now."""

import re
import sys
import tomllib
from itertools import islice
from typing import Any

from cimc.errors import CimcError

# Keys of [cell] that came with the present meaning of levels: a text that has one of them has that meaning.
_LATER = frozenset({"granularity_uS", "level_uS", "limits_uS"})
_LEVELS = re.compile(r"""(["']?)\blevels\1(?P<equals>[ \t]*=[ \t]*)[+\w]+""")
_MOST_PLACES = 20  # where a text is tried, comments and strings that look like the key among them
_MOST_LEVELS = 1 << 16


def with_granularity(text: str, source: str) -> str:
    """A chip text written when `[cell] levels = N` set the update step alone, with that step as `granularity_uS`.

    The key and its value are replaced where they stand, by (G_max - G_min) / (N - 1); all else, comments and spacing
    too, stays as it is. The devices of such a file could hold any conductance within the window and still can.

    Unchanged is a text without levels: its continuous devices were due for a write at every update (a threshold of 0),
    and now are at the default step that `Cell.granularity_uS` states. So is one with a key that earlier versions did
    not know, and one that is no valid chip, which `parse_chip` then says.

    Args:
        text: TOML.
        source: names the text in errors.

    Raises:
        CimcError: the key is written in a way that cannot be replaced, such as with an escaped letter.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return text
    step = _step_uS(data.get("cell"))
    if step is None:
        return text
    cell = {key: value for key, value in data["cell"].items() if key != "levels"} | {"granularity_uS": step}
    for place in islice(_LEVELS.finditer(text), _MOST_PLACES):
        changed = f"{text[: place.start()]}granularity_uS{place['equals']}{step!r}{text[place.end() :]}"
        if _says(changed, {**data, "cell": cell}):
            return changed
    raise CimcError(
        f"chip file {source}: cell.levels is of an earlier version and cannot be rewritten; compile or export again "
        f"with granularity_uS = {step!r} in its place"
    )


def _step_uS(cell: Any) -> float | None:
    """The step that levels of a [cell] meant; None: it has none, or is not valid."""
    if not isinstance(cell, dict) or not _LATER.isdisjoint(cell):
        return None
    levels, low, high = (cell.get(key) for key in ("levels", "conductance_min_uS", "conductance_max_uS"))
    if not (isinstance(levels, int) and isinstance(low, int | float) and isinstance(high, int | float)):
        return None
    if not (2 <= levels <= _MOST_LEVELS and 0 <= low < high <= sys.float_info.max):
        return None
    return (float(high) - float(low)) / (levels - 1)


def _says(text: str, wanted: dict[str, Any]) -> bool:
    try:
        return tomllib.loads(text) == wanted
    except tomllib.TOMLDecodeError:
        return False
