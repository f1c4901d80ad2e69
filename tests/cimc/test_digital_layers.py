"""Layers left digital by name or by measurement: every command goes on with them, and the budget holds."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, save
from typer.testing import CliRunner

import cimc
from cimc.api.choose_digital import Candidate, choose_within
from cimc.chip import load_chip
from cimc.commands.main import app
from cimc.dataset import Dataset, Samples
from cimc.errors import CimcError
from cimc.package import Package
from runtime.network.load import load_network
from runtime.system.inference import predict
from runtime.system.program import with_program
from runtime.system.sensitivity import Sensitivity
from runtime.system.state import build_system, initial_state
from tests.networks import network_proto, weights

IMAGES = np.random.default_rng(0).random((40, 2, 6, 6), np.float32)
LABELS = np.arange(40) % 3
DATA = Dataset("mine", Samples({"": IMAGES}, LABELS), Samples({"": IMAGES[:16]}, LABELS[:16]))
WIDE = load_chip("isaac", settings={"input": {"bits": 32}})  # more than the runtime counts exactly
SHARES = {"first": 4 * 36 * 18, "second": 4 * 16 * 36, "last": 64 * 3}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a small network and data for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    nodes = [
        helper.make_node("Conv", ["x", "a", "d"], ["p"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "b"], ["r"], name="second"),
        helper.make_node("Relu", ["r"], ["s"]),
        helper.make_node("Flatten", ["s"], ["t"]),
        helper.make_node("Gemm", ["t", "c", "e"], ["y"], name="last"),
    ]
    constants: dict[str, Any] = {
        "a": weights(4, 2, 3, 3),
        "b": weights(4, 4, 3, 3) / 3,
        "c": weights(64, 3, seed=2) / 8,
    }
    constants |= {"d": weights(4, seed=3), "e": weights(3, seed=4)}
    save(network_proto(nodes, {"x": ["N", 2, 6, 6]}, {"y": ["N", 3]}, constants), "net.onnx")
    np.savez("mine.npz", x_train=IMAGES, y_train=LABELS, x_test=IMAGES[:16], y_test=LABELS[:16])
    return tmp_path


def in_onnxruntime(model: bytes) -> Any:
    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": IMAGES})[0]


def in_the_runtime(package: Package) -> Any:
    system = build_system(load_network(package.network), package.mapping, package.chip)
    state = with_program(initial_state(system), package.program)
    return predict(system, state, Samples({"x": IMAGES}), DATA.preprocess)["y"]


def test_a_package_computes_in_onnxruntime_what_the_runtime_computes_wherever_it_was_said() -> None:
    left = ["first", "last"]
    cimc.compile("net.onnx", "brram-256x64", output="net.cim", digital=left)
    packages = [
        cimc.export("net.cim", data=DATA),
        cimc.export(cimc.compile("net.onnx", "brram-256x64", verify=False).artifact, data=DATA, digital=left),
    ]
    original = in_onnxruntime(Path("net.onnx").read_bytes())
    for package in packages:
        assert [layer.name for layer in package.mapping.layers] == list(package.program.layers) == ["second"]
        np.testing.assert_allclose(in_onnxruntime(package.network), original, atol=1e-5)
        computed, chip = in_onnxruntime(package.chip_network), in_the_runtime(package)
        assert np.abs(chip - original).max() > 1e-3, "nothing was on the arrays"
        assert_equal_to_rounding(computed, chip)


def assert_equal_to_rounding(one: Any, other: Any) -> None:
    """The rounding of a digital product is the runtime's own: rarely it moves a value over the edge of a code."""
    assert np.mean(np.abs(one - other) > 1e-5 * np.abs(other).max()) < 0.02


def constants(network: bytes) -> dict[str, Any]:
    return {one.name: onnx.numpy_helper.to_array(one) for one in onnx.load_from_string(network).graph.initializer}


def test_the_weights_of_a_digital_layer_are_trained_and_exported_and_stay_off_the_chip() -> None:
    cimc.compile("net.onnx", "brram-soc", output="net.cim", digital=["second", "las?"], verify=False)
    options = cimc.TrainingOptions(policy=cimc.Policy(method="float"), epochs=2, batch_size=8, lr=0.01)
    trained = cimc.train("net.cim", DATA, options=options, output="trained.cim").artifact
    package = cimc.export("trained.cim", "hermes")
    held = constants(package.network)
    for name, shape in (("second.weight", (4, 4, 3, 3)), ("last.weight", (64, 3)), ("last.bias", (3,))):
        assert held[name].shape == shape
        np.testing.assert_array_equal(held[name], trained.state[f"digital/{name}"])
    assert np.abs(held["second.weight"] - weights(4, 4, 3, 3) / 3).max() > 0.01
    assert package.program.layers.keys() == {"first"}
    assert_equal_to_rounding(in_onnxruntime(package.chip_network), in_the_runtime(package))
    deployed = cimc.deploy(package, DATA, chips=1)
    assert 0 <= deployed.accuracies[0] <= 1


def test_rows_held_several_times_on_the_arrays_are_single_on_the_digital_side() -> None:
    cimc.compile("net.onnx", "ideal", output="net.cim", fill_rows=256, verify=False)
    options = cimc.TrainingOptions(policy=cimc.Policy(method="float"), epochs=1, batch_size=8, lr=0.01)
    trained = cimc.train("net.cim", DATA, options=options).artifact
    random = np.random.default_rng(0)
    # Each copy of a row has its own errors.
    state = {
        name: a * random.uniform(0.8, 1, a.shape).astype(np.float32) if name.startswith("weight/") else a
        for name, a in trained.state.items()
    }
    trained = replace(trained, state=state)
    package = cimc.export(trained, digital=["second", "last"])
    held = constants(package.network)
    assert not {"second.rows", "last.rows"} & held.keys()
    second, last = (state[f"weight/{name}"] * state[f"digital/{name}.gain"] for name in ("second", "last"))
    # 4 channels of 9 places fit 7 times into 256 rows, 64 rows 4 times: all of them before their next copies.
    kernels = second.reshape(7, 4, 9, 4).sum(axis=0).transpose(2, 0, 1).reshape(4, 4, 3, 3)
    np.testing.assert_allclose(held["second.weight"], kernels, atol=1e-6)
    np.testing.assert_allclose(held["last.weight"], last.reshape(4, 64, 3).sum(axis=0), atol=1e-6)
    assert_equal_to_rounding(in_onnxruntime(package.chip_network), in_the_runtime(package))


def said_by(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures


def test_what_is_measured_is_said_and_what_is_chosen_is_within_the_budget() -> None:
    compile_it = ["compile", "net.onnx", "--calibrate", "mine.npz", "--digital-budget"]
    found = said_by(*compile_it, "50%", "-o", "net.cim")
    choice = found["digital_choice"]
    assert choice["samples"] == 32
    measured = {"".join(one["layers"]): one for one in choice["layers"]}
    total = sum(SHARES.values())
    assert {name: one["share_of_macs"] for name, one in measured.items()} == pytest.approx(
        {name: macs / total for name, macs in SHARES.items()}
    )
    chosen = {name for name, one in measured.items() if one["chosen"]}
    assert chosen
    assert sum(SHARES[name] for name in chosen) <= total / 2
    assert choice["after"]["snr_db"] > choice["before"]["snr_db"]
    for figures in (found, said_by("inspect", "net.cim")):
        assert {product["name"] for product in figures["digital_products"]} == chosen
        assert all("--digital-budget" in product["reason"] for product in figures["digital_products"])
    text = CliRunner().invoke(app, [*compile_it, "0"]).stdout
    assert "with 0.0% of the multiply-accumulates digital: from" in text
    assert "constant weights that stay digital" not in text


def candidate(name: str, share: float, error: float) -> Candidate:
    return Candidate(share, Sensitivity((name,), error, 0.0))


@pytest.mark.parametrize(
    ("budget", "chosen"),
    [(0.0, ""), (0.05, "b"), (0.15, "bc"), (0.17, "bca"), (0.5, "bcad"), (1.0, "bcad")],
)
def test_the_largest_error_for_its_share_is_chosen_first_and_what_costs_nothing_stays(
    budget: float, chosen: str
) -> None:
    candidates = [
        candidate("a", 0.02, 0.01),
        candidate("b", 0.04, 0.2),
        candidate("c", 0.1, 0.3),
        candidate("d", 0.3, 0.1),
        candidate("e", 0.001, 1e-5),
    ]
    found = choose_within(budget, candidates)
    assert [one.layers for one in found] == [one.layers for one in candidates]
    assert {one.layers[0] for one in found if one.chosen} == set(chosen)


def test_one_layer_at_least_stays_on_the_arrays() -> None:
    found = choose_within(1.0, [candidate("a", 0.5, 0.1), candidate("b", 0.5, 0.2)])
    assert [one.chosen for one in found] == [False, True]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"digital": ["frist"]}, "did you mean first"),
        ({"digital": ["*"]}, "all 3 layers of the network are left digital"),
        ({"digital_budget": 0.05}, "give it data with --calibrate"),
        ({"digital_budget": 5.0, "calibrate": DATA}, "--digital-budget is 5.0"),
        ({"digital_budget": 0.5, "calibrate": DATA, "chip": WIDE}, "isaac is not simulated"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(options: dict[str, Any], said: str) -> None:
    chip = options.pop("chip", "brram-256x64")
    with pytest.raises(CimcError, match=said) as caught:
        cimc.compile("net.onnx", chip, verify=False, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("share", ["5", "-1%", "many", "nan"])
def test_a_share_that_is_none_is_a_wrong_option(share: str) -> None:
    result = CliRunner().invoke(app, ["compile", "net.onnx", "--calibrate", "mine.npz", "--digital-budget", share])
    assert result.exit_code == 2
    assert "no share such as 5%" in result.output
