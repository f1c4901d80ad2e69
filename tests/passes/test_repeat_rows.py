"""Rows held several times: the network computes the same, its currents add, and what devices err is averaged."""

from itertools import pairwise

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray
from onnx import helper

from cimc.chip import load_chip
from cimc.dataset import Preprocess, Samples
from cimc.errors import CimcError
from passes.chip_network import chip_network
from passes.crossbar_functions import crossbar_layers
from passes.leave_digital import leave_digital
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.repeat_rows import repeat_rows
from passes.verify import run
from runtime.crossbar.keys import new_key
from runtime.deployment.programming import program_chip
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.inference import predict
from runtime.system.program import program_of, retarget
from runtime.system.state import State, System, build_system, initial_state
from tests.networks import network, weights

CHIP = load_chip("brram-256x64")
X = np.random.default_rng(0).uniform(0, 1, (16, 3, 6, 6)).astype(np.float32)


def model() -> ir.Model:
    """A convolution, one with a kernel a channel, one weight used twice, and a product whose rows fill an array."""
    nodes = [
        helper.make_node("Conv", ["x", "a", "e"], ["p"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "b"], ["r"], name="depthwise", group=4, pads=[1] * 4),
        helper.make_node("Conv", ["r", "c"], ["s"], name="twice"),
        helper.make_node("Conv", ["s", "c"], ["t"]),
        helper.make_node("Flatten", ["t"], ["u"]),
        helper.make_node("MatMul", ["u", "d"], ["y"], name="last"),
    ]
    constants = {
        "a": weights(4, 3, 3, 3),
        "b": weights(4, 1, 3, 3, seed=1),
        "c": weights(4, 4, 1, 1, seed=2),
        "d": weights(144, 5, seed=3),
        "e": weights(4, seed=4),
    }
    return network(nodes, {"x": ["N", 3, 6, 6]}, {"y": ["N", 5]}, constants)


def output(one: ir.Model) -> NDArray[np.float32]:
    """What onnxruntime computes."""
    return np.asarray(run(one, {"x": X})[0], np.float32)


def fitted(lowered: ir.Model) -> tuple[System, State]:
    system = build_system(load_network(lowered), map_network(lowered, CHIP), CHIP)
    start = retarget(system, initial_state(system))
    return system, calibrate(system, start, Samples({"x": X}), Preprocess(), new_key(0), fit=True)


def test_the_network_computes_the_same_in_more_rows_without_more_time() -> None:
    lowered = lower(model())
    filled = repeat_rows(lowered, {"": 64, "depthwise": 30})
    onnx.checker.check_model(ir.to_proto(filled), full_check=True)
    rows = {name: len(nodes[0].inputs[1].const_value.numpy()) for name, nodes in crossbar_layers(filled).items()}  # type: ignore[union-attr]
    assert rows == {"first": 54, "depthwise": 27, "twice": 64, "last": 144}
    np.testing.assert_allclose(output(filled), output(model()), rtol=0, atol=1e-4)
    before, after = map_network(lowered, CHIP), map_network(filled, CHIP)
    assert after.cost.latency_ms == before.cost.latency_ms
    assert before.schedule is not None
    assert after.schedule is not None
    assert after.schedule.latency_ns == before.schedule.latency_ns
    assert after.cost.devices == before.cost.devices + 2 * (27 * 4 + 18 * 4 + 60 * 4)
    again = {name: nodes[0].inputs[1].const_value for name, nodes in crossbar_layers(lowered).items()}  # type: ignore[union-attr]
    assert again["first"] is not None
    assert again["first"].shape[0] == 27, "the network itself was changed"


def test_a_layer_that_is_left_digital_has_each_row_once() -> None:
    filled = repeat_rows(lower(model()), {"": 64})
    digital = leave_digital(filled, dict.fromkeys(("first", "depthwise", "twice"), "asked for"))
    onnx.checker.check_model(ir.to_proto(digital), full_check=True)
    sizes = {"first": (4, 3, 3, 3), "depthwise": (4, 1, 3, 3), "twice": (4, 4, 1, 1)}
    held = digital.graph.initializers
    assert {name: tuple(held[f"{name}.weight"].const_value.shape) for name in sizes} == sizes  # type: ignore[union-attr]
    assert not any(node.op_type == "Gather" for node in digital.graph)
    np.testing.assert_allclose(output(digital), output(model()), rtol=0, atol=1e-4)


def test_rows_of_files_that_hold_the_copies_of_a_row_side_by_side_are_joined_too() -> None:
    filled = repeat_rows(lower(model()), {"twice": 64})
    held = filled.graph.initializers
    indices = [node.inputs[1] for node in filled.graph if node.op_type == "Gather"]
    order = np.argsort(indices[0].const_value.numpy(), kind="stable")  # type: ignore[union-attr]
    weight = held["twice.weight"]
    for value in (weight, *dict.fromkeys(indices)):
        assert value is not None
        value.const_value = ir.tensor(value.const_value.numpy()[order], name=value.name)  # type: ignore[union-attr]
    np.testing.assert_allclose(output(filled), output(model()), rtol=0, atol=1e-4)
    digital = leave_digital(filled, {"twice": "asked for"})
    np.testing.assert_allclose(output(digital), output(model()), rtol=0, atol=1e-4)


def test_more_rows_than_an_array_has_take_further_arrays_and_fuller_layers_stay() -> None:
    filled = repeat_rows(lower(model()), {"twice": 1000, "last": 200})
    layers = map_network(filled, CHIP).layers
    assert {layer.name: layer.rows for layer in layers} == {"first": 27, "depthwise": 9, "twice": 1000, "last": 144}
    assert [len(layer.row_bounds) for layer in layers] == [1, 1, 4, 1]
    lowered = lower(model())
    assert repeat_rows(lowered, {}) is lowered
    with pytest.raises(CimcError, match=r"no crossbar layer of the network .* did you mean depthwise"):
        repeat_rows(lowered, {"depthwide": 30})


def test_what_converters_and_devices_err_falls() -> None:
    """The first layer has 27 rows: held eight times, their errors are averaged, and the codes are finer.

    Held 37 times, in four arrays, they are averaged over these as well.
    """
    lowered = lower(model())
    exact = output(model())
    errors = []
    for one in (lowered, repeat_rows(lowered, {"": 256}), repeat_rows(lowered, {"": 1024})):
        system, state = fitted(one)
        quiet = predict(system, state, Samples({"x": X}), Preprocess())["y"]
        mapping = map_network(one, CHIP, options=MappingOptions())
        np.testing.assert_array_equal(output(chip_network(one, mapping, CHIP, program_of(system, state))), quiet)
        noisy = []
        for die in range(4):
            held = {**state, "conductance": program_chip(system, state, new_key(die))}
            y = predict(system, held, Samples({"x": X}), Preprocess(), key=new_key(die))["y"]
            noisy.append(np.square(y - exact).mean())
        errors.append((np.square(quiet - exact).mean(), np.mean(noisy)))
    for before, after in pairwise(errors):
        assert after[0] < before[0] / 2
        assert after[1] < before[1] / 2
