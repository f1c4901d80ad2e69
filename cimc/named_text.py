"""The TOML text of a description by its name: built in, of a plug-in, or in a file."""

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cimc.errors import CimcError


def named_text(
    name: str,
    file: Path | None,
    *,
    kind: str,
    folder: Path,
    built_in: Collection[str],
    plugged_in: Mapping[str, Any],
) -> str:
    """The text of a chip or a device.

    Args:
        name: as the user gave it.
        file: where it names a file, that file; None: it is a name.
        kind: chip or device, as errors call it.
        folder: of the built-in ones, NAME.toml each.
        built_in: their names.
        plugged_in: path or text of those of plug-ins, by name.

    Raises:
        CimcError: no such name or file, or not readable as text.
    """
    path = file or folder / f"{name}.toml"
    if file is None and name not in built_in:
        if name not in plugged_in:
            known = [*sorted(built_in), *plugged_in]
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else "give the path of a .toml file"
            raise CimcError(f"unknown {kind} {name!r}; known are {', '.join(known)}; {hint}")
        given = plugged_in[name]
        if not isinstance(given, str | Path):
            raise CimcError(f"the plug-in of {kind} {name!r} gives {given!r:.60}, not a path or TOML text; mend it")
        if "\n" in str(given):
            return str(given)
        path = Path(given)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise CimcError(f"cannot read {kind} file {path}: {reason}; check the path") from None
