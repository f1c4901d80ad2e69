"""Data sets by name or file: MNIST, Fashion-MNIST, CIFAR-10 in their public layouts, generated digits; own files."""

import gzip
import math
import os
import zlib
from collections.abc import Sequence
from dataclasses import replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cimc.data.arrays import first_line, load_folder, load_npz
from cimc.data.digits import digits
from cimc.dataset import Dataset
from cimc.errors import CimcError

NAMES = ("mnist", "fashion-mnist", "cifar10", "digits")

_IDX_FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_IDX_UBYTE = 0x08
_CIFAR_FILES = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_CIFAR_SHAPE = (3, 32, 32)
_CIFAR_RECORD = 1 + 3 * 32 * 32
# Folders below a place in which a set may lie; the place itself is looked at last.
_FOLDERS = {
    "mnist": ("mnist", "mnist/raw", "MNIST", "MNIST/raw"),
    "fashion-mnist": ("fashion-mnist", "fashion-mnist/raw", "FashionMNIST", "FashionMNIST/raw"),
    "cifar10": ("cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin"),
}


def load(
    name_or_path: str | Path,
    data_dir: str | Path | None = None,
    *,
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    channels_last: bool = False,
) -> Dataset:
    """Load a data set by its name (one of `NAMES`), from an `.npz` file or from a folder of `.npy` files.

    Files of a named set are looked for in `data_dir`, then in $CIMC_DATA, then in the user's cache. What a file or a
    folder holds is said in `cimc.data.arrays`. A relative `.npz` path that does not exist is also looked for in these
    places.

    Args:
        name_or_path: the set.
        data_dir: where its files lie.
        mean: taken off what is stored (of uint8: off value / 255), one value or one a channel.
        std: what the rest is divided by.
        channels_last: images are stored as [N, *spatial, C].

    Raises CimcError (one line) where the name is unknown, files are missing or damaged, or the contents do not fit.
    """
    data = _load(str(name_or_path), None if data_dir is None else Path(data_dir))
    stated = replace(data.preprocess, mean=tuple(mean), std=tuple(std), channels_last=channels_last)
    return replace(data, preprocess=stated)


def _load(given: str, folder: Path | None) -> Dataset:
    if given.lower().endswith(".npz"):
        return load_npz(_find_npz(given, folder))
    name = given.lower()
    if name not in NAMES:
        if given and _is_folder(_home(Path(given))):
            return load_folder(_home(Path(given)))
        raise CimcError(_unknown(given))
    if name == "digits":
        return Dataset.of_images(name, *digits(), synthetic=True, classes=10)
    return _load_cifar(folder) if name == "cifar10" else _load_idx(name, folder)


def places(data_dir: Path | None = None) -> list[Path]:
    """Return the folders in which data are looked for, in order; none needs to exist."""
    found = [] if data_dir is None else [_home(data_dir)]
    if os.environ.get("CIMC_DATA"):
        found.append(_home(Path(os.environ["CIMC_DATA"])))
    cache = os.environ.get("XDG_CACHE_HOME")
    return [*found, (Path(cache) if cache else _home(Path("~/.cache"))) / "cimc" / "data"]


def find_set(name: str, data_dir: Path | None = None) -> Path | None:
    """Return the folder in which the files of a named set are, all of them; None where they are not."""
    files = _CIFAR_FILES if name == "cifar10" else _IDX_FILES
    try:
        return _find_files(name, data_dir, files)[0].parent
    except CimcError:
        return None


def _home(path: Path) -> Path:
    """Expand a leading `~`, where there is such a home folder."""
    try:
        return path.expanduser()
    except RuntimeError:
        return path


def _unknown(name: str) -> str:
    known = f"use one of {', '.join(NAMES)}, a file FILE.npz or a folder of .npy files"
    if _is_file(Path(name)):
        return f"data {name}: only .npz files can be read: {known}"
    if close := get_close_matches(name.lower(), NAMES, n=1, cutoff=0.5):
        return f"unknown data set {name!r}: did you mean '{close[0]}'? {known}"
    return f"unknown data set {name!r}: {known}"


# --- finding files ---


def _find_npz(name: str, data_dir: Path | None) -> Path:
    path = _home(Path(name))
    looked_in = [] if path.is_absolute() else places(data_dir)
    for candidate in (path, *(place / path for place in looked_in)):
        if _is_file(candidate):
            return candidate
    also = f" (looked also in {_listed(looked_in)})" if looked_in else ""
    raise CimcError(f"no data file {name}{also}: check the path")


def _find_files(name: str, data_dir: Path | None, files: tuple[str, ...]) -> list[Path]:
    """Find all `files` of the set `name` in one folder: the first that has them."""
    looked_in = places(data_dir)
    if data_dir is not None and not looked_in[0].is_dir():
        raise CimcError(f"no folder {data_dir} for data set {name}: correct --data-dir")
    problem = ""
    for place in looked_in:
        folders = [place / below for below in _FOLDERS[name]]
        if _may_hold(place, name):
            folders += [place, place / "raw"]
        elif not problem and any(_find_file(place, file) for file in files):
            problem = (
                f"{place} is not named like {name}, and both MNIST sets use these file names: rename it if it is {name}"
            )
        for folder in folders:
            paths = {file: path for file in files if (path := _find_file(folder, file))}
            if len(paths) == len(files):
                return list(paths.values())
            if paths and not problem:
                missing = ", ".join(file for file in files if file not in paths)
                problem = f"{folder} lacks {missing}: add what is missing"
    if problem:
        raise CimcError(f"data set {name}: {problem}, or name another folder with --data-dir or $CIMC_DATA")
    kind = "files of the binary version" if name == "cifar10" else "IDX files (.gz or not)"
    raise CimcError(
        f"data set {name}: no {kind} {', '.join(files)} in {_listed(looked_in)} or in their folders "
        f"{', '.join(_FOLDERS[name])}: put the files there, or name their folder with --data-dir or $CIMC_DATA"
        + ("" if name == "fashion-mnist" else f"; with a network: cimc data fetch {name}")
    )


def _find_file(folder: Path, file: str) -> Path | None:
    """Find `file` in `folder`, an IDX file also as `.gz` and with a dot before `idx`."""
    names = [file]
    if "-idx" in file:
        dotted = file.replace("-idx", ".idx")
        names = [file, dotted, f"{file}.gz", f"{dotted}.gz"]
    return next((folder / name for name in names if _is_file(folder / name)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name too long, a folder that may not be entered
        return False


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:
        return False


def _listed(paths: list[Path]) -> str:
    return ", ".join(str(path) for path in paths)


def _may_hold(place: Path, name: str) -> bool:
    """Whether files directly in `place` may be taken for `name`: both MNIST sets use the same file names."""
    if name == "cifar10":
        return True
    return _named_fashion(place) == (name == "fashion-mnist")


def _named_fashion(folder: Path) -> bool:
    for path in (folder.absolute(), folder.resolve()):  # a link and its target may be named differently
        named = path.parent.name if path.name == "raw" else path.name
        if "fashion" in named.lower() or "fmnist" in named.lower():
            return True
    return False


# --- reading files ---


def _read_bytes(path: Path) -> bytes:
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise CimcError(f"data file {path}: damaged gzip ({first_line(error)}): download it again") from None
    except OSError as error:
        raise CimcError(f"data file {path}: cannot be read ({error.strerror}): check its permissions") from None


def _load_idx(name: str, data_dir: Path | None) -> Dataset:
    """Load one of the MNIST sets: images (N, 1, H, W)."""
    paths = _find_files(name, data_dir, _IDX_FILES)
    x_train, y_train, x_test, y_test = (_read_idx(path, dims) for path, dims in zip(paths, (3, 1, 3, 1), strict=True))
    labels = y_train.astype(np.int32), y_test.astype(np.int32)
    data = Dataset.of_images(name, x_train[:, None], labels[0], x_test[:, None], labels[1], classes=10)
    return _checked(data, paths[0].parent)


def _read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read one IDX file of unsigned bytes with the given number of dimensions."""
    raw = _read_bytes(path)
    start = 4 + 4 * dimensions
    if len(raw) < start:
        raise CimcError(f"data file {path}: {len(raw)} bytes are too few for an IDX header: download it again")
    magic = bytes((0, 0, _IDX_UBYTE, dimensions))
    if raw[:4] != magic:
        raise CimcError(
            f"data file {path}: starts with {raw[:4].hex()}, not {magic.hex()}: not the IDX file it is named"
        )
    shape = tuple(int.from_bytes(raw[at : at + 4], "big") for at in range(4, start, 4))
    if len(raw) - start != math.prod(shape):
        sizes = " x ".join(str(size) for size in shape)
        raise CimcError(f"data file {path}: holds {len(raw) - start} bytes, its header says {sizes}: download it again")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _load_cifar(data_dir: Path | None) -> Dataset:
    """Load CIFAR-10 from its binary version: images (N, 3, 32, 32)."""
    *train, test = _find_files("cifar10", data_dir, _CIFAR_FILES)
    batches = [_read_cifar(path) for path in train]
    images = np.concatenate([batch[0] for batch in batches])
    labels = np.concatenate([batch[1] for batch in batches])
    return _checked(Dataset.of_images("cifar10", images, labels, *_read_cifar(test), classes=10), test.parent)


def _read_cifar(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Read one binary batch: images (N, 3, 32, 32) and labels (N,)."""
    raw = _read_bytes(path)
    if len(raw) % _CIFAR_RECORD:
        raise CimcError(
            f"data file {path}: {len(raw)} bytes are no whole number of {_CIFAR_RECORD}-byte records: download it again"
        )
    records = np.frombuffer(raw, np.uint8).reshape(-1, _CIFAR_RECORD)
    return np.ascontiguousarray(records[:, 1:]).reshape(-1, *_CIFAR_SHAPE), records[:, 0].astype(np.int32)


def _checked(data: Dataset, where: Path) -> Dataset:
    """Return `data` where its parts fit together."""
    for split, samples in (("train", data.train), ("test", data.test)):
        images, labels = samples.inputs[""], samples.labels_of()
        assert labels is not None
        assert data.classes is not None
        if len(images) != len(labels):
            problem = f"{len(images)} {split} images but {len(labels)} {split} labels: give one label per image"
        elif images.size == 0:
            problem = f"the {split} set is empty (shape {images.shape}): give at least one {split} image"
        elif labels.max() >= data.classes:
            problem = f"{split} label {labels.max()} in a set of {data.classes} classes: these are not its files"
        else:
            continue
        raise CimcError(f"data set {data.name} in {where}: {problem}")
    train, test = data.train.inputs[""], data.test.inputs[""]
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        raise CimcError(
            f"data set {data.name} in {where}: train images are {train.dtype} {train.shape[1:]}, "
            f"test images {test.dtype} {test.shape[1:]}: both must have one shape and type"
        )
    return data
