"""`--verify-each` names the pass that errs; `--save-passes` keeps networks that run; `--shape` sets sizes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.errors import CimcError
from passes import pipeline
from passes.graph_edit import add_constant
from passes.pipeline import lower
from passes.set_shapes import parse_shape, set_shapes
from passes.verify import random_inputs, run
from passes.watch import save_passes, verify_each
from tests.networks import constant, network, weights


def perceptron(batch: int | str | None = "N") -> ir.Model:
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], name="fc"),
        helper.make_node("Relu", ["h"], ["y"], name="relu"),
    ]
    constants = {"w": weights(4, 3), "b": weights(3, seed=1)}
    return network(nodes, {"x": [batch, 4]}, {"y": [batch, 3]}, constants)


class Spoil(ir.passes.InPlacePass):
    """A pass with a fault: it changes a weight by a thousandth."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        node = next(node for node in model.graph if node.op_type == "CrossbarMatMul")
        array = constant(node.inputs[1]) * np.float32(1.001)
        node.replace_input_with(1, add_constant(model.graph, "spoiled", array))
        return ir.passes.PassResult(model, modified=True)


def test_the_pass_that_changes_the_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    model = perceptron()
    lower(model, verify_each(model, random_inputs(model, 2, 0)))
    passes = list(pipeline.NETWORK_PASSES)
    passes.insert(1 + next(n for n, p in enumerate(passes) if type(p).__name__ == "LowerGemm"), Spoil())
    monkeypatch.setattr(pipeline, "NETWORK_PASSES", tuple(passes))
    with pytest.raises(CimcError, match="the pass Spoil changes the outputs by"):
        lower(model, verify_each(model, random_inputs(model, 2, 0)))


def test_every_saved_network_runs_and_computes_the_same(tmp_path: Path) -> None:
    model = perceptron()
    lower(model, save_passes(tmp_path / "passes"))
    files = sorted((tmp_path / "passes").glob("*.onnx"))
    assert len(files) == len(pipeline.NETWORK_PASSES)
    feeds = random_inputs(model, 3, 0)
    expected: Any
    computed: Any
    (expected,) = run(model, feeds)
    for file in files:
        onnx.checker.check_model(str(file))
        (computed,) = run(ir.load(file), feeds)
        np.testing.assert_allclose(computed, expected, atol=1e-6, err_msg=file.name)


def test_sizes_are_set_and_a_named_one_stays_open() -> None:
    assert parse_shape("tokens:0=Nx128") == ("tokens:0", ("N", 128))
    model = network([helper.make_node("Relu", ["x"], ["y"])], {"x": ["a", "b", 3]}, {"y": ["a", "b", 3]})
    set_shapes(model, {"x": ("N", 5, 3)})
    assert model.graph.inputs[0].shape == ir.Shape(["N", 5, 3])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("x", "another form"),
        ("x=3x", "another form"),
        ("x=0x4", "size below 1"),
        ("z=Nx4", "the network has x"),
        ("x=Nx4x1", "3 sizes, but it has 2"),
        ("x=Nx5", "the size 5 where the network has 4"),
    ],
)
def test_shapes_that_do_not_fit_are_told_in_a_line(text: str, said: str) -> None:
    model = perceptron()
    with pytest.raises(CimcError, match=said) as caught:
        set_shapes(model, dict([parse_shape(text)]))
    assert "\n" not in str(caught.value)
