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
    with tracking(tmp_path / "runs" / "one", 0, "run") as track:
        for epochs in (0, 0, 1, 1, 2, 2):
            track(run_of(epochs))
    assert sorted(FakeWriter.points) == sorted(FIRST | SECOND)
    with tracking(tmp_path / "runs" / "one", 1, "run") as track:  # a resumed run
        for epochs in (1, 2):
            track(run_of(epochs))
    assert sorted(FakeWriter.points) == sorted(SECOND)


def test_the_event_file_holds_the_points(tmp_path: Path) -> None:
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2")
    with tracking(tmp_path, 0, "run") as track:
        track(run_of(2))
    (file,) = tmp_path.iterdir()
    events = [event_pb2.Event.FromString(record) for record in records(file)]
    found = {(v.tag, event.step, round(v.simple_value, 6)) for event in events for v in event.summary.value}
    assert found == FIRST | SECOND


def test_without_the_extra_it_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(CimcError, match=r"needs an extra: pip install 'cimc\[track\]'"), tracking(tmp_path, 0, "run"):
        pass
    with tracking(None, 0, "run") as track:
        track(run_of(2))


def test_a_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorboardX", SimpleNamespace(SummaryWriter=FakeWriter))
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(CimcError, match="cannot write"), tracking(tmp_path / "file" / "runs", 0, "run"):
        pass


class FakeClient:
    """Stands for `mlflow.tracking.MlflowClient`: runs by name, with their points."""

    runs: dict[str, list[tuple[str, int, float]]]
    ended: list[str]

    def __init__(self, tracking_uri: str) -> None:
        if tracking_uri == "nowhere":
            raise OSError("no such store\nand more")

    def get_experiment_by_name(self, name: str) -> Any:
        return None

    def create_experiment(self, name: str) -> str:
        return name

    def search_runs(self, experiments: list[str], query: str) -> list[Any]:
        return [SimpleNamespace(info=SimpleNamespace(run_id=name)) for name in FakeClient.runs if f"'{name}'" in query]

    def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
        assert run_name not in FakeClient.runs
        FakeClient.runs[run_name] = []
        return SimpleNamespace(info=SimpleNamespace(run_id=run_name))

    def log_metric(self, run: str, name: str, value: float, step: int) -> None:
        FakeClient.runs[run].append((name, step, value))

    def set_terminated(self, run: str, status: str) -> None:
        FakeClient.ended.append(status)


def test_mlflow_has_one_run_of_a_resumed_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", SimpleNamespace())
    monkeypatch.setitem(sys.modules, "mlflow.exceptions", SimpleNamespace(MlflowException=RuntimeError))
    monkeypatch.setitem(sys.modules, "mlflow.tracking", SimpleNamespace(MlflowClient=FakeClient))
    FakeClient.runs, FakeClient.ended = {}, []

    def train(epochs: int, resumed: int) -> None:
        with tracking("mlflow:sqlite:///runs.db", resumed, "trained.cim") as track:
            track(run_of(epochs))
            if epochs < len(HISTORY):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(1, resumed=0)
    train(2, resumed=1)
    assert {name: sorted(points) for name, points in FakeClient.runs.items()} == {"trained.cim": sorted(FIRST | SECOND)}
    assert FakeClient.ended == ["FAILED", "FINISHED"]
    refused = pytest.raises(CimcError, match="mlflow cannot write nowhere: no such store; correct")
    with refused, tracking("mlflow:nowhere", 0, "run"):
        pass
    monkeypatch.setitem(sys.modules, "mlflow.tracking", None)
    with pytest.raises(CimcError, match="needs mlflow: pip install mlflow"), tracking("mlflow:x", 0, "run"):
        pass


def test_a_row_of_the_live_table_fits_its_head() -> None:
    for record, validation in zip(HISTORY, (False, True), strict=True):
        row = training_table.epoch_row({**record, "updates": 30}, 10)
        assert len(row) == len(training_table.epoch_columns("test", validation))
        assert row[-1] == "3.00"
