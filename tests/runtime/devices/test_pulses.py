"""Blind pulses: how far they move devices, their noise, traits and bounds."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import load_chip
from cimc.device_pulse import Linear
from runtime.devices.device import device_of
from tests.runtime.devices.moments import COUNT, assert_moments


@pytest.mark.parametrize("pulses", [1, 3, -2, -5])
def test_blind_pulses_move_by_whole_steps_and_their_errors_add_up(pulses: int) -> None:
    cell = load_chip("brram-256x64").cell.model_copy(update={"conductance_max_uS": 400.0})
    start = jnp.full(COUNT, 200.0, jnp.float32)
    moved = np.asarray(device_of(cell).pulse(start, jnp.float32(pulses), jax.random.key(0)), np.float64) - 200
    assert_moments(moved, 4.0 * pulses, np.sqrt(abs(pulses)) * 4.0 * 0.5)


def test_blind_pulses_stop_at_both_bounds() -> None:
    cell = load_chip("brram-256x64").cell
    start = jnp.linspace(10, 70, 4096, dtype=jnp.float32)
    for pulses in (30.0, -30.0):
        moved = np.asarray(device_of(cell).pulse(start, jnp.float32(pulses), jax.random.key(1)))
        assert moved.min() >= cell.conductance_min_uS
        assert moved.max() <= cell.conductance_max_uS
        stop = cell.conductance_max_uS if pulses > 0 else cell.conductance_min_uS
        assert (moved == np.float32(stop)).mean() > 0.9


def test_blind_pulses_stop_at_stated_limits_in_place_of_the_window() -> None:
    cell = load_chip("brram-256x64").cell.model_copy(update={"limits_uS": (2.0, 80.0)})
    start = jnp.linspace(10, 70, 4096, dtype=jnp.float32)
    up, down = (np.asarray(device_of(cell).pulse(start, jnp.float32(n), jax.random.key(1))) for n in (40.0, -40.0))
    assert up.max() == 80
    assert down.min() == 2
    assert min((up == 80).mean(), (down == 2).mean()) > 0.9


def test_a_pulse_takes_no_device_further_beyond_the_window_and_sets_none_back() -> None:
    cell = load_chip("brram-256x64").cell.model_copy(update={"pulse": Linear(step_uS=4.0)})
    start = jnp.array([72.0, 72.0, 8.0, 8.0, 69.0], jnp.float32)
    moved = device_of(cell).pulse(start, jnp.array([1.0, -1.0, -1.0, 1.0, 1.0]), jax.random.key(1))
    np.testing.assert_array_equal(moved, [72.0, 68.0, 8.0, 12.0, 70.0])


def test_no_pulse_leaves_a_device_alone_even_beyond_the_bounds() -> None:
    cell = load_chip("brram-256x64").cell
    start = jnp.array([3.0, 40.0, 90.0], jnp.float32)
    np.testing.assert_array_equal(device_of(cell).pulse(start, jnp.zeros(3), jax.random.key(0)), start)
    moved = device_of(cell).pulse(start, jnp.array([0.0, 1.0, 0.0]), jax.random.key(0))
    np.testing.assert_array_equal(moved != start, [False, True, False])


def test_pulses_of_the_ideal_chip_are_exact() -> None:
    cell = load_chip("ideal").cell
    moved = device_of(cell).pulse(jnp.float32(0.5), jnp.array([1.0, -7.0, 600.0]), jax.random.key(0))
    np.testing.assert_array_equal(moved, [0.5 + 1 / 1024, 0.5 - 7 / 1024, 1.0])


def test_pulses_of_a_chip_without_a_pulse_response_are_refused() -> None:
    cell = load_chip("ideal").cell.model_copy(update={"pulse": None})
    with pytest.raises(ValueError, match=r"\[cell\.pulse\]"):
        device_of(cell).pulse(jnp.zeros(3), jnp.ones(3), jax.random.key(0))
