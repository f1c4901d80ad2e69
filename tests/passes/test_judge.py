"""What is a fault and what is rounding: networks that amplify, weights on a grid, saturating kernels, large values."""

import dataclasses

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from cimc.chip import load_chip
from cimc.errors import CimcError
from passes import verify_mapping as module
from passes.chip_network import chip_network
from passes.graph_edit import float_constant
from passes.judge import ROUNDING, disagreement, sensitivity_of
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.set_constants import set_constants
from passes.verify import Arrays, Feeds, random_inputs, rms_share, run
from passes.verify_mapping import verify_mapping
from passes.watch import verify_each
from tests.networks import constant, difference, layers, network, weights

node = helper.make_node


def perceptron(first: np.ndarray | None = None) -> ir.Model:
    nodes = [
        node("MatMul", ["x", "w"], ["p"], name="first"),
        node("Relu", ["p"], ["q"]),
        node("MatMul", ["q", "v"], ["y"], name="second"),
    ]
    constants = {"w": weights(6, 8) if first is None else first, "v": weights(8, 3, seed=1)}
    return network(nodes, {"x": ["N", 6]}, {"y": ["N", 3]}, constants)


def amplifying(gain: float) -> ir.Model:
    """The sine of a large multiple of a product; lowering takes its factor into the weight, which rounds otherwise."""
    nodes = [
        node("Gemm", ["x", "w"], ["p"], alpha=0.7, name="fc"),
        node("Mul", ["p", "gain"], ["q"]),
        node("Sin", ["q"], ["y"]),
    ]
    constants = {"w": weights(64, 8), "gain": np.float32(gain)}
    return network(nodes, {"x": ["N", 64]}, {"y": ["N", 8]}, constants)


def spoiled(model: ir.Model, layer: int, factor: float) -> ir.Model:
    """The lowered network with the weights of one layer times a factor."""
    weight = layers(model)[layer].inputs[1]
    array = float_constant(weight)
    assert weight is not None
    assert array is not None
    return set_constants(model, {weight.name or "": array * np.float32(factor)})


def test_a_network_that_moves_by_rounding_is_no_fault() -> None:
    model, chip = amplifying(1e5), load_chip("ideal")
    lowered = lower(model, verify_each(model, random_inputs(model, 2, 0)))
    feeds = random_inputs(model, 2, 0)
    expected = run(model, feeds)
    assert difference(expected, run(lowered, feeds)) > 1e-2, "the network does not amplify enough to be a test"
    assert verify_mapping(model, lowered, map_network(lowered, chip), chip).ideal > 1e-2


def test_the_same_difference_in_a_calm_network_is_a_fault_and_the_layer_is_named() -> None:
    model, chip = perceptron(), load_chip("ideal")
    lowered = lower(model)
    mapping = map_network(lowered, chip)
    assert verify_mapping(model, lowered, mapping, chip).ideal_relative < 1e-5
    for layer, name in enumerate(("first", "second")):
        with pytest.raises(CimcError, match=rf"lowered network differs .* first in layer '{name}'"):
            verify_mapping(model, spoiled(lowered, layer, 1.001), mapping, chip)
    # An amplifying network may be wrong too.
    model = amplifying(10)
    with pytest.raises(CimcError, match="first in layer 'fc'"):
        verify_mapping(model, spoiled(lower(model), 0, 1.01), map_network(lower(model), chip), chip)


def test_the_tolerance_is_that_of_each_output() -> None:
    nodes = [node("Mul", ["x", "large"], ["y"]), node("Relu", ["x"], ["z"])]
    model = network(nodes, {"x": ["N", 4]}, {"y": ["N", 4], "z": ["N", 4]}, {"large": np.full(1, 1e6, np.float32)})
    feeds = random_inputs(model, 2, 0)
    y, z = (array.astype(np.float32) for array in run(model, feeds))
    sensitivity = sensitivity_of(model, feeds, [y, z])
    assert disagreement(model, [y, z], [y + np.float32(1), z], sensitivity) is None
    wrong = disagreement(model, [y, z], [y, z + np.float32(0.01)], sensitivity)
    assert wrong is not None
    assert wrong.output == 1


def test_what_the_grid_of_the_conductances_adds_is_reported_and_no_fault() -> None:
    first = weights(6, 8)
    first[0, 0] = 2000.0  # sets the range, and so the grid of all the others
    nodes = [node("MatMul", ["x", "w"], ["p"], name="first"), node("Slice", ["p", "one", "eight", "one"], ["y"])]
    constants = {"w": first, "one": np.array([1]), "eight": np.array([8])}
    model, chip = network(nodes, {"x": ["N", 6]}, {"y": ["N", 7]}, constants), load_chip("ideal")
    lowered = lower(model)
    mapping = map_network(lowered, chip)
    found = verify_mapping(model, lowered, mapping, chip)
    # Half a step of the grid, 2^-20 of the range and up, for each of 6 inputs.
    assert 1e-4 < found.ideal < 6 * 2000 * 2**-19
    assert found.ideal_relative > ROUNDING, "the grid is too fine to be a test"


def test_arrays_that_compute_another_product_are_a_fault_and_the_layer_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, chip = perceptron(), load_chip("ideal")
    lowered = lower(model)

    def faulty(*args: object) -> ir.Model:
        mapped = chip_network(*args)  # type: ignore[arg-type]
        name = "second.scale"
        return set_constants(mapped, {name: constant(mapped.graph.initializers[name]) * np.float32(1.001)})

    monkeypatch.setattr(module, "chip_network", faulty)
    with pytest.raises(CimcError, match=r"mapped network differs .* first in layer 'second': its arrays"):
        verify_mapping(model, lowered, map_network(lowered, chip), chip)


def test_products_of_8_bit_integers_do_not_saturate() -> None:
    """Without its precise mode onnxruntime adds pairs of 255 x 127 in 16 bits on processors without VNNI."""
    nodes = [node("MatMulInteger", ["x", "w"], ["y"])]
    values = [
        helper.make_tensor_value_info("x", onnx.TensorProto.UINT8, [1, 8]),
        helper.make_tensor_value_info("y", onnx.TensorProto.INT32, [1, 4]),
    ]
    weight = onnx.numpy_helper.from_array(np.full((8, 4), 127, np.int8), "w")
    graph = helper.make_graph(nodes, "saturating", values[:1], values[1:], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    feeds: Feeds = {"x": np.full((1, 8), 255, np.uint8)}
    (expected,) = ReferenceEvaluator(proto).run(None, feeds)
    for optimise in (False, True):
        np.testing.assert_array_equal(run(ir.from_proto(proto), feeds, optimise=optimise)[0], expected)


def test_the_difference_of_the_chip_is_relative_to_the_output() -> None:
    zero = np.zeros(1)  # says nothing about a share
    assert rms_share([np.array([3.0, 4.0]), zero], [np.array([3.0, 4.5]), zero + 1]) == 0.1
    model, chip = perceptron(), load_chip("brram-256x64")
    lowered = lower(model)
    found = verify_mapping(model, lowered, map_network(lowered, chip), chip)
    assert found.chip_relative is not None
    assert found.chip_snr_db == pytest.approx(-20 * np.log10(found.chip_relative))
    scaled = perceptron(1000 * weights(6, 8))  # the same network in another unit
    same = verify_mapping(scaled, lower(scaled), map_network(lower(scaled), chip), chip)
    assert same.chip_snr_db == pytest.approx(found.chip_snr_db, abs=0.5)


def test_the_largest_inputs_are_found_without_keeping_them() -> None:
    model = perceptron()
    lowered, feeds = lower(model), {"x": -3 * np.abs(weights(5, 6, seed=4))}
    peaks = module._largest_inputs(lowered, feeds)
    hidden = np.maximum(feeds["x"] @ weights(6, 8), 0)
    assert peaks["first"] == np.abs(feeds["x"]).max()
    assert peaks["second"] == pytest.approx(hidden.max(), rel=1e-6)


def test_one_image_where_values_are_large_and_no_arrays_where_they_are_larger(monkeypatch: pytest.MonkeyPatch) -> None:
    model, chip = perceptron(), load_chip("ideal")
    lowered = lower(model)
    mapping = map_network(lowered, chip)
    seen: list[int] = []

    def counted(model: ir.Model, feeds: Feeds) -> Arrays:
        seen.append(len(feeds["x"]))
        return run(model, feeds)

    monkeypatch.setattr(module, "run", counted)
    held = {batch: module._held_bytes(lowered, mapping, chip, batch) for batch in (1, 2)}
    whole = verify_mapping(model, lowered, mapping, chip)
    assert set(seen) == {2}
    seen.clear()
    monkeypatch.setattr(module, "LARGEST_BYTES", held[1])
    assert verify_mapping(model, lowered, mapping, chip).chip is not None
    assert set(seen) == {1}
    monkeypatch.setattr(module, "LARGEST_BYTES", held[1] - 1)
    found = verify_mapping(model, lowered, mapping, chip)
    assert found.chip is None
    assert "GiB" in found.not_mapped
    assert not dataclasses.astuple(whole)[-1]
