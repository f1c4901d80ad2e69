"""Ways to compute that touch no device: what a layer gives, cell by cell, and what training with them ends with."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
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
from runtime.network.load import load_network
from runtime.system.state import State, System, build_system, initial_state
from runtime.training.options import Policy
from tests import reference
from tests.networks import network_proto, weights

NOISE, OUTPUT_NOISE = 0.1, 0.05


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "small.onnx"
    nodes = [
        helper.make_node("Flatten", ["x"], ["f"]),
        helper.make_node("Gemm", ["f", "w1", "b1"], ["h"], name="fc1"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"], name="fc2"),
    ]
    constants = {"w1": 0.1 * weights(784, 12), "b1": weights(12), "w2": 0.4 * weights(12, 10, seed=1)}
    onnx.save(network_proto(nodes, {"x": ["N", 1, 28, 28]}, {"y": ["N", 10]}, constants), path)
    return path


def on_chip(model: Path, chip: str) -> tuple[System, State]:
    """The network, and a state with input ranges of 1."""
    artifact = compile_model(model, chip, verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    state = initial_state(system)
    return system, {**state, "input_range": dict.fromkeys(state["input_range"], jnp.float32(1))}


def product_of(method: str, system: System, state: State, **settings: Any) -> Any:
    return Policy(method=method, settings=tuple(settings.items())).compute.product(system, state)


X = np.random.default_rng(3).uniform(0, 1, (12, 6)).astype(np.float32)


@pytest.mark.parametrize("scale", ["layer", "column"])
@pytest.mark.parametrize("method", ["quantisation-aware", "hardware-aware"])
def test_a_layer_is_what_the_chip_reads_of_programmed_weights(model: Path, method: str, scale: str) -> None:
    system, state = on_chip(model, "brram-256x64")
    weight, chip = np.asarray(state["weight"]["fc2"]), system.chip
    found = product_of(method, system, state, scale=scale)("fc2", jnp.asarray(X), None)
    codes = reference.dac_codes(X, 1.0, chip)[:, :, None]
    for column, values in enumerate(weight.T):
        largest = float(np.abs(values).max() if scale == "column" else np.abs(weight).max())
        pairs = np.array([reference.pair_target(float(w), largest, chip) for w in values])
        pairs = np.round(pairs / chip.target_step_uS) * chip.target_step_uS  # as finely as targets are stated
        sums = reference.sums(chip, codes, pairs.T[..., None], [(0, 12)], False, None)
        expected = sums.d[0, :, 0] * reference.output_scale(largest, 1.0, chip)
        certain = sums.ties[0, :, 0] == 0
        assert certain.sum() >= 4
        np.testing.assert_allclose(found[column][certain], expected[certain], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", ["layer", "column"])
def test_noise_has_the_stated_sd_of_the_largest_weight(model: Path, scale: str) -> None:
    system, state = on_chip(model, "ideal")
    weight = np.asarray(state["weight"]["fc2"])
    largest = np.abs(weight).max(axis=0 if scale == "column" else None)
    quiet = np.asarray(product_of("hardware-aware", system, state)("fc2", jnp.asarray(X), None))
    np.testing.assert_allclose(quiet, weight.T @ X, rtol=2e-3, atol=2e-4)
    for settings, expected in (
        ({"noise": NOISE, "output_noise": 0}, NOISE * np.outer(largest * np.ones(10), np.linalg.norm(X, axis=0))),
        ({"noise": 0, "output_noise": OUTPUT_NOISE}, OUTPUT_NOISE * np.outer(largest * np.ones(10), np.ones(6))),
    ):
        product = product_of("hardware-aware", system, state, scale=scale, **settings)
        keys = jax.random.split(jax.random.key(0), 1500)
        off = np.asarray(jax.jit(jax.vmap(lambda key, p=product: p("fc2", jnp.asarray(X), key)))(keys)) - quiet
        np.testing.assert_allclose(off.std(axis=0), expected, rtol=0.12)
        np.testing.assert_allclose(off.mean(axis=0), 0, atol=0.12 * expected.max())


def test_gradients_pass_straight_through_with_the_weights_that_were_read(model: Path) -> None:
    system, state = on_chip(model, "ideal")
    bars = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)

    def total(weight: Any, x: Any, key: Any) -> Any:
        trial = {**state, "weight": {**state["weight"], "fc2": weight}}
        y = product_of("hardware-aware", system, trial, noise=NOISE, output_noise=0)("fc2", x, key)
        return jnp.sum(y * bars), y

    key = jax.random.key(1)
    (of_weight, of_x), y = jax.grad(total, argnums=(0, 1), has_aux=True)(state["weight"]["fc2"], jnp.asarray(X), key)
    np.testing.assert_allclose(of_weight, X @ bars.T, rtol=1e-4, atol=1e-5)
    read = np.linalg.lstsq(X.T, np.asarray(y).T, rcond=None)[0]  # 6 images of 12 rows: the part of it that they see
    onto = X @ np.linalg.pinv(X)
    np.testing.assert_allclose(onto @ np.asarray(of_x), onto @ (read @ bars), rtol=5e-3, atol=5e-3)


@pytest.mark.parametrize(("scale", "axis"), [("layer", None), ("column", 0)])
def test_weights_are_clipped_at_so_many_sd(scale: str, axis: int | None) -> None:
    weight = np.random.default_rng(0).standard_t(3, (200, 5)).astype(np.float32)
    compute = Policy(method="hardware-aware", settings=(("clip_sigma", "1.5"), ("scale", scale))).compute
    assert compute.clip is not None
    bound = 1.5 * weight.std(axis=axis)
    np.testing.assert_allclose(compute.clip(jnp.asarray(weight)), np.clip(weight, -bound, bound), rtol=1e-5)
    assert Policy(method="quantisation-aware").compute.clip is None
    assert Policy(method="hardware-aware", settings=(("clip_sigma", 0.0),)).compute.clip is None


@pytest.mark.parametrize("method", ["quantisation-aware", "hardware-aware"])
def test_a_trained_network_holds_on_the_chip(model: Path, method: str) -> None:
    data = Dataset.of_images("digits", *digits(600, 200), synthetic=True, classes=10)
    artifact: Artifact = compile_model(model, "brram-256x64", verify=False).artifact
    options = cimc.TrainingOptions(
        policy=cimc.Policy(method=method), epochs=2, steps_per_epoch=60, batch_size=32, lr=0.01
    )
    trained = cimc.train(artifact, data, options=options)
    assert trained.figures["accuracy"] > 0.7
    assert trained.figures["updates"] == trained.figures["device_writes"] == 0
    layers = trained.figures["layers"]
    assert layers["fc1"]["weight_range"] == pytest.approx(np.abs(trained.artifact.state["weight/fc1"]).max(), rel=1e-6)
    assert layers["fc2"]["input_range"] > 0
    if method == "hardware-aware":
        weight = trained.artifact.state["weight/fc1"]
        assert (np.abs(weight) <= 2.6 * weight.std(axis=0)).all()
    package = cimc.export(trained.artifact)
    assert cimc.deploy(package, data, chips=2).accuracies.mean() > 0.5


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"method": "hardware-aware", "settings": (("nois", 0.1),)}, "--update hardware-aware has no option 'nois'"),
        ({"method": "hardware-aware", "settings": (("noise", "much"),)}, "noise of --update hardware-aware is 'much'"),
        ({"method": "quantisation-aware", "settings": (("scale", "row"),)}, "scale of --update quantisation-aware"),
        ({"method": "hardware-awar"}, "did you mean hardware-aware?"),
    ],
)
def test_options_that_are_wrong_are_one_clear_line(policy: Any, said: str) -> None:
    with pytest.raises(CimcError) as caught:
        Policy(**policy)
    assert said in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
