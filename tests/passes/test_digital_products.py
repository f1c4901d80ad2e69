"""No silent digital layer: what is multiplied beside the arrays is counted, listed, and said with its reason."""

import json
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper
from typer.testing import CliRunner

from cimc.chip import load_chip
from cimc.commands.main import app
from models.build import NETWORKS
from passes.digital_products import Products, products_of
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from tests.networks import network, network_proto, weights

node = helper.make_node


def products(model: ir.Model, chip: str = "ideal") -> Products:
    lowered, description = lower(model), load_chip(chip)
    return products_of(lowered, map_network(lowered, description), description)


def test_lenet_is_on_arrays_to_the_last_product() -> None:
    found = products(ir.from_proto(NETWORKS["lenet1"]()))
    convolutions = 24 * 24 * 25 * 4 + 8 * 8 * 25 * 4 * 12
    assert found.array_macs == found.macs == convolutions + 12 * 4 * 4 * 10
    assert found.digital == ()


def test_products_of_two_values_are_counted_and_not_listed() -> None:
    """Attention scores of 5 tokens with 4 features: 5 x 4 x 5 for the scores, 5 x 5 x 4 for the mixture."""
    nodes = [
        node("MatMul", ["x", "w"], ["q"]),
        node("Transpose", ["x"], ["k"], perm=[0, 2, 1]),
        node("MatMul", ["q", "k"], ["s"]),
        node("Softmax", ["s"], ["p"]),
        node("MatMul", ["p", "x"], ["y"]),
    ]
    found = products(network(nodes, {"x": ["N", 5, 4]}, {"y": ["N", 5, 4]}, {"w": weights(4, 4)}))
    assert found.digital == ()
    assert (found.array_macs, found.value_macs) == (5 * 16, 2 * 100)


def unlisted() -> dict[str, tuple[list, dict, dict, dict, int, int, str]]:
    """By reason: nodes, inputs, outputs and constants of what stays digital, its weights and multiply-accumulates."""
    first = node("MatMul", ["x", "w"], ["p"], name="fc")
    conv = [node("Conv", ["x", "k", "b"], ["y"], name="conv"), node("Conv", ["x", "k1"], ["z"])]
    outer = [first, node("Einsum", ["p", "v"], ["y"], equation="ab,cd->abcd", name="outer")]
    return {
        "bias is computed": (
            conv,
            {"x": ["N", 2, 6, 6], "b": [3]},
            {"y": ["N", 3, 4, 4], "z": ["N", 3, 6, 6]},
            {"k": weights(3, 2, 3, 3), "k1": weights(3, 2, 1, 1)},
            3 * 2 * 9,
            3 * 4 * 4 * 2 * 9,
            "conv",
        ),
        "not a product of one value with a matrix": (
            outer,
            {"x": ["N", 4]},
            {"y": ["N", 3, 2, 5]},
            {"w": weights(4, 3), "v": weights(2, 5)},
            10,
            3 * 10,
            "outer",
        ),
    }


@pytest.mark.parametrize("reason", unlisted())
def test_constant_weights_that_stay_digital_are_listed_with_the_reason(reason: str) -> None:
    nodes, inputs, outputs, constants, elements, macs, name = unlisted()[reason]
    found = products(network(nodes, inputs, outputs, constants))
    (product,) = found.digital
    assert (product.name, product.weights, product.macs) == (name, elements, macs)
    assert reason in product.reason
    assert found.value_macs == 0
    assert found.weights == sum(np.size(constants[key]) for key in constants)


def test_depthwise_layers_of_a_chip_that_leaves_them_digital_are_listed(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "k"], ["p"], group=4, pads=[1, 1, 1, 1], name="depthwise"),
        node("Conv", ["p", "m"], ["y"], name="pointwise"),
    ]
    constants = {"k": weights(4, 1, 3, 3), "m": weights(8, 4, 1, 1)}
    proto = network_proto(nodes, {"x": ["N", 4, 6, 6]}, {"y": ["N", 8, 6, 6]}, constants)
    (product,) = products(ir.from_proto(proto), "packing-256").digital
    assert (product.name, product.weights, product.macs) == ("depthwise", 36, 36 * 36)
    assert "vector unit" in product.reason

    (tmp_path / "net.onnx").write_bytes(proto.SerializeToString())
    artifact = str(tmp_path / "net.cim")
    compiled = CliRunner().invoke(
        app, ["compile", str(tmp_path / "net.onnx"), "--chip", "packing-256", "-o", artifact, "--json"]
    )
    inspected = CliRunner().invoke(app, ["inspect", artifact, "--json"])
    for result in (compiled, inspected):
        figures = json.loads(result.stdout)
        (listed,) = figures["digital_products"]
        assert listed["share_of_weights"] == pytest.approx(36 / 68)
        assert figures["macs"]["share_on_arrays"] == pytest.approx(32 / 68)
    table = CliRunner().invoke(app, ["inspect", artifact]).stdout
    assert "47.1% run on" in table
    assert "constant weights that stay digital" in table
    assert "depthwise" in table
