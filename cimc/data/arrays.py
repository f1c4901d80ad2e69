"""Data of one's own: arrays in an `.npz`, or in a folder of `.npy` files, which are mapped and not read as a whole."""

import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.dataset import IMAGE_AXES, Dataset, Labels, Preprocess, Samples, preprocess_of
from cimc.errors import CimcError

Arrays = Mapping[str, NDArray[Any]]

# Arrays of a network with one input, which they do not name.
_UNNAMED = ("x_train", "y_train", "x_test", "y_test")
_LABELS = "labels"
_SPLITS = ("train", "test")
_CHUNK = 1 << 22  # values looked at in one piece
# What reading a damaged, encrypted, pickled or impossibly large archive raises.
_DAMAGED = (zipfile.BadZipFile, zlib.error, TokenError, SyntaxError)  # the last two of a header that is no Python
_ERRORS = (OSError, ValueError, EOFError, KeyError, RuntimeError, MemoryError, *_DAMAGED)


def load_npz(path: Path) -> Dataset:
    """The arrays of an `.npz`.

    They are x_train, y_train, x_test and y_test, or by the names of the network's inputs, with `labels` or, of several
    outputs, `labels/OUTPUT`. Names of a split begin with `train/` and `test/`; else all samples are both. Labels may be
    missing, and so may one split: the other then serves for both.

    Raises:
        CimcError: in one line, where the file is damaged or its arrays do not fit together.
    """
    try:
        file = np.load(path, allow_pickle=False)
        if not isinstance(file, np.lib.npyio.NpzFile):
            raise CimcError(f"data file {path}: holds one array, not {', '.join(_UNNAMED)}: save it with np.savez")
        with file:
            arrays = {key: file[key] for key in file.files}
    except PermissionError:
        raise CimcError(f"data file {path}: cannot be read: check its permissions") from None
    except _ERRORS as error:
        raise CimcError(f"data file {path}: cannot be read ({first_line(error)}): save it with np.savez") from None
    return _dataset(path, arrays, _as_float32_or_int32)


def load_folder(folder: Path) -> Dataset:
    """The `.npy` files of a folder: as the arrays of an `.npz`, with folders for `train/`, `test/` and `labels/`.

    The inputs are mapped: what is used of them is read when it is used. Raises CimcError as `load_npz`.
    """
    files = sorted(folder.rglob("*.npy"))
    if not files:
        raise CimcError(f"data folder {folder}: holds no .npy files: save one for each input of the network there")
    arrays = {}
    for file in files:
        try:
            arrays[file.relative_to(folder).with_suffix("").as_posix()] = np.load(file, mmap_mode="r")
        except PermissionError:
            raise CimcError(f"data file {file}: cannot be read: check its permissions") from None
        except _ERRORS as error:
            raise CimcError(f"data file {file}: cannot be read ({first_line(error)}): save it with np.save") from None
    return _dataset(folder, arrays, lambda array: array)


def first_line(error: Exception) -> str:
    """An error of a library in one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def _dataset(path: Path, arrays: Arrays, stored_as: Callable[[NDArray[Any]], NDArray[Any]]) -> Dataset:
    other = next((name for name, array in arrays.items() if not isinstance(array, np.ndarray)), None)
    if other is not None:  # NumPy hands on the bytes of a member that is no NPY, and a zip under the name of one
        raise CimcError(f"data {path}: {other:.60} is no NumPy array: save it with np.savez or np.save")
    named = _named(path, arrays)
    splits: dict[str, Samples] = {}
    for split in _SPLITS:
        parts = {name.removeprefix(f"{split}/"): array for name, array in named.items() if name.startswith(f"{split}/")}
        if parts:
            splits[split] = _samples(path, parts, split, stored_as)
    if not splits:
        raise CimcError(f"data {path}: holds no samples: save x_test, or an array by the name of each input")
    train, test = splits.get("train") or splits["test"], splits.get("test") or splits["train"]
    for name in {*train.inputs, *test.inputs}:
        first, second = (part.inputs.get(name) for part in (train, test))
        if first is None or second is None or first.shape[1:] != second.shape[1:] or first.dtype != second.dtype:
            shown = " and ".join("none" if a is None else f"{a.dtype} {a.shape[1:]}" for a in (first, second))
            raise CimcError(
                f"data {path}: train and test have {shown} for {name or 'x'}: both must have one shape and type"
            )
    return Dataset(path.name, train, test, classes=_classes(train, test), preprocess=_preprocess(path, train))


def _named(path: Path, arrays: Arrays) -> Arrays:
    """The arrays as `train/INPUT`, `test/labels` and so on; the only input of the unnamed layout is the empty name."""
    if given := [key for key in _UNNAMED if key in arrays]:
        if others := [key for key in arrays if key not in _UNNAMED]:
            raise CimcError(f"data {path}: holds {', '.join(others)} beside {', '.join(given)}: leave one of them out")
        for split in _SPLITS:
            if f"y_{split}" in arrays and f"x_{split}" not in arrays:
                raise CimcError(f"data {path}: lacks x_{split}, which y_{split} belongs to")
        kinds = {"x": "", "y": _LABELS}
        return {f"{key[2:]}/{kinds[key[0]]}": _with_channel(arrays[key], key) for key in given}
    others = [key for key in arrays if not key.startswith(("train/", "test/"))]
    if len(others) == len(arrays):
        return {f"test/{key}": array for key, array in arrays.items()}
    if others:
        raise CimcError(f"data {path}: holds {', '.join(others)} of no split: begin all names with train/ or test/")
    return arrays


def _with_channel(array: NDArray[Any], key: str) -> NDArray[Any]:
    """Grey images (N, H, W) of the unnamed layout with an axis for their channel."""
    return array[:, None] if key[0] == "x" and array.ndim == 3 and array.dtype == np.uint8 else array


def _samples(path: Path, parts: Arrays, split: str, stored_as: Callable[[NDArray[Any]], NDArray[Any]]) -> Samples:
    inputs, labels = dict[str, NDArray[Any]](), dict[str, NDArray[Any]]()
    unnamed = {"": f"x_{split}", _LABELS: f"y_{split}"} if "" in parts else {}
    shown_as = {name: unnamed.get(name, name) for name in parts}
    for name, array in parts.items():
        shown = shown_as[name]
        if not array.ndim or not array.size:
            raise CimcError(
                f"data {path}: the {split} set is empty ({shown} has shape {array.shape}): give at least one sample"
            )
        if name == _LABELS or name.startswith(f"{_LABELS}/"):
            labels[name.removeprefix(_LABELS).removeprefix("/")] = _checked_labels(path, shown, array)
        else:
            if array.ndim < 2 and not name:
                raise CimcError(f"data {path}: {shown} has shape {array.shape}: give one row per sample, (N, ...)")
            _check_values(path, shown, array)
            inputs[name] = stored_as(array)
    if not inputs:
        raise CimcError(f"data {path}: has labels but no samples in the {split} set: save an array for each input")
    if len({len(array) for array in parts.values()}) > 1:
        shown = ", ".join(f"{len(array)} of {shown_as[name]}" for name, array in parts.items())
        raise CimcError(f"data {path}: the numbers of samples differ ({shown}): give one of each for every sample")
    if "" in labels and len(labels) > 1:
        raise CimcError(f"data {path}: holds {_LABELS} beside {_LABELS}/OUTPUT: name the output of all of them")
    stated: Labels = labels if labels and "" not in labels else labels.get("")
    return Samples(inputs, stated)


def _check_values(path: Path, key: str, array: NDArray[Any]) -> None:
    if array.dtype.kind not in "iufb":
        raise CimcError(
            f"data {path}: {key} is {array.dtype}: save it as uint8 (0 to 255), float32, int32 tokens or bool"
        )
    for part in _pieces(array):
        if array.dtype.kind == "f":
            with np.errstate(over="ignore"):
                fits = np.isfinite(part.astype(np.float32)).all()
            if not fits:
                raise CimcError(f"data {path}: {key} holds NaN or infinite values (as float32): remove or replace them")
        elif array.dtype.kind in "iu" and array.dtype.itemsize >= 4 and _beyond_int32(part):
            raise CimcError(f"data {path}: {key} holds integers beyond 32 bits: save smaller ones")


def _pieces(array: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """The array piece by piece: of one that is mapped, no more is in memory at once."""
    rows = max(_CHUNK // max(array[:1].size, 1), 1)
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _beyond_int32(array: NDArray[Any]) -> bool:
    limits = np.iinfo(np.int32)
    return bool(array.min() < limits.min or array.max() > limits.max)


def _as_float32_or_int32(array: NDArray[Any]) -> NDArray[Any]:
    if array.dtype in (np.uint8, np.bool_):
        return array
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32, copy=False)


def _checked_labels(path: Path, key: str, array: NDArray[Any]) -> NDArray[Any]:
    """Classes as int32, targets as float32; a column (N, 1) of classes is (N,)."""
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise CimcError(f"data {path}: {key} holds NaN or infinite values: remove or replace them")
        return array.astype(np.float32)
    if array.dtype.kind not in "iub":
        raise CimcError(f"data {path}: {key} is {array.dtype}: labels are integers (classes) or floats (targets)")
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    least = 0 if array.ndim == 1 else -1
    if array.min() < least or array.max() > np.iinfo(np.int32).max - 1:
        raise CimcError(
            f"data {path}: {key} runs from {array.min()} to {array.max()}: labels count from 0; of positions, -1 is "
            "one left out"
        )
    return array.astype(np.int32)


def _classes(*splits: Samples) -> int | None:
    """How many classes, where every sample has one."""
    stated = [labels for samples in splits if isinstance(labels := samples.labels, np.ndarray)]
    plain = [labels for labels in stated if labels.ndim == 1 and labels.dtype.kind == "i"]
    return 1 + max(int(labels.max()) for labels in plain) if plain and len(plain) == len(stated) else None


def _preprocess(path: Path, samples: Samples) -> Preprocess:
    arrays = list(samples.inputs.values())
    images = arrays if len(arrays) == 1 else [array for array in arrays if array.ndim >= IMAGE_AXES]
    found = {preprocess_of(array) for array in images}
    if len(found) > 1:
        raise CimcError(f"data {path}: some images are uint8 (0 to 255) and others are not: save all as one type")
    return found.pop() if found else Preprocess()
