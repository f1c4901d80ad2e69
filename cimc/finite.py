"""Figures that are no numbers are told before they reach JSON, a file or a picture."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from cimc.errors import CimcError


def require_finite(figures: Any, source: str, hint: str) -> None:
    """Look through mappings and sequences for numbers that are not finite.

    Args:
        figures: JSON values.
        source: what they are of.
        hint: what to do.

    Raises:
        CimcError: one is not finite; it is named by its dotted path.
    """
    if path := _not_finite(figures):
        raise CimcError(f"{source}: {'.'.join(path)} is no finite number; {hint}")


def _not_finite(figures: Any) -> list[str]:
    """The path of the first number that is not finite; empty: none."""
    if isinstance(figures, Mapping):
        parts = list(figures.items())
    elif isinstance(figures, Sequence) and not isinstance(figures, str | bytes):
        parts = list(enumerate(figures))
    else:
        return []
    for key, value in parts:
        if isinstance(value, float) and not math.isfinite(value):
            return [str(key)]
        if below := _not_finite(value):
            return [str(key), *below]
    return []
