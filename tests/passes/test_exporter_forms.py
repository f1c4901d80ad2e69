"""What exporters write beside plain operators: dictionaries of scores, labels, scalers, computed sizes."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from passes.pipeline import lower
from passes.read import read_network
from passes.verify import random_inputs, run
from passes.watch import verify_each
from runtime.network.load import load_network
from tests.networks import layers, lower_and_compare, network, operators, sizes, weights

ML = "ai.onnx.ml"
OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid(ML, 1)]


def ml_network(nodes: list[onnx.NodeProto], outputs: list[onnx.ValueInfoProto], constants: dict) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "ml",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [None, 4])],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=OPSETS, ir_version=8)


def scores(name: str = "scores") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [None, 3])


def label(name: str = "label") -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, TensorProto.INT64, [None])


def test_a_classifier_as_scikit_learn_writes_it_compiles_and_knows_its_logits(tmp_path: Path) -> None:
    """Label by lookup, and the scores as a list of dictionaries."""
    nodes = [
        helper.make_node("Scaler", ["x"], ["scaled"], domain=ML, offset=[0.5] * 4, scale=[2.0] * 4),
        helper.make_node("MatMul", ["scaled", "w"], ["product"]),
        helper.make_node("Add", ["product", "b"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["p"], axis=1),
        helper.make_node("ArgMax", ["p"], ["best"], axis=1),
        helper.make_node("ArrayFeatureExtractor", ["classes", "best"], ["row"], domain=ML),
        helper.make_node("Reshape", ["row", "flat"], ["label"]),
        helper.make_node("ZipMap", ["p"], ["scores"], domain=ML, classlabels_int64s=[3, 5, 9]),
    ]
    constants = {
        "w": weights(4, 3),
        "b": weights(1, 3),
        "classes": np.array([3, 5, 9], np.int64),
        "flat": np.array([-1], np.int64),
    }
    model = ml_network(nodes, [label(), scores()], constants)
    dictionaries = helper.make_map_type_proto(TensorProto.INT64, helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    model.graph.output[1].type.CopyFrom(helper.make_sequence_type_proto(dictionaries))
    path = tmp_path / "classifier.onnx"
    path.write_bytes(model.SerializeToString())

    loaded = read_network(path)
    lowered = lower(loaded, verify_each(loaded, random_inputs(loaded, 5, 0)))
    assert len(layers(lowered)) == 1
    assert load_network(lowered).logits == {"scores": "logits"}


@pytest.mark.parametrize("transform", ["NONE", "LOGISTIC", "SOFTMAX"])
def test_a_linear_classifier_comes_onto_a_crossbar(transform: str) -> None:
    node = helper.make_node(
        "LinearClassifier",
        ["x"],
        ["label", "scores"],
        name="linear",
        domain=ML,
        coefficients=weights(12).tolist(),
        intercepts=weights(3).tolist(),
        classlabels_ints=[2, 4, 8],
        post_transform=transform,
        multi_class=1,
    )
    model = ir.from_proto(ml_network([node], [label(), scores()], {}))
    lowered = lower(model, verify_each(model, random_inputs(model, 5, 0)))
    assert "CrossbarMatMul" in operators(lowered)


def test_a_linear_regressor_and_normalisers() -> None:
    nodes = [
        helper.make_node("Normalizer", ["x"], ["n"], domain=ML, norm="L1"),
        helper.make_node("Binarizer", ["x"], ["c"], domain=ML, threshold=0.4),
        helper.make_node("Mul", ["n", "c"], ["z"]),
        helper.make_node(
            "LinearRegressor",
            ["z"],
            ["scores"],
            domain=ML,
            coefficients=weights(12).tolist(),
            intercepts=weights(3).tolist(),
            targets=3,
        ),
    ]
    model = ir.from_proto(ml_network(nodes, [scores()], {}))
    assert len(layers(lower(model, verify_each(model, random_inputs(model, 5, 0))))) == 1


def test_sizes_computed_beyond_what_shape_inference_follows() -> None:
    """PyTorch joins the directions of an LSTM so: a product of two sizes, reshaped, is a target of Reshape."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2, 3]),
        helper.make_node("Shape", ["t"], ["lead"], start=0, end=2),
        helper.make_node("Shape", ["t"], ["a"], start=2, end=3),
        helper.make_node("Shape", ["t"], ["b"], start=3, end=4),
        helper.make_node("Mul", ["a", "b"], ["ab"]),
        helper.make_node("Reshape", ["ab", "one"], ["size"]),
        helper.make_node("Concat", ["lead", "size"], ["target"], axis=0),
        helper.make_node("Reshape", ["t", "target"], ["joined"]),
        helper.make_node("MatMul", ["joined", "w"], ["y"]),
    ]
    constants = {"w": weights(6, 5), "one": np.array([-1], np.int64)}
    model = network(nodes, {"x": ["N", 4, 2, 3]}, {"y": [4, "N", 5]}, constants)
    lowered = lower_and_compare(model)
    assert [str(size) for size in sizes(layers(lowered)[0].inputs[0])] == ["4", "N", "6"]
    assert run(lowered, random_inputs(model, 3, 0))[0].shape == (4, 3, 5)
