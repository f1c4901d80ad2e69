"""Files appear whole or not at all: everything is written to a temporary name and renamed."""

import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cimc.errors import CimcError


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success rename it to `target`, on any error remove it.

    Raises:
        CimcError: the folder is missing or cannot be written, the disk is full, or `target` is a folder.
    """
    target = Path(target)
    if target.is_dir():
        raise CimcError(f"cannot write {target}: it is a folder; give a file name")
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", dir=target.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise CimcError(
            f"cannot write {target}: {error.strerror or error}; check the folder and the free space"
        ) from None
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink(missing_ok=True)


@contextmanager
def replacing_folder(target: Path, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes the place of `target`, on any error it is removed.

    An existing `target` is replaced only when it is empty or `replaceable` says so: no foreign folder is lost.

    Raises:
        CimcError: `target` holds something else, or the place cannot be written.
    """
    place = prepare_folder(target, replaceable)
    temporary: Path | None = None
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{place.name}.", dir=place.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if place.exists():
            old = temporary.with_name(temporary.name + ".old")
            place.rename(old)
            temporary.rename(place)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(place)
    except OSError as error:
        reason = error.strerror or error
        raise CimcError(f"cannot write {target}: {reason}; check the folder and the free space") from None
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def prepare_folder(target: str | Path, replaceable: Callable[[Path], bool]) -> Path:
    """The whole path of a folder to be written; the folders above it are made, so that a long run does not fail there.

    Raises:
        CimcError: as `replacing_folder`.
    """
    place = Path(target).resolve()
    try:
        if place.exists() and not (place.is_dir() and (not any(place.iterdir()) or replaceable(place))):
            raise CimcError(f"cannot write {target}: it exists and is not a package of this tool; choose another name")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise CimcError(f"cannot write {target}: {error.strerror or error}; check the folder") from None
    return place


def require_writable(target: str | Path) -> None:
    """Find out before a long run whether `target` can be written. Raises CimcError as `replacing` does."""
    target = Path(target)
    if target.is_dir():
        raise CimcError(f"cannot write {target}: it is a folder; give a file name")
    try:
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise CimcError(f"cannot write {target}: {error.strerror or error}; check the folder") from None


def require_different(source: str | Path, output: str | Path) -> None:
    """Raises CimcError when `output` is the file `source`, which would be lost."""
    if Path(source).resolve() == Path(output).resolve():
        raise CimcError(f"cannot write {output}: it is the input; choose another name with -o")


def require_outputs(inputs: Iterable[str | Path], outputs: Iterable[str | Path | None]) -> None:
    """Find out before anything is computed whether files can be written, none over an input or another; None: none.

    Raises:
        CimcError: as `require_different` and `require_writable`, or two outputs are one file.
    """
    sources, taken = list(inputs), set()
    for output in outputs:
        if output is None:
            continue
        for source in sources:
            require_different(source, output)
        place = Path(output).resolve()
        if place in taken:
            raise CimcError(f"cannot write {output}: it is another output of this command; choose another name")
        taken.add(place)
        require_writable(output)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
