"""A softmax that is written out is one Softmax after lowering, where it is one; the judge is onnxruntime."""

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from passes.pipeline import lower

HEAD = """
<ir_version: 8, opset_import: ["": 17]>
written (float[N, 3, 5] x) => (float[N, 3, 5] y)
<int64[1] last = {-1}, int64[1] middle = {1}, int64[2] both = {1, 2}, int64[3] shape = {-1, 3, 1}, float low = {-3.0}>
{
"""
KEPT = "m = ReduceMax<axes=[-1]>(x)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, last)  y = Div(e, s) }"
SPREAD = """
m = ReduceMax<axes=[-1], keepdims=0>(x)  guarded = Max(low, m)  column = Unsqueeze(guarded, last)
size = Shape(x)  wide = Expand(column, size)  d = Sub(x, wide)  e = Exp(d)
total = ReduceSum<keepdims=0>(e, last)  reshaped = Reshape(total, shape)  below = Expand(reshaped, size)
y = Div(e, below) }
"""
BARE = "e = Exp(x)  s = ReduceSum(e, middle)  y = Div(e, s) }"
# What looks like one and is none: another sum, or a number that differs along the axis.
OTHER_SUM = "e = Exp(x)  q = Mul(e, e)  s = ReduceSum(q, last)  y = Div(e, s) }"
TWO_AXES = "e = Exp(x)  s = ReduceSum(e, both)  y = Div(e, s) }"
OTHER_AXIS = "m = ReduceMax<axes=[1]>(x)  d = Sub(x, m)  e = Exp(d)  s = ReduceSum(e, last)  y = Div(e, s) }"


def lowered(text: str) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The network and what lowering makes of it."""
    model = onnx.parser.parse_model(HEAD + text)
    return model, ir.to_proto(lower(ir.from_proto(model)))


def run(model: onnx.ModelProto, x: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {"x": x})
    return np.asarray(result)


@pytest.mark.parametrize(
    ("text", "source"),
    [(KEPT, "x"), (SPREAD, "x"), (BARE, "x"), (OTHER_AXIS, "d")],
    ids=["kept", "spread", "bare", "m"],
)
def test_a_written_softmax_becomes_one_of_the_same_values(text: str, source: str) -> None:
    model, fused = lowered(text)
    softmax = fused.graph.node[-1]
    assert (softmax.op_type, softmax.input[0]) == ("Softmax", source)
    x = np.random.default_rng(0).normal(0, 20, (4, 3, 5)).astype(np.float32)
    assert np.allclose(run(fused, x), run(model, x), atol=1e-6)


@pytest.mark.parametrize("text", [OTHER_SUM, TWO_AXES], ids=["another sum", "two axes"])
def test_what_is_no_softmax_stays(text: str) -> None:
    model, kept = lowered(text)
    assert "Softmax" not in {node.op_type for node in kept.graph.node}
    x = np.random.default_rng(0).normal(0, 1, (4, 3, 5)).astype(np.float32)
    assert np.allclose(run(kept, x), run(model, x), atol=1e-6)
