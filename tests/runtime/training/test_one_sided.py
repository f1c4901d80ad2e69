"""Pairs of devices that pulses only raise: refreshed when they have no room left, and nothing asked is lost."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Chip, load_chip
from cimc.device_pulse import Linear, Pulse, SoftBounds
from cimc.errors import CimcError
from cimc.options import Backward, Sync, Write
from cimc.units import device_targets
from runtime.training.options import Policy
from runtime.training.policies.policy import Change, LayerState
from tests.runtime.one_layer import update_one

WEIGHTS = 256
LAWS = [
    Linear(step_uS=0.02, directions="up"),
    SoftBounds(law="soft-bounds", step_uS=0.02, directions="up"),
]


def chip_with(pulse: Pulse) -> Chip:
    chip = load_chip("ideal")
    return chip.model_copy(update={"cell": chip.cell.model_copy(update={"pulse": pulse})})


@pytest.mark.parametrize("sync", [Sync.readback, Sync.none])
@pytest.mark.parametrize("pulse", LAWS, ids=lambda pulse: pulse.law_name)
def test_weights_follow_what_is_asked_over_many_refreshes(pulse: Pulse, sync: Sync) -> None:
    chip, policy = chip_with(pulse), Policy(write=Write.pulse, sync=sync, backward=Backward.analog)
    zeros, counts = jnp.zeros(WEIGHTS), jnp.zeros(WEIGHTS, jnp.int32)
    pairs = device_targets(zeros, jnp.float32(1), chip)
    pair_counts = jnp.zeros(pairs.shape, jnp.int32)
    layer = LayerState(zeros, {"accumulator": zeros}, pairs, counts, pair_counts, pair_counts)
    asked, random = np.zeros(WEIGHTS), np.random.default_rng(0)
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
    fell = np.zeros(WEIGHTS, bool)
    for number in range(300):
        change = random.uniform(-0.08, 0.08, WEIGHTS).astype(np.float32)
        change = np.where(np.abs(asked + change) < 0.6, change, -change).astype(np.float32)
        asked += change
        before = layer.conductance
        layer = step(layer, jnp.asarray(change), jax.random.key(number))
        fell |= np.asarray(jnp.all(layer.conductance < before - 0.1, axis=0))
        assert float(jnp.max(layer.conductance)) <= 1 + 1e-6
    # What 300 steps move in one direction, 300 x 0.02 on average, is several windows: all pairs have been refreshed.
    assert fell.all()
    held = np.asarray(layer.conductance[0] - layer.conductance[1], np.float64)
    missing = np.asarray(layer.memory["accumulator"])
    np.testing.assert_allclose(held + missing, asked, atol=1e-3)
    # Less than a pulse is still to come, but for pairs that ran out of room in the last step: theirs and that step's.
    assert np.mean(np.abs(missing) < 0.045) > 0.9
    assert np.max(np.abs(missing)) < 0.15


def test_without_a_read_nobody_knows_when_to_refresh() -> None:
    with pytest.raises(CimcError, match="no room left; use --sync readback"):
        Policy(write=Write.pulse, sync=Sync.target).check(chip_with(LAWS[0]))
