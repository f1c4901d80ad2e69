"""If, Loop and Scan that are known before the network runs become plain nodes that compute the same."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, parser

from cimc.errors import CimcError
from passes.notes import notes_of
from passes.pipeline import lower
from passes.set_inputs import parse_constant, set_inputs
from passes.verify import run
from tests.networks import layers, operators, weights

HEAD = '<ir_version: 8, opset_import: ["": {opset}]>'


def model(text: str, opset: int = 17, **constants: np.ndarray) -> ir.Model:
    proto = parser.parse_model(HEAD.format(opset=opset) + text)
    proto.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in constants.items())
    return ir.from_proto(proto)


def compare(network: ir.Model, feeds: dict[str, np.ndarray]) -> ir.Model:
    lowered = lower(network)
    results: Any = zip(run(network, feeds), run(lowered, feeds), strict=True)
    for expected, computed in results:
        assert expected.shape == computed.shape
        np.testing.assert_allclose(computed, expected, atol=1e-5)
    assert not {"If", "Loop", "Scan"} & set(operators(lowered))
    return lowered


CHOICE = """g (float[N,4] x, int64 rate) => (float[N,5] y) {
  k = Constant <value = int64 {16000}> ()
  c = Equal (rate, k)
  h = If (c) <
    then_branch = a () => (float[N,6] p) { p = MatMul (x, v) },
    else_branch = b () => (float[N,6] q) { q0 = MatMul (x, u) q = Relu (q0) }
  >
  y = MatMul (h, w)
}"""


def choice() -> ir.Model:
    return model(CHOICE, u=weights(4, 6, seed=1), v=weights(4, 6, seed=2), w=weights(6, 5))


@pytest.mark.parametrize(("rate", "nodes"), [(16000, ["CrossbarMatMul"] * 2), (8000, ["CrossbarMatMul", "Relu"])])
def test_an_input_set_to_a_constant_decides_an_if(rate: int, nodes: list[str]) -> None:
    network = choice()
    set_inputs(network, {"rate": rate})
    lowered = compare(network, {"x": weights(3, 4)})
    assert [value.name for value in lowered.graph.inputs] == ["x"]
    assert operators(lowered)[: len(nodes)] == nodes
    assert len(layers(lowered)) == 2
    expected: Any = run(choice(), {"x": weights(3, 4), "rate": np.array(rate)})[0]
    computed: Any = run(lowered, {"x": weights(3, 4)})[0]
    np.testing.assert_allclose(computed, expected, atol=1e-5)


def test_a_condition_of_the_run_selects_between_both_branches() -> None:
    lowered = compare(choice(), {"x": weights(3, 4), "rate": np.array(16000)})
    assert len(layers(lowered)) == 3
    assert "Where" in operators(lowered)
    assert "both branches run" in notes_of(lowered)[0]
    other: Any = {"x": weights(3, 4), "rate": np.array(8000)}
    computed: Any = run(lowered, other)[0]
    expected: Any = run(choice(), other)[0]
    np.testing.assert_allclose(computed, expected, atol=1e-5)


@pytest.mark.parametrize("opset", [11, 13, 17, 21])
def test_a_condition_on_sizes_is_decided_in_every_opset(opset: int) -> None:
    axes = "<axes = [1]> (r)" if opset < 13 else "(r, one)"
    text = f"""g (float[N,1,4] x) => (float[N,3] y) {{
      one = Constant <value = int64[1] {{1}}> ()
      s = Shape (x)
      d = Gather (s, one)
      e = Equal (d, one)
      c = Squeeze (e)
      r = Relu (x)
      h = If (c) <
        then_branch = a () => (float[N,4] p) {{ p = Squeeze {axes} }},
        else_branch = b () => (float[N,1,4] q) {{ q = Identity (r) }}
      >
      y = MatMul (h, w)
    }}"""
    lowered = compare(model(text, opset, w=weights(4, 3)), {"x": weights(2, 1, 4)})
    assert operators(lowered) == ["Relu", "Squeeze", "CrossbarMatMul"]


def test_branches_of_other_sizes_are_refused_with_the_remedy() -> None:
    text = """g (float[N,4] x, bool c) => (float[A,B] y) {
      y = If (c) <
        then_branch = a () => (float[N,6] p) { p = MatMul (x, v) },
        else_branch = b () => (float[N,5] q) { q = MatMul (x, u) }
      >
    }"""
    with pytest.raises(CimcError, match="Nx6 and Nx5; make it a constant with --set c=VALUE"):
        lower(model(text, u=weights(4, 5), v=weights(4, 6)))


def test_nested_branches_and_weights_inside_them() -> None:
    inner = helper.make_node(
        "If",
        ["c"],
        ["t"],
        then_branch=helper.make_graph(
            [
                helper.make_node("Constant", [], ["k"], value=onnx.numpy_helper.from_array(weights(4, 4))),
                helper.make_node("MatMul", ["x", "k"], ["m"]),
            ],
            "deep",
            [],
            [helper.make_tensor_value_info("m", TensorProto.FLOAT, ["N", 4])],
        ),
        else_branch=helper.make_graph(
            [helper.make_node("Relu", ["x"], ["m"])],
            "shallow",
            [],
            [helper.make_tensor_value_info("m", TensorProto.FLOAT, ["N", 4])],
        ),
    )
    constant = helper.make_graph(
        [helper.make_node("Constant", [], ["e"], value=onnx.numpy_helper.from_array(weights(1, 4)))],
        "constant",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, [1, 4])],
    )
    branch = helper.make_graph([inner], "outer", [], [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)])
    nodes = [
        helper.make_node("If", ["c"], ["a"], then_branch=branch, else_branch=constant),
        helper.make_node("If", ["d"], ["b"], then_branch=branch, else_branch=constant),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "nested",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 4])],
        [onnx.numpy_helper.from_array(np.array(value), name) for name, value in (("c", True), ("d", False))],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    lowered = compare(ir.from_proto(proto), {"x": weights(3, 4)})
    assert operators(lowered) == ["CrossbarMatMul", "Add"] or operators(lowered) == ["CrossbarMatMul"]


RECURRENCE = """g (float[N,6,4] x, float[N,5] h) => (float[N,5] last, float[N,6,5] all) {
  steps = Constant <value = int64 {6}> ()
  yes = Constant <value = bool {1}> ()
  last, stacked = Loop (steps, yes, h) <
    body = b (int64 i, bool go, float[N,5] s) => (bool on, float[N,5] n, float[N,5] o) {
    on = Identity (go)
    xt = Gather <axis = 1> (x, i)
    wt = Transpose <perm = [1, 0]> (w)
    p = MatMul (xt, wt)
    q = MatMul (s, r)
    t = Add (p, q)
    n = Tanh (t)
    o = Identity (n)
  }>
  all = Transpose <perm = [1, 0, 2]> (stacked)
}"""


def test_a_loop_of_known_length_is_unrolled_and_its_weights_stay_one_constant_each() -> None:
    network = model(RECURRENCE, w=weights(5, 4), r=weights(5, 5, seed=1) / 3)
    lowered = compare(network, {"x": weights(3, 6, 4), "h": weights(3, 5, seed=2)})
    assert len(layers(lowered)) == 12
    used: list[set[ir.Value | None]] = []

    def products(number: int, name: str, after: ir.Model) -> None:
        if name == "FlattenControlFlow":
            used.append({node.inputs[1] for node in after.graph if node.op_type == "MatMul"})

    lower(network, products)
    assert len(used[0]) == 2


def test_a_loop_that_counts_to_its_end() -> None:
    """As `while` is exported: no count, a condition computed from a counter."""
    text = """g (float[N,4] x) => (float[N,4] y) {
      none = Constant <value = int64 {9223372036854775807}> ()
      yes = Constant <value = bool {1}> ()
      zero = Constant <value = int64 {0}> ()
      three = Constant <value = int64 {3}> ()
      count, y = Loop (none, yes, zero, x) <
        body = b (int64 i, bool go, int64 k, float[N,4] s) => (bool on, int64 m, float[N,4] n) {
        one = Constant <value = int64 {1}> ()
        m = Add (k, one)
        on = Less (m, three)
        p = MatMul (s, w)
        n = Tanh (p)
      }>
    }"""
    lowered = compare(model(text, w=weights(4, 4)), {"x": weights(3, 4)})
    assert operators(lowered) == ["CrossbarMatMul", "Tanh"] * 3


def test_a_loop_that_counts_to_the_length_of_a_sequence() -> None:
    """As Keras writes its recurrent layers: the length, of a Shape, is carried, and its body reads it from outside."""
    text = """g (float[N,5,4] x, float[N,4] h) => (float[N,4] y) {
      turned = Transpose <perm = [1, 0, 2]> (x)
      sizes = Shape (turned)
      place = Constant <value = int64 {0}> ()
      length = Gather (sizes, place)
      zero = Constant <value = int64 {0}> ()
      yes = Less (zero, length)
      count, carried, y = Loop (length, yes, zero, length, h) <
        body = b (int64 i, bool go, int64 k, int64 end, float[N,4] s) => (bool on, int64 m, int64 e, float[N,4] n) {
        one = Constant <value = int64 {1}> ()
        m = Add (k, one)
        e = Identity (end)
        whole = Cast <to = 1> (length)
        reached = Cast <to = 1> (m)
        before = Less (reached, whole)
        within = Less (m, end)
        on = And (before, within)
        xt = Gather <axis = 0> (turned, k)
        p = MatMul (s, w)
        t = Add (p, xt)
        n = Tanh (t)
      }>
    }"""
    lowered = compare(model(text, w=weights(4, 4)), {"x": weights(3, 5, 4), "h": weights(3, 4, seed=1)})
    assert operators(lowered).count("CrossbarMatMul") == 5


SCAN = """g (float[6,N,4] x, float[N,5] h) => (float[N,5] last, float[N,6,5] all) {
  last, all = Scan <
    num_scan_inputs = 1, scan_input_directions = [1], scan_output_axes = [1], scan_output_directions = [1],
    body = b (float[N,5] s, float[N,4] xt) => (float[N,5] n, float[N,5] o) {
      p = MatMul (xt, w)
      q = MatMul (s, r)
      t = Add (p, q)
      n = Tanh (t)
      o = Neg (n)
    }> (h, x)
}"""


def test_a_scan_backwards_along_any_axis() -> None:
    network = model(SCAN, w=weights(4, 5), r=weights(5, 5, seed=1) / 3)
    network.graph.inputs[0].shape = ir.Shape([6, 3, 4])
    network.graph.inputs[1].shape = ir.Shape([3, 5])
    lowered = compare(network, {"x": weights(6, 3, 4), "h": weights(3, 5, seed=2)})
    assert len(layers(lowered)) == 12


def test_a_loop_too_long_to_write_out_is_refused() -> None:
    text = RECURRENCE.replace("{6}", "{100000}").replace("float[N,6,", "float[N,100000,")
    with pytest.raises(CimcError, match=r"100000 steps of .* operators, products with constant weights among them"):
        lower(model(text, w=weights(5, 4), r=weights(5, 5)))


def test_a_loop_that_ends_by_its_data_is_refused() -> None:
    text = """g (float[N,4] x) => (float[N,4] y) {
      yes = Constant <value = bool {1}> ()
      y = Loop (, yes, x) <body = b (int64 i, bool go, float[N,4] s) => (bool on, float[N,4] n) {
        n = MatMul (s, w)
        m = ReduceMax <keepdims = 0> (n)
        one = Constant <value = float {1.0}> ()
        on = Less (m, one)
      }>
    }"""
    with pytest.raises(CimcError, match=r"Loop .*number of steps"):
        lower(model(text, w=weights(4, 4)))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("other=1", "names the input 'other', but the network has x, rate"),
        ("rate=0.5", "it is int64"),
        ("rate=1,2", "2 numbers, but it has one"),
        ("rate", "another form"),
        ("rate=fast", "another form"),
    ],
)
def test_constants_that_do_not_fit_are_refused(text: str, message: str) -> None:
    with pytest.raises(CimcError, match=message):
        set_inputs(choice(), dict([parse_constant(text)]))


def test_a_list_that_a_loop_fills_is_joined() -> None:
    text = """g (float[N,4] x) => (float[N,15] y) {
      three = Constant <value = int64 {3}> ()
      yes = Constant <value = bool {1}> ()
      none = SequenceEmpty ()
      last, list = Loop (three, yes, x, none) <
        body = b (int64 i, bool go, float[N,4] s, seq(float[N,5]) l) => (bool on, float[N,4] n, seq(float[N,5]) m) {
          on = Identity (go)
          n = Neg (s)
          p = MatMul (s, w)
          m = SequenceInsert (l, p)
        }>
      y = ConcatFromSequence <axis = 1> (list)
    }"""
    lowered = compare(model(text, w=weights(4, 5)), {"x": weights(3, 4)})
    assert len(layers(lowered)) == 3
    assert not any("Sequence" in operator for operator in operators(lowered))
