"""How good outputs are: which labels belong to which output, what stands for all, what does not go together."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.dataset import Samples
from cimc.errors import CimcError
from passes.pipeline import lower
from runtime.network.load import load_network
from runtime.network.network import Network
from runtime.system.quality import better, new_quality
from tests.networks import network_proto, weights

SAMPLES, CLASSES = 12, 4
X = np.zeros((SAMPLES, 3), np.float32)
ANSWERS = np.random.default_rng(0).integers(0, CLASSES, SAMPLES).astype(np.int32)
SCORES = weights(SAMPLES, CLASSES, seed=1)
ANGLE = weights(SAMPLES, 1, seed=2)


def two_outputs() -> Network:
    """Probabilities of four classes and an angle."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["h"]),
        helper.make_node("Softmax", ["h"], ["classes"]),
        helper.make_node("MatMul", ["x", "V"], ["angle"]),
    ]
    outputs = {"classes": ("N", CLASSES), "angle": ("N", 1)}
    proto = network_proto(nodes, {"x": ("N", 3)}, outputs, {"W": weights(3, CLASSES), "V": weights(3, 1)})
    return load_network(lower(ir.from_proto(proto)))


def one_output(columns: int) -> Network:
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"])]
    proto = network_proto(nodes, {"x": ("N", 3)}, {"y": ("N", columns)}, {"W": weights(3, columns)})
    return load_network(lower(ir.from_proto(proto)))


def probabilities() -> np.ndarray[Any, np.dtype[np.float32]]:
    raised = np.exp(SCORES)
    return raised / raised.sum(axis=1, keepdims=True)


def test_labels_by_name_of_several_outputs_in_batches_of_any_size() -> None:
    wanted = ANGLE + np.float32(0.5)
    samples = Samples({"x": X}, {"classes": ANSWERS, "angle": wanted})
    quality = new_quality(two_outputs(), samples)
    for part in (slice(0, 7), slice(7, None)):
        quality.add({"classes": SCORES[part], "angle": ANGLE[part]}, samples.take(part))
    figures = quality.figures()
    assert figures["classes"]["accuracy"] == pytest.approx(np.mean(SCORES.argmax(axis=1) == ANSWERS))
    assert figures["angle"]["mse"] == pytest.approx(0.25)
    assert quality.main() == ("accuracy", figures["classes"]["accuracy"])


def test_labels_of_one_output_alone_and_the_agreement_of_both() -> None:
    samples = Samples({"x": X}, {"angle": ANGLE})
    quality = new_quality(two_outputs(), samples)
    quality.add({"classes": SCORES, "angle": ANGLE}, samples, {"classes": -SCORES, "angle": ANGLE * 2})
    assert quality.figures() == {"angle": {"mse": 0.0}}
    assert quality.agreement()["classes"]["argmax_agreement"] == np.mean(SCORES.argmax(axis=1) == SCORES.argmin(axis=1))
    assert quality.agreement()["angle"]["relative_error"] == pytest.approx(0.5)


def test_perplexity_of_probabilities_is_not_taken_of_their_softmax() -> None:
    samples = Samples({"x": X}, {"classes": ANSWERS})
    quality = new_quality(two_outputs(), samples, "perplexity")
    quality.add({"classes": probabilities(), "angle": ANGLE}, samples)
    loss = -np.log(probabilities()[np.arange(SAMPLES), ANSWERS]).mean()
    name, value = quality.main()
    assert name == "perplexity"
    assert value == pytest.approx(np.exp(loss), rel=1e-5)
    scores = Samples({"x": X}, ANSWERS)
    of_scores = new_quality(one_output(CLASSES), scores, "perplexity")
    of_scores.add({"y": SCORES}, scores)
    assert of_scores.main()[1] == pytest.approx(np.exp(loss), rel=1e-5)


def test_without_labels_the_agreement_stands_for_the_network() -> None:
    samples = Samples({"x": X})
    quality = new_quality(one_output(CLASSES), samples)
    changed = SCORES.copy()
    changed[0] = -changed[0]
    quality.add({"y": changed}, samples, {"y": SCORES})
    assert quality.figures() == {}
    name, value = quality.main()
    assert name == "argmax_agreement"
    assert value == pytest.approx(1 - 1 / SAMPLES)


def test_of_one_value_without_labels_the_fidelity_stands() -> None:
    samples = Samples({"x": X})
    quality = new_quality(one_output(1), samples)
    quality.add({"y": ANGLE * 1.1}, samples, {"y": ANGLE})
    name, value = quality.main()
    assert name == "fidelity"
    assert value == pytest.approx(0.99, abs=1e-5)


def test_an_output_without_sizes_is_one_sample() -> None:
    nodes = [helper.make_node("MatMul", ["x", "W"], ["h"]), helper.make_node("ReduceMean", ["h"], ["y"], keepdims=0)]
    proto = network_proto(nodes, {"x": (1, 2, 3)}, {"y": ()}, {"W": weights(3, 2)})
    targets = np.array([1.0, 3.0], np.float32)
    samples = Samples({"x": np.zeros((2, 1, 2, 3), np.float32)}, targets)
    quality = new_quality(load_network(lower(ir.from_proto(proto))), samples, "mae", name="means")
    for place, value in enumerate((2.0, 3.5)):
        output = {"y": np.array(value, np.float32)}
        quality.add(output, samples.take(slice(place, place + 1)), output)
    assert quality.figures() == {"y": {"mae": pytest.approx(0.75)}}
    assert quality.agreement()["y"]["largest_error"] == 0


def test_outputs_of_integers_alone_cannot_stand() -> None:
    quality = new_quality(one_output(1), Samples({"x": X}))
    quality.add({"y": ANGLE}, Samples({"x": X}), {"y": np.zeros(SAMPLES, np.int64)})
    with pytest.raises(CimcError, match="no output of floats"):
        quality.main()


@pytest.mark.parametrize(
    ("labels", "metric", "said"),
    [
        ({"letters": ANSWERS}, None, "mine has labels for letters, but the network's outputs are classes, angle"),
        ({"classes": ANSWERS + 2}, None, "mine has labels of 6 classes, but the network's output classes is 4"),
        (ANSWERS, None, "the network's outputs are classes, angle: name them labels/NAME"),
        (None, "mse", "--metric mse needs labels, and mine has none"),
        ({"classes": ANSWERS}, "speed", "metric is 'speed'; choose top1"),
        ({"angle": np.zeros((SAMPLES, 3), np.float32)}, None, "do not go together"),
    ],
)
def test_labels_that_do_not_fit_are_told(labels: Any, metric: str | None, said: str) -> None:
    with pytest.raises(CimcError, match=said) as error:
        new_quality(two_outputs(), Samples({"x": X}, labels), metric, name="mine")
    assert "\n" not in str(error.value)


def test_over_its_baseline_less_is_worse_whether_figures_are_shares_or_errors() -> None:
    assert better("accuracy", 0.9, 1.0) == pytest.approx(0.9)
    assert better("mse", 2.0, 1.0) == pytest.approx(0.5)
    assert better("perplexity", 10.0, 20.0) == pytest.approx(2.0)
