"""Noise of blind writes is seen until the next write, and does not add up."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import load_chip
from cimc.chip_cell import Programming, PulseTrain
from cimc.device_pulse import Linear
from cimc.options import Sync, Write
from runtime.training.options import Policy
from runtime.training.policies.policy import Change, LayerState
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


def test_what_is_seen_after_a_closed_loop_of_pulses_is_not_held() -> None:
    """Without its noise a device stands whole steps from where it began, after each write."""
    cell = load_chip("ideal").cell
    step, train = 0.25, PulseTrain(pulses=5)
    sections = {
        "conductance_max_uS": 100.0,
        "pulse": Linear(step_uS=step, write_noise_uS=0.1),
        "programming": Programming(tolerance_uS=0.01, train=train),
    }
    chip = load_chip("ideal").model_copy(update={"cell": cell.model_copy(update=sections)})
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
        steps = np.asarray(layer.conductance[0] - layer.seen[0]) / step
        np.testing.assert_allclose(steps, np.round(steps), atol=1e-3)
