"""Layers left digital compute what they computed, as standard operators; they are off the arrays, and listed."""

from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import load_chip
from cimc.errors import CimcError
from passes.crossbar_functions import crossbar_layers
from passes.digital_products import products_of
from passes.leave_digital import leave_digital, matching_layers
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.verify import run
from tests.networks import network, operators, weights

node = helper.make_node


def images() -> ir.Model:
    """A grouped, strided convolution, one layer that is used twice, and a classifier with a bias."""
    nodes = [
        node(
            "Conv", ["x", "k", "b"], ["p"], name="first", group=2, strides=[2, 1], pads=[1, 0, 1, 2], dilations=[1, 2]
        ),
        node("Relu", ["p"], ["q"]),
        node("Conv", ["q", "m"], ["r"], name="again"),
        node("Conv", ["r", "m"], ["s"]),
        node("Flatten", ["s"], ["t"]),
        node("Gemm", ["t", "w", "c"], ["y"], name="last"),
    ]
    last = {"w": weights(96, 1), "c": np.full(1, 0.5, np.float32)}
    constants = {"k": weights(4, 1, 3, 3), "b": weights(4), "m": weights(4, 4, 1, 1), **last}
    return network(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 1]}, constants)


def sequence() -> ir.Model:
    """A recurrent layer, which stands in the body of a Scan, behind a product."""
    nodes = [
        node("MatMul", ["x", "v"], ["t"], name="before"),
        node("GRU", ["t", "w", "r"], ["", "h"], hidden_size=4, name="gru"),
        node("Squeeze", ["h", "axis"], ["y"]),
    ]
    constants = {"v": weights(3, 3), "w": weights(1, 12, 3), "r": weights(1, 12, 4, seed=1), "axis": np.array([0])}
    return network(nodes, {"x": [5, "N", 3]}, {"y": ["N", 4]}, constants)


@pytest.mark.parametrize(
    ("original", "shape", "patterns", "left"),
    [
        (images, (3, 2, 8, 8), ["first"], ["again", "last"]),
        (images, (3, 2, 8, 8), ["again"], ["first", "last"]),
        (images, (3, 2, 8, 8), ["?a*", "f*"], ["again"]),
        (sequence, (5, 3, 3), ["gru*"], ["before"]),
    ],
)
def test_the_network_computes_the_same_without_the_layers(
    original: Any, shape: tuple[int, ...], patterns: list[str], left: list[str]
) -> None:
    model = original()
    lowered = lower(model)
    names = matching_layers(lowered, patterns)
    digital = leave_digital(lowered, dict.fromkeys(names, "as told"))
    onnx.checker.check_model(ir.to_proto(digital), full_check=True)
    assert list(crossbar_layers(digital)) == left
    x: dict[str, Any] = {"x": np.random.default_rng(0).uniform(-1, 1, shape).astype(np.float32)}
    results: Any = zip(run(model, x), run(digital, x), strict=True)
    for expected, computed in results:
        np.testing.assert_allclose(computed, expected, rtol=0, atol=1e-5)
    assert len(crossbar_layers(lowered)) == len(left) + len(names), "the network itself was changed"


def test_they_are_no_arrays_and_are_listed_with_the_time_and_energy_of_the_vector_unit() -> None:
    chip = load_chip("isaac")
    cores = chip.cores.model_copy(update={"vector_bytes_per_ns": 4.0, "activation_bits": 16})
    chip = chip.model_copy(update={"cores": cores, "cost": chip.cost.model_copy(update={"digital_op_pj": 0.25})})
    digital = leave_digital(lower(images()), {"again": "as told"})
    mapping = map_network(digital, chip)
    assert [layer.name for layer in mapping.layers] == ["first", "last"]
    (product,) = products_of(digital, mapping, chip).digital
    macs = 2 * 4 * 4 * 4 * 6  # both uses
    assert (product.name, product.weights, product.macs, product.reason) == ("again", 16, macs, "as told")
    assert product.mj == pytest.approx(macs * 0.25e-9)
    assert product.ms == pytest.approx(macs * 2 / 4 * 1e-6)
    silent = products_of(digital, mapping, load_chip("brram-256x64")).digital[0]
    assert (silent.ms, silent.mj) == (None, None)


def test_the_first_layer_of_the_network_may_be_digital_and_works_row_by_row() -> None:
    digital = leave_digital(lower(images()), {"first": "as told"})
    assert operators(digital)[0] == "Conv"
    schedule = map_network(digital, load_chip("isaac")).schedule
    assert schedule is not None
    first = next(stage for stage in schedule.stages if stage.operator == "Conv")
    assert first.operations == 4 * 4 * 6 * 9
    assert (first.inputs[0].first_rows, first.inputs[0].step, first.inputs[0].window) == (2, 2.0, 3)


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("frist", r"--digital frist: no layer .*; did you mean first"), ("z*", r"did you mean first, again, last\?")],
)
def test_a_name_that_no_layer_has_is_told_with_those_that_come_close(pattern: str, said: str) -> None:
    with pytest.raises(CimcError, match=said):
        matching_layers(lower(images()), ["again", pattern])


def test_a_network_needs_a_layer_on_arrays() -> None:
    lowered = lower(images())
    with pytest.raises(CimcError, match="all 3 layers of the network are left digital"):
        leave_digital(lowered, dict.fromkeys(matching_layers(lowered, ["*"]), "as told"))
