"""Files of a data set that are damaged or others: one clear line for each thing wrong."""

import struct
from pathlib import Path

import numpy as np
import pytest

from tests.cimc.data.data_files import STEMS, idx, refused, write_cifar, write_mnist


def test_a_file_of_another_kind_is_refused(tmp_path: Path):
    (tmp_path / "data.csv").write_text("1,2")
    assert "only .npz" in refused(tmp_path / "data.csv")


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
