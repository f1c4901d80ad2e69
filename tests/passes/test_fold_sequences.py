"""Lists of tensors that are known before the network runs vanish; others are named in the refusal."""

import numpy as np
import pytest
from onnx import TensorProto, helper

from cimc.errors import CimcError
from passes.pipeline import lower
from tests.networks import layers, lower_and_compare, network, operators, weights

node = helper.make_node
CONSTANTS = {
    "w": weights(4, 6),
    "two": np.array(2),
    "parts": np.array([1, 2, 3]),
    "one": np.array(1),
    "last": np.array(-1),
}
FORMS = {
    "chunks": ([node("SplitToSequence", ["p", "two"], ["s"], axis=1)], "s"),
    "parts": ([node("SplitToSequence", ["p", "parts"], ["s"], axis=1)], "s"),
    "erased": (
        [node("SplitToSequence", ["p", "two"], ["t"], axis=1), node("SequenceErase", ["t", "one"], ["s"])],
        "s",
    ),
    "inserted": (
        [
            node("SequenceEmpty", [], ["e"]),
            node("SequenceInsert", ["e", "p"], ["f"]),
            node("SequenceConstruct", ["p", "p"], ["g"]),
            node("SequenceAt", ["g", "last"], ["q"]),
            node("Neg", ["q"], ["r"]),
            node("Identity", ["f"], ["i"]),
            node("SequenceInsert", ["i", "r", "last"], ["s"]),
        ],
        "s",
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_what_is_joined_again(form: str) -> None:
    nodes, name = FORMS[form]
    product = node("MatMul", ["x", "w"], ["p"], name="fc")
    joined = node("ConcatFromSequence", [name], ["y"], axis=1)
    model = network([product, *nodes, joined], {"x": ["N", 4]}, {"y": ["N", None]}, CONSTANTS)
    lowered = lower_and_compare(model)
    assert not any("Sequence" in operator for operator in operators(lowered))


def test_rows_one_by_one_stacked_and_counted() -> None:
    nodes = [
        node("SplitToSequence", ["x"], ["s"], axis=1, keepdims=0),
        node("SequenceAt", ["s", "one"], ["row"]),
        node("MatMul", ["row", "w"], ["p"], name="fc"),
        node("SequenceConstruct", ["p", "p"], ["t"]),
        node("ConcatFromSequence", ["t"], ["q"], axis=1, new_axis=1),
        node("SequenceLength", ["s"], ["n"]),
        node("Cast", ["n"], ["f"], to=TensorProto.FLOAT),
        node("Mul", ["q", "f"], ["y"]),
    ]
    lowered = lower_and_compare(network(nodes, {"x": ["N", 3, 4]}, {"y": ["N", 2, 6]}, CONSTANTS))
    assert len(layers(lowered)) == 1


def test_a_list_that_hangs_on_the_data_is_named() -> None:
    nodes = [
        node("MatMul", ["x", "w"], ["p"], name="fc"),
        node("SplitToSequence", ["p", "two"], ["s"], axis=1),
        node("ArgMax", ["p"], ["best"], axis=1, keepdims=0),
        node("ReduceMax", ["best"], ["index"], keepdims=0),
        node("SequenceAt", ["s", "index"], ["q"], name="choice"),
        node("MatMul", ["q", "v"], ["y"], name="last"),
    ]
    model = network(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, CONSTANTS | {"v": weights(2, 3)})
    with pytest.raises(CimcError, match=r"SplitToSequence .* is not supported: what is in its list of tensors"):
        lower(model)
