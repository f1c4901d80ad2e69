"""What `soak.py` asks of a sweep's folder: its rows are those of an undisturbed sweep, each computed once."""

import json
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

RESULTS, SPEC = "results.sqlite", "sweep.json"
Rows = Mapping[int, tuple[Any, ...]]  # by number: key, seed, figures, error, and the seconds that it took


def rows_of(folder: Path) -> Rows:
    """The rows of a sweep's folder, read from a copy: what a kill left of a transaction is the next run's to mend.

    Raises:
        sqlite3.Error: the table is damaged.
        AssertionError: a number or a key is there twice.
    """
    with tempfile.TemporaryDirectory() as copy:
        for file in folder.glob(f"{RESULTS}*"):
            shutil.copy(file, copy)
        if not (Path(copy) / RESULTS).exists():
            return {}
        with closing(sqlite3.connect(Path(copy) / RESULTS)) as connection:
            (checked,) = connection.execute("PRAGMA integrity_check").fetchone()
            if checked != "ok":
                raise sqlite3.DatabaseError(checked)
            if not connection.execute("SELECT name FROM sqlite_master WHERE name = 'points'").fetchall():
                return {}
            found = connection.execute("SELECT number, key, seed, figures, error, seconds FROM points").fetchall()
    assert len({row[0] for row in found}) == len({row[1] for row in found}) == len(found), "a point is there twice"
    return {row[0]: row[1:] for row in found}


def without_times(rows: Rows) -> dict[int, tuple[Any, ...]]:
    """The rows without the seconds that they took."""
    return {number: row[:-1] for number, row in sorted(rows.items())}


def wrong_rows(before: Rows, folder: Path, wanted: Rows) -> str:
    """Empty, or what is wrong with a sweep's folder after an attempt that found the rows `before`.

    A row that was there is there with the seconds that it took: it was kept, not computed again.
    """
    try:
        after = rows_of(folder)
        if (folder / SPEC).exists():
            json.loads((folder / SPEC).read_text())
    except (sqlite3.Error, AssertionError, ValueError) as error:
        return f"the folder is damaged: {error}"
    if lost := [number for number, row in before.items() if after.get(number) != row]:
        return f"rows {lost} are gone or were computed again"
    if other := [number for number, row in without_times(after).items() if without_times(wanted).get(number) != row]:
        return f"rows {other} are not those of an undisturbed sweep"
    return ""
