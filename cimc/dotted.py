"""Nested tables as one, with dots in its keys."""

from collections.abc import Mapping
from typing import Any


def dotted(tables: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The values of a table and of all tables in it, by their dotted keys, each after `prefix`."""
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        flat |= dotted(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
