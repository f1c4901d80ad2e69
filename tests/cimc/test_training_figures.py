"""What `train` reports of writes, reads, energy and time, against counts made here."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.api.compile import compile_model
from cimc.artifact import read_artifact
from cimc.chip import load_chip
from cimc.data.load import load
from cimc.dataset import Dataset
from cimc.options import Backward, Write
from runtime.training.options import Policy, TrainingOptions
from runtime.training.run import Run
from tests.networks import network_proto, weights

LENET1 = Path(__file__).parents[2] / "models" / "lenet1.onnx"
OPTIONS = TrainingOptions(epochs=2, steps_per_epoch=20, batch_size=16)


@pytest.fixture(scope="module")
def data() -> Dataset:
    digits = load("digits")
    return replace(digits, test=digits.test.take(slice(200)))


def train(
    folder: Path,
    data: Dataset,
    options: TrainingOptions = OPTIONS,
    *,
    model: Path = LENET1,
    cell: str = "",
    **compiled: Any,
) -> tuple[Run, dict[str, Any]]:
    """A network trained for 40 steps on brram-soc, with other lines in [cell.programming]."""
    text = (Path(cimc.__file__).parent / "chips" / "brram-soc.toml").read_text(encoding="utf-8")
    chip = folder / "chip.toml"
    chip.write_text(text.replace("[cell.programming]\n", f"[cell.programming]\n{cell}"), encoding="utf-8")
    compile_model(model, str(chip), output=folder / "m.cim", verify=False, **compiled)
    result = cimc.train(folder / "m.cim", data, options=options, output=folder / "t.cim")
    return result.run, result.figures


@pytest.fixture(scope="module")
def lenet1(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> tuple[Path, Run, dict[str, Any]]:
    """LeNet-1 trained once for several tests, on a chip that states what a pulse takes."""
    folder = tmp_path_factory.mktemp("lenet1")
    return folder, *train(folder, data, cell="pulse_us = 10.0\npulse_nj = 0.5\n")


@pytest.fixture(scope="module")
def perceptron(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network of two layers, for what does not hang on the network: it compiles in a third of the time."""
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"]),
        helper.make_node("Gemm", ["flat", "w1", "b1"], ["h"], name="fc1"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="fc2"),
    ]
    constants = {"w1": 0.1 * weights(784, 16), "b1": weights(16), "w2": weights(16, 10), "b2": weights(10)}
    path = tmp_path_factory.mktemp("perceptron") / "perceptron.onnx"
    onnx.save(network_proto(nodes, {"image": ["N", 1, 28, 28]}, {"y": ["N", 10]}, constants), path)
    return path


@pytest.fixture(scope="module")
def often(tmp_path_factory: pytest.TempPathFactory, perceptron: Path, data: Dataset) -> dict[str, Any]:
    """Figures of a training that writes at nearly every step, with transposed reads."""
    options = replace(OPTIONS, policy=Policy(threshold=1e-6, backward=Backward.analog))
    return train(tmp_path_factory.mktemp("often"), data, options, model=perceptron)[1]


@pytest.fixture(scope="module")
def pulsed(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> tuple[Path, Run, dict[str, Any]]:
    """A network with a layer held several times, trained by blind pulses, on a chip that states what one takes."""
    nodes = [
        helper.make_node("Conv", ["image", "w1", "b1"], ["c"], name="conv1", strides=[7, 7]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="fc1"),
    ]
    constants = {"w1": weights(4, 1, 7, 7), "b1": weights(4), "w2": 0.3 * weights(64, 10), "b2": weights(10)}
    folder = tmp_path_factory.mktemp("pulsed")
    model = folder / "small.onnx"
    onnx.save(network_proto(nodes, {"image": ["N", 1, 28, 28]}, {"y": ["N", 10]}, constants), model)
    options = replace(OPTIONS, lr=0.1, policy=Policy(write=Write.pulse))
    given: dict[str, Any] = {"objective": "interval", "arrays": 6, "cell": "pulse_nj = 0.5\n"}
    return folder, *train(folder, data, options, model=model, **given)


def test_the_first_programming_and_all_reads_are_counted(lenet1: tuple[Path, Run, dict[str, Any]]) -> None:
    _, run, figures = lenet1
    count, updates = 3220, figures["updates"]
    assert figures["first_writes"] == 2 * count
    assert 2 * count < figures["first_trials"] < 4 * count, "one or two trials a device"
    assert figures["device_reads"] == 2 * count + 4 * updates
    total = figures["first_trials"] + figures["programming_trials"]
    assert figures["programming_energy_mj"] == pytest.approx(total * 0.5e-6)
    assert figures["programming_time_ms"] == pytest.approx(total * 10e-3)
    assert updates == sum(int(np.sum(a)) for a in run.state["updates"].values()) > 0


def test_the_energy_of_the_arrays_is_that_of_all_images_they_read(
    lenet1: tuple[Path, Run, dict[str, Any]], often: dict[str, Any]
) -> None:
    folder, run, figures = lenet1
    cost = read_artifact(folder / "m.cim").mapping.cost
    assert figures["forward_energy_mj"] == pytest.approx(40 * 16 * cost.energy_mj)
    assert figures["array_time_ms"] == pytest.approx(40 * 16 * cost.pipelined_latency_ms)
    assert figures["backward_energy_mj"] == 0
    # Each choice reads 32 images once and tries 11 ranges: on 4 images of conv1 (576 positions), on 32 of the others
    # (conv2 has 64); each look reads 8.
    chosen, looks = figures["calibrations"], int(run.watch.looks) + figures["calibrations"]
    images = [chosen * (11 * tried + 32) + 8 * looks for tried in (4, 32, 32)]
    expected = sum(n * layer.energy_mj for n, layer in zip(images, cost.layers, strict=True))
    assert figures["calibration_energy_mj"] == pytest.approx(expected)
    assert often["backward_energy_mj"] == often["forward_energy_mj"] > 0


def test_every_copy_of_a_layer_is_written(pulsed: tuple[Path, Run, dict[str, Any]]) -> None:
    folder, run, figures = pulsed
    copies = {layer.name: layer.copies for layer in read_artifact(folder / "m.cim").mapping.layers}
    assert max(copies.values()) > 1
    assert figures["device_writes"] > 0
    assert figures["device_writes"] == sum(int(np.sum(a)) * copies[name] for name, a in run.state["writes"].items())
    assert figures["first_writes"] == sum(a.size * copies[name] for name, a in run.state["conductance"].items())


def test_pulses_have_the_energy_that_the_chip_states(pulsed: tuple[Path, Run, dict[str, Any]]) -> None:
    _, _, figures = pulsed
    total = figures["first_trials"] + figures["programming_trials"]
    assert figures["programming_trials"] > 0
    assert figures["programming_energy_mj"] == pytest.approx(total * 0.5e-6)


def test_speed_is_that_of_steps_after_the_start(
    lenet1: tuple[Path, Run, dict[str, Any]], perceptron: Path, data: Dataset, tmp_path: Path
) -> None:
    _, _, figures = lenet1
    assert figures["start_up_s"] > 0
    assert figures["images_per_s"] > 16 * 20 / (figures["start_up_s"] + 60)
    _, one = train(tmp_path, data, replace(OPTIONS, epochs=1, steps_per_epoch=1), model=perceptron)
    assert one["images_per_s"] is None, "one step is all start-up"


def test_writing_nearly_every_step_is_warned_of(
    lenet1: tuple[Path, Run, dict[str, Any]], often: dict[str, Any], perceptron: Path, data: Dataset, tmp_path: Path
) -> None:
    assert ["raise --threshold" in warning for warning in often["warnings"]] == [True]
    _, _, seldom = lenet1
    assert not any("--threshold" in warning for warning in seldom["warnings"])
    assert seldom["threshold"] == load_chip("brram-soc").cell.granularity
    _, wanted = train(tmp_path, data, replace(OPTIONS, policy=Policy(method="naive")), model=perceptron)
    assert wanted["warnings"] == []
