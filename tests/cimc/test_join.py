"""Two processes that share each batch by `jax.distributed` train what one process trains."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from typer.testing import CliRunner

import cimc
from cimc.api.join import join
from cimc.commands.main import app
from cimc.errors import CimcError
from tests.networks import network_proto, weights

ROOT = Path(__file__).parents[2]
OPTIONS = ["--update", "float", "--epochs", "1", "--steps-per-epoch", "10", "--batch-size", "16", "--lr", "0.02"]


def arguments(place: Path, output: str, *options: str) -> list[str]:
    return ["train", str(place / "one.cim"), "-o", str(place / output), "--json", *OPTIONS, *options]


def begin(place: Path, output: str, *options: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "cimc", *arguments(place, output, *options)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def test_two_processes_train_what_one_trains(tmp_path: Path) -> None:
    nodes = [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("Gemm", ["f", "w"], ["y"], name="fc1")]
    onnx.save(
        network_proto(nodes, {"x": ["N", 1, 28, 28]}, {"y": ["N", 10]}, {"w": weights(784, 10)}), tmp_path / "one.onnx"
    )
    cimc.compile(tmp_path / "one.onnx", "brram-soc", output=tmp_path / "one.cim", verify=False)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    runs = [begin(tmp_path, f"part{index}.cim", "--distributed", f"{address},2,{index}") for index in range(2)]
    one = CliRunner().invoke(app, arguments(tmp_path, "alone.cim"))
    assert one.exit_code == 0, one.output
    said = [run.communicate(timeout=400) for run in runs]
    assert [run.returncode for run in runs] == [0, 0], [errors for _, errors in said]
    assert said[1][0] == ""
    assert not (tmp_path / "part1.cim").exists()
    figures: list[dict[str, Any]] = [json.loads(said[0][0]), json.loads(one.stdout)]
    assert figures[0]["loss"] == pytest.approx(figures[1]["loss"], rel=1e-5)
    shared, alone = (cimc.read_artifact(tmp_path / name).state["weight/fc1"] for name in ("part0.cim", "alone.cim"))
    np.testing.assert_allclose(shared, alone, rtol=1e-3, atol=1e-4)
    assert not np.allclose(alone, weights(784, 10), atol=1e-2), "training moved nothing"


@pytest.mark.parametrize("where", ["host:1", "host:1,2", "host,2,0", "host:1,2,2", "host:1,two,0"])
def test_what_names_no_process_is_refused(where: str) -> None:
    with pytest.raises(CimcError, match="is not HOST:PORT,PROCESSES,INDEX with indices from 0, nor auto"):
        join(where)
