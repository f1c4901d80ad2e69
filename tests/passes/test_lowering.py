"""Each operator form becomes a crossbar layer and computes the same in onnxruntime."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from onnx import helper

from cimc.chip import load_chip
from passes.graph_edit import new_node
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.verify_mapping import verify_mapping
from tests.networks import constant, largest_difference, layers, lower_and_compare, network, operators, sizes, weights


def node(operator: str, inputs: list[str], outputs: list[str], **attributes: object) -> onnx.NodeProto:
    return helper.make_node(operator, inputs, outputs, **attributes)


@pytest.mark.parametrize(
    ("x", "w", "y"),
    [
        (["N", 7], (7, 5), ["N", 5]),
        (["N", 4, 7], (7, 5), ["N", 4, 5]),
        (["N", 2, 3, 7], (7, 1), ["N", 2, 3, 1]),
        ([7], (7, 5), [5]),
    ],
)
def test_matmul_with_a_constant_on_the_right(x: list, w: tuple, y: list) -> None:
    lowered = lower_and_compare(network([node("MatMul", ["x", "w"], ["y"])], {"x": x}, {"y": y}, {"w": weights(*w)}))
    assert operators(lowered) == ["CrossbarMatMul"]
    assert set(lowered.graph.initializers) == {"y.weight"}, "a layer without a bias carries none"
    assert lowered.graph.outputs[0].shape == ir.Shape(y)


@pytest.mark.parametrize(("x", "y"), [(["N", 7, 4], ["N", 5, 4]), (["N", 2, 7, 3], ["N", 2, 5, 3]), ([7], [5])])
def test_matmul_with_a_constant_on_the_left(x: list, y: list) -> None:
    model = network([node("MatMul", ["w", "x"], ["y"], name="fc")], {"x": x}, {"y": y}, {"w": weights(5, 7)})
    (layer,) = layers(lower_and_compare(model))
    assert layer.name == "fc"
    assert sizes(layer.inputs[1]) == [7, 5]


C_SHAPES = [None, (), (1,), (5,), (1, 5), (1, 1), (3, 1), (3, 5)]


@pytest.mark.parametrize("c", C_SHAPES)
@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
def test_gemm_forms(trans_a: int, trans_b: int, c: tuple[int, ...] | None) -> None:
    constants = {"b": weights(5, 7) if trans_b else weights(7, 5)}
    if c is not None:
        constants["c"] = weights(*c, seed=1)
    gemm = node("Gemm", ["a", *constants], ["y"], name="fc", alpha=0.5, beta=-2.0, transA=trans_a, transB=trans_b)
    static = [7, 3] if trans_a else [3, 7]
    lowered = lower_and_compare(network([gemm], {"a": static}, {"y": [3, 5]}, constants))
    (layer,) = layers(lowered)
    per_column = c is not None and c not in ((3, 1), (3, 5))
    assert len(layer.inputs) == 2 + per_column
    assert ("Add" in operators(lowered)) == (c in ((3, 1), (3, 5)))
    assert ("Transpose" in operators(lowered)) == bool(trans_a)


@pytest.mark.parametrize("trans_b", [0, 1])
@pytest.mark.parametrize("trans_a", [0, 1])
def test_gemm_with_a_constant_on_the_left(trans_a: int, trans_b: int) -> None:
    constants = {"a": weights(7, 5) if trans_a else weights(5, 7), "c": weights(5, 1, seed=2)}
    gemm = node("Gemm", ["a", "b", "c"], ["y"], alpha=3.0, beta=0.5, transA=trans_a, transB=trans_b)
    model = network([gemm], {"b": [4, 7] if trans_b else [7, 4]}, {"y": [5, 4]}, constants)
    assert len(layers(lower_and_compare(model))) == 1


@pytest.mark.parametrize("beta", [1.0, 0.25, 0.0])
def test_gemm_with_a_bias_that_is_computed(beta: float) -> None:
    gemm = node("Gemm", ["a", "w", "c"], ["y"], name="fc", beta=beta)
    model = network([gemm], {"a": ["N", 7], "c": ["N", 5]}, {"y": ["N", 5]}, {"w": weights(7, 5)})
    lowered = lower_and_compare(model)
    assert len(layers(lowered)[0].inputs) == 2


@pytest.mark.parametrize("auto_pad", ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("size", [(9,), (9, 8), (5, 6, 7)])
def test_conv_in_one_two_and_three_dimensions(size: tuple[int, ...], bias: bool, auto_pad: str) -> None:
    kernel = (3, 2, 3)[: len(size)]
    constants = {"w": weights(4, 2, *kernel)} | ({"b": weights(4, seed=1)} if bias else {})
    conv = node("Conv", ["x", *constants], ["y"], name="conv", auto_pad=auto_pad, strides=[2] * len(size))
    model = network([conv], {"x": ["N", 2, *size]}, {"y": ["N", 4, *[None] * len(size)]}, constants)
    lowered = lower_and_compare(model)
    (layer,) = layers(lowered)
    assert len(layer.inputs) == 2 + bias
    assert sizes(layer.inputs[1]) == [2 * int(np.prod(kernel)), 4]
    expected = {"kernel_shape", "strides", "pads", "dilations", "group", "weight_shape"}
    assert set(layer.attributes) == expected
    np.testing.assert_array_equal(constant(layer.inputs[1]), constants["w"].reshape(4, -1).T)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_convolution_computes_the_same(data: st.DataObject) -> None:
    draw = data.draw
    rank = draw(st.integers(1, 2))
    axes = [draw(st.tuples(*(st.integers(1, 3),) * 3, st.integers(0, 2), st.integers(0, 2))) for _ in range(rank)]
    kernel, strides, dilations, starts, ends = (list(column) for column in zip(*axes, strict=True))
    size = [draw(st.integers(3, 9)) for _ in range(rank)]
    for extent, k, dilation, start, end in zip(size, kernel, dilations, starts, ends, strict=True):
        assume(extent + start + end >= (k - 1) * dilation + 1)
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    attributes: dict[str, object] = {}
    if draw(st.booleans()):
        attributes |= {"kernel_shape": kernel}
    same = draw(st.sampled_from(["", "SAME_UPPER", "SAME_LOWER"]))
    # onnxruntime itself refuses automatic padding with dilation
    attributes |= {"auto_pad": same} if same else {"pads": starts + ends, "dilations": dilations}
    constants = {"w": weights(outputs, inputs, *kernel)}
    if draw(st.booleans()):
        constants["b"] = weights(outputs, seed=1)
    conv = node("Conv", ["x", *constants], ["y"], strides=strides, **attributes)
    model = network([conv], {"x": ["N", inputs, *size]}, {"y": ["N", outputs, *[None] * rank]}, constants)
    assert len(layers(lower_and_compare(model, batch=2))) == 1


@pytest.mark.parametrize("swapped", [False, True])
@pytest.mark.parametrize("shape", [(5,), (1, 5), (1, 1, 5), (1,), ()])
def test_an_addition_after_matmul_becomes_the_bias(shape: tuple[int, ...], swapped: bool) -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["p"], name="fc"),
        node("Add", ["c", "p"] if swapped else ["p", "c"], ["y"], name="add"),
    ]
    constants = {"w": weights(7, 5), "c": weights(*shape, seed=1)}
    lowered = lower_and_compare(network(nodes, {"x": ["N", 4, 7]}, {"y": ["N", 4, 5]}, constants))
    assert operators(lowered) == ["CrossbarMatMul"]
    assert set(lowered.graph.initializers) == {"fc.weight", "fc.bias"}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", [(4, 1, 1), (1, 4, 1, 1), (1, 1, 1, 1), ()])
def test_an_addition_after_conv_becomes_the_bias(shape: tuple[int, ...], bias: bool) -> None:
    constants = {"w": weights(4, 2, 3, 3)} | ({"b": weights(4, seed=3)} if bias else {})
    nodes = [node("Conv", ["x", *constants], ["p"], name="conv"), node("Add", ["p", "c"], ["y"])]
    constants["c"] = weights(*shape, seed=1)
    lowered = lower_and_compare(network(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 4, 6, 6]}, constants))
    assert operators(lowered) == ["CrossbarConv"]


@pytest.mark.parametrize(
    ("shape", "y"),
    [((4, 5), ["N", 4, 5]), ((4, 1), ["N", 4, 5]), ((2, 1, 1, 5), [2, "N", 4, 5]), ((1, 1, 1, 5), [1, "N", 4, 5])],
)
def test_other_additions_stay(shape: tuple[int, ...], y: list) -> None:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "c"], ["y"])]
    constants = {"w": weights(7, 5), "c": weights(*shape, seed=1)}
    lowered = lower_and_compare(network(nodes, {"x": ["N", 4, 7]}, {"y": y}, constants))
    assert operators(lowered) == ["CrossbarMatMul", "Add"]


def test_a_row_vector_after_conv_is_no_bias() -> None:
    nodes = [node("Conv", ["x", "w"], ["p"]), node("Add", ["p", "c"], ["y"])]
    constants = {"w": weights(6, 2, 3, 3), "c": weights(6, seed=1)}
    lowered = lower_and_compare(network(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 6, 6, 6]}, constants))
    assert operators(lowered) == ["CrossbarConv", "Add"]


def test_an_addition_stays_where_the_product_is_used_otherwise() -> None:
    nodes = [node("MatMul", ["x", "w"], ["p"]), node("Add", ["p", "c"], ["q"]), node("Mul", ["p", "q"], ["y"])]
    constants = {"w": weights(7, 5), "c": weights(5, seed=1)}
    lowered = lower_and_compare(network(nodes, {"x": ["N", 7]}, {"y": ["N", 5]}, constants))
    assert operators(lowered) == ["CrossbarMatMul", "Add", "Mul"]
    nodes = nodes[:2]
    lowered = lower_and_compare(network(nodes, {"x": ["N", 7]}, {"p": ["N", 5], "q": ["N", 5]}, constants))
    assert operators(lowered) == ["CrossbarMatMul", "Add"]


def test_a_weight_that_two_products_use_is_one_layer() -> None:
    nodes = [node("MatMul", ["x", "w"], ["p"], name="a"), node("MatMul", ["p", "w"], ["y"], name="b")]
    lowered = lower_and_compare(network(nodes, {"x": ["N", 5]}, {"y": ["N", 5]}, {"w": weights(5, 5)}))
    assert set(lowered.graph.initializers) == {"a.weight"}


def test_layer_names_are_unique_clean_and_derived_from_node_or_output() -> None:
    nodes = [
        node("MatMul", ["x", "w0"], ["p"], name="/net/fc:0"),
        node("MatMul", ["p", "w1"], ["q"], name="/net/fc 0"),
        node("MatMul", ["q", "w2"], ["r/s"]),
        node("Relu", ["r/s"], ["t"], name="top"),
        node("MatMul", ["t", "w3"], ["y"], name="/top"),
    ]
    constants = {f"w{seed}": weights(5, 5, seed=seed) for seed in range(4)}
    lowered = lower_and_compare(network(nodes, {"x": ["N", 5]}, {"y": ["N", 5]}, constants))
    assert [layer.name for layer in layers(lowered)] == ["net_fc_0", "net_fc_0_2", "r_s", "top_2"]
    weight_names = [value.name for layer in layers(lowered) if (value := layer.inputs[1])]
    assert weight_names == [f"{layer.name}.weight" for layer in layers(lowered)]


def test_names_of_the_network_that_look_like_a_layers_constants_do_no_harm() -> None:
    nodes = [
        node("MatMul", ["x", "a.weight"], ["b.weight"], name="a"),
        node("Add", ["b.weight", "a.bias"], ["p"], name="sum"),
        node("MatMul", ["p", "a.weight"], ["q"], name="b"),
        node("Mul", ["q", "a.weight"], ["c.weight"], name="product"),
        node("MatMul", ["c.weight", "a.weight"], ["y"], name="c"),
    ]
    constants = {"a.weight": weights(5, 5), "a.bias": weights(5, 5, seed=1)}
    model = network(nodes, {"x": [5, 5]}, {"y": [5, 5], "c.weight": [5, 5]}, constants)
    lowered = lower_and_compare(model)
    assert [layer.name for layer in layers(lowered)] == ["a", "b", "c_2"]


def test_batch_normalization_and_dropout_are_kept_for_training() -> None:
    nodes = [
        node("Conv", ["x", "w"], ["p"], name="conv"),
        node("BatchNormalization", ["p", "s", "b", "m", "v"], ["q"], name="bn"),
        node("Dropout", ["q"], ["y"], name="drop"),
    ]
    constants = {"w": weights(4, 2, 3, 3), "s": np.ones(4, np.float32), "b": weights(4), "m": weights(4)}
    constants["v"] = np.full(4, 2, np.float32)
    lowered = lower_and_compare(network(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 4, 6, 6]}, constants))
    assert operators(lowered) == ["CrossbarConv", "BatchNormalization", "Dropout"]


def test_lowering_leaves_its_argument_and_repeats() -> None:
    nodes = [node("MatMul", ["x", "w"], ["p"], name="fc"), node("Add", ["p", "c"], ["y"])]
    model = network(nodes, {"x": ["N", 7]}, {"y": ["N", 5]}, {"w": weights(7, 5), "c": weights(5)})
    before = ir.to_proto(model).SerializeToString()
    first, second = (ir.to_proto(lower(model)).SerializeToString(deterministic=True) for _ in range(2))
    assert ir.to_proto(model).SerializeToString() == before
    assert first == second


def test_a_lowered_network_can_be_lowered_again() -> None:
    nodes = [node("Conv", ["x", "w", "b"], ["p"], name="conv"), node("Flatten", ["p"], ["f"])]
    nodes += [node("MatMul", ["f", "v"], ["g"], name="fc"), node("Add", ["g", "c"], ["y"])]
    constants = {"w": weights(4, 2, 3, 3), "b": weights(4), "v": weights(144, 5), "c": weights(5)}
    lowered = lower(network(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 5]}, constants))
    assert operators(lower_and_compare(lowered)) == ["CrossbarConv", "Flatten", "CrossbarMatMul"]


def test_a_difference_between_networks_is_measured() -> None:
    def scaled(factor: float) -> ir.Model:
        constants = {"w": np.full((1, 1), factor, np.float32)}
        return network([node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 1]}, {"y": ["N", 1]}, constants)

    assert largest_difference(scaled(1), scaled(1)) == 0
    assert 0 < largest_difference(scaled(1), scaled(3), batch=50) <= 2


@pytest.mark.parametrize(("groups", "outputs"), [(2, 4), (4, 4), (4, 8)])
def test_grouped_convolutions_are_one_layer_and_no_block_spans_two_groups(groups: int, outputs: int) -> None:
    conv = node("Conv", ["x", "w", "b"], ["y"], name="depthwise", group=groups, pads=[1, 1, 1, 1])
    constants = {"w": weights(outputs, 4 // groups, 3, 3), "b": weights(outputs, seed=1)}
    model = network([conv], {"x": ["N", 4, 8, 8]}, {"y": ["N", outputs, 8, 8]}, constants)
    (layer,) = layers(lowered := lower_and_compare(model))
    assert sizes(layer.inputs[1]) == [4 // groups * 9, outputs]
    (mapped,) = map_network(lowered, load_chip("brram-256x64")).layers
    assert [mapped.rows, mapped.columns, mapped.groups] == [4 // groups * 9, outputs, groups]
    width = outputs // groups
    assert all(block.column_start // width == (block.column_stop - 1) // width for block in mapped.blocks)
    assert len(mapped.blocks) == groups
    ideal = verify_mapping(model, lowered, map_network(lowered, load_chip("brram-256x64")), load_chip("ideal")).ideal
    assert ideal < 1e-5


def test_nodes_that_share_a_weight_are_one_layer() -> None:
    """Recurrent layers use one weight matrix at every time step: its arrays are counted once, its MVMs each time."""
    model = network(
        [node("MatMul", ["x", "w"], ["h"], name="fc"), node("Relu", ["h"], ["r"])],
        {"x": ["N", 6]},
        {"r": ["N", 6]},
        {"w": weights(6, 6)},
    )
    lowered = lower(model)
    first = lowered.graph.outputs[0].producer()
    assert first is not None
    second = new_node("CrossbarMatMul", [first.outputs[0], layers(lowered)[0].inputs[1]], "again", domain="ai.cimc")
    second.outputs[0].name, second.outputs[0].shape = "z", ir.Shape(["N", 6])
    lowered.graph.append(second)
    lowered.graph.outputs[0] = second.outputs[0]
    chip = load_chip("brram-256x64")
    mapping = map_network(lowered, chip)
    (mapped,) = mapping.layers
    assert [mapped.name, mapped.positions, len(mapped.blocks)] == ["fc", 2, 1]
    reference = lowered.clone()
    ideal = verify_mapping(reference, lowered, mapping, load_chip("ideal")).ideal
    assert ideal < 1e-5
