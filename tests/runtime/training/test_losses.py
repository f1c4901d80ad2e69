"""Losses by output: each against NumPy, where it is taken, how it is chosen, and that networks learn by it."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import onnx
import optax
import pytest
from onnx import TensorProto, helper, numpy_helper

import cimc
from cimc.dataset import Dataset, Samples
from cimc.errors import CimcError
from cimc.options import Loss
from passes.pipeline import lower
from passes.verify import run
from runtime.network.load import load_network
from runtime.network.network import Network
from runtime.network.run import run_nodes
from runtime.system.products import plain_product
from runtime.training.losses import TEMPERATURE, OutputLoss, choose_losses, total_loss
from runtime.training.objective import Objective, measure_test
from tests.networks import network, network_proto, weights

pytestmark = pytest.mark.usefixtures("quick_to_compile")

CLASSES = 5


def log_softmax(scores: np.ndarray, axis: int = -1) -> np.ndarray:
    return scores - np.log(np.exp(scores).sum(axis=axis, keepdims=True))


# --- The loss is taken at the logits, whatever moves them ---


def headed(tail: Sequence[onnx.NodeProto], shape: Sequence[int | str]) -> Network:
    """x [N, 6] times w gives [N, 5]; then the tail to y."""
    constants = {"w": weights(6, CLASSES), "axes": np.array([2, 3]), "two": np.array([2]), "flat": np.array([0, -1])}
    constants |= {"maps": np.array([0, CLASSES, 1, 1]), "halves": np.array([0, -1, 1])}
    used = {name for node in tail for name in node.input}
    constants = {name: value for name, value in constants.items() if name in {"w", *used}}
    product = helper.make_node("MatMul", ["x", "w"], ["z"], name="fc")
    return load_network(lower(network([product, *tail], {"x": ["N", 6]}, {"y": shape}, constants)))


def node(kind: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], **attributes)


TAILS: dict[str, tuple[list[onnx.NodeProto], list[int | str], str]] = {
    "none": ([node("Identity", "z", "y")], ["N", 5], ""),
    "softmax": ([node("Softmax", "z", "y", axis=1)], ["N", 5], "Softmax"),
    "softmax, squeeze": (
        [node("Reshape", "z maps", "m"), node("Softmax", "m", "s", axis=1), node("Squeeze", "s axes", "y")],
        ["N", 5],
        "Softmax",
    ),
    "log-softmax, flatten": (
        [node("Reshape", "z maps", "m"), node("LogSoftmax", "m", "s", axis=-3), node("Flatten", "s", "y")],
        ["N", 5],
        "LogSoftmax",
    ),
    "softmax, transpose, unsqueeze": (
        [
            node("Unsqueeze", "z two", "u"),
            node("Softmax", "u", "s", axis=1),
            node("Transpose", "s", "t", perm=[0, 2, 1]),
            node("Cast", "t", "c", to=TensorProto.FLOAT),
            node("Reshape", "c halves", "y"),
        ],
        ["N", 5, 1],
        "Softmax",
    ),
    "sigmoid, reshape": ([node("Sigmoid", "z", "s"), node("Reshape", "s maps", "y")], ["N", 5, 1, 1], "Sigmoid"),
}


@pytest.mark.parametrize("tail", TAILS)
def test_the_logits_are_found_before_movers_and_the_outputs_stay(tail: str) -> None:
    nodes, shape, activation = TAILS[tail]
    loaded = headed(nodes, shape)
    x = weights(3, 6, seed=1)
    values, _ = run_nodes(loaded, {"x": x}, plain_product(loaded), {}, {})
    z = x @ weights(6, CLASSES)
    np.testing.assert_allclose(np.ravel(values[loaded.logits["y"]]), z.ravel(), atol=1e-6)
    expected = {"": z, "Softmax": np.exp(log_softmax(z)), "LogSoftmax": log_softmax(z), "Sigmoid": 1 / (1 + np.exp(-z))}
    np.testing.assert_allclose(values["y"], expected[activation].reshape(values["y"].shape), atol=1e-6)
    assert values["y"].shape == (3, *shape[1:])
    samples = Samples({"x": x}, np.arange(3, dtype=np.int32))
    if activation != "Sigmoid":
        (loss,) = choose_losses(loaded, {"y": values["y"].shape}, samples, Loss.auto)
        assert (loss.kind, loss.activation) == (Loss.cross_entropy, activation)
        computed = total_loss((loss,), {"y": values[loaded.logits["y"]]}, {"y": np.arange(3)})
        np.testing.assert_allclose(computed, -log_softmax(z)[np.arange(3), np.arange(3)].mean(), rtol=1e-6)
        assert (f"at the logits before its {activation}" in loss.text) == bool(activation)


def test_a_softmax_whose_axis_is_merged_stays_where_it_is() -> None:
    nodes = [node("Reshape", "z pairs", "m"), node("Softmax", "m", "s", axis=1), node("Reshape", "s flat", "y")]
    constants = {"w": weights(6, 6), "pairs": np.array([0, 2, 3]), "flat": np.array([0, -1])}
    product = helper.make_node("MatMul", ["x", "w"], ["z"], name="fc")
    model = network([product, *nodes], {"x": ["N", 6]}, {"y": ["N", 6]}, constants)
    x = weights(3, 6, seed=1)
    loaded = load_network(lower(model))
    assert loaded.logits == {"y": "y"}
    values, _ = run_nodes(loaded, {"x": x}, plain_product(loaded), {}, {})
    np.testing.assert_allclose(values["y"], np.asarray(run(model, {"x": x})[0], np.float32), atol=1e-6)


def test_probabilities_that_others_use_stay_beside_the_moved_logits() -> None:
    nodes = [
        node("Unsqueeze", "z two", "u"),
        node("Softmax", "u", "s", axis=1),
        node("Squeeze", "s two", "y"),
        node("Mul", "s s", "squares"),
    ]
    product = helper.make_node("MatMul", ["x", "w"], ["z"], name="fc")
    outputs = {"y": ["N", CLASSES], "squares": ["N", CLASSES, 1]}
    model = network([product, *nodes], {"x": ["N", 6]}, outputs, {"w": weights(6, CLASSES), "two": np.array([2])})
    loaded = load_network(lower(model))
    values, _ = run_nodes(loaded, {"x": weights(3, 6)}, plain_product(loaded), {}, {})
    np.testing.assert_allclose(values["squares"][..., 0], np.square(values["y"]), atol=1e-6)
    assert loaded.logits["squares"] == "squares"


# --- The losses against NumPy ---


def loss_of(kind: Loss, logits: np.ndarray, targets: np.ndarray, **fields: Any) -> float:
    return float(total_loss((OutputLoss("y", kind, **fields),), {"y": jax.numpy.asarray(logits)}, {"y": targets}))


def test_cross_entropy_of_positions_leaves_out_what_is_not_counted() -> None:
    logits, labels = weights(2, 4, 3) * 3, np.array([[0, 1, 2, -1], [2, -1, -1, 0]])
    said = [-log_softmax(logits)[n, t, label] for (n, t), label in np.ndenumerate(labels) if label >= 0]
    assert loss_of(Loss.cross_entropy, logits, labels, masked=True) == pytest.approx(np.mean(said), rel=1e-6)
    first = np.moveaxis(logits, -1, 1)
    assert loss_of(Loss.cross_entropy, first, labels, axis=-2, masked=True) == pytest.approx(np.mean(said), rel=1e-6)


def test_axes_of_size_1_behind_the_classes_change_nothing() -> None:
    logits, labels = weights(4, 3) * 3, np.array([0, 2, 1, 2])
    said = -log_softmax(logits)[np.arange(4), labels].mean()
    for shape in ((4, 3), (4, 3, 1, 1), (4, 1, 3)):
        assert loss_of(Loss.cross_entropy, logits.reshape(shape), labels) == pytest.approx(said, rel=1e-6)
    assert loss_of(Loss.cross_entropy, logits, labels[:, None]) == pytest.approx(said, rel=1e-6)


def test_squared_error_is_of_the_output_and_not_of_its_logits() -> None:
    logits, targets = weights(4, 3), weights(4, 3, seed=1)
    assert loss_of(Loss.mse, logits, targets) == pytest.approx(np.square(logits - targets).mean(), rel=1e-6)
    after = np.square(1 / (1 + np.exp(-logits)) - targets).mean()
    assert loss_of(Loss.mse, logits, targets, activation="Sigmoid") == pytest.approx(after, rel=1e-6)


def test_binary_cross_entropy_is_of_every_value() -> None:
    logits, labels = weights(4, 3) * 4, (weights(4, 3, seed=1) > 0).astype(np.int32)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    each = -np.where(labels, np.log(p), np.log(1 - p))
    assert loss_of(Loss.binary, logits, labels, activation="Sigmoid") == pytest.approx(each.mean(), rel=1e-5)
    some = np.where([[True], [True], [False], [True]], labels, -1)
    assert loss_of(Loss.binary, logits, some, masked=True) == pytest.approx(each[[0, 1, 3]].mean(), rel=1e-5)


@pytest.mark.parametrize("activation", ["", "Sigmoid", "Softmax"])
def test_distillation_is_nothing_at_the_reference_and_more_elsewhere(activation: str) -> None:
    reference, logits = weights(4, 3) * 3, weights(4, 3, seed=1)
    assert loss_of(Loss.distill, reference, reference, activation=activation) == pytest.approx(0, abs=1e-6)
    computed = loss_of(Loss.distill, logits, reference, activation=activation)
    if activation == "Softmax":
        wanted, said = log_softmax(reference / TEMPERATURE), log_softmax(logits / TEMPERATURE)
        expected = TEMPERATURE**2 * (np.exp(wanted) * (wanted - said)).sum(axis=-1).mean()
    elif activation:
        p, q = (1 / (1 + np.exp(-array)) for array in (reference, logits))
        expected = (p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))).mean()
    else:
        expected = np.square(reference - logits).mean()
    assert computed == pytest.approx(expected, rel=1e-4)


def test_losses_of_several_outputs_add_up() -> None:
    logits = {"a": weights(4, 3), "b": weights(4, 2)}
    targets = {"a": np.arange(4) % 3, "b": weights(4, 2, seed=1)}
    losses = OutputLoss("a", Loss.cross_entropy), OutputLoss("b", Loss.mse)
    apart = sum(float(total_loss((loss,), logits, targets)) for loss in losses)
    assert float(total_loss(losses, logits, targets)) == pytest.approx(apart, rel=1e-6)


# --- Which loss ---


def chosen(labels: Any, sizes: Sequence[int], wanted: Loss = Loss.auto, tail: str = "none") -> OutputLoss:
    nodes, shape, _ = TAILS[tail]
    (loss,) = choose_losses(headed(nodes, shape), {"y": sizes}, Samples({"x": weights(4, 6)}, labels), wanted)
    return loss


def test_the_loss_follows_labels_and_the_end_of_the_network() -> None:
    classes, truths = np.array([0, 4, 1, 2]), np.eye(4, 5, dtype=np.int32)
    assert chosen(classes, (1, 5)) == OutputLoss("y", Loss.cross_entropy)
    assert chosen(classes, (1, 5, 1, 1)).axis == -1
    assert chosen(np.zeros((4, 7), int), (1, 7, 5)) == OutputLoss("y", Loss.cross_entropy)
    assert chosen(np.zeros((4, 6, 7), int), (1, 5, 6, 7)).axis == -3
    assert chosen(np.array([0, -1, 1, 2]), (1, 5)).masked
    assert chosen(truths, (1, 5)).kind is Loss.binary
    assert chosen(truths.astype(np.float32), (1, 5, 1, 1), tail="sigmoid, reshape").kind is Loss.binary
    assert chosen(truths.astype(np.float32), (1, 5)).kind is Loss.mse
    assert chosen(weights(4, 5), (1, 5, 1, 1), tail="sigmoid, reshape").kind is Loss.mse
    assert chosen(None, (1, 5)).kind is Loss.distill
    assert chosen(classes, (1, 5), Loss.distill).kind is Loss.distill


@pytest.mark.parametrize(
    ("labels", "wanted", "said"),
    [
        (None, Loss.mse, "--loss mse needs labels"),
        (np.array([0, 5, 1, 2]), Loss.auto, "run from 0 to 5, 6 classes, but it has 5"),
        (np.array([0, -2, 1, 2]), Loss.auto, "run from -2 to 2"),
        (np.zeros((4, 3), np.int32), Loss.auto, "no axis of classes"),
        (np.zeros((4, 3), np.float32), Loss.auto, "3 values a sample but it has 5"),
        (np.array([0, 1, 2, 3]), Loss.mse, "1 values a sample but it has 5"),
        (np.array([0, 1, 2, 3]), Loss.binary, "a label of 0 or 1 for every value of y"),
        (np.zeros(4, np.float32), Loss.cross_entropy, "needs classes, integers from 0"),
        ({"other": np.zeros(4, np.int32)}, Loss.auto, "labels of other; the outputs of the network are y"),
    ],
)
def test_labels_that_do_not_go_with_the_output_are_told(labels: Any, wanted: Loss, said: str) -> None:
    with pytest.raises(CimcError, match=said) as error:
        chosen(labels, (1, 5), wanted)
    assert "\n" not in str(error.value)


def test_truth_values_are_measured_as_such_however_they_are_stored() -> None:
    loss = OutputLoss("y", Loss.binary, "Sigmoid")
    logits, truths = np.array([[3.0, -3.0], [-3.0, -3.0]], np.float32), np.array([[1, 0], [1, 0]])
    for labels in (truths, truths.astype(np.float32)):
        figures = measure_test(Objective((loss,), {"y": labels}, {"y": labels}), {"y": logits})
        assert figures == {"f1_micro": pytest.approx(2 / 3), "exact_match": 0.5}


def test_a_test_set_without_labels_has_no_figures() -> None:
    loss = OutputLoss("y", Loss.cross_entropy)
    assert measure_test(Objective((loss,), {"y": np.arange(2)}, {}), {"y": weights(2, 3)}) == {}


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
