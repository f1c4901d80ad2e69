"""Spans of time as users write them: 1s, 1h, 1d, 1y."""

import math
import re
from collections.abc import Sequence

from cimc.errors import CimcError

LONGEST_S = 1e12
SECONDS = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0, "y": 365.25 * 86400.0}


def parse_time(text: str | float) -> float:
    """A span of time in seconds: a number of them, or a text of a number and a unit.

    Raises:
        CimcError: it is none, or not above 0.
    """
    found = re.fullmatch(rf"\s*([0-9.eE+-]+)\s*({'|'.join(SECONDS)})?\s*", str(text))
    try:
        seconds = float(found[1]) * SECONDS[found[2] or "s"] if found else math.nan
    except ValueError:
        seconds = math.nan
    if not seconds > 0:  # NaN as well
        raise CimcError(f"{text!r} is no span of time; give a number and a unit ({', '.join(SECONDS)}), such as 1h")
    if seconds > LONGEST_S:
        raise CimcError(f"{text!r} is longer than {LONGEST_S:g} s, 30,000 years; give a shorter time")
    return seconds


def parse_times(given: str | Sequence[str | float]) -> tuple[float, ...]:
    """Spans of time in seconds, each once, the shortest first: one text with `,` between, or one by one.

    Raises:
        CimcError: as `parse_time`.
    """
    each = given.split(",") if isinstance(given, str) else given
    return tuple(sorted({parse_time(one) for one in each}))


def time_text(seconds: float) -> str:
    """A span of time in the largest unit of which it is a whole number."""
    for unit, size in reversed(SECONDS.items()):
        if seconds >= size and (seconds / size).is_integer():
            return f"{seconds / size:g}{unit}"
    return f"{seconds:g}s"
