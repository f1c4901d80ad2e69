"""No command writes over what it was given to read."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from typer.core import TyperCommand

from cimc.errors import CimcError
from cimc.files import require_different

OUTPUTS = ("output", "csv")  # parameters of commands that name what is written
MANIFEST = "manifest.json"  # of a package, which is sealed


class KeepsInputs(TyperCommand):
    """A command whose outputs are none of its inputs, and lie in no package and no folder of dies that it reads."""

    def invoke(self, ctx: Any) -> Any:
        """Look at the paths before anything is read. Raises CimcError where an input would be lost."""
        given = [(name, one) for name, value in ctx.params.items() for one in _listed(value)]
        inputs = [(name, Path(one)) for name, one in given if name not in OUTPUTS and _is_read(one)]
        for output in (one for name, one in given if name in OUTPUTS and isinstance(one, Path)):
            for name, source in inputs:
                _keep(name, source, output)
        return super().invoke(ctx)


def _listed(value: Any) -> Sequence[Any]:
    """The values of a parameter."""
    return value if isinstance(value, list | tuple) else [value]


def _is_read(value: Any) -> bool:
    """Whether a value names a file or a folder; a text, which may be a name such as hermes, counts as a file alone."""
    try:
        return value.exists() if isinstance(value, Path) else isinstance(value, str) and Path(value).is_file()
    except (OSError, ValueError):  # too long for a name: it is none
        return False


def _keep(name: str, source: Path, output: Path) -> None:
    """Raises CimcError where the output is the input of that name, or lies in it where nothing else may."""
    require_different(source, output)
    read = source.resolve()
    if read in output.resolve().parents and (name == "dies" or (read / MANIFEST).is_file()):
        what = "among the dies that are read" if name == "dies" else "in the package that is read"
        raise CimcError(f"cannot write {output}: it lies {what}; choose another place")
