"""A chip whose devices have traits, from training through files to deployment."""

from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.artifact import read_artifact
from cimc.chip import Chip, load_chip
from cimc.data.load import load
from cimc.device_pulse import Linear
from cimc.device_time import Endurance, Faults, Leak
from runtime.deployment.programming import program_chip
from runtime.network.load import load_network
from runtime.system.state import build_system, restore_state
from runtime.training.options import TrainingOptions
from runtime.training.start import start
from tests.networks import network_proto, weights

GROUPS = {"step_up", "step_down", "high", "low", "stuck", "endurance", "leak"}


def chip_with(**sections: object) -> Chip:
    chip = load_chip("brram-256x64")
    return chip.model_copy(update={"cell": chip.cell.model_copy(update=sections)})


@pytest.fixture
def chip() -> Chip:
    return chip_with(
        pulse=Linear(step_uS=4.0, step_d2d=0.2, high_d2d=0.05, write_noise_uS=1.0),
        faults=Faults(stuck_low=0.1, low_uS=5.0),
        endurance=Endurance(writes=3.0),
        leak=Leak(steps=1e6, rest_uS=10.0),
    )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    random = np.random.default_rng(0)
    x = random.random((64, 8), np.float32)
    y = (x[:, :4] @ np.arange(4) > 3).astype(np.int32)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    proto = network_proto(nodes, {"x": ["N", 8]}, {"y": ["N", 2]}, {"w": weights(8, 2)})
    onnx.save(proto, "small.onnx")
    return tmp_path


def test_traits_go_with_a_trained_file_and_stuck_and_worn_devices_stay(place: Path, chip: Chip) -> None:
    cimc.compile("small.onnx", chip, output="small.cim", verify=False)
    data, options = load("data.npz"), TrainingOptions(epochs=2, steps_per_epoch=40, lr=0.1, batch_size=8)
    cimc.train("small.cim", data, options=options, output="trained.cim")
    trained = read_artifact("trained.cim")
    assert {name.partition("/")[0] for name in trained.state} >= GROUPS
    stuck, held = trained.state["stuck/fc"], trained.state["conductance/fc"]
    np.testing.assert_array_equal(held[~np.isnan(stuck)], np.float32(5.0))
    trials, endurance = trained.state["trials/fc"], trained.state["endurance/fc"]
    assert np.any(trials > endurance + 10), "no device was asked for more than it takes"
    system = build_system(load_network(trained.network), trained.mapping, trained.chip)
    flat = {**trained.state, "seen/fc": np.full_like(held, 0.5)}  # its closed-loop writes leave 0
    state = restore_state(system, flat, "trained.cim")
    np.testing.assert_array_equal(state["stuck"]["fc"], stuck)
    # A run on these devices has the endurance that is left, and knows what is only seen; its counters are its own.
    run = start(system, state, options, programmed=True)
    np.testing.assert_array_equal(run.state["endurance"]["fc"], endurance - trials)
    np.testing.assert_array_equal(run.state["seen"]["fc"], flat["seen/fc"])
    assert not np.any(run.state["trials"]["fc"])
    # A run on the same devices ends with the same bytes, also when it is taken up again.
    before = Path("trained.cim").read_bytes()
    cimc.train("small.cim", data, options=options, output="trained.cim", resume=True)
    assert Path("trained.cim").read_bytes() == before


def test_each_virtual_chip_has_its_own_stuck_devices(place: Path, chip: Chip) -> None:
    cimc.compile("small.onnx", chip, output="small.cim", verify=False)
    stored = read_artifact("small.cim")
    system = build_system(load_network(stored.network), stored.mapping, stored.chip)
    targets = {"conductance": {"fc": jax.numpy.full((2, 300, 300), 40.0)}}
    first, second = (np.asarray(program_chip(system, targets, jax.random.key(n))["fc"]) for n in (0, 1))
    for chip_held in (first, second):
        assert np.mean(chip_held == 5.0) == pytest.approx(0.1, abs=0.005)
    assert np.mean((first == 5.0) & (second == 5.0)) == pytest.approx(0.01, abs=0.002)
