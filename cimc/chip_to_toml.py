"""A chip in memory as the TOML text of a chip file."""

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from cimc.chip import Chip


def chip_to_toml(chip: Chip) -> str:
    """TOML text that `cimc.chip.parse_chip` reads back as an equal chip; the sources of its values are not in it."""
    return f"# Written from a chip in memory.\n{_table(chip.model_dump(exclude_none=True))}"


def _table(values: Mapping[str, Any], path: str = "") -> str:
    """The keys of a table, then the tables in it."""
    keys = [f"{key} = {_value(value)}\n" for key, value in values.items() if not isinstance(value, Mapping)]
    tables = {f"{path}{key}": value for key, value in values.items() if isinstance(value, Mapping)}
    return "".join([*keys, *(f"\n[{name}]\n{_table(table, f'{name}.')}" for name, table in tables.items())])


def _value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        # The strings of JSON are those of TOML, but for this character, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(_value, value))}]"
    return repr(value.item() if isinstance(value, np.generic) else value)
