"""Losses by output: each against NumPy, where it is taken, and how it is chosen."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cimc.dataset import Samples
from cimc.errors import CimcError
from cimc.options import Loss
from passes.pipeline import lower
from passes.verify import run
from runtime.network.load import load_network
from runtime.network.network import Network
from runtime.network.run import run_nodes
from runtime.training.losses import TEMPERATURE, OutputLoss, choose_losses, total_loss
from runtime.training.objective import Objective, measure_test
from tests.networks import network, plain_product, weights

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
    assert chosen(classes, (1, 5)) == OutputLoss("y", Loss.cross_entropy, classes=5)
    assert chosen(classes, (1, 5, 1, 1)).axis == -1
    assert chosen(np.zeros((4, 7), int), (1, 7, 5)) == OutputLoss("y", Loss.cross_entropy, classes=5)
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


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_the_least_loss_without_a_look_is_that_of_the_best_constant_answer(smoothing: float) -> None:
    """Of an output with a class that no label has: smoothing gives it its part all the same."""
    labels = np.array([0, 4, 1, 1, 2])
    loss = replace(chosen(labels, (1, 6)), smoothing=smoothing)
    shares = (1 - smoothing) * np.bincount(labels, minlength=6) / 5 + smoothing / 6
    answer = jax.numpy.log(jax.numpy.asarray(np.tile(np.maximum(shares, 1e-30), (5, 1)), jax.numpy.float32))
    least = float(total_loss((loss,), {"y": answer}, {"y": labels}))
    assert Objective((loss,), {"y": labels}, {}).blind == pytest.approx(least, rel=1e-5)


def test_truth_values_are_measured_as_such_however_they_are_stored() -> None:
    loss = OutputLoss("y", Loss.binary, "Sigmoid")
    logits, truths = np.array([[3.0, -3.0], [-3.0, -3.0]], np.float32), np.array([[1, 0], [1, 0]])
    for labels in (truths, truths.astype(np.float32)):
        figures = measure_test(Objective((loss,), {"y": labels}, {"y": labels}), {"y": logits})
        assert figures == {"f1_micro": pytest.approx(2 / 3), "exact_match": 0.5}


def test_a_test_set_without_labels_has_no_figures() -> None:
    loss = OutputLoss("y", Loss.cross_entropy)
    assert measure_test(Objective((loss,), {"y": np.arange(2)}, {}), {"y": weights(2, 3)}) == {}
