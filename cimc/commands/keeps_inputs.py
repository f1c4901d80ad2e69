"""No command writes over what it was given to read."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from cimc.errors import CimcError

OUTPUTS = ("output", "csv", "picture")  # parameters of commands that name what is written
MANIFEST = "manifest.json"  # of a package, which is sealed


class KeepsInputs(TyperCommand):
    """A command whose outputs are none of its inputs, and lie in no package and no folder of dies that it reads."""

    def invoke(self, ctx: Any) -> Any:
        """Look at the paths before anything is read. Raises CimcError where an input would be lost."""
        inputs = [(name, path) for name, value in ctx.params.items() if name not in OUTPUTS for path in _paths(value)]
        for output in (path for name in OUTPUTS for path in _paths(ctx.params.get(name), there=False)):
            for name, source in inputs:
                _keep(name, source, output)
        return super().invoke(ctx)


def _paths(value: Any, *, there: bool = True) -> Iterator[Path]:
    """The paths among the values of a parameter; there: of files and folders that exist."""
    for one in value if isinstance(value, list | tuple) else [value]:
        if isinstance(one, str | Path):
            try:
                if not there or Path(one).exists():
                    yield Path(one)
            except (OSError, ValueError):  # too long for a name: it is none
                continue


def _keep(name: str, source: Path, output: Path) -> None:
    """Raises CimcError where the output is the input of that name, or lies in it where nothing else may."""
    read, written = source.resolve(), output.resolve()
    if read == written:
        raise CimcError(f"cannot write {output}: it is the input; choose another name")
    if read in written.parents and (name == "dies" or (read / MANIFEST).is_file()):
        what = "among the dies that are read" if name == "dies" else "in the package that is read"
        raise CimcError(f"cannot write {output}: it lies {what}; choose another place")
