"""The measurement of networks from packages, apart from the packages: its list, its limits, its judgement."""

import importlib.util
import inspect
import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from tests.benchmarks.networks.agreement import agreement
from tests.benchmarks.networks.listed import read_list
from tests.benchmarks.networks.measure import measure, read_measured

NETWORKS = read_list([])


def run(code: str, *, limit_s: float = 20, limit_mb: int = 2048):
    return measure([sys.executable, "-c", code], limit_s=limit_s, limit_mb=limit_mb, folder=Path.cwd())


def test_the_list_has_networks_of_many_kinds_each_once():
    assert len({network.name for network in NETWORKS}) == len(NETWORKS) >= 20
    assert len({network.kind for network in NETWORKS}) >= 8
    assert all("==" in network.package and network.file.endswith(".onnx") for network in NETWORKS)


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_every_maker_takes_its_arguments(network):
    arguments = dict(network.inputs)
    module, function = arguments.pop("maker").split(".")
    if module == "pictures" and importlib.util.find_spec("PIL") is None:
        pytest.skip("needs Pillow")
    maker = getattr(import_module(f"tests.benchmarks.networks.{module}"), function)
    inspect.signature(maker).bind("the source", **arguments)


def test_a_command_is_measured_alone(tmp_path):
    held = np.ones(2**25)  # 256 MB of this process, which the command does not have
    done = run("print('{\"a\": 1}')")
    assert done.status == 0
    assert done.figures == {"a": 1}
    assert done.peak_mb < held.nbytes / 2**20
    done.write(tmp_path / "done.json")
    assert read_measured(tmp_path / "done.json") == done


@pytest.mark.parametrize(
    ("code", "limits", "said"),
    [
        ("raise SystemExit('error: it is so')", {}, "error: it is so"),
        ("import os; os.kill(os.getpid(), 11)", {}, "ended by SIGSEGV"),
        ("import time; time.sleep(20)", {"limit_s": 1}, "not done in 1 s"),
        ("import time; x = bytearray(300 * 2**20); time.sleep(20)", {"limit_mb": 200}, "over 200 MB"),
    ],
)
def test_what_ended_a_command_is_said(code, limits, said):
    done = run(code, **limits)
    assert done.status
    assert done.said == said
    assert done.seconds < 15


def test_agreement_is_the_power_of_the_difference_and_the_same_decisions():
    original = np.array([[1.0, 0.0, 0.0], [0.0, 2.0, 0.0]])
    found = agreement(original, original + np.array([[0.0, 0.1, 0.0], [0.0, 0.0, 3.0]]))
    assert found["snr_db"] == pytest.approx(10 * np.log10(5 / 9.01))
    assert found["same"] == 0.5
    assert found["largest"] == pytest.approx(1.5)
    assert agreement(original, original)["snr_db"] is None
    assert agreement(original[:, :1], original[:, :1])["same"] is None
