"""What each layer loses: judged by the outputs themselves, and by a layer that is made bad on purpose."""

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import load_chip
from cimc.dataset import Preprocess, Samples
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from runtime.crossbar.keys import new_key
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.inference import predict
from runtime.system.layer_errors import layer_errors
from runtime.system.state import State, System, build_system, initial_state
from tests.networks import network, weights

SAMPLES = Samples({"x": np.random.default_rng(1).random((12, 2, 6, 6), np.float32)})


def model() -> ir.Model:
    nodes = [
        helper.make_node("Conv", ["x", "a"], ["p"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "b"], ["r"], name="second"),
        helper.make_node("Relu", ["r"], ["s"]),
        helper.make_node("Flatten", ["s"], ["t"]),
        helper.make_node("MatMul", ["t", "c"], ["y"], name="last"),
    ]
    constants = {"a": weights(8, 2, 3, 3), "b": weights(4, 8, 3, 3, seed=1) / 3, "c": weights(64, 5, seed=2) / 8}
    return network(nodes, {"x": ["N", 2, 6, 6]}, {"y": ["N", 5]}, constants)


def calibrated(chip: str) -> tuple[System, State]:
    lowered, description = lower(model()), load_chip(chip)
    system = build_system(load_network(lowered), map_network(lowered, description), description)
    return system, calibrate(system, initial_state(system), SAMPLES, Preprocess(), new_key(0))


def test_the_last_layer_errs_as_the_output_does_and_the_first_by_itself_alone() -> None:
    system, state = calibrated("brram-256x64")
    first, second, last = layer_errors(system, state, SAMPLES, Preprocess(), new_key(1))
    assert (first.name, second.name, last.name) == ("first", "second", "last")
    exact = predict(system, state, SAMPLES, Preprocess(), exact=True)["y"]
    noisy = predict(system, state, SAMPLES, Preprocess(), key=new_key(1))["y"]
    assert last.error == pytest.approx(float(np.square(noisy - exact).sum()), rel=1e-4)
    assert last.signal == pytest.approx(float(np.square(exact).sum()), rel=1e-4)
    assert first.error == pytest.approx(first.own_error, rel=1e-4)
    assert 0 < second.own_error < second.error


def test_the_layer_that_loses_it_is_seen() -> None:
    system, state = calibrated("brram-256x64")
    small = {**state["input_range"], "second": state["input_range"]["second"] / 20}
    found = {e.name: e for e in layer_errors(system, {**state, "input_range": small}, SAMPLES, Preprocess(), None)}
    alone = {name: error.figures["own_snr_db"] or 0.0 for name, error in found.items()}
    assert min(alone, key=lambda name: alone[name]) == "second"
    assert found["second"].clipped_inputs > 0.3
    assert found["first"].clipped_inputs == 0


def test_where_converters_are_ideal_nothing_is_lost_or_clipped() -> None:
    system, state = calibrated("ideal")
    assert all(value == jnp.float32(1) for value in state["input_range"].values())
    for error in layer_errors(system, state, SAMPLES, Preprocess(), None):
        assert error.error <= 1e-9 * error.signal
        assert (error.clipped_inputs, error.figures["clipped_codes"]) == (0, 0)
