"""Tables as TOML text."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np


def toml_text(values: Mapping[str, Any], comments: Mapping[str, str] = MappingProxyType({}), path: str = "") -> str:
    """The keys of a table, then the tables in it.

    Args:
        values: what `tomllib` reads back; tuples are lists, and no value is None.
        comments: what stands behind a value, by its dotted key.
        path: of the table, with a dot behind it; empty for the whole file.
    """
    keys = [
        f"{key} = {_value(value)}{_comment(comments.get(f'{path}{key}'))}\n"
        for key, value in values.items()
        if not isinstance(value, Mapping)
    ]
    tables = {f"{path}{key}": value for key, value in values.items() if isinstance(value, Mapping)}
    inner = [f"\n[{name}]\n{toml_text(table, comments, f'{name}.')}" for name, table in tables.items()]
    return "".join([*keys, *inner])


def comment_lines(text: str) -> str:
    """Text of any lines as comments; characters that no TOML comment may hold are left out."""
    return "".join(f"# {line}\n" for line in map(_plain, text.splitlines()))


def _comment(text: str | None) -> str:
    return "" if text is None else f" # {_plain(text)}"


def _plain(text: str) -> str:
    return "".join(character for character in text if character.isprintable())


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # The strings of JSON are those of TOML, but for this character, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value.item() if isinstance(value, np.generic) else value)
