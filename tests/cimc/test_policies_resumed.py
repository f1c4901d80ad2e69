"""Every update policy learns a small problem, and a run taken up again from its file ends with the same bits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc import training_record
from cimc.api.checkpoint import checkpoint, load_run
from cimc.api.system_of import state_of, system_of
from cimc.artifact import Artifact, read_artifact, write_artifact
from cimc.chip import load_chip
from cimc.chip_to_toml import chip_to_toml
from cimc.data.load import load
from cimc.dataset import Dataset
from cimc.options import Keep, Write
from cimc.row_cost import row_cost
from runtime.system.state import flatten_state
from runtime.system.weight_range import training_weight_range
from runtime.training.options import Policy, TrainingOptions
from runtime.training.policies import POLICIES
from runtime.training.run import Run
from runtime.training.start import start
from runtime.training.train import train
from tests.networks import network_proto, weights

STEPS = 60
TRIAL_NJ, PULSE_NJ = 2.0, 0.5  # of closed-loop trials and of blind pulses
# What each needs to learn within 120 steps; the rest is by default. Blind pulses where there is a choice.
SETTINGS: dict[str, dict[str, Any]] = {
    "sign": {"share": 2},
    "tiki-taka": {"rate": 30, "sweep": 2},
    "tiki-taka-v2": {"sweep": 2},
    "chopped-tiki-taka-v2": {"sweep": 2},
    "agad": {"sweep": 2, "chop_every": 4},
    "residual-learning": {"rate": 30, "sweep": 2, "least": 0.5},
}
CLOSED_LOOP = ("naive",)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Artifact, Dataset]:
    """A layer of eight inputs on devices of ten states, each with a step and bounds of its own, and its data."""
    folder = tmp_path_factory.mktemp("policies")
    random = np.random.default_rng(0)
    x = random.normal(size=(400, 8)).astype(np.float32)
    y = (x @ random.normal(size=8) > 0).astype(np.int32)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")]
    proto = network_proto(nodes, {"x": ["N", 8]}, {"y": ["N", 2]}, {"w": weights(8, 2)})
    onnx.save(proto, folder / "small.onnx")
    spreads = {"step_d2d": 0.1, "asymmetry_d2d": 0.02, "high_d2d": 0.05, "c2c": 0.1, "write_noise_uS": 0.5}
    trial, pulse = {"programming": {"pulse_nj": TRIAL_NJ}}, {"write": {"blind_nj": PULSE_NJ}}
    chip = load_chip(
        "ideal", "soft-bounds-10", settings={"cell": {"pulse": spreads, "read_noise_uS": 0.5, **trial}, **pulse}
    )
    (folder / "chip.toml").write_text(chip_to_toml(chip), encoding="utf-8")
    cimc.compile(folder / "small.onnx", str(folder / "chip.toml"), output=folder / "small.cim", verify=False)
    return folder, read_artifact(folder / "small.cim"), load(str(folder / "data.npz"))


def options_of(name: str) -> TrainingOptions:
    settings = tuple(SETTINGS.get(name, {}).items())
    write = Write.verify if name in CLOSED_LOOP else Write.pulse
    policy = Policy(method=name, write=write, settings=settings)
    return TrainingOptions(policy=policy, epochs=2, steps_per_epoch=STEPS, lr=0.05, batch_size=16)


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_learns_and_its_run_goes_on_to_the_same_bits(
    place: tuple[Path, Artifact, Dataset], name: str, tmp_path: Path
) -> None:
    _, artifact, data = place
    options, system = options_of(name), system_of(artifact)
    saved: list[Artifact] = []

    def fresh() -> Run:
        state, programmed = state_of(artifact, system, "small.cim", weight_range=training_weight_range)
        return start(system, state, options, programmed)

    def save(run: Run, total: int) -> None:
        saved.append(checkpoint(artifact, run, total=total, options=options, data=data))

    ended = train(system, fresh(), options, data, save)
    write_artifact(tmp_path / "half.cim", saved[0])
    half = read_artifact(tmp_path / "half.cim")
    run = load_run(half, fresh(), source=artifact, options=options, data=data, path=tmp_path / "half.cim")
    assert run.step == STEPS
    again = train(system, run, options, data)
    one, two = flatten_state(ended.state), flatten_state(again.state)
    assert one.keys() == two.keys()
    for array in one:
        np.testing.assert_array_equal(one[array], two[array], err_msg=array)
    assert any((one[array] != half.state[array]).any() for array in one), "the second half must change something"
    assert ended.history[-1]["accuracy"] > 0.8, "half of all is chance"
    for tile in options.policy.rule.tiles:
        assert one[f"{tile}_trials/fc"].any(), "its devices take pulses"
        assert (one[f"{tile}_step_up/fc"] != one["step_up/fc"]).all(), "its devices are others than those beside them"


def compiled_for(folder: Path) -> Any:
    """The network compiled for the values of its data."""
    return cimc.compile(folder / "small.onnx", str(folder / "chip.toml"), verify=False, input_range=(-5.0, 5.0))


def test_pulses_of_all_devices_of_a_weight_count_as_wear(place: tuple[Path, Artifact, Dataset]) -> None:
    folder, _, data = place
    policy = Policy(method="tiki-taka", write=Write.pulse, settings=(("rate", 1.0),))
    notes: list[str] = []
    options = replace(options_of("tiki-taka"), policy=policy)
    done = cimc.train(compiled_for(folder), data, options=options, note=notes.append)
    assert "--update tiki-taka has no option write: it changes nothing" in notes
    main, fast = (int(np.max(done.run.state[name]["fc"])) for name in ("trials", "fast_trials"))
    assert done.figures["pulses_per_device_max"] == fast > main
    assert sum(count for _, count in done.figures["pulses_per_device"]) == 2 * 2 * 16
    first, pulses = done.figures["first_trials"] * TRIAL_NJ, done.figures["programming_trials"] * PULSE_NJ
    assert done.figures["programming_energy_mj"] == pytest.approx((first + pulses) * 1e-6)
    # The same of a file that is not complete: of a rule without a digital copy, which reads nothing for it.
    half = checkpoint(done.artifact, done.run, total=done.run.step + 1, options=options, data=data)
    told = training_record.figures(half)
    assert told is not None
    assert done.figures["device_reads"] == done.figures["first_writes"] + 2 * done.run.step * 16 / 10, (
        "every tenth step"
    )
    for name in ("first_writes", "first_trials", "device_reads", "programming_energy_mj", "programming_time_ms"):
        assert told["figures"][name] == done.figures[name]


def test_rows_of_all_pairs_of_a_weight_are_written_one_after_the_other(place: tuple[Path, Artifact, Dataset]) -> None:
    """One step of three tiles, of one word line an input: SET and RESET, as long as the pair with most pulses needs."""
    folder, artifact, data = place
    policy = Policy(method="multi-tile", write=Write.pulse, settings=(("most", 9.0), ("rate", 300.0), ("sweep", 1)))
    options = replace(options_of("multi-tile"), policy=policy, epochs=1, steps_per_epoch=1)
    done = cimc.train(compiled_for(folder), data, options=options)
    groups = ("trials", "tile_1_trials", "tile_2_trials")
    longest = [np.asarray(done.run.state[name]["fc"]).max(axis=(0, 2)) for name in groups]
    rows, cost = sum(int((n > 0).sum()) for n in longest), row_cost(artifact.chip, blind=True, row_reads=0)
    assert rows > 8, "more than one pair has lines to write"
    assert done.figures["row_writes"] == rows
    time_us = 2 * (rows * cost.phase_us + sum(n.sum() for n in longest) * cost.pulse_us)
    assert done.figures["write_time_ms"] == pytest.approx(time_us * 1e-3)
    # All lines of each pair, SET from G_min in a closed loop; on this chip a write without errors is one trial.
    first = row_cost(artifact.chip, blind=False, row_reads=0)
    lines_us = 3 * 8 * (first.phase_us + first.pulse_us + first.read_us)
    assert done.figures["first_write_time_ms"] == pytest.approx(lines_us * 1e-3)
    trials_nj = done.figures["first_trials"] * first.pulse_nj
    assert done.figures["first_write_energy_mj"] == pytest.approx(
        (3 * 8 * (first.phase_nj + first.read_nj) + trials_nj) * 1e-6
    )


def test_the_best_epoch_is_kept_with_the_pulses_of_the_whole_run(place: tuple[Path, Artifact, Dataset]) -> None:
    folder, _, data = place
    options = replace(options_of("tiki-taka"), epochs=3, steps_per_epoch=10, lr=1.0, validation=0.2, seed=1)
    best, last = (
        cimc.train(compiled_for(folder), data, options=replace(options, keep=keep)).run
        for keep in (Keep.best, Keep.last)
    )
    losses = [record["validation"]["loss"] for record in last.history]
    assert min(losses) < losses[-1], "the last epoch is not the best, or this tests nothing"
    assert (np.asarray(best.state["weight"]["fc"]) != np.asarray(last.state["weight"]["fc"])).any()
    for group in ("updates", "writes", "trials", "fast_trials"):
        np.testing.assert_array_equal(best.state[group]["fc"], last.state[group]["fc"], err_msg=group)
