"""Arrays of one's own as data, in an .npz file or a folder: what is taken, and one line for what does not fit."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cimc.data.load import load
from cimc.dataset import Preprocess
from cimc.errors import CimcError
from tests.cimc.data.data_files import labels, refused


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
