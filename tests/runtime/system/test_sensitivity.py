"""What a layer costs the outputs: judged by networks in which the others are digital, and by a layer made bad."""

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import load_chip
from cimc.dataset import Preprocess, Samples
from passes.leave_digital import leave_digital
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.network.load import load_network
from runtime.system.inference import predict
from runtime.system.sensitivity import layers_apart, sensitivities
from runtime.system.state import State, System, build_system, initial_state, leave_layers_digital
from tests.networks import network, weights
from tests.runtime.system.test_layer_errors import SAMPLES, calibrated, model

AS_STORED = Preprocess()


def test_the_error_is_that_of_the_network_with_all_other_layers_digital() -> None:
    """The same, by another way: the network in which the others are no crossbar layers any more."""
    system, state = calibrated("brram-256x64")
    gains = {f"{name}.gain": jnp.float32(gain) for name, gain in (("first", 1.2), ("second", 0.9), ("last", 1.1))}
    state = {**state, "digital": {**state["digital"], **gains}}
    groups = layers_apart(system.network)
    assert groups == [("first",), ("second",), ("last",)]
    lowered, chip = lower(model()), load_chip("brram-256x64")
    exact = predict(system, state, SAMPLES, AS_STORED, exact=True)["y"]
    for (name,), found in zip(
        groups, sensitivities(system, state, SAMPLES, AS_STORED, [frozenset(g) for g in groups]), strict=True
    ):
        without = leave_digital(lowered, {other: "as told" for (other,) in groups if other != name})
        rest = build_system(load_network(without), map_network(without, chip), chip)
        moved = leave_layers_digital(system.network, state, rest.network)
        outputs = predict(rest, moved, SAMPLES, AS_STORED)["y"]
        assert found.layers == (name,)
        assert found.error == pytest.approx(float(np.square(outputs - exact).sum() / np.square(exact).sum()), rel=1e-4)
        assert found.agreement == np.mean(outputs.argmax(axis=1) == exact.argmax(axis=1))
        assert found.snr_db == pytest.approx(-10 * np.log10(found.error))


def test_all_on_arrays_is_the_network_and_none_is_without_error() -> None:
    system, state = calibrated("brram-256x64")
    every, none = sensitivities(system, state, SAMPLES, AS_STORED, [{"first", "second", "last"}, frozenset()])
    exact, arrays = (predict(system, state, SAMPLES, AS_STORED, exact=exact)["y"] for exact in (True, False))
    assert every.error == pytest.approx(float(np.square(arrays - exact).sum() / np.square(exact).sum()), rel=1e-4)
    assert none.error < 1e-12
    assert none.agreement == 1


def test_the_layer_that_is_made_bad_costs_most() -> None:
    system, state = calibrated("brram-256x64")
    groups = [frozenset([name]) for name in ("first", "second", "last")]
    for bad in ("first", "second", "last"):
        small = {**state["input_range"], bad: state["input_range"][bad] / 20}
        found = sensitivities(system, {**state, "input_range": small}, SAMPLES, AS_STORED, groups)
        assert max(found, key=lambda one: one.error).layers == (bad,)


@pytest.mark.parametrize("last", ["Softmax", "Sigmoid"])
def test_probabilities_are_judged_by_their_logits(last: str) -> None:
    """A network that is sure of its answers: its probabilities hardly differ, whatever a layer does."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["s"], name="fc"), helper.make_node(last, ["s"], ["y"])]
    model = network(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": 4 * weights(4, 3)})
    system, state = with_ranges(model, 1.0)
    samples = Samples({"x": np.random.default_rng(0).random((9, 4), np.float32)})
    exact, arrays = (predict(system, state, samples, AS_STORED, exact=exact)["y"] for exact in (True, False))
    logits = [np.log(y) if last == "Softmax" else np.log(y / (1 - y)) for y in (exact, arrays)]
    if last == "Softmax":
        logits = [y - y.mean(axis=1, keepdims=True) for y in logits]
    wanted = float(np.square(logits[1] - logits[0]).sum() / np.square(logits[0]).sum())
    (found,) = sensitivities(system, state, samples, AS_STORED, [{"fc"}])
    assert found.error == pytest.approx(wanted, rel=1e-3)


def with_ranges(model: ir.Model, largest: float) -> tuple[System, State]:
    """A network on arrays with one input range for all layers."""
    lowered, chip = lower(model), load_chip("brram-256x64")
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=(-1.0, 1.0)))
    system = build_system(load_network(lowered), mapping, chip)
    state = initial_state(system)
    return system, {**state, "input_range": {name: jnp.float32(largest) for name in system.crossbars}}


def test_layers_in_the_body_of_a_scan_are_measured_together() -> None:
    nodes = [
        helper.make_node("RNN", ["x", "w", "r"], ["", "h"], hidden_size=4, name="rnn"),
        helper.make_node("Squeeze", ["h", "axis"], ["t"]),
        helper.make_node("MatMul", ["t", "v"], ["y"], name="last"),
    ]
    constants = {"v": weights(4, 3), "w": weights(1, 4, 3), "r": weights(1, 4, 4, seed=1), "axis": np.array([0])}
    system, state = with_ranges(network(nodes, {"x": [5, "N", 3]}, {"y": ["N", 3]}, constants), 1.0)
    samples, groups = Samples({"x": weights(6, 5, 3)}), layers_apart(system.network)
    assert [name for group in groups for name in group] == list(system.crossbars)
    assert groups[-1] == ("last",)
    every = frozenset(system.crossbars)
    *alone, all_others, none = sensitivities(
        system, state, samples, AS_STORED, [*map(frozenset, groups), every, frozenset()]
    )
    assert none.error < 1e-12 < min(one.error for one in alone)
    exact, arrays = (predict(system, state, samples, AS_STORED, exact=exact)["y"] for exact in (True, False))
    wanted = float(np.square(arrays - exact).sum() / np.square(exact).sum())
    assert all_others.error == pytest.approx(wanted, rel=1e-4)
