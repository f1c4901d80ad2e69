"""Attention and rotary embeddings written out: the standard's own cases, gradients, the batch."""

import re
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

import cimc
from cimc.errors import CimcError
from passes.lowering.expand_attention import ExpandAttention
from passes.pipeline import lower
from passes.verify import random_inputs, run
from passes.watch import verify_each
from tests.networks import layers, weights
from tests.runtime.conformance import loaded_cases

MICROSOFT = "com.microsoft"
LENGTH, HEADS, SIZE = 6, 4, 8
WIDTH = HEADS * SIZE


def cases() -> list[Any]:
    """The standard's cases of both operators with inputs of 32 bits."""
    named = [case for case in loaded_cases() if re.match(r"test_(attention|rotary_embedding)_", case.name)]
    plain = [case for case in named if "expanded" not in case.name]
    halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    return [c for c in plain if all(v.type.tensor_type.elem_type not in halves for v in c.model.graph.input)]


def test_the_standards_cases_compute_what_the_standard_says() -> None:
    left, wrong = [], []
    for case in cases():
        model = ir.from_proto(onnx.ModelProto.FromString(case.model.SerializeToString()))
        ExpandAttention()(model)
        if any(node.op_type in ("Attention", "RotaryEmbedding") for node in model.graph):
            left.append(case)
            continue
        model.opset_imports[""] = 21
        inputs, outputs = case.data_sets[0]
        feeds = {value.name or "": np.asarray(array) for value, array in zip(model.graph.inputs, inputs, strict=True)}
        for found, expected in zip(run(model, feeds), outputs, strict=True):
            if not np.allclose(found, expected, rtol=1e-3, atol=1e-5):
                wrong.append(case.name)
    assert not wrong, wrong
    # What has a cache or counts its keys, or gives its scores; nothing else is left to onnxruntime.
    nodes = {case.name: case.model.graph.node[0] for case in left}
    assert not [name for name, node in nodes.items() if not any(node.input[4:]) and not any(node.output[1:])]
    assert len(cases()) - len(left) > 40


def network(nodes: list[onnx.NodeProto], constants: dict[str, np.ndarray], batch: int | str, opset: int) -> ir.Model:
    graph = helper.make_graph(
        nodes,
        "attention",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, LENGTH, WIDTH])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, LENGTH, WIDTH])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid(MICROSOFT, 1)]
    return ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))


ANGLES = weights(1, LENGTH + 3, SIZE // 2)
# Of each kind: nodes between the layers q, k, v and the values that y is made from, and constants.
BLOCKS: dict[str, tuple[list[onnx.NodeProto], dict[str, np.ndarray], int]] = {
    "of the standard, causal, two queries a key": (
        [
            helper.make_node("RotaryEmbedding", ["q", "cos", "sin"], ["a"], num_heads=HEADS),
            helper.make_node("RotaryEmbedding", ["k", "cos", "sin"], ["b"], num_heads=HEADS // 2),
            helper.make_node("Attention", ["a", "b", "v"], ["m"], q_num_heads=HEADS, kv_num_heads=2, is_causal=1),
        ],
        {"cos": np.cos(ANGLES[:, :LENGTH]), "sin": np.sin(ANGLES[:, :LENGTH])},
        23,
    ),
    "of onnxruntime, places counted from the third": (
        [
            helper.make_node("RotaryEmbedding", ["q", "first", "cos", "sin"], ["a"], domain=MICROSOFT, num_heads=4),
            helper.make_node("RotaryEmbedding", ["k", "first", "cos", "sin"], ["b"], domain=MICROSOFT, interleaved=1),
            helper.make_node("MultiHeadAttention", ["a", "b", "v"], ["m"], domain=MICROSOFT, num_heads=HEADS),
        ],
        {"cos": np.cos(ANGLES[0]), "sin": np.sin(ANGLES[0]), "first": np.array([2], np.int64)},
        18,
    ),
}


@pytest.mark.parametrize(("name", "batch"), [*((name, 1) for name in BLOCKS), (list(BLOCKS)[1], "N")])
def test_a_block_compiles_with_any_batch_and_trains(name: str, batch: int | str) -> None:
    """A static batch is freed, and gradients reach the layers before the attention."""
    nodes, constants, opset = BLOCKS[name]
    keys = WIDTH // 2 if opset == 23 else WIDTH
    made = [helper.make_node("MatMul", ["x", f"w{one}"], [one], name=one) for one in "qkv"]
    made += [*nodes, helper.make_node("MatMul", ["m", "wo"], ["y"], name="out")]
    matrices = {"wq": weights(WIDTH, WIDTH), "wo": weights(WIDTH, WIDTH, seed=3)}
    matrices |= {f"w{one}": weights(WIDTH, keys, seed=seed) for seed, one in enumerate("kv", 1)}
    model = network(made, {**matrices, **constants}, batch, opset)
    feeds = random_inputs(model, 2, 0, (-1.0, 1.0))
    lowered = lower(model, verify_each(model, feeds))
    assert len(layers(lowered)) == 4
    assert lowered.graph.inputs[0].shape is not None
    assert not isinstance(lowered.graph.inputs[0].shape[0], int)
    if batch == "N":
        return
    proto = ir.to_proto(model)
    artifact = cimc.compile(proto, "ideal", input_range=(-1, 1)).artifact
    x = np.random.default_rng(0).uniform(-1, 1, (16, LENGTH, WIDTH)).astype(np.float32)
    samples = cimc.Samples({"x": x})
    options = cimc.TrainingOptions(epochs=1, steps_per_epoch=2, batch_size=8, policy=cimc.Policy(method="float"))
    trained = cimc.train(artifact, cimc.Dataset("noise", samples, samples), options=options).artifact
    for name in ("q", "k", "v"):
        before = numpy_helper.to_array(next(one for one in proto.graph.initializer if one.name == f"w{name}"))
        assert not np.allclose(trained.state[f"weight/{name}"], before, atol=1e-6), name


def test_a_query_whose_window_lies_behind_the_last_key_gives_zero() -> None:
    window = {"left_window_size": 0, "right_window_size": 0}
    nodes = [helper.make_node("Attention", ["x", "k", "k"], ["y"], q_num_heads=1, kv_num_heads=1, **window)]
    model = network(nodes, {"k": weights(1, LENGTH - 2, WIDTH)}, 1, 25)
    ExpandAttention()(model)
    model.opset_imports[""] = 21
    assert not any(node.op_type == "Attention" for node in model.graph)
    (y,) = run(model, {"x": np.ones((1, LENGTH, WIDTH), np.float32)})
    np.testing.assert_allclose(np.asarray(y[0, : LENGTH - 2], np.float32), weights(1, LENGTH - 2, WIDTH)[0], atol=1e-6)
    assert not y[0, LENGTH - 2 :].any()


@pytest.mark.parametrize("heads", [(WIDTH * 2, 1), (-1, -1), (3, 1), (4, 3)])
def test_heads_that_do_not_divide_the_width_are_left_to_onnxruntime(heads: tuple[int, int]) -> None:
    attributes = dict(zip(("q_num_heads", "kv_num_heads"), heads, strict=True))
    nodes = [helper.make_node("Attention", ["x", "x", "x"], ["y"], name="attend", **attributes)]
    model = network(nodes, {}, 1, 23)
    assert not ExpandAttention()(model).modified
    with pytest.raises(CimcError, match="onnxruntime cannot run the network"):
        run(model, {"x": np.ones((1, LENGTH, WIDTH), np.float32)})


def test_angles_without_elements_are_left_to_onnxruntime() -> None:
    nodes = [helper.make_node("RotaryEmbedding", ["x", "a", "a"], ["y"], name="turn", num_heads=HEADS)]
    model = network(nodes, {"a": np.zeros((1, LENGTH, 0), np.float32)}, 1, 23)
    assert not ExpandAttention()(model).modified
