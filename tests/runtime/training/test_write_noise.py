"""Noise of blind writes is seen until the next write, and does not add up."""

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest

from cimc.api.compile import compile_model
from cimc.chip import Chip, load_chip
from cimc.chip_cell import Programming, PulseTrain
from cimc.device_pulse import Linear
from cimc.options import Sync, Write
from runtime.network.load import load_network
from runtime.system.state import build_system, initial_state
from runtime.training.options import Policy, TrainingOptions
from runtime.training.policies.policy import Change, LayerState
from runtime.training.start import start
from tests.networks import network_proto
from tests.runtime.one_layer import update_one

WEIGHTS, NOISE = 4096, 0.01


def test_the_spread_after_many_writes_is_that_of_one() -> None:
    chip = load_chip("ideal")
    pulse = Linear(step_uS=0.02, write_noise_uS=NOISE)
    chip = chip.model_copy(update={"cell": chip.cell.model_copy(update={"pulse": pulse, "granularity_uS": 0.019})})
    policy = Policy(write=Write.pulse, sync=Sync.target)
    weight, counts = jnp.full(WEIGHTS, 0.5), jnp.zeros(WEIGHTS, jnp.int32)
    pairs, zeros = jnp.stack([weight, weight * 0]), jnp.zeros((2, WEIGHTS), jnp.int32)
    layer = LayerState(weight, {"accumulator": weight * 0}, pairs, counts, zeros, zeros, seen=pairs * 0)
    step = jax.jit(
        lambda layer, change, key: update_one(
            policy.rule,
            chip,
            layer,
            Change(change, change),
            weight_range=jnp.float32(1),
            key=key,
        )
    )
    spreads = []
    for number in range(40):
        change = jnp.full(WEIGHTS, 0.02001 * (1 if number % 2 else -1), jnp.float32)
        layer = step(layer, change, jax.random.key(number))
        spreads.append(float(jnp.std(layer.conductance[0])))
    assert np.min(np.asarray(layer.writes[0])) == 40
    assert spreads[0] == pytest.approx(NOISE, rel=0.05)
    assert spreads[-1] == pytest.approx(NOISE, rel=0.05), "forty times the variance if it added up"
    assert float(jnp.mean(layer.conductance[0])) == pytest.approx(0.5, abs=2e-3)


STEP_uS = 0.25


def closed_loop_of_pulses() -> Chip:
    """A chip whose writes are verified pulses that let noise be seen."""
    sections = {
        "conductance_max_uS": 100.0,
        "pulse": Linear(step_uS=STEP_uS, write_noise_uS=0.1),
        "programming": Programming(tolerance_uS=0.01, train=PulseTrain(pulses=5)),
    }
    chip = load_chip("ideal")
    return chip.model_copy(update={"cell": chip.cell.model_copy(update=sections)})


def check_held(conductance: jax.Array, seen: jax.Array) -> None:
    """Without its noise a device stands whole steps from the bound."""
    steps = np.asarray(conductance - seen) / STEP_uS
    np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)


def test_what_is_seen_after_a_closed_loop_of_pulses_is_not_held() -> None:
    """Without its noise a device stands whole steps from where it began, after each write."""
    chip = closed_loop_of_pulses()
    policy = Policy(write=Write.verify, sync=Sync.target)
    weight, counts = jnp.full(64, 0.5), jnp.zeros(64, jnp.int32)
    pairs, zeros = jnp.stack([weight * 100, weight * 0]), jnp.zeros((2, 64), jnp.int32)
    layer = LayerState(weight, {"accumulator": weight * 0}, pairs, counts, zeros, zeros, seen=pairs * 0)
    for number in range(2):
        change = jnp.full(64, 0.2, jnp.float32)
        key = jax.random.key(number)
        layer = update_one(policy.rule, chip, layer, Change(change, change), weight_range=jnp.float32(1), key=key)
        assert layer.seen is not None
        assert np.min(np.abs(np.asarray(layer.seen[0]))) > 0
        check_held(layer.conductance[0], layer.seen[0])


def test_what_is_seen_after_the_first_programming_is_not_held_in_pairs_and_tiles() -> None:
    """A run that took what is seen for held would begin with devices between their steps."""
    matrix = np.linspace(-1, 1, 48, dtype=np.float32).reshape(12, 4)
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y"])
    network = network_proto([node], {"x": ["N", 12]}, {"y": ["N", 4]}, {"w": matrix})
    artifact = compile_model(network, closed_loop_of_pulses(), verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    options = TrainingOptions(Policy("tiki-taka"), epochs=1, steps_per_epoch=1)
    state = start(system, initial_state(system), options).state
    for group, seen in (("conductance", "seen"), ("fast", "fast_seen")):
        for layer, conductance in state[group].items():
            assert np.std(np.asarray(state[seen][layer])) == pytest.approx(0.1, rel=0.3), group
            check_held(conductance, state[seen][layer])
