"""Networks learn by the losses of their outputs, as plain JAX trains them."""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import onnx
import optax
import pytest
from onnx import TensorProto, helper, numpy_helper

import cimc
from cimc.dataset import Dataset, Samples
from tests.networks import network_proto, weights


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


# --- Scores as maps of one pixel ---


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> cimc.Artifact:
    """Scores [N, 3, 1, 1]: a convolution, a product of its positions, their mean, and a Softmax over axis 1."""
    nodes = [
        node("Conv", "x w1 b1", "a", name="first", pads=[1, 1, 1, 1]),
        node("Relu", "a", "r"),
        node("Conv", "r w2", "c", name="second"),
        node("GlobalAveragePool", "c", "g"),
        node("Softmax", "g", "y", axis=1),
    ]
    constants: dict[str, Any] = {"w1": weights(4, 1, 3, 3) / 2, "b1": weights(4) / 4, "w2": weights(3, 4, 1, 1)}
    path = tmp_path_factory.mktemp("maps") / "maps.onnx"
    onnx.save(network_proto(nodes, {"x": ["N", 1, 6, 6]}, {"y": ["N", 3, 1, 1]}, constants), path)
    return cimc.compile(path, "ideal", verify=False).artifact


def stripes() -> Dataset:
    """Lines along, lines across, and a checkerboard, each with noise."""
    random = np.random.default_rng(0)
    labels = np.arange(48) % 3
    rows, columns = np.indices((6, 6)) % 2
    images = np.stack([rows, columns, rows ^ columns])[labels] * 0.8 + random.uniform(0, 0.2, (48, 6, 6))
    samples = Samples({"x": images[:, None].astype(np.float32)}, labels.astype(np.int32))
    return Dataset("stripes", samples, samples)


def test_scores_as_maps_of_one_pixel_are_trained_as_plain_jax_trains_them(maps: cimc.Artifact) -> None:
    data, steps = stripes(), 60
    x, labels = jax.numpy.asarray(data.train.inputs["x"]), data.train.labels
    options = cimc.TrainingOptions(
        cimc.Policy(method="float"),
        epochs=1,
        steps_per_epoch=steps,
        batch_size=48,
        lr=0.02,
        schedule=cimc.RateSchedule.constant,
        weight_decay=0,
    )
    trained = cimc.train(maps, data, options=options)

    def scores(w: Mapping[str, jax.Array]) -> jax.Array:
        a = w["gain1"] * jax.lax.conv(x, w["w1"], (1, 1), "SAME") + w["b1"][:, None, None]
        return w["gain2"] * jax.numpy.maximum(a, 0).mean((2, 3)) @ w["w2"].T

    def loss(w: Mapping[str, jax.Array]) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(scores(w), labels).mean()

    w: Any = {"w1": weights(4, 1, 3, 3) / 2, "b1": weights(4) / 4, "w2": weights(3, 4, 1, 1)[..., 0, 0]}
    w |= {"gain1": np.float32(1), "gain2": np.float32(1)}  # every crossbar layer has a digital one
    adam, losses = optax.adam(0.02), list[float]()
    memory = adam.init(w)
    step, change = jax.jit(jax.value_and_grad(loss)), jax.jit(adam.update)
    for _ in range(steps):
        value, gradient = step(w)
        update, memory = change(gradient, memory)
        w, losses = optax.apply_updates(w, update), [*losses, float(value)]
    assert losses[-1] < 0.7 * losses[0]
    assert trained.figures["loss"] == pytest.approx(np.mean(losses), rel=1e-3)
    right = float(np.mean(np.argmax(scores(w), axis=1) == labels))
    assert trained.figures["accuracy"] == pytest.approx(right, abs=0.03)
    assert right > 0.6


def test_a_run_that_learns_nothing_says_so(maps: cimc.Artifact) -> None:
    def warnings_at(lr: float) -> list[str]:
        options = cimc.TrainingOptions(cimc.Policy(method="float"), epochs=1, steps_per_epoch=60, batch_size=48, lr=lr)
        return list(cimc.train(maps, stripes(), options=options).figures["warnings"])

    (said,) = warnings_at(1e-6)
    assert f"does not look at its inputs ({np.log(3):.3g}): nothing is learnt" in said
    assert warnings_at(0.02) == []


# --- Networks that learn by it: inputs of every type, several outputs, on the arrays ---


def two_heads() -> onnx.ModelProto:
    """Tokens, a mask and a number; the class, and a value between 0 and 1."""
    nodes = [
        node("Gather", "table tokens", "e"),
        node("Cast", "mask", "m", to=TensorProto.FLOAT),
        node("Unsqueeze", "m last", "m3"),
        node("Mul", "e m3", "kept"),
        node("ReduceMean", "kept one", "pooled", keepdims=0),
        node("Concat", "pooled speed", "both", axis=1),
        node("MatMul", "both w1", "h0"),
        node("Relu", "h0", "h"),
        node("MatMul", "h w2", "scores"),
        node("Softmax", "scores", "class", axis=1),
        node("MatMul", "h w3", "v"),
        node("Sigmoid", "v", "value"),
    ]
    value = helper.make_tensor_value_info
    inputs = [
        value("tokens", TensorProto.INT64, ["N", 4]),
        value("mask", TensorProto.BOOL, ["N", 4]),
        value("speed", TensorProto.FLOAT, ["N", 1]),
    ]
    outputs = [value("class", TensorProto.FLOAT, ["N", 3]), value("value", TensorProto.FLOAT, ["N", 1])]
    constants = {"table": weights(6, 7), "w1": weights(8, 16, seed=1), "w2": weights(16, 3), "w3": weights(16, 1)}
    constants |= {"last": np.array([-1]), "one": np.array([1])}
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "two-heads", inputs, outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def sample_data(labelled: bool) -> Dataset:
    random = np.random.default_rng(0)
    stored: dict[str, np.ndarray] = {
        "tokens": random.integers(0, 6, (128, 4)),
        "mask": np.ones((128, 4), bool),
        "speed": random.random((128, 1), np.float32),
    }
    labels: Mapping[str, np.ndarray] | None = None
    if labelled:
        labels = {
            "class": (stored["tokens"].max(axis=1) // 2).astype(np.int32),
            "value": (stored["speed"] > 0.5).astype(np.int32),
        }
    samples = Samples(stored, labels)
    return Dataset("two", samples, samples.take(slice(50)))


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> cimc.Artifact:
    path = tmp_path_factory.mktemp("losses") / "two.onnx"
    onnx.save(two_heads(), path)
    return cimc.compile(path, "ideal", input_range=(-1.0, 1.0), verify=False).artifact


def test_a_network_of_three_inputs_and_two_outputs_learns_both(compiled: cimc.Artifact) -> None:
    said: list[str] = []
    options = cimc.TrainingOptions(epochs=3, steps_per_epoch=40, batch_size=16, lr=0.02)
    trained = cimc.train(compiled, sample_data(True), options=options, note=said.append)
    assert said == [
        "loss: cross-entropy on class, at the logits before its Softmax; "
        "binary on value, at the logits before its Sigmoid"
    ]
    first, last = trained.run.history[0], trained.run.history[-1]
    assert last["loss"] < 0.75 * first["loss"]
    assert last["measures"]["class.accuracy"] == last["accuracy"] > 0.6
    assert last["measures"]["value.binary_accuracy"] > 0.7
    kept = {name for name in trained.artifact.state if name.startswith("calibration/")}
    assert kept == {"calibration/tokens", "calibration/mask", "calibration/speed"}


def test_without_labels_a_network_learns_to_say_what_it_said_in_float(compiled: cimc.Artifact) -> None:
    said: list[str] = []
    options = cimc.TrainingOptions(epochs=3, steps_per_epoch=40, batch_size=16, lr=0.005)
    trained = cimc.train(compiled, sample_data(False), options=options, note=said.append)
    assert said[0].startswith("loss: distillation from the original network on class, at the logits before its Softmax")
    first, last = trained.run.history[0], trained.run.history[-1]
    assert last["loss"] < first["loss"]
    assert last["accuracy"] is None
    assert last["measures"]["class.snr_db"] > 5
    assert last["measures"]["class.argmax_agreement"] > 0.8
