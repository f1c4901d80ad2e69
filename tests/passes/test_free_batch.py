"""Networks exported for one batch size: it becomes free where that changes nothing, and only there."""

import numpy as np
import pytest
from onnx import helper

from passes.pipeline import lower
from tests.networks import largest_difference, network, sizes, weights

node = helper.make_node


def first_size(nodes, shape, out, constants):
    model = network(nodes, {"x": shape}, {"y": out}, constants)
    lowered = lower(model)
    assert largest_difference(model, lowered) < 1e-4
    return sizes(lowered.graph.inputs[0])[0]


@pytest.mark.parametrize("allowzero", [None, 0, 1])
def test_a_flattening_reshape_that_repeats_the_batch(allowzero):
    attributes = {} if allowzero is None else {"allowzero": allowzero}
    nodes = [node("Reshape", ["x", "s"], ["f"], **attributes), node("MatMul", ["f", "w"], ["y"])]
    constants = {"s": np.array([2, 12]), "w": weights(12, 3)}
    assert not isinstance(first_size(nodes, [2, 3, 4], [2, 3], constants), int)


@pytest.mark.parametrize("batch", [1, 2])
def test_heads_times_batch_and_a_class_token(batch):
    """As attention exports it: [N, T, D] -> [N heads, T, D / heads] -> back, with a token joined in front."""
    nodes = [
        node("Expand", ["token", "ts"], ["tokens"]),
        node("Concat", ["tokens", "x"], ["all"], axis=1),
        node("MatMul", ["all", "w"], ["p"]),
        node("Reshape", ["p", "split"], ["h"]),
        node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "merged"], ["m"]),
        node("Softmax", ["m"], ["a"], axis=-1),
        node("Reshape", ["a", "apart"], ["b"]),
        node("Transpose", ["b"], ["c"], perm=[0, 2, 1, 3]),
        node("Reshape", ["c", "joined"], ["y"]),
    ]
    constants = {
        "token": weights(1, 1, 6),
        "ts": np.array([batch, 1, 6]),
        "w": weights(6, 6),
        "split": np.array([batch, 4, 2, 3]),
        "merged": np.array([batch * 2, 4, 3]),
        "apart": np.array([batch, 2, 4, 3]),
        "joined": np.array([batch, 4, 6]),
    }
    assert not isinstance(first_size(nodes, [batch, 3, 6], [batch, 4, 6], constants), int)


def test_a_constant_with_one_entry_an_image_is_expanded():
    nodes = [node("Concat", ["token", "x"], ["all"], axis=1), node("MatMul", ["all", "w"], ["y"])]
    constants = {"token": np.repeat(weights(1, 1, 6), 2, axis=0), "w": weights(6, 4)}
    assert not isinstance(first_size(nodes, [2, 3, 6], [2, 4, 4], constants), int)


def test_the_batch_in_the_middle_of_a_recurrent_layer():
    nodes = [
        node("Transpose", ["x"], ["s"], perm=[1, 0, 2]),
        node("LSTM", ["s", "w", "r", "b", "", "zero", "zero"], ["h"], hidden_size=4),
        node("Transpose", ["h"], ["t"], perm=[0, 2, 1, 3]),
        node("Reshape", ["t", "shape"], ["f"]),
        node("Transpose", ["f"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {
        "w": weights(1, 16, 3),
        "r": weights(1, 16, 4),
        "b": weights(1, 32),
        "zero": np.zeros((1, 1, 4), np.float32),
        "shape": np.array([5, 1, 4]),
    }
    assert not isinstance(first_size(nodes, [1, 5, 3], [1, 5, 4], constants), int)


def test_the_length_of_a_sequence_is_no_batch():
    nodes = [node("GRU", ["x", "w", "r", "b"], ["h"], hidden_size=4, linear_before_reset=1)]
    constants = {"w": weights(1, 12, 3), "r": weights(1, 12, 4), "b": weights(1, 24)}
    nodes.append(node("Squeeze", ["h", "axis"], ["y"]))
    assert first_size(nodes, [5, 2, 3], [5, 2, 4], {**constants, "axis": np.array([1])}) == 5


@pytest.mark.parametrize("reverse", [0, 1])
def test_a_sum_from_image_to_image_keeps_the_batch(reverse):
    """Images that follow change nothing, or those before."""
    nodes = [node("MatMul", ["x", "w"], ["h"]), node("CumSum", ["h", "axis"], ["y"], reverse=reverse)]
    assert first_size(nodes, [4, 3], [4, 2], {"w": weights(3, 2), "axis": np.array(0)}) == 4


def test_constants_that_differ_between_images_keep_the_batch():
    nodes = [node("Add", ["x", "c"], ["a"]), node("MatMul", ["a", "w"], ["y"])]
    assert first_size(nodes, [2, 6], [2, 4], {"c": weights(2, 6), "w": weights(6, 4)}) == 2


def test_attention_with_the_time_first_and_its_heads_beside_the_batch():
    """As torch exports MultiheadAttention for a batch of one: [T, 1, D] -> [T, 1 x heads, D / heads] and back."""
    nodes = [
        node("Transpose", ["x"], ["s"], perm=[1, 0, 2]),
        node("MatMul", ["s", "w"], ["p"], name="qkv"),
        node("Reshape", ["p", "split"], ["h"]),
        node("Transpose", ["h"], ["t"], perm=[1, 0, 2]),
        node("Reshape", ["t", "apart"], ["a"]),
        node("Transpose", ["a"], ["k"], perm=[0, 1, 3, 2]),
        node("MatMul", ["a", "k"], ["scores"]),
        node("Softmax", ["scores"], ["probability"], axis=-1),
        node("MatMul", ["probability", "a"], ["mixed"]),
        node("Transpose", ["mixed"], ["back"], perm=[2, 0, 1, 3]),
        node("Reshape", ["back", "rows"], ["r"]),
        node("Gemm", ["r", "v"], ["out"], name="out"),
        node("Reshape", ["out", "whole"], ["z"]),
        node("Transpose", ["z"], ["y"], perm=[1, 0, 2]),
    ]
    constants = {
        "w": weights(6, 6),
        "v": weights(6, 6),
        "split": np.array([5, 2, 3]),
        "apart": np.array([1, 2, 5, 3]),
        "rows": np.array([5, 6]),
        "whole": np.array([5, 1, 6]),
    }
    assert not isinstance(first_size(nodes, [1, 5, 6], [1, 5, 6], constants), int)


@pytest.mark.parametrize("batch", [1, 2])
def test_a_recurrent_state_beside_the_input(batch):
    nodes = [
        node("Unsqueeze", ["x", "axis"], ["s"]),
        node("LSTM", ["s", "w", "r", "b", "", "h", "c"], ["all", "hn", "cn"], hidden_size=4),
        node("Reshape", ["all", "shape"], ["f"]),
        node("MatMul", ["f", "v"], ["y"], name="fc"),
    ]
    constants = {"w": weights(1, 16, 3), "r": weights(1, 16, 4), "b": weights(1, 32), "v": weights(4, 2)}
    constants |= {"axis": np.array([0]), "shape": np.array([batch, 4])}
    state = [1, batch, 4]
    inputs = {"x": [batch, 3], "h": state, "c": state}
    lowered = lower(network(nodes, inputs, {"y": [batch, 2], "hn": state, "cn": state}, constants))
    assert [str(value.shape) for value in lowered.graph.inputs] == ["[N,3]", "[1,N,4]", "[1,N,4]"]
    assert [str(value.shape) for value in lowered.graph.outputs] == ["[N,2]", "[1,N,4]", "[1,N,4]"]
