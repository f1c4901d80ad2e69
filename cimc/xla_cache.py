"""The cache of compiled functions on disk: where it is, how large it may grow, how it is cleared.

JAX's own limit needs a further package and lets every process wait for a lock at each read; here old files go when a
process starts, and nobody waits.
"""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

DEFAULT_BYTES = 2 * 2**30
KEPT = 0.9  # of the limit is left, so that not every start removes something


class CachedFile(NamedTuple):
    """A file of the cache, when it was last written or read, and its size."""

    used: float
    size: int
    path: Path


def xla_cache() -> Path:
    """The folder: cimc/xla in the user's cache folder, `$XDG_CACHE_HOME`, else ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cimc" / "xla"


def cache_limit() -> int:
    """Bytes that it may hold: $CIMC_CACHE_MB, else 2 GiB; what is no number counts as not given."""
    try:
        return max(int(float(os.environ.get("CIMC_CACHE_MB", "")) * 2**20), 0)
    except (ValueError, OverflowError):
        return DEFAULT_BYTES


def cached_files() -> list[CachedFile]:
    """The files of the cache, those first that were not used for longest."""
    return sorted(_files())


def _files() -> Iterator[CachedFile]:
    with suppress(OSError):  # no such folder, or one that may not be read: empty
        for entry in os.scandir(xla_cache()):
            with suppress(OSError):  # removed by another process meanwhile
                if entry.is_file(follow_symlinks=False):
                    found = entry.stat(follow_symlinks=False)
                    yield CachedFile(max(found.st_atime, found.st_mtime), found.st_size, Path(entry.path))


def limit_cache() -> None:
    """Remove the files that were not used for longest where the cache is larger than it may be."""
    files, limit = cached_files(), cache_limit()
    size = sum(file.size for file in files)
    if size <= limit:
        return
    for file in files:
        if size <= KEPT * limit:
            return
        with suppress(OSError):
            file.path.unlink()
        size -= file.size


def clear_cache() -> tuple[int, int]:
    """Remove all files of the cache; returns how many, and their bytes. What is in use is compiled again."""
    removed = [0, 0]
    for file in cached_files():
        with suppress(OSError):
            file.path.unlink()
            removed[0] += 1
            removed[1] += file.size
    return removed[0], removed[1]
