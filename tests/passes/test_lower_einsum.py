"""Einsum with a constant becomes crossbar layers, whatever the order of its letters."""

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from tests.networks import layers, lower_and_compare, network, network_proto, operators, weights

SIZES = {"b": 3, "q": 4, "h": 2, "d": 5, "e": 3, "f": 2}


def lower_einsum(equation: str, x: str, weight: str, constant_first: bool = False) -> tuple[int, list[str]]:
    """Lower one Einsum of x and a constant, compared in onnxruntime; the number of layers, and the operators."""
    operands = ["w", "x"] if constant_first else ["x", "w"]
    node = helper.make_node("Einsum", operands, ["y"], name="einsum", equation=equation)
    shape = ["N" if letter == "b" else SIZES[letter] for letter in x]
    constant = weights(*(SIZES[letter] for letter in weight))
    lowered = lower_and_compare(ir.from_proto(network_proto([node], {"x": shape}, {"y": None}, {"w": constant})))
    return len(layers(lowered)), operators(lowered)


@pytest.mark.parametrize(
    ("equation", "x", "weight", "count"),
    [
        ("bqd,de->bqe", "bqd", "de", 1),  # a linear layer
        ("bqd,ed->bqe", "bqd", "ed", 1),  # with the weight as PyTorch keeps it
        ("bqd,dhe->bqhe", "bqd", "dhe", 1),  # the heads of an attention
        ("bqhd,hde->bqe", "bqhd", "hde", 1),  # and their joint output
        ("bhqd,hde->bhqe", "bhqd", "hde", 2),  # a matrix for each head
        ("bhd,hde->bhe", "bhd", "hde", 2),
        ("bqd,d->bq", "bqd", "d", 1),
        ("...d,de->...e", "bqd", "de", 1),
        ("...d,de", "bqd", "de", 1),
        ("bdq,de->beq", "bdq", "de", 1),
        ("bqdf,de->bqe", "bqdf", "de", 1),  # f is summed
        ("bqd,def->bqe", "bqd", "def", 1),
    ],
)
def test_forms(equation: str, x: str, weight: str, count: int) -> None:
    found, nodes = lower_einsum(equation, x, weight)
    assert found == count
    assert "Einsum" not in nodes


def test_the_constant_may_come_first() -> None:
    assert lower_einsum("ed,bqd->bqe", "bqd", "ed", constant_first=True)[0] == 1


@pytest.mark.parametrize(("equation", "weight"), [("bqd,qd->bqd", "qd"), ("bqd,ef->bqdef", "ef")])
def test_what_sums_nothing_stays_digital(equation: str, weight: str) -> None:
    assert lower_einsum(equation, "bqd", weight) == (0, ["Einsum"])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_product_of_two_operands(data: st.DataObject) -> None:
    x = "b" + "".join(data.draw(st.permutations("qhd"))[: data.draw(st.integers(1, 3))])
    weight = "".join(data.draw(st.permutations("hdef"))[: data.draw(st.integers(1, 3))])
    letters = sorted(set(x) | set(weight))
    kept = [letter for letter in letters if letter == "b" or data.draw(st.booleans())]
    result = "".join(data.draw(st.permutations(kept)))
    lower_einsum(f"{x},{weight}->{result}", x, weight)


def test_two_constants_are_folded() -> None:
    nodes = [
        helper.make_node("Einsum", ["u", "v"], ["w"], equation="ab,bc->ac"),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    constants = {"u": weights(4, 3), "v": np.ones((3, 2), np.float32)}
    assert operators(lower_and_compare(network(nodes, {"x": ["N", 4]}, {"y": ["N", 2]}, constants))) == [
        "CrossbarMatMul"
    ]
