"""Training that begins with other weights, leaves layers as they are, and estimates normalisation anew."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.api.compile import compile_model
from cimc.artifact import Artifact
from cimc.data.digits import digits
from cimc.dataset import Dataset
from cimc.errors import CimcError
from runtime.training.run import Run
from tests.networks import network_proto, weights


def network(seed: int = 0, hidden: int = 4) -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1", "b1"], ["c"], name="conv1", strides=[7, 7]),
        helper.make_node("BatchNormalization", ["a", "scale", "shift", "mean", "var"], ["n"], name="norm"),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w2", "b2"], ["y"], name="fc1"),
    ]
    nodes.insert(1, helper.make_node("Abs", ["c"], ["a"]))  # so that the normalisation is not folded into the layer
    one = np.ones(hidden, np.float32)
    norm = {"scale": one, "shift": 0 * one, "mean": 0 * one, "var": one}
    layers = {
        "w1": weights(hidden, 1, 7, 7, seed=seed),
        "b1": weights(hidden, seed=seed + 1),
        "w2": 0.3 * weights(16 * hidden, 10, seed=seed + 2),
        "b2": weights(10, seed=seed + 3),
    }
    return network_proto(nodes, {"x": ["N", 1, 28, 28]}, {"y": ["N", 10]}, {**layers, **norm})


def written(model: onnx.ModelProto, path: Path) -> Path:
    onnx.save(model, path)
    return path


@pytest.fixture(scope="module")
def data() -> Dataset:
    return Dataset.of_images("digits", *digits(300, 60), synthetic=True, classes=10)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = written(network(), tmp_path_factory.mktemp("network") / "small.onnx")
    return compile_model(path, "brram-soc", verify=False).artifact


def options(method: str = "mixed-precision", **given: Any) -> cimc.TrainingOptions:
    policy = cimc.Policy(method=method)
    return cimc.TrainingOptions(
        policy=policy, **{"epochs": 1, "steps_per_epoch": 20, "batch_size": 16, "lr": 0.02, **given}
    )


def test_frozen_layers_keep_devices_and_digital_parameters(compiled: Artifact, data: Dataset) -> None:
    whole = cimc.train(compiled, data, options=options("naive", steps_per_epoch=5))
    trained = cimc.train(whole.artifact, data, options=options("naive", freeze="conv*,scale")).artifact.state
    before = whole.artifact.state
    for name in ("weight/conv1", "digital/conv1.gain", "digital/conv1.bias", "digital/scale"):
        np.testing.assert_array_equal(trained[name], before[name], err_msg=name)
    np.testing.assert_array_equal(trained["conductance/conv1"], before["conductance/conv1"])
    assert not trained["writes/conv1"].any()
    assert (trained["conductance/fc1"] != before["conductance/fc1"]).mean() > 0.4
    for name in ("weight/fc1", "digital/fc1.gain", "digital/fc1.bias", "digital/shift"):
        assert (trained[name] != before[name]).any(), name


def test_digital_parameters_train_with_all_layers_frozen(compiled: Artifact, data: Dataset) -> None:
    trained = cimc.train(compiled, data, options=options(freeze="conv1,fc1", steps_per_epoch=1))
    assert (trained.artifact.state["digital/scale"] != 1).any()
    assert trained.figures["updates"] == 0
    assert not [warning for warning in trained.figures["warnings"] if "no weight was ever written" in warning]


def test_a_pattern_must_match_and_leave_something(compiled: Artifact, data: Dataset) -> None:
    with pytest.raises(CimcError, match=r"--freeze conv7 matches no layer .*; the layers are conv1, fc1"):
        cimc.train(compiled, data, options=options(freeze="conv7"))
    with pytest.raises(CimcError, match="--freeze leaves nothing to train"):
        cimc.train(compiled, data, options=options(freeze=("*",)))


def test_a_run_begins_with_the_weights_of_an_onnx_file(compiled: Artifact, data: Dataset, tmp_path: Path) -> None:
    other, notes = written(network(seed=7), tmp_path / "other.onnx"), list[str]()
    given = options("float", lr=0.0, steps_per_epoch=1)  # a step of size 0: only the statistics change
    begun = cimc.train(compiled, data, options=given, init_from=other, note=notes.append).artifact.state
    np.testing.assert_array_equal(begun["weight/conv1"], weights(4, 1, 7, 7, seed=7).reshape(4, 49).T)
    np.testing.assert_array_equal(begun["weight/fc1"], 0.3 * weights(64, 10, seed=9))
    np.testing.assert_array_equal(begun["digital/fc1.bias"], weights(10, seed=10))
    assert not any("begin as compiled" in note for note in notes)


def test_a_run_begins_with_a_trained_file_and_says_what_does_not_fit(
    compiled: Artifact, data: Dataset, tmp_path: Path
) -> None:
    wide = compile_model(written(network(3, hidden=6), tmp_path / "wide.onnx"), "brram-soc", verify=False).artifact
    trained, notes = cimc.train(compiled, data, options=options("float", epochs=3)), list[str]()
    tuned = cimc.train(compiled, data, options=options(lr=0.0), init_from=trained.artifact, note=notes.append)
    for name in ("digital/fc1.gain", "digital/conv1.bias", "digital/scale"):
        np.testing.assert_array_equal(tuned.artifact.state[name], trained.artifact.state[name], err_msg=name)
    # Devices were written, and read once: close, as far as these coarse ones can be.
    held, wanted = (run.artifact.state["weight/fc1"] for run in (tuned, trained))
    assert np.corrcoef(held.ravel(), wanted.ravel())[0, 1] > 0.9
    with pytest.raises(CimcError, match=r"has no layer of the network, by name and shape: conv1 \(49x6, there 49x4\)"):
        cimc.train(wide, data, options=options(), init_from=trained.artifact)
    with pytest.raises(CimcError, match="the file to train is trained already"):
        cimc.train(trained.artifact, data, options=options(), init_from=compiled)


def test_what_does_not_fit_begins_as_compiled(compiled: Artifact, data: Dataset, tmp_path: Path) -> None:
    model, notes = network(seed=7), list[str]()
    first = next(node for node in model.graph.node if node.name == "conv1")
    first.name = "stem"
    begun = cimc.train(
        compiled,
        data,
        options=options("float", lr=0.0, steps_per_epoch=1),
        init_from=written(model, tmp_path / "other.onnx"),
        note=notes.append,
    ).artifact.state
    np.testing.assert_array_equal(begun["weight/conv1"], weights(4, 1, 7, 7).reshape(4, 49).T)
    np.testing.assert_array_equal(begun["weight/fc1"], 0.3 * weights(64, 10, seed=9))
    (line,) = [note for note in notes if "begin as compiled" in note]
    assert "conv1 (49x4, not there)" in line
    assert "fc1" not in line


def test_statistics_are_those_of_the_training_samples(compiled: Artifact, data: Dataset) -> None:
    given = {"batch_size": 300, "steps_per_epoch": 3}
    trained = cimc.train(compiled, data, options=options("float", reestimate_statistics=True, **given)).artifact.state
    images = data.train.inputs[""].reshape(-1, 28, 28).astype(np.float64) / 255
    patches = images.reshape(-1, 4, 7, 4, 7).transpose(0, 1, 3, 2, 4).reshape(-1, 49)
    gain = float(trained["digital/conv1.gain"])
    values = np.abs(patches @ trained["weight/conv1"].astype(np.float64) * gain + trained["digital/conv1.bias"])
    np.testing.assert_allclose(trained["statistics/mean"], values.mean(axis=0), rtol=1e-4)
    np.testing.assert_allclose(trained["statistics/var"], values.var(axis=0), rtol=1e-3)
    plain = cimc.train(compiled, data, options=options("float", **given)).artifact.state
    assert not np.allclose(plain["statistics/var"], values.var(axis=0), rtol=0.1)
    np.testing.assert_array_equal(plain["weight/fc1"], trained["weight/fc1"])


def test_statistics_are_kept_in_the_last_epochs_and_the_network_is_trained_with_them(
    compiled: Artifact, data: Dataset
) -> None:
    def after_each(**more: Any) -> dict[int, dict[str, np.ndarray]]:
        """Statistics and weights after every epoch of four steps."""
        found: dict[int, dict[str, np.ndarray]] = {}

        def keep(run: Run, total: int) -> None:
            if run.step % 4 == 0:
                groups = ("statistics", "weight")
                found[run.step // 4] = {
                    f"{group}/{name}": np.asarray(array) for group in groups for name, array in run.state[group].items()
                }

        given = options("float", epochs=3, steps_per_epoch=4, schedule="constant", **more)
        cimc.train(compiled, data, options=given, progress=keep)
        return found

    plain, kept = after_each(), after_each(keep_statistics=2)
    for name in plain[1]:
        np.testing.assert_array_equal(kept[1][name], plain[1][name])
    for name in ("statistics/mean", "statistics/var"):
        np.testing.assert_array_equal(kept[3][name], kept[1][name])
        assert not np.array_equal(plain[3][name], plain[1][name])
    assert not np.array_equal(kept[2]["weight/fc1"], kept[1]["weight/fc1"])
    assert not np.array_equal(kept[2]["weight/fc1"], plain[2]["weight/fc1"])
    with pytest.raises(CimcError, match="keep_statistics is 4; give a whole number from 0 to 3"):
        options("float", epochs=3, keep_statistics=4)
    with pytest.raises(CimcError, match=r"^--patience may end a run before .* --keep-statistics; leave one out$"):
        options("float", epochs=3, keep_statistics=1, patience=1, validation=0.1)


def test_statistics_of_a_network_without_normalisation_are_one_clear_line(data: Dataset, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], name="fc1"),
    ]
    model = network_proto(nodes, {"x": ["N", 1, 28, 28]}, {"y": ["N", 10]}, {"w": weights(784, 10)})
    flat = compile_model(written(model, tmp_path / "flat.onnx"), "brram-soc", verify=False).artifact
    with pytest.raises(CimcError, match="--reestimate-statistics is for batch normalisation"):
        cimc.train(flat, data, options=options(reestimate_statistics=True))
    with pytest.raises(CimcError, match="--keep-statistics is for batch normalisation"):
        cimc.train(flat, data, options=options(keep_statistics=1))
