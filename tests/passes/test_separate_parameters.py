"""What is trained: every layer has parameters of its own, also where an exporter wrote equal tensors once."""

import numpy as np
import onnx_ir as ir
from onnx import helper

from passes.pipeline import lower
from runtime.network.load import load_network
from tests.networks import largest_difference, network, weights

node = helper.make_node


def trained(nodes, shape, out, constants):
    """The trainable parameters, the statistics and the layers of a network that lowering does not change."""
    model = network(nodes, {"x": shape}, {"y": out}, constants)
    lowered = lower(model)
    assert largest_difference(model, lowered) < 1e-4
    loaded = load_network(ir.to_proto(lowered).SerializeToString())
    return loaded.trainable, loaded.statistics, len(list(loaded.layers()))


def test_normalisations_that_share_equal_tensors_train_apart():
    nodes = [
        node("Conv", ["x", "k", "zeros"], ["a"], name="a"),
        node("BatchNormalization", ["a", "ones", "zeros", "zeros", "ones"], ["b"], name="n1"),
        node("Conv", ["b", "l", "zeros"], ["c"], name="c"),
        node("BatchNormalization", ["c", "ones", "zeros", "zeros", "ones"], ["y"], name="n2"),
    ]
    constants = {
        "k": weights(3, 2, 1, 1),
        "l": weights(3, 3, 1, 1, seed=1),
        "ones": np.ones(3, np.float32),
        "zeros": np.zeros(3, np.float32),
    }
    trainable, statistics, _ = trained(nodes, ["N", 2, 4, 4], ["N", 3, 4, 4], constants)
    assert len(trainable) == 6  # two biases, two scales, two shifts
    assert len(statistics) == 4
    assert not set(trainable) & set(statistics)


def test_biases_of_recurrent_and_transposed_layers_are_trained():
    for operator, gates in (("LSTM", 4), ("RNN", 1), ("GRU", 3)):
        nodes = [
            node(
                operator,
                ["x", "w", "r", "b"],
                ["h"],
                hidden_size=4,
                **({"linear_before_reset": 1} if gates == 3 else {}),
            ),
            node("Squeeze", ["h", "one"], ["y"]),
        ]
        constants = {
            "w": weights(1, 4 * gates, 3),
            "r": weights(1, 4 * gates, 4),
            "b": weights(1, 8 * gates),
            "one": np.array([1]),
        }
        trainable, _, layers = trained(nodes, [5, "N", 3], [5, "N", 4], constants)
        assert layers == 2
        assert len(trainable) == (2 if operator == "GRU" else 1), operator
    nodes = [node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[2])]
    trainable, _, _ = trained(nodes, ["N", 3, 5], ["N", 2, 11], {"w": weights(3, 2, 3), "b": weights(2)})
    assert len(trainable) == 1


def test_embeddings_and_normalisation_are_trained_but_masks_and_factors_are_not():
    nodes = [
        node("LayerNormalization", ["x", "g", "s"], ["n"]),
        node("Mul", ["n", "factor"], ["m"]),
        node("MatMul", ["m", "w"], ["p"]),
        node("Add", ["p", "mask"], ["q"]),
        node("PRelu", ["q", "slope"], ["y"]),
    ]
    constants = {
        "g": weights(4),
        "s": weights(4, seed=1),
        "factor": weights(4, seed=2),
        "w": weights(4, 3),
        "mask": np.array([0, -3e38, 0], np.float32),
        "slope": weights(3, seed=3),
    }
    model = network(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, constants)
    loaded = load_network(ir.to_proto(lower(model)).SerializeToString())
    assert {name.split(".")[0] for name in loaded.trainable} >= {"g", "s", "slope"}
    assert not {"factor", "mask"} & set(loaded.trainable)
