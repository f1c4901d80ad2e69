"""Files appear whole or not at all: everything is written to a temporary name and renamed."""

import ctypes
import errno
import fcntl
import glob
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cimc.errors import CimcError

_SUFFIX = ".cimc-part"
_KEPT = 40  # characters of the name in that of its temporary file, which else becomes too long
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)

_held: set[Path] = set()  # what this process is writing


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success rename it to `target`, on any error remove it.

    A link is followed. What a killed process left there for a file of that name is removed.

    Raises:
        CimcError: the folder is missing or cannot be written, the disk is full, or `target` is a folder, a device, a
            pipe or read-only.
    """
    place = _file_place(target)
    with _refusing(target), _temporary(place, _made_file) as temporary:
        yield temporary
        temporary.chmod(stat.S_IMODE(place.stat().st_mode) if place.exists() else 0o666 & ~_umask())
        temporary.replace(place)


@contextmanager
def replacing_folder(target: Path, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """Yield a temporary folder beside `target`; on success it takes the place of `target`, on any error it is removed.

    An existing `target` is replaced only when it is empty or `replaceable` says so: no foreign folder is lost.

    Raises:
        CimcError: `target` holds something else, or the place cannot be written.
    """
    place = prepare_folder(target, replaceable)
    with _refusing(target), _temporary(place, _made_folder) as temporary:
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        put_in_place(temporary, place)


@contextmanager
def _refusing(target: Path) -> Iterator[None]:
    """Tell what the operating system refuses as a CimcError about `target`."""
    try:
        yield
    except OSError as error:
        # NumPy tells of a short write without a number: "65536 requested and 16352 written".
        reason = error.strerror or f"{os.strerror(errno.ENOSPC)} ({error})"
        raise CimcError(f"cannot write {target}: {reason}; check the folder and the free space") from None


@contextmanager
def _temporary(place: Path, made: Callable[[str, Path], Path]) -> Iterator[Path]:
    """A new temporary file or folder beside `place`, locked, and gone at the end; so are those that nobody holds."""
    prefix = f".{place.name[:_KEPT]}."
    for left in place.parent.glob(f"{glob.escape(prefix)}*{_SUFFIX}"):
        lock = _locked(left)
        if lock is not None:
            _remove(left)
            os.close(lock)
    lock = None
    for _ in range(3):
        temporary = made(prefix, place.parent)
        lock = _locked(temporary)
        if lock is None or temporary.exists():  # else another process took it for one that nobody holds
            break
        os.close(lock)
    _held.add(temporary)
    try:
        yield temporary
    finally:
        _remove(temporary)
        _held.discard(temporary)
        if lock is not None:
            os.close(lock)


def remove_temporaries() -> None:
    """Remove what this process is writing: its last act where it cannot end in order."""
    for temporary in list(_held):
        _remove(temporary)


def is_temporary(path: Path) -> bool:
    """Whether a file or folder is being written, or was when its process was killed."""
    return path.name.endswith(_SUFFIX)


def _made_file(prefix: str, folder: Path) -> Path:
    handle, name = tempfile.mkstemp(prefix=prefix, suffix=_SUFFIX, dir=folder)
    os.close(handle)
    return Path(name)


def _made_folder(prefix: str, folder: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=folder))


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink(missing_ok=True)


def _locked(path: Path) -> int | None:
    """A descriptor of the file or folder, locked until it is closed or the process ends.

    None: another process holds it, it is gone, or the file system knows no locks (then nothing there is left over).
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return None
    return handle


def put_in_place(folder: Path, place: Path) -> None:
    """Give `folder` the name `place`; what had that name is removed. There is always a whole folder of that name.

    Raises:
        OSError: it cannot be renamed.
    """
    try:
        folder.rename(place)  # nothing is there, or an empty folder
    except OSError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
            raise
        if not _exchanged(folder, place):
            old = folder.with_name(f"{folder.name}.old{_SUFFIX}")
            place.rename(old)
            folder.rename(place)
            _remove(old)


def _exchanged(one: Path, two: Path) -> bool:
    """Swap the names of two folders in one step, where the system can (Linux, most file systems)."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    return bool(rename(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) == 0)


def prepare_folder(target: str | Path, replaceable: Callable[[Path], bool]) -> Path:
    """The whole path of a folder to be written; the folders above it are made, so that a long run does not fail there.

    Raises:
        CimcError: as `replacing_folder`.
    """
    place = Path(os.path.realpath(target))
    try:
        if place.exists() and not (place.is_dir() and (not any(place.iterdir()) or replaceable(place))):
            raise CimcError(f"cannot write {target}: it exists and is not a package of this tool; choose another name")
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=place.parent):
            pass
    except OSError as error:
        raise CimcError(f"cannot write {target}: {error.strerror or error}; check the folder") from None
    return place


def make_folder(target: str | Path) -> Path:
    """The folder, made with those above it where it is not there. Raises CimcError where it cannot be made."""
    with _refusing(Path(target)):
        Path(target).mkdir(parents=True, exist_ok=True)
    return Path(target)


def require_writable(target: str | Path) -> None:
    """Find out before a long run whether `target` can be written. Raises CimcError as `replacing` does."""
    with _refusing(Path(target)), tempfile.TemporaryFile(dir=_file_place(target).parent):
        pass


def _file_place(target: str | Path) -> Path:
    """The file that `target` names, links followed. Raises CimcError for what no file may take the place of."""
    place = Path(os.path.realpath(target))
    if place.is_dir():
        raise CimcError(f"cannot write {target}: it is a folder; give a file name")
    if place.exists() and not place.is_file():
        raise CimcError(f"cannot write {target}: it is a device or a pipe; give a file name")
    if place.exists() and not os.access(place, os.W_OK):
        raise CimcError(f"cannot write {target}: it is read-only; give another name or change its mode")
    return place


def require_different(source: str | Path, output: str | Path) -> None:
    """Raises CimcError when `output` is the file `source`, which would be lost."""
    if Path(source).resolve() == Path(output).resolve():
        raise CimcError(f"cannot write {output}: it is the input; choose another name")


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
