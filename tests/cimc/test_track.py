"""What `train --track` writes, read back from the event file byte by byte; the extra may be missing."""

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cimc.api.track import tracking
from cimc.commands import training_table
from cimc.errors import CimcError

HISTORY = (
    {"epoch": 1, "loss": 2.5, "accuracy": 0.25, "layers": {"fc1": {"input_range": 1.5}}, "lr": 0.1},
    {
        "epoch": 2,
        "loss": 1.25,
        "accuracy": 0.5,
        "layers": {},
        "lr": 0.05,
        "validation": {"loss": 1.5, "accuracy": 0.25},
    },
)
FIRST = {("loss", 1, 2.5), ("accuracy", 1, 0.25), ("layers/fc1/input_range", 1, 1.5), ("lr", 1, 0.1)}
SECOND = {("loss", 2, 1.25), ("accuracy", 2, 0.5), ("lr", 2, 0.05), ("validation/loss", 2, 1.5)}
SECOND |= {("validation/accuracy", 2, 0.25)}


def run_of(epochs: int) -> Any:
    return SimpleNamespace(history=HISTORY[:epochs])


def records(file: Path) -> Iterator[bytes]:
    """The records of an event file: length, its checksum, the bytes, their checksum."""
    data = file.read_bytes()
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        yield data[12 : 12 + length]
        data = data[16 + length :]


class FakeWriter:
    """Stands for `tensorboardX.SummaryWriter` where that is not installed."""

    points: list[tuple[str, int, float]]

    def __init__(self, folder: str) -> None:
        FakeWriter.points = []

    def __enter__(self) -> "FakeWriter":
        return self

    def __exit__(self, *_: Any) -> None:
        return None

    def add_scalar(self, name: str, value: float, step: int) -> None:
        FakeWriter.points.append((name, step, value))


def test_every_epoch_is_written_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=FakeWriter))
    with tracking(tmp_path / "runs" / "one", 0) as track:
        for epochs in (0, 0, 1, 1, 2, 2):
            track(run_of(epochs))
    assert sorted(FakeWriter.points) == sorted(FIRST | SECOND)
    with tracking(tmp_path / "runs" / "one", 1) as track:  # a resumed run
        for epochs in (1, 2):
            track(run_of(epochs))
    assert sorted(FakeWriter.points) == sorted(SECOND)


def test_the_event_file_holds_the_points(tmp_path: Path) -> None:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    with tracking(tmp_path, 0) as track:
        track(run_of(2))
    (file,) = tmp_path.iterdir()
    events = [event_pb2.Event.FromString(record) for record in records(file)]
    found = {(v.tag, event.step, round(v.simple_value, 6)) for event in events for v in event.summary.value}
    assert found == FIRST | SECOND


def test_without_the_extra_it_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(CimcError, match=r"needs an extra: pip install 'cimc\[track\]'"), tracking(tmp_path, 0):
        pass
    with tracking(None, 0) as track:
        track(run_of(2))


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=FakeWriter))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CimcError, match="cannot write"), tracking(tmp_path / "file" / "runs", 0):
        pass


def test_a_row_of_the_live_table_fits_its_head() -> None:
    for record, validation in zip(HISTORY, (False, True), strict=True):
        row = training_table.epoch_row({**record, "updates": 30}, 10)
        assert len(row) == len(training_table.epoch_columns("test", validation))
        assert row[-1] == "3.00"
