"""Small files of data sets, and what is expected of them."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from cimc.data.load import load
from cimc.dataset import Samples
from cimc.errors import CimcError

STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def mnist_arrays(train: int = 6, test: int = 4, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = (train, 28, 28), (train,), (test, 28, 28), (test,)
    return [rng.integers(0, 10 if len(shape) == 1 else 256, shape, np.uint8) for shape in shapes]


def write_mnist(folder: Path, zipped: bool = False, dotted: bool = False, seed: int = 0) -> list[np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    arrays = mnist_arrays(seed=seed)
    for stem, array in zip(STEMS, arrays, strict=True):
        name = stem.replace("-idx", ".idx") if dotted else stem
        raw = idx(array)
        (folder / (name + ".gz" * zipped)).write_bytes(gzip.compress(raw) if zipped else raw)
    return arrays


def write_cifar(folder: Path, records: int = 2) -> list[np.ndarray]:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    batches = []
    for name in [*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin"]:
        batch = rng.integers(0, 256, (records, 3073), np.uint8)
        batch[:, 0] %= 10
        (folder / name).write_bytes(batch.tobytes())
        batches.append(batch)
    return batches


def refused(name: str | Path, data_dir: Path | None = None) -> str:
    with pytest.raises(CimcError) as caught:
        load(str(name), data_dir)
    message = str(caught.value)
    assert "\n" not in message
    assert message
    return message


def labels(samples: Samples) -> np.ndarray:
    array = samples.labels_of()
    assert array is not None
    return array
