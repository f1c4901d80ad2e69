"""A table of chips as CSV: a row for every chip and time."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cimc.files import replacing


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows with the same names under these names. Raises CimcError where the file cannot be written."""
    with replacing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
