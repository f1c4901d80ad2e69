"""Write-verify as a loop of pulses and reads, against the same loop device by device in plain Python."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Cell, load_chip
from cimc.chip_cell import Programming, PulseTrain
from cimc.device_pulse import Binary, Linear, Pulse, SoftBounds
from runtime.devices.pulse_train import write_by_pulses
from tests.runtime.devices.moments import COUNT

LOW, HIGH, MIDDLE = 10.0, 50.0, 30.0


def cell_with(pulse: Pulse, tolerance: float, read_noise_uS: float = 0.0, **train: Any) -> Cell:
    """A window of 10 to 50 uS."""
    return load_chip("ideal").cell.model_copy(
        update={
            "conductance_min_uS": LOW,
            "conductance_max_uS": HIGH,
            "limits_uS": None,
            "read_noise_uS": read_noise_uS,
            "pulse": pulse,
            "programming": Programming(tolerance_uS=tolerance, train=PulseTrain(**train)),
        }
    )


def loop_by_hand(goal: float, held: float, tolerance: float, most: int, growth: float) -> tuple[float, int]:
    """Soft bounds with steps of 2 uS up and 3 uS down at the middle, without noise."""
    before, strength = 0, 1.0
    for pulses in range(most):
        if abs(goal - held) <= tolerance:
            return held, pulses
        sign = 1 if goal > held else -1
        strength = strength * growth if sign == before else 1.0
        before = sign
        if sign > 0:
            held = min(held + strength * 2.0 * (HIGH - held) / (HIGH - MIDDLE), HIGH)
        else:
            held = max(held - strength * 3.0 * (held - LOW) / (MIDDLE - LOW), LOW)
    return held, most


@pytest.mark.parametrize("growth", [1.0, 1.3])
def test_the_loop_is_that_of_a_device_by_hand(growth: float) -> None:
    amplitude = "fixed" if growth == 1 else "stepped"
    law = SoftBounds(law="soft-bounds", step_uS=2.0, step_down_uS=3.0)
    cell = cell_with(law, 0.6, pulses=25, amplitude=amplitude, growth=growth)
    random = np.random.default_rng(0)
    goal, held = random.uniform(11, 48, (2, 200)).astype(np.float32)
    written = write_by_pulses(jnp.asarray(goal), jax.random.key(0), cell=cell, held=jnp.asarray(held))
    by_hand = [loop_by_hand(*pair, 0.6, 25, growth) for pair in zip(goal.tolist(), held.tolist(), strict=True)]
    np.testing.assert_allclose(written.conductance, [held for held, _ in by_hand], rtol=1e-4)
    np.testing.assert_array_equal(written.trials, [pulses for _, pulses in by_hand])
    assert 0 < np.mean(np.asarray(written.trials) == 25) < 0.5  # some end, some do not


def test_a_pulse_that_grows_for_ever_is_one_through_the_window() -> None:
    """A device whose own bound lies below its goal stays there, where its step is 0."""
    cell = cell_with(SoftBounds(law="soft-bounds", step_uS=2.0), 0.6, pulses=300, amplitude="stepped", growth=1.5)
    written = write_by_pulses(jnp.array([45.0]), jax.random.key(0), cell=cell, traits={"high": jnp.array([40.0])})
    np.testing.assert_array_equal(written.conductance, [40.0])
    np.testing.assert_array_equal(written.trials, [300])


def test_noise_of_writes_does_not_add_up_from_pulse_to_pulse() -> None:
    cell = cell_with(Linear(step_uS=0.25, write_noise_uS=0.5), 0.01, pulses=100)
    shape = (COUNT >> 6,)
    before = jnp.full(shape, 12.0)  # 2 of them noise of the pulse before
    goal = jnp.full(shape, 49.0)
    traits = {"seen": jnp.full(shape, 2.0)}
    written = write_by_pulses(goal, jax.random.key(0), cell=cell, traits=traits, held=before)
    assert written.seen is not None
    np.testing.assert_array_equal(written.trials, 100)
    assert np.std(np.asarray(written.seen)) == pytest.approx(0.5, rel=0.05)
    np.testing.assert_allclose(written.conductance - written.seen, 35.0, atol=1e-3)


def test_devices_begin_at_the_minimum_where_nothing_is_told() -> None:
    cell = cell_with(Linear(step_uS=2.0), 0.5, pulses=100)
    written = write_by_pulses(jnp.array([10.0, 20.0, 49.0]), jax.random.key(0), cell=cell)
    np.testing.assert_array_equal(written.trials, [0, 5, 100])  # 49 lies between 48 and 50, beyond the tolerance
    np.testing.assert_array_equal(written.conductance[:2], [10.0, 20.0])


def test_what_is_left_lies_within_tolerance_of_what_the_reads_said() -> None:
    """Without read noise all devices end within tolerance; with it the error left has its part of it."""
    law = SoftBounds(law="soft-bounds", step_uS=0.5, c2c=0.3)
    goal = jnp.full(COUNT >> 6, 33.0, jnp.float32)
    quiet = write_by_pulses(goal, jax.random.key(0), cell=cell_with(law, 0.5, pulses=200))
    assert np.max(np.abs(np.asarray(quiet.conductance) - 33)) <= 0.5
    one, many = (
        np.std(np.asarray(write_by_pulses(goal, jax.random.key(0), cell=cell).conductance))
        for cell in (cell_with(law, 0.5, 1.0, pulses=200), cell_with(law, 0.5, 1.0, pulses=200, reads=16))
    )
    assert one > 1.5 * many > np.std(np.asarray(quiet.conductance))


def test_a_one_sided_device_that_is_too_high_is_reset_and_begins_anew() -> None:
    cell = cell_with(Linear(step_uS=2.0, directions="up"), 0.5, pulses=100)
    written = write_by_pulses(jnp.array([20.0]), jax.random.key(0), cell=cell, held=jnp.array([31.0]))
    np.testing.assert_array_equal(written.conductance, [20.0])
    np.testing.assert_array_equal(written.trials, [1 + 5])


def test_a_binary_device_is_pulsed_until_it_switches() -> None:
    cell = cell_with(Binary(law="binary", step_uS=40.0, probability=0.25), 1.0, pulses=1000)
    written = write_by_pulses(jnp.full(COUNT >> 4, HIGH, jnp.float32), jax.random.key(0), cell=cell)
    assert np.all(np.asarray(written.conductance) == HIGH)
    assert np.mean(np.asarray(written.trials)) == pytest.approx(4, rel=0.02)


def test_each_device_moves_by_its_own_step() -> None:
    cell = cell_with(Linear(step_uS=2.0), 0.5, pulses=100)
    traits = {"step_up": jnp.array([1.0, 2.0, 5.0]), "step_down": jnp.ones(3)}
    written = write_by_pulses(jnp.full(3, 30.0), jax.random.key(0), cell=cell, traits=traits)
    np.testing.assert_array_equal(written.trials, [20, 10, 4])


def test_a_chip_without_the_loop_is_refused() -> None:
    with pytest.raises(ValueError, match=r"programming\.train"):
        write_by_pulses(jnp.zeros(3), jax.random.key(0), cell=load_chip("ideal").cell)
