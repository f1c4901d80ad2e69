"""A dask cluster of two workers, one of which dies in the middle: the results of one process, to the bit."""

import operator
import os
import pickle
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.api import dask_tasks
from cimc.api.run_tasks import run_tasks
from cimc.data.load import load
from cimc.errors import CimcError
from runtime.deployment.result import Deployment, rows_of_chips, summary
from tests.networks import network_proto, weights

distributed = pytest.importorskip("distributed")
DIES, IMAGES = 20, 150


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """The address of a scheduler with two workers, each a process of its own."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1", silence_logs=50
    ) as cluster:
        yield cluster


def die(shared: None, task: int) -> None:
    """A task that no worker survives."""
    os.kill(os.getpid(), signal.SIGKILL)


def in_turn(
    function: Callable[[Any, Any], Any], tasks: Sequence[Any], *, shared: Any, workers: int
) -> Iterator[tuple[int, Any]]:
    """Instead of local processes, whose start takes seconds: here, the last task first, with what would be sent."""
    function, shared = pickle.loads(pickle.dumps((function, shared)))
    return ((number, function(shared, tasks[number])) for number in reversed(range(len(tasks))))


def test_dies_on_workers_are_those_of_one_process(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.random((IMAGES, 16), np.float32)
    w = weights(16, 4)
    y = np.argmax(x @ w, axis=1).astype(np.int32)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    onnx.save(network_proto(nodes, {"x": ["N", 16]}, {"y": ["N", 4]}, {"w": w}), "small.onnx")
    cimc.compile("small.onnx", "hermes", output="small.cim", verify=False)
    cimc.export("small.cim", output="package", data=load("data.npz"))
    said: list[tuple[int, int]] = []

    def kill_one(done: int, total: int) -> None:
        if not said:
            os.kill(cluster.workers[0].pid, signal.SIGKILL)
        said.append((done, total))

    def deploy(**how: Any) -> Deployment:
        return cimc.deploy("package", load("data.npz"), chips=DIES, seed=3, **how)

    alone = deploy()
    assert len(set(alone.accuracies.tolist())) > 3, "the dies hardly differ: nothing would be seen"
    with monkeypatch.context() as patched:
        patched.setattr("cimc.api.run_tasks.run_on_processes", in_turn)
        here = deploy(workers=2)
    spread = {
        "in parts": here,
        "cluster": deploy(cluster=cluster.scheduler_address, progress=kill_one),
    }
    for where, found in spread.items():
        assert summary(found) == summary(alone), where
        np.testing.assert_equal(rows_of_chips(found), rows_of_chips(alone), where)
    assert said[-1] == (DIES * IMAGES, DIES * IMAGES)


class Deadly:
    """0 when it is taken apart, but the first worker that does so dies of it, in the middle of the sending."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:  # a text: workers need not import this file
        kill = f"(os.unlink({str(self._mark)!r}), os.kill(os.getpid(), {signal.SIGKILL:d}))"
        return eval, (f"{kill} if os.path.exists({str(self._mark)!r}) else 0", {"os": os})


def test_a_worker_that_dies_while_data_are_sent_to_it_loses_nothing(cluster: Any, tmp_path: Path) -> None:
    (tmp_path / "mark").touch()
    found = run_tasks(operator.add, [5, 6, 7], shared=Deadly(tmp_path / "mark"), cluster=cluster.scheduler_address)
    assert dict(found) == {0: 5, 1: 6, 2: 7}
    assert not (tmp_path / "mark").exists(), "no worker died"


def test_a_worker_with_other_versions_is_named(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cimc.version.__version__", "0.0.9")
    with pytest.raises(CimcError, match=r"worker tcp://\S+ has cimc \S+, here is 0\.0\.9; install the same there"):
        list(run_tasks(die, [1], shared=None, cluster=cluster.scheduler_address))


def test_no_scheduler_and_no_dask_say_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dask_tasks, "CONNECT_S", 0.2)
    for address in ("tcp://127.0.0.1:1", "nonsense"):
        with pytest.raises(CimcError, match=f"no dask scheduler at {address} .*start one with: dask scheduler"):
            list(run_tasks(die, [1], shared=None, cluster=address))
    monkeypatch.setitem(sys.modules, "dask.distributed", None)
    with pytest.raises(CimcError, match=r"pip install 'cimc\[cluster\]'"):
        list(run_tasks(die, [1], shared=None, cluster="tcp://127.0.0.1:1"))


def test_a_task_whose_workers_keep_dying_ends_with_one_line(cluster: Any) -> None:
    cluster.scheduler.allowed_failures = 0
    with pytest.raises(CimcError, match="keep dying at the same task"):
        list(run_tasks(die, [1], shared=None, cluster=cluster.scheduler_address))
