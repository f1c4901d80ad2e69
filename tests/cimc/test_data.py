"""Reading data sets: the public layouts, where they are looked for, and one clear line for each thing wrong."""

import gzip
import os
import struct
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cimc.data.load import load, places
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.errors import CimcError

REAL_DATA = os.environ.get("CIMC_DATA")
STEMS = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


@pytest.fixture(autouse=True)
def _no_data_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory):
    monkeypatch.delenv("CIMC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


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


def write_npz(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "x_train": np.zeros((6, 3), np.float32),
        "y_train": np.arange(6) % 3,
        "x_test": np.ones((3, 3), np.float32),
        "y_test": np.arange(3),
    }
    arrays.update(changes)
    np.savez(path, **{key: value for key, value in arrays.items() if value is not None})
    return path


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


def assert_mnist(data: Dataset, arrays: list[np.ndarray]) -> None:
    assert np.array_equal(data.train.inputs[""], arrays[0][:, None])
    assert np.array_equal(labels(data.train), arrays[1])
    assert np.array_equal(data.test.inputs[""], arrays[2][:, None])
    assert np.array_equal(labels(data.test), arrays[3])
    assert data.train.inputs[""].dtype == np.uint8
    assert labels(data.train).dtype == labels(data.test).dtype == np.int32
    assert (data.preprocess.scale, data.classes, data.synthetic) == (1 / 255, 10, False)


# --- layouts ---


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("dotted", [False, True])
@pytest.mark.parametrize("below", [".", "raw", "mnist", "mnist/raw", "MNIST", "MNIST/raw"])
def test_mnist_is_read_in_each_public_layout(tmp_path: Path, below: str, zipped: bool, dotted: bool):
    arrays = write_mnist(tmp_path / "sets" / below, zipped, dotted)
    assert_mnist(load("mnist", tmp_path / "sets"), arrays)


@pytest.mark.parametrize("below", ["fashion-mnist", "fashion-mnist/raw", "FashionMNIST/raw"])
def test_fashion_mnist_is_read_beside_mnist(tmp_path: Path, below: str):
    arrays = write_mnist(tmp_path / "mnist")
    fashion = write_mnist(tmp_path / below, seed=1)
    assert_mnist(load("mnist", tmp_path), arrays)
    assert_mnist(load("fashion-mnist", tmp_path), fashion)


@pytest.mark.parametrize("below", [".", "cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"])
def test_cifar10_binary_batches_are_read_channels_first(tmp_path: Path, below: str):
    *train, test = write_cifar(tmp_path / below)
    data = load("cifar10", tmp_path)
    assert data.train.inputs[""].shape == (10, 3, 32, 32)
    assert np.array_equal(data.train.inputs[""].reshape(10, -1), np.concatenate(train)[:, 1:])
    assert np.array_equal(labels(data.train), np.concatenate(train)[:, 0])
    assert np.array_equal(data.test.inputs[""].reshape(2, -1), test[:, 1:])
    assert labels(data.test).dtype == np.int32
    assert (data.preprocess.scale, data.classes, data.synthetic) == (1 / 255, 10, False)


def test_digits_need_no_files_and_are_marked_synthetic():
    data = load("digits")
    assert data.synthetic
    assert data.train.inputs[""].shape == (12000, 1, 28, 28)
    assert len(data.test) == 2000
    assert (data.name, data.classes, data.preprocess.scale) == ("digits", 10, 1 / 255)


def test_names_are_taken_in_any_case(tmp_path: Path):
    write_mnist(tmp_path)
    assert load("MNIST", tmp_path).name == "mnist"


@pytest.mark.skipif(not REAL_DATA, reason="$CIMC_DATA does not name the real data sets")
def test_real_mnist_has_its_known_sizes_and_first_labels():
    data = load("mnist", Path(REAL_DATA or ""))
    assert data.train.inputs[""].shape == (60000, 1, 28, 28)
    assert data.test.inputs[""].shape == (10000, 1, 28, 28)
    assert labels(data.train)[:8].tolist() == [5, 0, 4, 1, 9, 2, 1, 3]


# --- places ---


def test_places_come_in_the_order_option_environment_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    named = [tmp_path / name for name in ("option", "environment", "cache")]
    monkeypatch.setenv("CIMC_DATA", str(named[1]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(named[2]))
    assert places(named[0]) == [named[0], named[1], named[2] / "cimc" / "data"]
    named[0].mkdir()
    cached = write_mnist(named[2] / "cimc" / "data" / "mnist", seed=3)
    assert_mnist(load("mnist", named[0]), cached)
    from_environment = write_mnist(named[1] / "mnist", seed=2)
    assert_mnist(load("mnist", named[0]), from_environment)
    from_option = write_mnist(named[0], seed=1)
    assert_mnist(load("mnist", named[0]), from_option)


def test_cache_is_in_the_home_folder_without_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert places() == [tmp_path / ".cache" / "cimc" / "data"]


def test_plain_mnist_is_never_taken_for_fashion_mnist(tmp_path: Path):
    write_mnist(tmp_path / "mnist")
    message = refused("fashion-mnist", tmp_path / "mnist")
    assert "rename it if it is fashion-mnist" in message


@pytest.mark.parametrize("folder", ["fashion-mnist", "FashionMNIST", "my_fmnist", "FashionMNIST/raw"])
def test_a_fashion_folder_is_never_taken_for_mnist(tmp_path: Path, folder: str):
    arrays = write_mnist(tmp_path / folder)
    assert_mnist(load("fashion-mnist", tmp_path / folder), arrays)
    refused("mnist", tmp_path / folder)


def test_current_folder_as_place_is_judged_by_its_real_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    arrays = write_mnist(tmp_path / "fashion")
    monkeypatch.chdir(tmp_path / "fashion")
    assert_mnist(load("fashion-mnist", Path()), arrays)
    refused("mnist", Path())


def test_missing_files_name_the_places_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CIMC_DATA", str(tmp_path / "other"))
    for name, file in (("mnist", STEMS[0]), ("fashion-mnist", STEMS[2]), ("cifar10", "data_batch_1.bin")):
        message = refused(name, tmp_path)
        for part in (name, file, str(tmp_path), str(tmp_path / "other"), "--data-dir", "$CIMC_DATA"):
            assert part in message


def test_a_partly_filled_folder_says_which_files_it_lacks(tmp_path: Path):
    write_mnist(tmp_path / "mnist")
    (tmp_path / "mnist" / STEMS[3]).unlink()
    message = refused("mnist", tmp_path)
    assert f"{tmp_path / 'mnist'} lacks {STEMS[3]}:" in message


def test_a_mistyped_data_dir_is_told_and_not_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_mnist(tmp_path / "mnist")
    monkeypatch.setenv("CIMC_DATA", str(tmp_path))
    assert "--data-dir" in refused("mnist", tmp_path / "nowhere")


# --- names ---


@pytest.mark.parametrize(
    ("typed", "meant"), [("mnst", "mnist"), ("fashionmnist", "fashion-mnist"), ("cifar-10", "cifar10")]
)
def test_a_mistyped_name_is_corrected(typed: str, meant: str):
    assert f"did you mean '{meant}'" in refused(typed)


@pytest.mark.parametrize("name", ["imagenet", "", "x" * 5000, "a\0b", "two\nlines"])
def test_an_unknown_name_lists_the_known_ones(name: str):
    message = refused(name)
    assert "mnist, fashion-mnist, cifar10, digits" in message
    assert ".npz" in message


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "data.csv").write_text("1,2")
    assert "only .npz" in refused(tmp_path / "data.csv")


# --- damaged files ---


def test_truncated_gzip_is_told(tmp_path: Path):
    write_mnist(tmp_path, zipped=True)
    path = tmp_path / f"{STEMS[0]}.gz"
    path.write_bytes(path.read_bytes()[:-20])
    message = refused("mnist", tmp_path)
    assert "gzip" in message
    assert str(path) in message


@pytest.mark.parametrize("content", [b"<html>not found</html>", b"\x1f\x8b\x08\x00" + b"\xff" * 40, b""])
def test_something_else_named_gz_is_told(tmp_path: Path, content: bytes):
    write_mnist(tmp_path, zipped=True)
    (tmp_path / f"{STEMS[1]}.gz").write_bytes(content)
    assert f"{STEMS[1]}.gz" in refused("mnist", tmp_path)


@pytest.mark.parametrize("change", [-1, 1])
def test_idx_length_must_match_its_header(tmp_path: Path, change: int):
    write_mnist(tmp_path)
    path = tmp_path / STEMS[2]
    raw = path.read_bytes()
    path.write_bytes(raw + b"\0" if change > 0 else raw[:-1])
    message = refused("mnist", tmp_path)
    assert "4 x 28 x 28" in message
    assert str(path) in message


def test_idx_header_claiming_a_huge_size_is_told(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / STEMS[0]).write_bytes(struct.pack(">4B3I", 0, 0, 8, 3, *[2**32 - 1] * 3))
    assert "header says" in refused("mnist", tmp_path)


@pytest.mark.parametrize("raw", [b"\0\0\x0d\x03" + bytes(12), idx(np.zeros(20, np.uint8)), b"GIF89a" + bytes(20)])
def test_wrong_idx_magic_is_told(tmp_path: Path, raw: bytes):
    write_mnist(tmp_path)
    (tmp_path / STEMS[0]).write_bytes(raw)
    assert "00000803" in refused("mnist", tmp_path)


def test_file_shorter_than_an_idx_header_is_told(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / STEMS[1]).write_bytes(b"\0\0\x08")
    assert "too few" in refused("mnist", tmp_path)


def test_labels_of_another_set_are_told(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / STEMS[1]).write_bytes(idx(np.arange(5, dtype=np.uint8)))
    assert "6 train images but 5 train labels" in refused("mnist", tmp_path)
    (tmp_path / STEMS[1]).write_bytes(idx(np.arange(6, dtype=np.uint8) + 20))
    assert "label 25" in refused("mnist", tmp_path)


def test_empty_idx_set_is_told(tmp_path: Path):
    write_mnist(tmp_path)
    (tmp_path / STEMS[2]).write_bytes(idx(np.zeros((0, 28, 28), np.uint8)))
    (tmp_path / STEMS[3]).write_bytes(idx(np.zeros(0, np.uint8)))
    assert "test set is empty" in refused("mnist", tmp_path)


def test_cifar_file_with_part_of_a_record_is_told(tmp_path: Path):
    write_cifar(tmp_path)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    assert "data_batch_3.bin" in refused("cifar10", tmp_path)


def test_cifar_label_above_nine_is_told(tmp_path: Path):
    write_cifar(tmp_path)
    (tmp_path / "test_batch.bin").write_bytes(b"\x0a" + bytes(3072))
    assert "label 10" in refused("cifar10", tmp_path)


# --- npz ---


def test_npz_floats_are_kept_and_classes_counted(tmp_path: Path):
    data = load(str(write_npz(tmp_path / "own.npz", x_train=np.full((6, 3), 0.25))))
    assert data.train.inputs[""].dtype == np.float32
    assert (data.train.inputs[""] == 0.25).all()
    assert (data.name, data.classes, data.preprocess.scale, data.synthetic) == ("own.npz", 3, 1.0, False)
    assert labels(data.train).dtype == np.int32


def test_npz_bytes_get_a_channel_axis_and_are_scaled(tmp_path: Path):
    images = np.arange(6 * 4, dtype=np.uint8).reshape(6, 2, 2)
    data = load(str(write_npz(tmp_path / "own.npz", x_train=images, x_test=images[:3])))
    assert data.train.inputs[""].shape == (6, 1, 2, 2)
    assert data.train.inputs[""].dtype == np.uint8
    assert data.preprocess.scale == 1 / 255


def test_npz_label_column_is_taken(tmp_path: Path):
    data = load(str(write_npz(tmp_path / "own.npz", y_train=np.arange(6, dtype=np.uint8)[:, None])))
    assert labels(data.train).tolist() == [0, 1, 2, 3, 4, 5]


def test_npz_is_found_below_a_place(tmp_path: Path):
    write_npz(tmp_path / "own.npz")
    assert load("own.npz", tmp_path).classes == 3
    assert str(tmp_path) in refused("other.npz", tmp_path)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"x_test": None}, "lacks x_test, which y_test belongs to"),
        ({"y_train": np.arange(5)}, "6 of x_train, 5 of y_train"),
        ({"x_train": np.full((6, 3), np.nan)}, "x_train holds NaN"),
        ({"x_test": np.full((3, 3), np.inf)}, "x_test holds NaN or infinite"),
        ({"x_test": np.full((3, 3), 1e300)}, "x_test holds NaN or infinite"),
        ({"y_train": np.full(6, np.nan)}, "y_train holds NaN"),
        ({"y_train": np.zeros(6, complex)}, "y_train is complex128"),
        ({"y_train": np.full((6, 2), -2)}, "from -2 to -2"),
        ({"y_test": np.array([0, -1, 2])}, "from -1"),
        ({"y_test": np.array([0, 1, 2**40])}, str(2**40)),
        ({"y_test": np.array([0, 1, None])}, "cannot be read"),
        ({"x_train": np.zeros((0, 3)), "y_train": np.zeros(0, int)}, "train set is empty"),
        ({"x_train": np.zeros((6, 0)), "x_test": np.zeros((3, 0))}, "train set is empty"),
        ({"x_train": np.zeros(6)}, "one row per sample"),
        ({"x_train": np.zeros((6, 3), complex)}, "x_train is complex128"),
        ({"x_train": np.zeros((6, 4))}, "one shape and type"),
        ({"x_train": np.zeros((6, 3), np.uint8)}, "one shape and type"),
    ],
)
def test_npz_contents_that_do_not_fit_are_told(tmp_path: Path, changes: dict[str, Any], said: str):
    path = write_npz(tmp_path / "own.npz", **changes)
    message = refused(path)
    assert said in message
    assert str(path) in message


@pytest.mark.parametrize("name", ["~no-such-user/own.npz", "folder/" * 900 + "own.npz"])
def test_npz_path_that_cannot_exist_is_told(name: str):
    assert "no data file" in refused(name)


def test_members_that_are_no_arrays_are_told(tmp_path: Path):
    with zipfile.ZipFile(tmp_path / "own.npz", "w") as archive:
        archive.writestr("x_test.npy", b"no array")
    with pytest.raises(CimcError, match=r"own\.npz: x_test is no NumPy array"):
        load(str(tmp_path / "own.npz"))
    (tmp_path / "folder").mkdir()
    np.savez(tmp_path / "folder" / "x.npz", x=np.zeros(3))
    (tmp_path / "folder" / "x.npz").rename(tmp_path / "folder" / "x.npy")
    with pytest.raises(CimcError, match=r"folder: x is no NumPy array"):
        load(str(tmp_path / "folder"))


def test_damaged_npz_is_told(tmp_path: Path):
    path = write_npz(tmp_path / "own.npz")
    whole = path.read_bytes()
    bad_sum = whole.replace(np.ones(9, np.float32).tobytes(), np.zeros(9, np.float32).tobytes())
    for content in (b"", b"text", whole[:-30], whole[: len(whole) // 2], bad_sum):
        path.write_bytes(content)
        assert str(path) in refused(path)


def test_single_array_named_npz_is_told(tmp_path: Path):
    with (tmp_path / "own.npz").open("wb") as file:
        np.save(file, np.zeros(3))
    assert "holds one array" in refused(tmp_path / "own.npz")


def test_import_stays_light():
    code = "import sys, cimc.data.load; print([m for m in ('jax', 'onnx', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_integers_of_an_npz_are_tokens_and_not_scaled(tmp_path: Path) -> None:
    tokens = np.array([[0, 3, 70_000]] * 6, np.int64)
    data = load(str(write_npz(tmp_path / "own.npz", x_train=tokens, x_test=tokens[:3])))
    assert data.train.inputs[""].dtype == np.int32
    assert data.preprocess.scale == 1
    np.testing.assert_array_equal(data.train.inputs[""], tokens)


# --- arrays by the names of the inputs ---


def write_arrays(place: Path, arrays: dict[str, Any], as_folder: bool) -> Path:
    """The arrays as an .npz, or as a folder of .npy files."""
    if not as_folder:
        np.savez(place / "own.npz", **arrays)
        return place / "own.npz"
    for key, array in arrays.items():
        file = place / "own" / f"{key}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, array)
    return place / "own"


MIXED: dict[str, Any] = {
    "tokens": np.array([[1, 2], [3, 4], [5, 70_000]]),
    "mask": np.array([[True, False]] * 3),
    "speed": np.array([0.5, 1.5, 2.5]),
}


@pytest.mark.parametrize("as_folder", [False, True])
def test_one_array_an_input_with_labels_by_output(tmp_path: Path, as_folder: bool) -> None:
    stated = {"labels/y": np.array([[0, 1, -1]] * 3), "labels/size": np.array([0.5, 1, 2])}
    data = load(write_arrays(tmp_path, {**MIXED, **stated}, as_folder))
    assert data.train is data.test
    assert set(data.test.inputs) == set(MIXED)
    for name, array in MIXED.items():
        np.testing.assert_array_equal(data.test.inputs[name], array)
        assert isinstance(data.test.inputs[name], np.memmap) == as_folder
    assert data.test.inputs["mask"].dtype == np.bool_
    for name, kind in (("y", np.int32), ("size", np.float32)):
        found = data.test.labels_of(name)
        assert found is not None
        assert found.dtype == kind
        np.testing.assert_array_equal(found, stated[f"labels/{name}"])
    assert (data.classes, data.preprocess, data.name) == (None, Preprocess(), "own" if as_folder else "own.npz")


@pytest.mark.parametrize("as_folder", [False, True])
def test_splits_by_name_and_labels_that_no_output_names(tmp_path: Path, as_folder: bool) -> None:
    arrays = {"train/a": np.zeros((4, 2)), "train/labels": np.arange(4), "test/a": np.ones((3, 2))}
    data = load(write_arrays(tmp_path, arrays, as_folder))
    assert (len(data.train), len(data.test)) == (4, 3)
    assert labels(data.train).tolist() == [0, 1, 2, 3]
    assert data.test.labels is None
    assert data.classes == 4


@pytest.mark.parametrize("part", ["train", "test"])
def test_one_part_without_labels_serves_for_both(tmp_path: Path, part: str) -> None:
    data = load(write_arrays(tmp_path, {f"x_{part}": np.full((3, 2), 0.5)}, as_folder=False))
    assert data.train is data.test
    assert (data.test.labels, data.classes, len(data.test)) == (None, None, 3)


def test_targets_and_labels_of_positions_are_taken(tmp_path: Path) -> None:
    positions = np.arange(18).reshape(6, 3)
    data = load(write_npz(tmp_path / "own.npz", y_train=positions, y_test=np.full((3, 3), -1)))
    np.testing.assert_array_equal(labels(data.train), positions)
    targets = load(write_npz(tmp_path / "own.npz", y_train=np.arange(6) / 2, y_test=np.zeros(3)))
    assert labels(targets.train).dtype == np.float32
    assert targets.classes is None


def test_only_images_are_scaled_beside_tokens_and_numbers(tmp_path: Path) -> None:
    np.savez(tmp_path / "own.npz", image=np.zeros((2, 3, 4, 4), np.uint8), tokens=np.zeros((2, 5), np.uint8))
    assert load(tmp_path / "own.npz").preprocess == Preprocess(1 / 255)


def test_mean_std_and_the_place_of_the_channels_are_kept_with_the_data(tmp_path: Path) -> None:
    images = np.zeros((6, 4, 4, 3), np.uint8)
    path = write_npz(tmp_path / "own.npz", x_train=images, x_test=images[:3])
    data = load(path, mean=(0.1, 0.2, 0.3), std=[0.5], channels_last=True)
    assert data.preprocess == Preprocess(1 / 255, (0.1, 0.2, 0.3), (0.5,), True)
    with pytest.raises(CimcError, match="--std above 0"):
        load(path, std=[0.0])


@pytest.mark.parametrize("as_folder", [False, True])
@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"labels": np.arange(3)}, "has labels but no samples"),
        ({"a": np.zeros((3, 2)), "b": np.zeros(2)}, "3 of a, 2 of b"),
        ({"a": np.zeros((3, 2)), "labels": np.arange(2)}, "3 of a, 2 of labels"),
        ({"a": np.zeros((3, 2)), "labels": np.arange(3), "labels/y": np.arange(3)}, "name the output"),
        ({"a": np.zeros((3, 2)), "test/a": np.zeros((3, 2))}, "holds a of no split"),
        ({"train/a": np.zeros((3, 2)), "test/b": np.zeros((3, 2))}, "both must have one shape"),
        ({"train/a": np.zeros((3, 2)), "test/a": np.zeros((3, 2), int)}, "both must have one shape"),
        ({"x_test": np.zeros((3, 2)), "a": np.zeros((3, 2))}, "holds a beside x_test"),
        ({"a": np.array([[0.0, np.nan]])}, "a holds NaN"),
        ({"a": np.array([[0, 2**40]])}, "a holds integers beyond 32 bits"),
        ({"a": np.array(1.0)}, "a has shape ()"),
        ({"a": np.zeros((1, 1, 2, 2), np.uint8), "b": np.zeros((1, 1, 2, 2))}, "save all as one type"),
    ],
)
def test_arrays_that_do_not_fit_together_are_told(
    tmp_path: Path, arrays: dict[str, Any], said: str, as_folder: bool
) -> None:
    path = write_arrays(tmp_path, arrays, as_folder)
    message = refused(path)
    assert said in message
    assert str(path) in message


def test_damaged_and_missing_npy_files_are_told(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    assert "holds no .npy files" in refused(tmp_path / "own")
    (tmp_path / "own" / "a.npy").write_bytes(b"no array")
    assert str(tmp_path / "own" / "a.npy") in refused(tmp_path / "own")


def test_a_folder_named_as_a_set_is_not_taken_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "digits").mkdir()
    monkeypatch.chdir(tmp_path)
    assert load("digits").synthetic
