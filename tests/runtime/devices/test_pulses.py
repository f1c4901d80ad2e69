"""Blind pulses: the laws and their bounds, and the pulses that a change of weights takes."""

from typing import get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from cimc.chip import Cell, load_chip
from cimc.device_pulse import LAWS, Linear
from runtime.devices.device import device_of
from runtime.devices.pulses import PULSE_LAWS
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


# --- Laws ---


def test_every_law_that_a_chip_file_may_name_has_its_row() -> None:
    assert set(PULSE_LAWS) <= {get_args(law.model_fields["law"].annotation)[0] for law in LAWS}


def test_a_chip_that_names_no_law_is_linear() -> None:
    assert Linear(step_uS=1.0) == Linear(step_uS=1.0, law="linear")


def test_a_law_that_is_not_in_the_table_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="linear"):
        Linear.model_validate({"step_uS": 1.0, "law": "lineer"})


def test_a_law_moves_the_devices_and_the_bounds_are_kept_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def halfway(conductance: Array, pulses: Array, key: Array, cell: Cell) -> Array:
        return conductance + pulses * (100 - conductance) / 2

    monkeypatch.setitem(PULSE_LAWS, "linear", halfway)
    cell = load_chip("brram-256x64").cell
    moved = device_of(cell).pulse(jnp.array([20.0, 20.0, 60.0, 60.0]), jnp.array([1.0, 0, 1, -1]), jax.random.key(0))
    np.testing.assert_array_equal(moved, [60.0, 20.0, 70.0, 40.0])


# --- Plans ---


def planned(
    cell: Cell, change: float, base: float, held: tuple[float, float] | None = None
) -> tuple[list[float], float]:
    """Pulses for G+ and G-, and the weight aimed at, of one weight with a range of 1."""
    devices = None if held is None else jnp.array(held, jnp.float32)[:, None]
    plan = device_of(cell).plan(jnp.array([change]), jnp.array([base]), weight_range=jnp.float32(1), held=devices)
    return np.asarray(plan[0])[:, 0].tolist(), float(plan[1][0])


def plain_cell() -> Cell:
    """A window of 0 to 64 uS in steps of 4: a pulse is a sixteenth of the weight range."""
    cell = load_chip("brram-256x64").cell
    bounds = {"conductance_min_uS": 0.0, "conductance_max_uS": 64.0}
    return cell.model_copy(update={**bounds, "pulse": Linear(step_uS=4.0)})


@pytest.mark.parametrize(
    ("change", "base", "pulses", "aimed"),
    [
        (0.25, 0.5, [4, 0], 0.75),
        (0.3, 0.5, [4, 0], 0.75),  # whole pulses only
        (-0.25, 0.5, [-4, 0], 0.25),
        (0.75, -0.5, [4, -8], 0.25),  # first the other device down to its minimum, then this one up
        (-0.75, 0.5, [-8, 4], -0.25),
        (0.75, 0.5, [8, 0], 1.0),  # no further than the bound
        (0.05, 0.5, [0, 0], 0.5),
    ],
)
def test_a_change_takes_whole_pulses_and_the_idle_device_stays_at_its_minimum(
    change: float, base: float, pulses: list[float], aimed: float
) -> None:
    assert planned(plain_cell(), change, base) == (pulses, aimed)


def test_a_plan_starts_from_what_the_devices_were_read_to_hold() -> None:
    assert planned(plain_cell(), 0.25, 0.5, held=(60.0, 8.0)) == ([1, -2], 0.5 + 3 / 16)


def test_a_plan_for_a_chip_without_a_pulse_response_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\[cell\.pulse\]"):
        planned(load_chip("ideal").cell.model_copy(update={"pulse": None}), 0.1, 0.0)
