"""A run repeats to the bit, and a run that was killed and taken up again ends as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from cimc.artifact import read_artifact, write_artifact
from cimc.commands import main as cli
from cimc.data.digits import digits
from runtime.training import step, train
from tests.networks import network_proto, weights

ROOT = Path(__file__).parents[2]
STEPS = 80  # of an epoch; a checkpoint is due every 20
# A learning rate at which devices are written all the time, so that a lost accumulator or key shows.
OPTIONS = ["--data", "data.npz", "--epochs", "2", "--steps-per-epoch", str(STEPS), "--lr", "0.02", "--json"]


def cimc(*arguments: str, status: int = 0) -> None:
    """The command in this process, where functions are compiled once for all runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cimc", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    assert (caught.value.code or 0) == status


def step_of(path: Path) -> int:
    """Steps done in the checkpoint, which is whole at any time; 0 when there is none yet."""
    return read_artifact(path).history["step"] if path.exists() else 0


@pytest.fixture
def place(tmp_path, monkeypatch) -> Path:
    """The working folder, with data and a compiled network of a convolution and a layer that sees all of it."""
    monkeypatch.chdir(tmp_path)
    arrays: dict[str, Any] = dict(zip(("x_train", "y_train", "x_test", "y_test"), digits(300, 100), strict=True))
    np.savez("data.npz", **arrays)
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv1", strides=[4, 4]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="fc1"),
    ]
    constants = {"w1": weights(4, 1, 4, 4), "b1": weights(4), "w2": 0.1 * weights(196, 10), "b2": weights(10)}
    onnx.save(network_proto(nodes, {"x": ["N", 1, 28, 28]}, {"y": ["N", 10]}, constants), "small.onnx")
    cimc("compile", "small.onnx", "--chip", "brram-soc", "--no-verify", "-o", "small.cim", "--json")
    return tmp_path


def train_and_kill(output: Path) -> None:
    """Train in another process that is killed in the middle of the second epoch."""
    command = [sys.executable, "-m", "cimc", "train", "small.cim", *OPTIONS, "--checkpoint-seconds", "0"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([*command, "-o", output.name], stdout=-1, stderr=-1, env=environment) as process:
        try:
            until = time.monotonic() + 300
            while step_of(output) <= STEPS and process.poll() is None and time.monotonic() < until:
                time.sleep(0.005)
        finally:
            process.send_signal(signal.SIGKILL)
            _, errors = process.communicate()
    assert process.returncode == -signal.SIGKILL, errors.decode()
    assert STEPS < step_of(output) < 2 * STEPS, "not killed in the middle of the second epoch"


# One test: the compilation of the training step takes most of its time, and is shared by all runs.
def test_run_repeats_and_a_killed_run_resumes_to_the_same_bytes(place, monkeypatch, capsys):
    one, two, other, killed = (place / f"{name}.cim" for name in ("one", "two", "other", "killed"))
    for output, seed in ((one, "0"), (two, "0"), (other, "1")):
        cimc("train", "small.cim", *OPTIONS, "--seed", seed, "-o", output.name)
    last = read_artifact(one).history["epochs"][-1]
    assert last["updates"] > 1000, "so few devices were written that the comparison says little"
    assert step_of(one) == 2 * STEPS
    assert one.read_bytes() == two.read_bytes(), "a run does not repeat"
    for group in ("weight", "conductance"):
        first, second = (read_artifact(path).state[f"{group}/conv1"] for path in (one, other))
        assert not np.array_equal(first, second), "the seed changes nothing"

    train_and_kill(killed)
    done = step_of(killed)
    steps: list[int] = []
    some_steps = step.train_steps

    def counted(*given: Any) -> Any:
        steps.append(int(given[-1]))  # how many
        return some_steps(*given)

    monkeypatch.setattr(train, "train_steps", counted)
    cimc("train", "small.cim", *OPTIONS, "--resume", "-o", killed.name)
    assert sum(steps) == 2 * STEPS - done, "it began anew"
    assert killed.read_bytes() == one.read_bytes(), "the resumed run ended elsewhere"

    steps.clear()
    cimc("train", "small.cim", *OPTIONS, "--resume", "-o", one.name)
    assert not steps, "a finished run took a step"
    assert killed.read_bytes() == one.read_bytes(), "a finished run changed on --resume"

    # A run whose optimiser was laid out otherwise, as by an earlier version.
    run = read_artifact(other)
    leaves = {name: a[..., :-1] for name, a in run.state.items() if name.startswith("optimizer/") and a.ndim}
    assert leaves
    write_artifact(other, replace(run, state=run.state | leaves))
    before = other.read_bytes()
    capsys.readouterr()
    cimc("train", "small.cim", *OPTIONS, "--seed", "1", "--resume", "-o", other.name, status=1)
    message = capsys.readouterr().err.strip()
    assert "other.cim holds a run of another version of cimc; leave out --resume" in message
    assert len(message.splitlines()) == 1
    assert other.read_bytes() == before
