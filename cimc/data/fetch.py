"""Download of public data sets with their checksums; nothing else in cimc uses a network."""

import hashlib
import http.client
import os
import shutil
import tarfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

from cimc.data.load import places
from cimc.errors import CimcError
from cimc.files import replacing

MIRROR = "CIMC_MIRROR"  # the address of a folder that holds the files, in place of the public ones
TIMEOUT_S = 30
CHUNK = 1 << 16


class Remote(NamedTuple):
    """A file of a set: its name, SHA-256 and bytes. members: of an archive, the files that are taken out of it."""

    name: str
    sha256: str
    size: int
    members: tuple[str, ...] = ()


class Source(NamedTuple):
    """Where a set comes from: the addresses of folders, tried in turn, and its files."""

    folders: tuple[str, ...]
    files: tuple[Remote, ...]


_BATCHES = (*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin")
SOURCES = {
    "mnist": Source(
        ("https://ossci-datasets.s3.amazonaws.com/mnist", "https://storage.googleapis.com/cvdf-datasets/mnist"),
        (
            Remote(
                "train-images-idx3-ubyte.gz",
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                9_912_422,
            ),
            Remote(
                "train-labels-idx1-ubyte.gz",
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                28_881,
            ),
            Remote(
                "t10k-images-idx3-ubyte.gz",
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                1_648_877,
            ),
            Remote(
                "t10k-labels-idx1-ubyte.gz",
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                4_542,
            ),
        ),
    ),
    "cifar10": Source(
        ("https://www.cs.toronto.edu/~kriz",),
        (
            Remote(
                "cifar-10-binary.tar.gz",
                "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
                170_052_171,
                _BATCHES,
            ),
        ),
    ),
}


def fetch(name: str, data_dir: Path | None = None, *, progress: Callable[[int, int], None]) -> Path:
    """Download a data set to where `--data` finds it; files that are there and whole are not fetched again.

    Args:
        name: one of `SOURCES`.
        data_dir: the folder in which a folder of that name is made; None: `$CIMC_DATA`, else the user's cache.
        progress: called with the bytes that are there, of how many.

    Returns:
        The folder.

    Raises:
        CimcError: no such set, no network, what came has another checksum, or the folder cannot be written.
    """
    if name not in SOURCES:
        raise CimcError(f"data set {name!r} cannot be fetched; choose {' or '.join(SOURCES)}")
    source = SOURCES[name]
    mirror = os.environ.get(MIRROR)
    folders = (mirror.rstrip("/"),) if mirror else source.folders
    folder = places(data_dir)[0] / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CimcError(f"cannot create {folder}: {error.strerror}; choose another with --data-dir") from None
    total, before = sum(file.size for file in source.files), 0
    for file in source.files:
        _fetch_file(file, folder, folders, lambda done, before=before: progress(before + done, total))  # type: ignore[misc]
        before += file.size
        progress(before, total)
    return folder


def _fetch_file(file: Remote, folder: Path, addresses: Iterable[str], advance: Callable[[int], None]) -> None:
    target = folder / file.name
    if file.members and all((folder / member).is_file() for member in file.members):
        return
    if not _is_whole(target, file):
        _download_first(file, target, addresses, advance)
    if file.members:
        _take_out(target, file.members)
        target.unlink()


def _is_whole(path: Path, file: Remote) -> bool:
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest() == file.sha256


def _download_first(file: Remote, target: Path, addresses: Iterable[str], advance: Callable[[int], None]) -> None:
    """Download from the first address that gives the file."""
    failures = []
    for address in addresses:
        try:
            with replacing(target) as temporary:
                _download(f"{address}/{file.name}", file, temporary, advance)
        except _NotFetchedError as failure:
            failures.append(str(failure))
        else:
            return
    raise CimcError(
        f"cannot fetch {file.name}: {'; '.join(failures)}; where there is no network, put the files of the set into "
        f"{target.parent}, or name a folder that has them with ${MIRROR}, such as https://host/folder or file:///folder"
    )


class _NotFetchedError(Exception):
    """An address does not give a file: why."""


def _download(url: str, file: Remote, target: Path, advance: Callable[[int], None]) -> None:
    digest, done = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer, target.open("wb") as written:
            # One byte more than is due shows that it is another file.
            while part := answer.read(min(CHUNK, file.size - done + 1)):
                done += len(part)
                if done > file.size:
                    break
                digest.update(part)
                written.write(part)
                advance(done)
    except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise _NotFetchedError(f"{url} cannot be had ({reason})") from None
    if done != file.size or digest.hexdigest() != file.sha256:
        raise _NotFetchedError(
            f"{url} is another file: {min(done, file.size):,} of {file.size:,} bytes, SHA-256 differs"
        )


def _take_out(archive: Path, members: Iterable[str]) -> None:
    """Write the members, by the last part of their names, beside the archive."""
    with tarfile.open(archive) as opened:
        found = {Path(member.name).name: member for member in opened.getmembers() if member.isfile()}
        for name in members:
            content = opened.extractfile(found[name])
            assert content is not None
            with replacing(archive.parent / name) as temporary, temporary.open("wb") as written:
                shutil.copyfileobj(content, written)
