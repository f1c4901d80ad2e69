"""The same call gives the same bytes: for any PYTHONHASHSEED, on one core or two, in batches of any size."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from tests.networks import network_proto, weights

# Compile with an objective, train and export: the digests of all that is written.
_RUN = """
import os, sys
cores = sorted(os.sched_getaffinity(0))
os.sched_setaffinity(0, cores[: int(sys.argv[1])])
import hashlib
from pathlib import Path
import cimc
data = cimc.load_data("data.npz")
folder = Path(sys.argv[2])
cimc.compile("net.onnx", "isaac", objective="latency", output=folder / "net.cim")
options = cimc.TrainingOptions(epochs=1, steps_per_epoch=2, batch_size=8)
cimc.train(folder / "net.cim", data, options=options, output=folder / "run.cim")
cimc.export(folder / "run.cim", output=folder / "package", data=data)
for path in sorted(folder.rglob("*")):
    if path.is_file():
        print(path.relative_to(folder), hashlib.sha256(path.read_bytes()).hexdigest())
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A network of two layers side by side, and data."""
    monkeypatch.chdir(tmp_path)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="left"),
        helper.make_node("MatMul", ["x", "v"], ["b"], name="right"),
        helper.make_node("Add", ["a", "b"], ["y"], name="sum"),
    ]
    constants = {"w": weights(12, 3), "v": weights(12, 3)[::-1].copy()}
    onnx.save(network_proto(nodes, {"x": ["N", 12]}, {"y": ["N", 3]}, constants), "net.onnx")
    x = np.random.default_rng(0).random((32, 12), np.float32)
    y = (np.arange(32) % 3).astype(np.int32)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    return tmp_path


def test_hash_seed_and_cores_change_no_byte(place: Path) -> None:
    root, found = Path(__file__).parents[2], []
    for seed, cores in (("1", "1"), ("2", "2")):
        (place / seed).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)}
        command = [sys.executable, "-c", _RUN, cores, seed]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found.append(done.stdout)
    assert "net.cim" in found[0]
    assert "package" in found[0]
    assert found[0] == found[1]


def test_batches_of_any_size_give_the_same_figures(place: Path) -> None:
    cimc.compile("net.onnx", "brram-256x64", output="net.cim", verify=False)
    data = cimc.load_data("data.npz")
    figures = [cimc.evaluate("net.cim", data, memory=memory) for memory in (None, 4096)]
    for one in figures:
        for clocked in [name for name in one if "_s" in name]:
            del one[clocked]
    assert figures[0] == figures[1]
