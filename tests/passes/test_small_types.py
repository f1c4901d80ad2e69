"""Weights of 4 bits and of 8-bit floats come onto arrays dequantised, of any size and behind other operators."""

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from passes.pipeline import lower
from passes.verify import run
from tests.networks import layers, network_proto, operators, weights

KINDS = ["INT4", "UINT4", "FLOAT8E4M3FN", "FLOAT8E5M2", "FLOAT8E4M3FNUZ", "FLOAT8E5M2FNUZ", "FLOAT4E2M1"]
FORMS = {
    "a scale": ([helper.make_node("DequantizeLinear", ["w", "s"], ["d"])], np.array(0.25, np.float32)),
    "a scale a column": ([helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=0)], weights(40) ** 2 + 0.1),
    "blocks": (
        [helper.make_node("DequantizeLinear", ["w", "s"], ["d"], axis=1, block_size=32)],
        weights(40, 2) ** 2 + 0.1,
    ),
    "transposed before": (
        [
            helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
            helper.make_node("Cast", ["t"], ["c"], to=1),
            helper.make_node("Mul", ["c", "s"], ["m"]),
            helper.make_node("Transpose", ["m"], ["d"], perm=[1, 0]),
        ],
        np.array(0.25, np.float32),
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", KINDS)
def test_small_weights_are_dequantised(kind: str, form: str) -> None:
    nodes, scale = FORMS[form]
    chain = [*nodes, helper.make_node("Gemm", ["x", "d"], ["y"], name="fc", transB=1)]
    opset = 23 if kind == "FLOAT4E2M1" else 21
    proto = network_proto(chain, {"x": ["N", 64]}, {"y": ["N", 40]}, {"s": scale}, opset, ir_version=11)
    signed = np.random.default_rng(0).integers(0 if kind == "UINT4" else -3, 4, (40, 64))
    levels = signed.astype(ir.DataType[kind].numpy())
    proto.graph.initializer.append(ir.to_proto(ir.tensor(levels, dtype=ir.DataType[kind], name="w")))
    lowered = lower(ir.from_proto(proto))
    assert operators(lowered) == ["CrossbarMatMul"]
    assert layers(lowered)[0].name == "fc"
    x = weights(3, 64)
    expected = ReferenceEvaluator(proto).run(None, {"x": x})[0]
    computed: Any = run(lowered, {"x": x})[0]
    np.testing.assert_allclose(computed, expected, rtol=1e-4, atol=1e-4)
