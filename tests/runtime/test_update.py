"""The update policy: which devices an optimiser step programs, and what stays in the accumulator."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.chip import Chip
from cimc.options import Backward, Residual, Sync, Write
from cimc.units import device_targets, weight_of
from runtime.training.options import Policy
from runtime.training.vectors import pack, packing, spread, unpack
from tests.runtime.layer_updates import COARSE, IDEAL, QUIET, SHAPE, SOC, apply, layer_of, update

Floats = npt.NDArray[np.float32]


def uniform(low: float, high: float, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Floats:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


# --- What is programmed ---


@pytest.mark.parametrize("sync", [Sync.target, Sync.readback, Sync.none])
@pytest.mark.parametrize("write", [Write.verify, Write.pulse])
def test_nothing_is_programmed_up_to_the_threshold(write: Any, sync: Any) -> None:
    policy = Policy(threshold=0.25, write=write, sync=sync)
    before = layer_of(uniform(-0.5, 0.5), COARSE)
    step = np.where(np.arange(30).reshape(SHAPE) % 2, 0.125, -0.125)
    after = apply(policy, COARSE, before, step, step)  # exactly the threshold
    np.testing.assert_array_equal(after.memory["accumulator"], 2 * step)
    for name in ("weight", "conductance", "updates", "writes", "trials"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)
    more = apply(policy, COARSE, after, step * 0.01)
    np.testing.assert_array_equal(more.updates, 1)


def test_the_threshold_is_a_fraction_of_the_weight_range_and_by_default_a_level() -> None:
    assert Policy().rule.threshold(COARSE) == pytest.approx(1 / 15)
    assert Policy().rule.threshold(SOC) == pytest.approx(1 / 3)
    assert Policy().rule.threshold(IDEAL) == 1e-3, "a device without levels and errors: a thousandth of the window"
    assert Policy(threshold=0.5).rule.threshold(COARSE) == 0.5
    assert Policy(method="naive", threshold=0.5).rule.threshold(COARSE) == 0
    step = np.linspace(0.01, 0.3, 30).reshape(SHAPE)
    after = apply(Policy(), COARSE, layer_of(np.zeros(SHAPE), COARSE, 2.0), step, weight_range=2.0)
    np.testing.assert_array_equal(after.updates, step > 2 / 15)


@pytest.mark.parametrize("write", [Write.verify, Write.pulse])
@pytest.mark.parametrize("sync", [Sync.target, Sync.readback])
def test_only_due_devices_change(sync: Any, write: Any) -> None:
    policy = Policy(threshold=0.2, write=write, sync=sync, residual=Residual.drop)
    before = apply(Policy(method="naive"), QUIET, layer_of(np.zeros(SHAPE), QUIET), uniform(-0.5, 0.5))
    step = uniform(-0.4, 0.4, seed=1)
    after = apply(policy, QUIET, before, step)
    due = np.abs(step) > 0.2
    assert 0 < due.sum() < due.size
    changed: Any = np.asarray(after.conductance != before.conductance)
    assert not changed[:, ~due].any()
    assert changed.any(axis=0)[due].all()
    np.testing.assert_array_equal(after.weight[~due], before.weight[~due])
    np.testing.assert_array_equal(after.memory["accumulator"], np.where(due, 0, step))
    np.testing.assert_array_equal(after.updates - before.updates, due)
    np.testing.assert_array_equal(after.writes - before.writes, changed)


def test_the_idle_device_of_a_pair_is_touched_only_when_the_sign_changes() -> None:
    """Columns: stays positive, stays negative, changes sign upwards, changes sign downwards."""
    weight = np.tile([0.5, -0.5, -0.2, 0.2], (8, 1))
    step = np.tile([0.3, -0.3, 0.6, -0.6], (8, 1))
    before = layer_of(weight, COARSE)
    noisy = before._replace(conductance=before.conductance + uniform(-2, 2, shape=(2, 8, 4)))
    after = apply(Policy(sync=Sync.target), COARSE, noisy, step)
    changed = np.asarray(after.conductance != noisy.conductance)
    assert changed[0].all(axis=0).tolist() == [True, False, True, True]
    assert changed[1].all(axis=0).tolist() == [False, True, True, True]
    assert changed[:, :, :2].sum() == 16


def test_naive_programs_each_nonzero_step_and_no_other() -> None:
    step = np.where(np.arange(30).reshape(SHAPE) % 3 == 0, 0, np.sign(uniform(-1, 1)) * uniform(1e-3, 1e-2, 1))
    policy = Policy(method="naive", sync=Sync.target)
    after = apply(policy, COARSE, layer_of(uniform(0.1, 0.5), COARSE), step, step, step)
    np.testing.assert_array_equal(after.updates, 3 * (step != 0))
    np.testing.assert_array_equal(after.memory["accumulator"], 0)
    np.testing.assert_array_equal(after.writes[0], 3 * (step != 0))
    np.testing.assert_array_equal(after.writes[1], 0)


def test_float_moves_the_weights_and_touches_no_device() -> None:
    before = layer_of(uniform(-1, 1), SOC)
    step = np.where(np.arange(30).reshape(SHAPE) % 3 == 0, 0, uniform(-3, 3))
    after = apply(Policy(method="float"), SOC, before, step, step)
    np.testing.assert_array_equal(
        after.weight, np.asarray(before.weight) + step.astype(np.float32) + step.astype(np.float32)
    )
    np.testing.assert_array_equal(after.memory["accumulator"], before.memory["accumulator"])
    for name in ("conductance", "updates", "writes", "trials"):
        np.testing.assert_array_equal(getattr(after, name), getattr(before, name), err_msg=name)


# --- The accumulator ---


@pytest.mark.parametrize("write", [Write.verify, Write.pulse])
@pytest.mark.parametrize("threshold", [0.0, 0.02, 0.1])
def test_no_part_of_a_step_is_lost_where_the_residual_is_kept(write: Any, threshold: float) -> None:
    policy = Policy(threshold=threshold, residual=Residual.keep, write=write, sync=Sync.target)

    @settings(deadline=None, max_examples=15)
    @given(
        seed=st.integers(0, 2**32 - 1),
        weight_range=st.sampled_from([0.125, 1.0, 3.0]),
        scale=st.floats(1e-4, 0.1),
        count=st.integers(1, 6),
    )
    def check(seed: int, weight_range: float, scale: float, count: int) -> None:
        weight = uniform(-0.3, 0.3, seed) * np.float32(weight_range)
        steps = uniform(-scale, scale, seed + 1, (count, *SHAPE)) * np.float32(weight_range)
        after = apply(policy, IDEAL, layer_of(weight, IDEAL, weight_range), *steps, weight_range=weight_range)
        total = np.asarray(after.weight, np.float64) + np.asarray(after.memory["accumulator"])
        expected = weight.astype(np.float64) + steps.sum(axis=0, dtype=np.float64)
        assert np.abs(total - expected).max() < 2e-6 * weight_range
        # The devices follow the digital copy: to the target grid, or to a pulse where G started between two.
        stored = weight_of(after.conductance, jnp.float32(weight_range), IDEAL)
        allowed = 1e-6 if write == "verify" else 1.1 / 1024
        assert np.abs(stored - after.weight).max() < allowed * weight_range

    check()


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**32 - 1))
def test_dropping_the_residual_empties_the_accumulator_of_due_weights_only(seed: int) -> None:
    policy = Policy(threshold=0.1, residual=Residual.drop, write=Write.pulse, sync=Sync.target)
    steps = uniform(-0.09, 0.09, seed, (4, *SHAPE))
    layer, total = layer_of(uniform(-0.3, 0.3), COARSE), np.zeros(SHAPE, np.float32)
    for index in range(4):
        layer = apply(policy, COARSE, layer, steps[index])
        total = total + steps[index]
        due = np.abs(total) > 0.1
        total[due] = 0
        np.testing.assert_array_equal(layer.memory["accumulator"], total)


@pytest.mark.parametrize("write", [Write.verify, Write.pulse])
@pytest.mark.parametrize("chip", [IDEAL, COARSE, SOC], ids=lambda chip: chip.name)
def test_weights_never_leave_their_range_and_nothing_is_left_beyond_it(chip: Chip, write: Any) -> None:
    policy = Policy(residual=Residual.keep, write=write, sync=Sync.target, threshold=0.05)

    @settings(deadline=None, max_examples=8)
    @given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.04, 0.5, 10.0]))
    def check(seed: int, scale: float) -> None:
        weight_range = 0.7
        limit = np.float32(weight_range) * (1 + 1e-6)
        layer = layer_of(uniform(-weight_range, weight_range, seed), chip, weight_range)
        for index, step in enumerate(uniform(-scale, scale, seed + 1, (5, *SHAPE)) + np.float32(scale / 2)):
            layer = apply(policy, chip, layer, step, weight_range=weight_range, seed=index)
            assert np.abs(layer.weight).max() <= limit
            assert np.abs(layer.weight + layer.memory["accumulator"]).max() <= limit

    check()


def test_a_weight_at_its_limit_is_not_programmed_for_ever() -> None:
    layer = layer_of(np.ones(SHAPE), COARSE)
    after = apply(Policy(sync=Sync.target), COARSE, layer, *[np.full(SHAPE, 0.2)] * 3)
    np.testing.assert_array_equal(after.updates, 0)
    np.testing.assert_array_equal(after.memory["accumulator"], 0)


# --- The digital copy ---


@pytest.mark.parametrize("write", [Write.verify, Write.pulse])
def test_target_sync_stores_the_target_and_no_error(write: Any) -> None:
    policy = Policy(sync=Sync.target, write=write, threshold=0.1)
    weight = np.round(uniform(-0.5, 0.5) * 15) / 15
    step = np.where(uniform(0, 1) > 0.5, 2.5 / 15, -2.5 / 15)
    after = apply(policy, COARSE, layer_of(weight, COARSE), step)
    aimed = step if write == "verify" else np.sign(step) * 2 / 15
    np.testing.assert_allclose(after.weight, weight + aimed, atol=1e-6)
    assert np.abs(weight_of(after.conductance, 1.0, COARSE) - after.weight).max() > 0.01


def test_readback_sync_stores_one_noisy_read_of_both_devices() -> None:
    shape = (400, 400)
    after = apply(
        Policy(sync=Sync.readback),
        COARSE,
        layer_of(uniform(-0.5, 0.5, shape=shape), COARSE),
        np.where(uniform(0, 1, 1, shape) < 0.9, 0.2, 0.0),
    )
    due = np.asarray(after.updates) == 1
    error = np.asarray(after.weight - weight_of(after.conductance, 1.0, COARSE), np.float64)
    expected = np.sqrt(2) * 1.2 / 60
    assert error[due].std() == pytest.approx(expected, rel=5 / np.sqrt(2 * due.sum()) + 2e-4)
    assert abs(error[due].mean()) < 5 * expected / np.sqrt(due.sum())
    assert np.abs(error[~due]).max() < COARSE.target_step_uS / 60, "the others are not read"


def test_readback_of_an_ideal_chip_is_the_target() -> None:
    weight, step = uniform(-0.4, 0.4), uniform(-0.4, 0.4, 1)
    after = apply(Policy(sync=Sync.readback), IDEAL, layer_of(weight, IDEAL), step)
    np.testing.assert_allclose(after.weight, weight + step, atol=2e-6)


def test_without_sync_the_copy_stays_and_targets_start_from_the_devices() -> None:
    policy = Policy(sync=Sync.none, backward=Backward.analog)
    layer = layer_of(uniform(-0.4, 0.4), IDEAL)
    stale = layer._replace(weight=jnp.full(SHAPE, 0.9))
    step = uniform(-0.4, 0.4, 1)
    after = apply(policy, IDEAL, stale, step)
    np.testing.assert_array_equal(after.weight, stale.weight)
    np.testing.assert_allclose(weight_of(after.conductance, 1.0, IDEAL), layer.weight + step, atol=2e-6)
    # With read noise the target, and so the active device, carries that of its own read.
    shape = (300, 300)
    noisy = IDEAL.model_copy(update={"cell": IDEAL.cell.model_copy(update={"read_noise_uS": 0.01})})
    half = layer_of(np.full(shape, 0.5), noisy)
    moved = apply(policy, noisy, half, np.full(shape, 0.1))
    error = np.asarray(weight_of(moved.conductance, 1.0, noisy), np.float64) - 0.6
    assert error.std() == pytest.approx(0.01, rel=0.02)


# --- Writing ---


def test_verify_leaves_written_devices_with_the_chips_programming_error() -> None:
    shape = (500, 500)
    after = apply(Policy(sync=Sync.target), SOC, layer_of(np.zeros(shape), SOC), np.full(shape, 0.5))
    error = np.asarray(after.conductance[0], np.float64) - np.asarray(device_targets(after.weight, 1.0, SOC)[0])
    assert error.mean() == pytest.approx(1.0, abs=5 * 2.9 / 500)
    assert error.std() == pytest.approx(2.9, rel=0.01)
    np.testing.assert_array_equal(after.conductance[1], device_targets(after.weight, 1.0, SOC)[1])


def test_pulses_on_the_ideal_chip_are_the_truncated_number_of_steps() -> None:
    pulses = np.array([[0, 1, 7, 300], [0, -1, -9, -300]])
    weight = np.array([[5, 5, -3, -100], [-5, 5, 4, 200]]) / 1024
    step = (pulses + 0.5 * np.where(np.arange(2)[:, None], -1, 1)) / 1024
    for residual in Residual:
        policy = Policy(write=Write.pulse, sync=Sync.target, residual=residual, threshold=0.0)
        before = layer_of(2 * weight, IDEAL, 2.0)
        after = apply(policy, IDEAL, before, 2 * step, weight_range=2.0)
        np.testing.assert_allclose(after.weight, 2 * (weight + pulses / 1024), atol=1e-6)
        np.testing.assert_allclose(weight_of(after.conductance, 2.0, IDEAL), after.weight, atol=1e-6)
        # Less than one pulse is never lost: it goes on accumulating under either rule.
        kept = (pulses == 0) | (residual == "keep")
        np.testing.assert_allclose(after.memory["accumulator"], 2 * (step - pulses / 1024) * kept, atol=1e-6)
        np.testing.assert_array_equal(np.asarray(after.conductance).min(axis=0), 0)
        np.testing.assert_array_equal(np.asarray(after.trials).sum(axis=0), np.abs(pulses))


def test_a_pulse_first_takes_the_opposite_device_down() -> None:
    policy = Policy(write=Write.pulse, sync=Sync.target, threshold=0.0)
    weight = np.array([[0.0, 3.0, -3.0, 3.0]]) / 1024
    step = np.array([[2.5, 2.5, 2.5, -5.5]]) / 1024
    before = layer_of(weight, IDEAL)
    after = apply(policy, IDEAL, before, step)
    moved = np.asarray(after.conductance - before.conductance)[:, 0] * 1024
    np.testing.assert_allclose(moved, [[2, 2, 0, -3], [0, 0, -2, 2]], atol=1e-6)
    np.testing.assert_array_equal(after.trials[:, 0], [[2, 2, 0, 3], [0, 0, 2, 2]])
    np.testing.assert_array_equal(after.writes[:, 0], [[1, 1, 0, 1], [0, 0, 1, 1]])


def test_trials_count_every_attempt_of_every_written_device() -> None:
    layer = layer_of(np.zeros(40_000), SOC)
    step = np.where(uniform(0, 1, shape=(40_000,)) < 0.5, 0.5, 0.1)
    after = apply(Policy(), SOC, layer, step)
    trials, writes = np.asarray(after.trials), np.asarray(after.writes)
    np.testing.assert_array_equal(writes[0], step == 0.5)
    np.testing.assert_array_equal(writes[1], 0)
    assert set(np.unique(trials[writes == 1])) == {1, 2}
    assert (trials[writes == 0] == 0).all()
    coarse = apply(
        Policy(residual=Residual.drop), COARSE, layer_of(np.zeros(SHAPE), COARSE), *[np.full(SHAPE, 0.1)] * 4
    )
    np.testing.assert_array_equal(coarse.updates, 4)
    np.testing.assert_array_equal(coarse.trials, coarse.writes)


@pytest.mark.parametrize("due", [0.0, 0.001, 0.02, 1.0])  # no round, one, several, all
def test_layers_packed_in_one_vector_are_updated_as_each_alone(due: float) -> None:
    """A chip without errors, so that the result does not depend on the draws: each weight against its own range."""
    random = np.random.default_rng(3)
    shapes, ranges = {"a": (40, 30), "b": (7, 30), "c": (190, 30)}, {"a": 0.5, "b": 2.0, "c": 1.0}
    weight = {n: random.uniform(-1, 1, s).astype(np.float32) * np.float32(ranges[n]) for n, s in shapes.items()}
    moved = {n: (random.random(s) < due) * random.uniform(-1, 1, s) * ranges[n] for n, s in shapes.items()}
    scalars = {name: jnp.float32(value) for name, value in ranges.items()}
    packed = packing({name: jnp.asarray(array) for name, array in weight.items()})
    alone = {
        n: apply(Policy(), IDEAL, layer_of(w, IDEAL, ranges[n]), weight_range=ranges[n]) for n, w in weight.items()
    }
    whole = jax.tree.map(lambda *parts: pack(packed, dict(zip(alone, parts, strict=True)))[0], *alone.values())
    assert whole.weight.size > 4096, "in strips"
    step = pack(packed, {name: jnp.asarray(array, jnp.float32) for name, array in moved.items()})[0]
    after = update(Policy(), IDEAL, whole, step, spread(packed, scalars)[0], jax.random.key(0))
    # Cut by NumPy: JAX would compile a program for each row.
    alone, after = jax.tree.map(np.asarray, (alone, after))
    for name, layer in alone.items():
        # By rows: below the size at which strips begin.
        rows = [
            apply(Policy(), IDEAL, jax.tree.map(lambda a, r=r: a[..., r, :], layer), row, weight_range=ranges[name])
            for r, row in enumerate(moved[name])
        ]
        expected = jax.tree.map(lambda *parts: np.stack(parts, axis=-2), *rows)
        found = jax.tree.map(lambda vector, name=name: unpack(packed, [vector])[name], after)
        jax.tree.map(np.testing.assert_array_equal, found, expected)
    assert (float(after.updates.sum()) > 0) == (due > 0)


def test_an_update_repeats_with_its_key() -> None:
    layer, step = layer_of(uniform(-0.4, 0.4), SOC), np.full(SHAPE, 0.4)
    one, two, other = (apply(Policy(sync=Sync.readback), SOC, layer, step, seed=seed) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    assert (one.conductance != other.conductance).any()
    assert (one.weight != other.weight).any()
