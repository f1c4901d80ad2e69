"""Networks as exporters write them: old opsets, functions, constants, computed shapes, static batches."""

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

from cimc.chip import load_chip
from cimc.errors import CimcError
from models.build import NETWORKS, SHIPPED
from passes.mapper.map_network import map_network
from passes.notes import notes_of
from passes.pipeline import lower
from passes.read import read_network
from passes.set_float32 import set_float32
from passes.set_shapes import parse_shape, set_shapes
from passes.verify import run
from tests.networks import (
    constant,
    largest_difference,
    layers,
    lower_and_compare,
    network,
    network_proto,
    operators,
    sizes,
    weights,
)

LAYERS = {
    "lenet1": 3,
    "lenet5": 5,
    "mlp": 2,
    "vgg8": 8,
    "resnet18": 21,
    "resnet8_cifar": 10,
    "resnet20": 22,
    "resnet50": 54,
}
FOLDER = Path(__file__).parents[2] / "models"


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


@pytest.mark.parametrize("name", sorted(NETWORKS))
def test_every_network_lowers_and_computes_the_same(name: str) -> None:
    lowered = lower_and_compare(ir.from_proto(NETWORKS[name]()), batch=2)
    assert len(layers(lowered)) == LAYERS[name]
    for layer in layers(lowered):
        for value in (layer.inputs[0], layer.outputs[0]):
            assert str(sizes(value)[0]) == "N"
            assert all(isinstance(size, int) for size in sizes(value)[1:])


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_files_are_what_the_script_builds(name: str) -> None:
    assert (FOLDER / f"{name}.onnx").read_bytes() == NETWORKS[name]().SerializeToString(deterministic=True)
    model = read_network(FOLDER / f"{name}.onnx")
    assert largest_difference(model, lower(model)) <= 1e-5


@pytest.mark.parametrize("opset", [8, 9, 11, 12, 13, 17, 21, 22])
def test_networks_of_old_and_new_opsets_are_brought_to_one_form(opset: int) -> None:
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], name="conv"),
        node("BatchNormalization", ["c", "s", "s", "s", "s"], ["n"], name="bn"),
        node("Relu", ["n"], ["r"], name="relu"),
        node("AveragePool", ["r"], ["a"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["a"], ["f"], name="flat"),
        node("Gemm", ["f", "v", "u"], ["g"], name="fc", transB=1),
        node("Softmax", ["g"], ["y"], name="soft", axis=1),
    ]
    constants = {"w": weights(4, 2, 3, 3), "b": weights(4), "s": np.ones(4, np.float32)}
    constants |= {"v": weights(5, 36), "u": weights(5)}
    lowered = lower_and_compare(
        network(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 5]}, constants, opset=opset, ir_version=8)
    )
    assert lowered.opset_imports[""] == max(opset, 21)
    assert operators(lowered)[0] == "CrossbarConv"


def test_attributes_of_old_opsets_become_inputs() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["p"]),
        node("Clip", ["p"], ["c"], min=-0.5, max=0.5),
        node("Unsqueeze", ["c"], ["u"], axes=[1]),
        node("ReduceMean", ["u"], ["y"], axes=[1], keepdims=0),
    ]
    model = network(nodes, {"x": ["N", 7]}, {"y": ["N", 5]}, {"w": weights(7, 5)}, opset=9, ir_version=8)
    lowered = lower_and_compare(model)
    assert [len(entry.inputs) for entry in lowered.graph] == [2, 3, 2, 2]


def test_weights_listed_as_inputs_are_weights() -> None:
    model = network(
        [node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 7], "w": [7, 5]}, {"y": ["N", 5]}, {"w": weights(7, 5)}
    )
    lowered = lower_and_compare(model)
    assert len(layers(lowered)) == 1
    assert [value.name for value in lowered.graph.inputs] == ["x"]


def test_functions_of_the_network_are_inlined() -> None:
    body = [node("MatMul", ["a", "b"], ["c"], name="inner"), node("Relu", ["c"], ["d"])]
    function = helper.make_function("local", "Dense", ["a", "b"], ["d"], body, [helper.make_opsetid("", 21)])
    calls = [
        node("Dense", ["x", "w"], ["p"], domain="local", name="first"),
        node("Dense", ["p", "w"], ["y"], domain="local", name="second"),
    ]
    model = network(calls, {"x": ["N", 5]}, {"y": ["N", 5]}, {"w": weights(5, 5)}, functions=[function])
    lowered = lower_and_compare(model)
    assert operators(lowered) == ["CrossbarMatMul", "Relu"] * 2
    assert len({layer.name for layer in layers(lowered)}) == 2


def test_constant_nodes_chains_on_constants_and_identities_vanish() -> None:
    nodes = [
        node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(weights(5, 7))),
        node("Transpose", ["k"], ["t"], perm=[1, 0]),
        node("Constant", [], ["two"], value_float=2.0),
        node("Mul", ["t", "two"], ["w"]),
        node("Identity", ["x"], ["i"]),
        node("MatMul", ["i", "w"], ["p"], name="fc"),
        node("Identity", ["p"], ["y"]),
    ]
    lowered = lower_and_compare(network(nodes, {"x": ["N", 7]}, {"y": ["N", 5]}))
    assert operators(lowered) == ["CrossbarMatMul"]
    np.testing.assert_array_equal(constant(lowered.graph.initializers["fc.weight"]), 2 * weights(5, 7).T)


def test_a_huge_constant_is_not_computed() -> None:
    nodes = [
        node("Expand", ["c", "sizes"], ["big"], name="grow"),
        node("MatMul", ["x", "w"], ["p"]),
        node("Add", ["p", "big"], ["y"]),
    ]
    constants = {"c": weights(1), "sizes": np.array([100_000, 1_000, 5], np.int64), "w": weights(7, 5)}
    with pytest.raises(Exception, match="more than 268,435,456 elements"):
        lower(network(nodes, {"x": ["N", 1, 7]}, {"y": [None, None, 5]}, constants))


VIEW = [
    node("Shape", ["c"], ["shape"]),
    node("Gather", ["shape", "zero"], ["batch"], axis=0),
    node("Unsqueeze", ["batch", "axis"], ["batches"]),
    node("Concat", ["batches", "rest"], ["target"], axis=0),
    node("Reshape", ["c", "target"], ["f"]),
]


@pytest.mark.parametrize("batch", ["N", "batch_size", None, 1, 4])
@pytest.mark.parametrize("rest", [-1, 144])
def test_a_view_with_a_computed_batch_becomes_a_constant_reshape(rest: int, batch: str | int | None) -> None:
    nodes = [node("Conv", ["x", "w"], ["c"], name="conv"), *VIEW, node("MatMul", ["f", "v"], ["y"], name="fc")]
    constants = {"w": weights(4, 2, 3, 3), "v": weights(144, 5), "rest": np.array([rest], np.int64)}
    constants |= {"zero": np.array(0, np.int64), "axis": np.array([0], np.int64)}
    lowered = lower_and_compare(network(nodes, {"x": [batch, 2, 8, 8]}, {"y": [batch, 5]}, constants))
    assert operators(lowered) == ["CrossbarConv", "Reshape", "CrossbarMatMul"]
    assert isinstance(sizes(lowered.graph.outputs[0])[0], ir.SymbolicDim)
    assert sizes(lowered.graph.outputs[0])[1:] == [5]


@pytest.mark.parametrize("target", [[1, 144], [1, -1], [-1, 144], [0, 144]])
def test_a_network_exported_for_one_image_takes_any_batch(target: list[int]) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node("Reshape", ["c", "target"], ["f"]),
        node("MatMul", ["f", "v"], ["y"], name="fc"),
    ]
    constants = {"w": weights(4, 2, 3, 3), "v": weights(144, 5), "target": np.array(target, np.int64)}
    model = network(nodes, {"x": [1, 2, 8, 8]}, {"y": [1, 5]}, constants)
    lowered = lower_and_compare(model)
    assert str(lowered.graph.inputs[0].shape) == "[N,2,8,8]"
    assert str(lowered.graph.outputs[0].shape) == "[N,5]"
    free = network(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 5]}, constants | {"target": np.array([-1, 144], np.int64)})
    assert largest_difference(free, lowered, batch=6) <= 1e-5


def test_a_first_size_that_is_no_batch_stays() -> None:
    nodes = [node("Reshape", ["x", "target"], ["f"]), node("MatMul", ["f", "w"], ["y"])]
    constants = {"target": np.array([1, 64], np.int64), "w": weights(64, 5)}
    lowered = lower_and_compare(network(nodes, {"x": [8, 8]}, {"y": [1, 5]}, constants))
    assert str(lowered.graph.inputs[0].shape) == "[8,8]"


def test_several_outputs_and_inputs_keep_their_names_and_order() -> None:
    nodes = [
        node("MatMul", ["a", "w"], ["p"], name="left"),
        node("MatMul", ["b", "w"], ["q"], name="right"),
        node("Concat", ["p", "q"], ["y"], axis=1),
        node("Identity", ["q"], ["z"]),
    ]
    model = network(nodes, {"a": ["N", 7], "b": ["N", 7]}, {"z": ["N", 5], "y": ["N", 10]}, {"w": weights(7, 5)})
    lowered = lower_and_compare(model)
    assert [value.name for value in lowered.graph.inputs] == ["a", "b"]


def test_two_identities_of_one_value_as_outputs_keep_both_outputs() -> None:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Identity", ["p"], ["y"]), node("Identity", ["p"], ["z"])]
    lower_and_compare(network(nodes, {"x": ["N", 7]}, {"y": ["N", 5], "z": ["N", 5]}, {"w": weights(7, 5)}))


def test_dead_nodes_and_constants_are_removed() -> None:
    nodes = [node("MatMul", ["x", "w"], ["y"], name="fc"), node("Sin", ["x"], ["dead"])]
    lowered = lower_and_compare(
        network(nodes, {"x": ["N", 7]}, {"y": ["N", 5]}, {"w": weights(7, 5), "unused": weights(3)})
    )
    assert operators(lowered) == ["CrossbarMatMul"]
    assert set(lowered.graph.initializers) == {"fc.weight"}


def test_the_builder_writes_any_network_on_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from models import build

    monkeypatch.setattr("sys.argv", ["build.py", "mlp", "--out", str(tmp_path)])
    build.main()
    assert (tmp_path / "mlp.onnx").read_bytes() == (FOLDER / "mlp.onnx").read_bytes()


def test_network_proto_is_checked() -> None:
    onnx.checker.check_model(network_proto([node("Relu", ["x"], ["y"])], {"x": ["N", 1]}, {"y": ["N", 1]}))


def small_classifier(opset: int) -> onnx.ModelProto:
    """Convolution, normalisation, pooling and a classifier, written as that opset wants it."""
    nodes = [
        node("Conv", ["x", "k"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "s", "b", "m", "v"], ["n"]),
        node("Relu", ["n"], ["r"]),
        node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "w", "d"], ["g"], name="fc"),
        node("Softmax", ["g"], ["y"], axis=1),
    ]
    constants = {
        "k": weights(4, 2, 3, 3),
        "s": weights(4),
        "b": weights(4),
        "m": weights(4),
        "v": weights(4) ** 2 + 0.5,
    }
    constants |= {"w": weights(36, 5), "d": weights(5)}
    return network_proto(
        nodes, {"x": ["N", 2, 6, 6]}, {"y": ["N", 5]}, constants, opset, ir_version=10 if opset > 21 else 8
    )


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_every_opset_from_7_to_the_newest_compiles(opset: int) -> None:
    lowered = lower(ir.from_proto(small_classifier(opset)))
    assert len(layers(lowered)) == 2
    feeds: dict[str, Any] = {"x": weights(3, 2, 6, 6, seed=1)}
    expected: Any = run(ir.from_proto(small_classifier(min(opset, 21))), feeds)[0]
    computed: Any = run(lowered, feeds)[0]
    np.testing.assert_allclose(computed, expected, atol=1e-5)


HALVES = {np.dtype(np.float64): 1e-5, np.dtype(np.float16): 5e-3, np.dtype(ml_dtypes.bfloat16): 5e-2}


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_networks_of_other_precisions_compute_in_float32(dtype: np.dtype[Any]) -> None:
    kind = helper.np_dtype_to_tensor_dtype(dtype)
    one = onnx.numpy_helper.from_array(np.ones(1, dtype))
    nodes = [
        node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(weights(5).astype(dtype))),
        node("MatMul", ["x", "w"], ["p"], name="fc"),
        node("Add", ["p", "k"], ["a"]),
        node("Cast", ["a"], ["f"], to=TensorProto.FLOAT),
        node("Sigmoid", ["f"], ["s"]),
        node("Cast", ["s"], ["h"], to=kind),
        node("ConstantOfShape", ["sizes"], ["ones"], value=one),
        node("Mul", ["h", "ones"], ["y"]),
    ]
    constants = {"w": weights(7, 5).astype(dtype), "sizes": np.array([5], np.int64)}
    model = network(nodes, {"x": ["N", 7]}, {"y": ["N", 5]}, constants, dtype=kind)
    x = weights(3, 7)
    expected = ReferenceEvaluator(ir.to_proto(model)).run(None, {"x": x.astype(dtype)})[0]
    set_float32(model)
    lowered = lower_and_compare(model)
    assert len(layers(lowered)) == 1
    assert {value.dtype for value in (*lowered.graph.inputs, *lowered.graph.outputs)} == {ir.DataType.FLOAT}
    assert f"{dtype} values are computed in float32" in notes_of(lowered)[0]
    computed: Any = run(lowered, {"x": x})[0]
    np.testing.assert_allclose(computed, expected.astype(np.float32), atol=HALVES[dtype])


def test_a_mask_of_the_least_float64_stays_finite() -> None:
    product = node("MatMul", ["x", "w"], ["p"], name="fc")
    constants = {"w": weights(7, 5).astype(np.float64), "mask": np.array([-1e308, -np.inf])}
    model = network([product, node("Max", ["p", "mask"], ["y"])], {"x": ["N", 7]}, {"y": ["N", 5]}, constants, dtype=11)
    set_float32(model)
    np.testing.assert_array_equal(constant(model.graph.initializers["mask"]), [np.finfo(np.float32).min, -np.inf])


EMPTY = {
    "a slice of nothing, multiplied": [
        node("Slice", ["p", "zero", "zero", "one"], ["e"]),
        node("MatMul", ["e", "v"], ["g"], name="nothing"),
    ],
    "a slice of nothing, moved": [
        node("Slice", ["p", "zero", "zero", "one"], ["e"]),
        node("Relu", ["e"], ["g"]),
    ],
}


@pytest.mark.parametrize("form", EMPTY)
def test_values_without_elements_come_on_no_array_and_make_no_stage(form: str) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["p"], name="fc"),
        *EMPTY[form],
        node("MatMul", ["p", "u"], ["q"], name="next"),
        node("Concat", ["g", "q"], ["y"], axis=1),
    ]
    constants = {"w": weights(7, 5), "v": weights(5, 5), "u": weights(5, 5)}
    constants |= {"zero": np.array([0], np.int64), "one": np.array([1], np.int64)}
    lowered = lower_and_compare(network(nodes, {"x": ["N", 6, 7]}, {"y": ["N", 6, 5]}, constants))
    assert operators(lowered) == ["CrossbarMatMul", "CrossbarMatMul", "Concat"]


def test_a_layer_without_columns_computes_nothing() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["p"], name="fc"),
        node("MatMul", ["x", "none"], ["z"], name="nothing"),
        node("Concat", ["p", "z"], ["q"], axis=1),
        node("Identity", ["z"], ["empty"]),
        node("Relu", ["q"], ["y"]),
    ]
    constants = {"w": weights(7, 5), "none": np.zeros((7, 0), np.float32)}
    model = network(nodes, {"x": ["N", 7]}, {"y": ["N", 5], "empty": ["N", 0]}, constants)
    lowered = lower_and_compare(model)
    assert len(layers(lowered)) == 1
    assert map_network(lowered, load_chip("brram-256x64")).layers[0].name == "fc"


def test_sizes_below_zero_are_unknown(tmp_path: Path) -> None:
    conv = node("Conv", ["x", "w"], ["c"], name="conv")
    pool = node("GlobalAveragePool", ["c"], ["y"])
    proto = network_proto([conv, pool], {"x": [-1, 3, 8, 8]}, {"y": [-1, 4, 1, 1]}, {"w": weights(4, 3, 3, 3)})
    onnx.save(proto, tmp_path / "paddle.onnx")
    lowered = lower_and_compare(read_network(tmp_path / "paddle.onnx"))
    assert str(lowered.graph.inputs[0].shape) == "[N,3,8,8]"


@pytest.mark.parametrize(
    ("sizes", "option"),
    [
        ([-1, 3, -1, -1], "x=Nx3x224x224"),
        ([1, 3, 48, "width"], "x=1x3x48x192"),
        (["batch", 3, "side", "side"], "x=Nx3x224x224"),
    ],
)
def test_open_sizes_are_refused_with_an_option_that_works(sizes: list[Any], option: str, tmp_path: Path) -> None:
    proto = network_proto(
        [node("Conv", ["x", "w"], ["y"], name="conv")], {"x": sizes}, {"y": [None] * 4}, {"w": weights(4, 3, 3, 3)}
    )
    onnx.save(proto, tmp_path / "open.onnx")
    with pytest.raises(CimcError, match=f"such as --shape {option}$"):
        lower(read_network(tmp_path / "open.onnx"))
    model = read_network(tmp_path / "open.onnx")
    set_shapes(model, dict([parse_shape(option)]))
    assert len(layers(lower(model))) == 1


def test_the_batch_of_an_input_may_be_any_of_its_sizes() -> None:
    """As a recurrent state has it: [layers, batch, hidden]."""
    nodes = [
        node("Gather", ["state", "one"], ["h"], axis=0),
        node("MatMul", ["x", "w"], ["p"], name="w"),
        node("MatMul", ["h", "r"], ["q"], name="r"),
        node("Add", ["p", "q"], ["t"]),
        node("Tanh", ["t"], ["y"]),
        node("Unsqueeze", ["y", "axis"], ["next"]),
    ]
    constants = {"w": weights(7, 5), "r": weights(5, 5), "one": np.array(1), "axis": np.array([0], np.int64)}
    inputs, outputs = {"x": ["N", 7], "state": [2, "N", 5]}, {"y": ["N", 5], "next": [1, "N", 5]}
    lowered = lower_and_compare(network(nodes, inputs, outputs, constants))
    assert [str(value.shape) for value in lowered.graph.outputs] == ["[N,5]", "[1,N,5]"]
