"""Reading data sets: the public layouts, and where they are looked for."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from cimc.data.load import load, places
from cimc.dataset import Dataset
from tests.cimc.data.data_files import STEMS, labels, refused, write_cifar, write_mnist

REAL_DATA = os.environ.get("CIMC_DATA")


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


def test_import_stays_light():
    code = "import sys, cimc.data.load; print([m for m in ('jax', 'onnx', 'matplotlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"
