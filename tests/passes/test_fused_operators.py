"""Operators that onnxruntime's optimiser and quantiser make; onnxruntime itself is the judge."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.errors import CimcError
from passes.pipeline import lower
from passes.read import read_network
from passes.verify import random_inputs, run
from passes.watch import verify_each
from runtime.network.load import load_network
from runtime.network.run import run_nodes
from tests.networks import layers, plain_product, weights
from tests.real_networks import REAL_NETWORKS

MS = "com.microsoft"
RANDOM = np.random.default_rng(5)
LENGTH, WIDTH = 6, 16


def levels(*shape: int) -> np.ndarray:
    return RANDOM.integers(0, 255, shape, dtype=np.uint8)


def lowered(nodes: list[tuple], shape: tuple[int, ...], constants: dict[str, np.ndarray]) -> ir.Model:
    """A network of nodes (operator, inputs, outputs, attributes) from `x` to `y`, lowered, compared at every pass."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    standard = {"QuantizeLinear", "DequantizeLinear", "Relu", "Add"}
    graph = helper.make_graph(
        [
            helper.make_node(op, inputs, outputs, name=f"n{i}", domain="" if op in standard else MS, **attributes)
            for i, (op, inputs, outputs, attributes) in enumerate(nodes)
        ],
        "fused",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    result = lower(model, verify_each(model, random_inputs(model, 3, 0, (-1.0, 1.0))))
    assert not any(node.domain == MS for node in result.graph)
    return result


SEQUENCE = (LENGTH, WIDTH)
VECTOR = weights(WIDTH, seed=1)
SCALE = np.float32(0.008)
ZERO = np.uint8(128)
# name -> nodes, shape of x without the batch, constants, crossbar layers
FORMS: dict[str, tuple] = {
    "FusedMatMul": (
        [("FusedMatMul", ["x", "w"], ["y"], {"alpha": 0.5, "transB": 1})],
        SEQUENCE, {"w": weights(8, WIDTH)}, 1,
    ),
    "FusedMatMul of two values": (
        [("FusedMatMul", ["x", "x"], ["y"], {"alpha": 0.5, "transB": 1})],
        SEQUENCE, {}, 0,
    ),
    "FusedGemm": (
        [("FusedGemm", ["x", "w", "b"], ["y"], {"activation": "LeakyRelu", "activation_alpha": 0.1, "transB": 1})],
        (WIDTH,), {"w": weights(8, WIDTH), "b": weights(8)}, 1,
    ),
    "FusedConv": (
        [("FusedConv", ["x", "w", "b"], ["y"], {"activation": "Clip", "activation_params": [0.0, 6.0]})],
        (3, 8, 8), {"w": weights(4, 3, 3, 3), "b": weights(4)}, 1,
    ),
    "Gelu": ([("Gelu", ["x"], ["y"], {})], SEQUENCE, {}, 0),
    "BiasGelu": ([("BiasGelu", ["x", "b"], ["y"], {})], SEQUENCE, {"b": VECTOR}, 0),
    "FastGelu": ([("FastGelu", ["x", "b"], ["y"], {})], SEQUENCE, {"b": VECTOR}, 0),
    "QuickGelu": ([("QuickGelu", ["x"], ["y"], {"alpha": 1.5})], SEQUENCE, {}, 0),
    "SkipLayerNormalization": (
        [("SkipLayerNormalization", ["x", "x", "s", "b", "c"], ["y"], {"epsilon": 1e-5})],
        SEQUENCE, {"s": VECTOR, "b": VECTOR, "c": VECTOR}, 0,
    ),
    "SkipLayerNormalization with its sum": (
        [
            ("SkipLayerNormalization", ["x", "x", "s", "b"], ["a", "", "", "t"], {"epsilon": 1e-5}),
            ("Add", ["a", "t"], ["y"], {}),
        ],
        SEQUENCE, {"s": VECTOR, "b": VECTOR}, 0,
    ),
    "SkipSimplifiedLayerNormalization": (
        [("SkipSimplifiedLayerNormalization", ["x", "x", "s"], ["y"], {"epsilon": 1e-5})],
        SEQUENCE, {"s": VECTOR}, 0,
    ),
    "Attention": (
        [("Attention", ["x", "w", "b"], ["y"], {"num_heads": 4})],
        SEQUENCE, {"w": weights(WIDTH, 3 * WIDTH), "b": weights(3 * WIDTH)}, 1,
    ),
    "MultiHeadAttention": (
        [("MultiHeadAttention", ["x", "x", "x", "b"], ["y"], {"num_heads": 2})],
        SEQUENCE, {"b": weights(3 * WIDTH)}, 0,
    ),
    "MatMulNBits": (
        [("MatMulNBits", ["x", "w", "s", "z"], ["y"], {"K": WIDTH, "N": 5, "bits": 4, "block_size": 16})],
        SEQUENCE, {"w": levels(5, 1, 8), "s": np.abs(weights(5)), "z": levels(5)}, 1,
    ),
    "MatMulNBits without zero points": (
        [("MatMulNBits", ["x", "w", "s"], ["y"], {"K": 40, "N": 5, "bits": 4, "block_size": 16})],
        (LENGTH, 40), {"w": levels(5, 3, 8), "s": np.abs(weights(15))}, 1,
    ),
    "DynamicQuantizeMatMul": (
        [("DynamicQuantizeMatMul", ["x", "w", "s", "z", "b"], ["y"], {})],
        SEQUENCE, {"w": levels(WIDTH, 5), "s": SCALE, "z": ZERO, "b": weights(5)}, 1,
    ),
    "QLinearAdd, Sigmoid and Concat": (
        [
            ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
            ("QLinearAdd", ["q", "s", "z", "q", "s", "z", "s", "z"], ["a"], {}),
            ("QLinearSigmoid", ["a", "s", "z", "s", "z"], ["b"], {}),
            ("QLinearConcat", ["s", "z", "a", "s", "z", "b", "s", "z"], ["c"], {"axis": 1}),
            ("DequantizeLinear", ["c", "s", "z"], ["y"], {}),
        ],
        SEQUENCE, {"s": SCALE, "z": ZERO}, 0,
    ),
    "QLinearMul, LeakyRelu and pools": (
        [
            ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
            ("QLinearMul", ["q", "s", "z", "q", "s", "z", "s", "z"], ["a"], {}),
            ("QLinearLeakyRelu", ["a", "s", "z", "s", "z"], ["b"], {"alpha": 0.2}),
            ("QLinearAveragePool", ["b", "s", "z", "s", "z"], ["c"], {"kernel_shape": [2, 2]}),
            ("QLinearGlobalAveragePool", ["c", "s", "z", "s", "z"], ["d"], {}),
            ("DequantizeLinear", ["d", "s", "z"], ["y"], {}),
        ],
        (3, 8, 8), {"s": SCALE, "z": ZERO}, 0,
    ),
    "QGemm": (
        [
            ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
            ("QGemm", ["q", "s", "z", "w", "s", "z", "b"], ["y"], {"transB": 1}),
        ],
        (WIDTH,), {"s": SCALE, "z": ZERO, "w": levels(5, WIDTH), "b": np.arange(5, dtype=np.int32)}, 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_fused_operators_expand_to_what_they_compute(name: str) -> None:
    nodes, shape, constants, count = FORMS[name]
    assert len(layers(lowered(nodes, shape, constants))) == count


def test_attention_with_a_mask_of_keys() -> None:
    inputs = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SEQUENCE]),
        helper.make_tensor_value_info("mask", TensorProto.INT32, ["N", LENGTH]),
    ]
    constants = {"w": weights(WIDTH, 3 * WIDTH), "b": weights(3 * WIDTH)}
    graph = helper.make_graph(
        [helper.make_node("Attention", ["x", "w", "b", "mask"], ["y"], name="a", domain=MS, num_heads=4)],
        "masked",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    lower(model, verify_each(model, random_inputs(model, 3, 0)))


@pytest.mark.parametrize("name", ["bert", "gpt", "vit", "mobilenet", "mixer"])
def test_networks_after_onnxruntimes_optimiser(name: str, tmp_path: Path) -> None:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    original = REAL_NETWORKS[name]()
    onnxruntime.InferenceSession(original.SerializeToString(), options, ["CPUExecutionProvider"])
    model = read_network(tmp_path / "optimised.onnx")
    assert any(node.domain == MS for node in model.graph), "the optimiser fused nothing"
    result = lower(model, verify_each(model, random_inputs(model, 2, 0)))
    assert len(layers(result)) == len(layers(lower(ir.from_proto(original))))


def test_an_operator_of_another_domain_is_refused_by_name() -> None:
    node = helper.make_node("GroupQueryAttention", ["x"], ["y"], name="attend", domain=MS, num_heads=2)
    value = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SEQUENCE])
    graph = helper.make_graph([node], "g", [value], [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)])
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    with pytest.raises(CimcError, match=r"com\.microsoft\.GroupQueryAttention 'attend' is not supported: it is no"):
        lower(model)


def test_an_operator_without_a_rule_runs_in_onnxruntime() -> None:
    """Its sizes are learnt by running it; here what is below a diagonal, between two layers."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["p"], name="first"),
        helper.make_node("Trilu", ["p"], ["r"], name="below", domain=MS, upper=0),
        helper.make_node("MatMul", ["r", "w"], ["y"], name="last"),
    ]
    graph = helper.make_graph(
        nodes,
        "triangle",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", *SEQUENCE])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", *SEQUENCE])],
        [numpy_helper.from_array(weights(WIDTH, WIDTH) / 4, "w")],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid(MS, 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    feeds = random_inputs(model, 3, 0)
    lowered_model = lower(model, verify_each(model, feeds))
    assert [node.op_type for node in lowered_model.graph] == ["CrossbarMatMul", "Trilu", "CrossbarMatMul"]
    network = load_network(lowered_model)
    values, _ = run_nodes(network, {"x": jnp.asarray(feeds["x"])}, plain_product(network), {}, {})
    expected: Any = run(model, feeds)[0]
    np.testing.assert_allclose(np.asarray(values["y"]), expected, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_a_dynamically_quantised_lstm_comes_onto_arrays(direction: str) -> None:
    count, hidden, size = 2 if direction == "bidirectional" else 1, 5, 4
    constants = {
        "w": RANDOM.integers(-127, 127, (count, size, 4 * hidden), dtype=np.int8),
        "r": RANDOM.integers(-127, 127, (count, hidden, 4 * hidden), dtype=np.int8),
        "b": weights(count, 8 * hidden),
        "scale": np.full(count, 0.004, np.float32),
        "zero": np.zeros(count, np.int8),
    }
    inputs = ["t", "w", "r", "b", "", "", "", "", "scale", "zero", "scale", "zero"]
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node(
            "DynamicQuantizeLSTM",
            inputs,
            ["a", "y"],
            name="lstm",
            domain=MS,
            hidden_size=hidden,
            direction=direction,
        ),
    ]
    graph = helper.make_graph(
        nodes,
        "quantised",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [count, "N", hidden])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid(MS, 1)]
    model = ir.from_proto(helper.make_model(graph, opset_imports=opsets, ir_version=8))
    result = lower(model, verify_each(model, random_inputs(model, 3, 0)))
    assert not any(node.domain == MS for node in result.graph)
    assert layers(result)
