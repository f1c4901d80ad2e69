"""The results of a sweep on disk: one row a point in SQLite, which only grows, and what the sweep was asked for."""

import contextlib
import fcntl
import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cimc.errors import CimcError
from cimc.files import is_temporary, replacing
from cimc.sweep_values import canonical

FORMAT = 1
SPEC, RESULTS, FILES = "sweep.json", "results.sqlite", "files"
DONE = "done"  # in SPEC
LARGEST = 1e100  # of a figure: means, spreads and axes of larger ones are no numbers
_TABLE = """
CREATE TABLE IF NOT EXISTS points (
  number INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE, fields TEXT NOT NULL, seed INTEGER NOT NULL,
  figures TEXT NOT NULL, error TEXT, seconds REAL NOT NULL
);
CREATE TRIGGER IF NOT EXISTS no_change BEFORE UPDATE ON points BEGIN SELECT RAISE(ABORT, 'rows are final'); END;
CREATE TRIGGER IF NOT EXISTS no_removal BEFORE DELETE ON points BEGIN SELECT RAISE(ABORT, 'rows are final'); END;
"""


@dataclass(frozen=True)
class Row:
    """What a point gave. figures: by name; none where it failed: then `error` says why. seconds: that it took."""

    number: int
    fields: Mapping[str, Any]
    seed: int
    figures: Mapping[str, float]
    error: str | None
    seconds: float

    @property
    def key(self) -> str:
        """What makes a point the same one."""
        return point_key(self.fields, self.seed)


def point_key(fields: Mapping[str, Any], seed: int) -> str:
    """One text for the fields and the seed of a point."""
    return canonical([fields, seed])


class Results:
    """The rows in a sweep's folder. Every row is on the disk before the next one is waited for."""

    def __init__(self, folder: Path) -> None:
        self._connection = _connected(folder / RESULTS)

    def add(self, row: Row) -> None:
        """Append a row. Raises CimcError where the disk does not take it."""
        try:
            with self._connection:
                self._connection.execute(
                    "INSERT INTO points VALUES (?, ?, ?, ?, ?, ?, ?)",
                    (
                        row.number,
                        row.key,
                        json.dumps(row.fields),
                        row.seed,
                        json.dumps(row.figures),
                        row.error,
                        row.seconds,
                    ),
                )
        except sqlite3.Error as error:
            raise CimcError(f"cannot write {RESULTS} of the sweep: {error}; the rows before are kept") from None

    def rows(self) -> list[Row]:
        """All rows, by number."""
        return _rows(self._connection)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


def read_rows(folder: Path) -> list[Row]:
    """The rows of a sweep's folder, of one that still runs too. Raises CimcError where there are none to be read."""
    if not (folder / RESULTS).is_file():
        return []
    connection = _connected(folder / RESULTS)
    try:
        return _rows(connection)
    finally:
        connection.close()


def is_sweep(folder: str | Path) -> bool:
    """Whether a folder holds a sweep."""
    return (Path(folder) / SPEC).is_file()


def read_spec(folder: str | Path) -> dict[str, Any]:
    """What the sweep in a folder was asked for. Raises CimcError where there is none."""
    try:
        spec = json.loads((Path(folder) / SPEC).read_text(encoding="utf-8"))
        if spec["format"] != FORMAT:
            raise CimcError(f"{folder} has format {spec['format']}, this version reads {FORMAT}; sweep again")
        _check_spec(spec)
    except OSError:
        raise CimcError(
            f"{folder} holds no sweep; make one with: cimc sweep SOURCE --vary FIELD=VALUES -o FOLDER"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CimcError(f"{folder}/{SPEC} is damaged; sweep into another folder") from None
    return dict(spec)


def _check_spec(spec: Mapping[str, Any]) -> None:
    """Raises KeyError or ValueError where a value that is read has another type than `claimed` and others write."""
    vary, objectives = spec["vary"], spec.get("objectives", [])
    if not (
        isinstance(spec["source"], str)
        and isinstance(spec["points"], int)
        and isinstance(spec.get(DONE, False), bool)
        and isinstance(vary, dict)
        and all(isinstance(values, str | list) for values in vary.values())
        and isinstance(objectives, list)
        and all(isinstance(one, str) for one in objectives)
    ):
        raise ValueError


@contextlib.contextmanager
def claimed(folder: Path, spec: Mapping[str, Any]) -> Iterator[Results]:
    """The results in a folder that is this sweep's alone while it runs; made where it is not there.

    Raises:
        CimcError: the folder holds another sweep or other files, or another process sweeps into it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise CimcError(f"cannot write {folder}: {error.strerror or error}; choose another folder with -o") from None
    try:
        if not is_sweep(folder) and not all(map(is_temporary, folder.iterdir())):
            raise CimcError(f"{folder} holds other files and no sweep; choose another folder with -o")
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise CimcError(f"another process sweeps into {folder}; wait for it, or choose another folder") from None
        stated = json.loads(json.dumps({"format": FORMAT, **spec}))
        if read_rows(folder):  # of a sweep without rows, such as one that was typed wrong, nothing is lost
            held = read_spec(folder)
            stated[DONE] = held.get(DONE, False)
            _require_same(held, stated, folder)
        _write_spec(folder, stated)
        (folder / FILES).mkdir(exist_ok=True)
        results = Results(folder)
        try:
            yield results
        finally:
            results.close()
    finally:
        os.close(handle)


def mark_done(folder: Path) -> None:
    """State that no point of the sweep in a folder is missing: a search asks for some twice, and has fewer rows."""
    _write_spec(folder, {**read_spec(folder), DONE: True})


def discard(folder: Path) -> None:
    """Remove what a sweep without figures has left; compiled and trained files stay for the corrected one."""
    (folder / RESULTS).unlink(missing_ok=True)
    if not any((folder / FILES).iterdir()):
        (folder / FILES).rmdir()
        (folder / SPEC).unlink(missing_ok=True)


def _write_spec(folder: Path, spec: Mapping[str, Any]) -> None:
    with replacing(folder / SPEC) as temporary:
        temporary.write_text(json.dumps(spec, indent=1), encoding="utf-8")


def _require_same(held: Mapping[str, Any], stated: Mapping[str, Any], folder: Path) -> None:
    def flat(spec: Mapping[str, Any]) -> dict[str, Any]:
        fields = {f"vary {field}": values for field, values in spec.get("vary", {}).items()}
        free = ("vary",) if spec.get("search") else ("vary", "objectives")  # of a grid they only say what is shown
        return {**{key: value for key, value in spec.items() if key not in free}, **fields}

    old, new = flat(held), flat(stated)
    differing = [key for key in dict.fromkeys([*new, *old]) if key != DONE and old.get(key) != new.get(key)]
    if not differing and list(held["vary"]) == list(stated["vary"]):
        return
    what = ", ".join(differing) or "the order of the fields"
    raise CimcError(
        f"{folder} holds another sweep ({what} differ); go on with its own, or choose another folder with -o"
    )


def _connected(path: Path) -> sqlite3.Connection:
    try:
        connection = sqlite3.connect(path, timeout=60)
        connection.executescript(_TABLE)
        return connection
    except (sqlite3.Error, UnicodeDecodeError) as error:
        raise CimcError(f"cannot open {path}: {error}; sweep into another folder") from None


def _rows(connection: sqlite3.Connection) -> list[Row]:
    try:
        found = connection.execute(
            "SELECT number, fields, seed, figures, error, seconds FROM points ORDER BY number"
        ).fetchall()
        return [_row(*cells) for cells in found]
    except (sqlite3.Error, ValueError, TypeError, RecursionError) as error:
        raise CimcError(f"the sweep's {RESULTS} is damaged: {error}; sweep into another folder") from None


def _row(number: Any, fields: Any, seed: Any, figures: Any, error: Any, seconds: Any) -> Row:
    """A row from its cells. Raises ValueError or TypeError for what `Results.add` does not write."""
    row = Row(number, json.loads(fields), seed, json.loads(figures), error, seconds)
    if not (
        isinstance(number, int)
        and isinstance(seed, int)
        and isinstance(seconds, int | float)
        and isinstance(error, str | None)
        and isinstance(row.fields, dict)
        and isinstance(row.figures, dict)
        and all(type(one) in (int, float) and abs(one) <= LARGEST for one in row.figures.values())
    ):
        raise ValueError(f"row {number} is none of a sweep")
    return row
