"""Traits of a chip's devices: their statistics, stuck devices at every door, wear and leak."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Cell, load_chip
from cimc.chip_cell import Programming, PulseTrain
from cimc.device_pulse import Linear, SoftBounds
from cimc.device_time import Endurance, Faults, Leak
from runtime.devices.device import device_of

IDEAL = load_chip("ideal").cell
DRAWS = (1_000_000,)


def cell_with(**sections: object) -> Cell:
    return IDEAL.model_copy(update=sections)


def moments(array: jax.Array) -> tuple[float, float]:
    values = np.asarray(array, np.float64)
    return float(values.mean()), float(values.std())


def test_a_device_without_spread_has_no_traits() -> None:
    device = device_of(IDEAL)
    assert device.trait_names == ()
    assert device.traits(jax.random.key(0), (3,)) == {}


def test_steps_and_bounds_spread_as_stated() -> None:
    pulse = SoftBounds(
        law="soft-bounds",
        step_uS=2.0,
        step_down_uS=1.0,
        step_d2d=0.1,
        asymmetry_d2d=0.05,
        high_d2d=0.2,
        low_d2d=0.1,
    )
    cell = cell_with(pulse=pulse, conductance_min_uS=10.0, conductance_max_uS=50.0)
    traits = device_of(cell).traits(jax.random.key(1), DRAWS)
    up, down = (np.asarray(traits[name], np.float64) for name in ("step_up", "step_down"))
    # a+- = step (g +- rho): variances add, and what both share is the step's spread.
    assert (up.mean(), up.std()) == pytest.approx((2.0, 2.0 * np.hypot(0.1, 0.05)), rel=0.01)
    assert (down.mean(), down.std()) == pytest.approx((1.0, np.hypot(0.1, 0.05)), rel=0.01)
    assert np.cov(up / 2, down)[0, 1] == pytest.approx(0.1**2 - 0.05**2, rel=0.02)
    # Bounds around the middle, 30 uS, half a window, 20 uS, away.
    assert moments(traits["high"]) == pytest.approx((50.0, 20 * 0.2), rel=0.01)
    assert moments(traits["low"]) == pytest.approx((10.0, 20 * 0.1), rel=0.01)


def test_own_bounds_spread_around_the_limits_and_stay_within() -> None:
    pulse = Linear(step_uS=2.0, step_d2d=0.1)
    window = {"conductance_min_uS": 10.0, "conductance_max_uS": 50.0, "limits_uS": (5.0, 70.0)}
    traits = device_of(cell_with(pulse=pulse, **window)).traits(jax.random.key(1), (1000,))
    np.testing.assert_allclose(traits["high"], 70.0, rtol=1e-6)
    np.testing.assert_allclose(traits["low"], 5.0, rtol=1e-6)
    spread = pulse.model_copy(update={"high_d2d": 0.3, "low_d2d": 0.3})
    traits = device_of(cell_with(pulse=spread, **window)).traits(jax.random.key(1), (1000,))
    assert float(jnp.max(traits["high"])) == 70.0
    assert float(jnp.min(traits["low"])) == 5.0
    assert float(jnp.min(traits["high"])) < 60.0


def test_log_normal_steps_have_that_median_and_spread() -> None:
    pulse = SoftBounds(law="soft-bounds", step_uS=2.0, step_d2d=0.5, step_d2d_law="log-normal")
    steps = np.log(np.asarray(device_of(cell_with(pulse=pulse)).traits(jax.random.key(2), DRAWS)["step_up"]))
    assert (np.median(steps), steps.std()) == pytest.approx((np.log(2.0), 0.5), rel=0.01)


def test_stuck_devices_come_in_the_stated_shares_and_stay_through_writes_and_pulses() -> None:
    faults = Faults(stuck_low=0.05, stuck_high=0.02, stuck_anywhere=0.03, low_uS=0.5, high_uS=300.0)
    cell = cell_with(faults=faults, pulse=Linear(step_uS=1.0), conductance_max_uS=100.0)
    device = device_of(cell)
    traits = device.traits(jax.random.key(3), DRAWS)
    stuck = np.asarray(traits["stuck"])
    assert np.mean(~np.isnan(stuck)) == pytest.approx(0.1, rel=0.01)
    assert np.mean(stuck == 0.5) == pytest.approx(0.05, rel=0.01)
    assert np.mean(stuck == 300.0) == pytest.approx(0.02, rel=0.02)
    anywhere = stuck[~np.isnan(stuck) & (stuck != 0.5) & (stuck != 300.0)]
    low, high = cell.conductance_min_uS, cell.conductance_max_uS
    assert anywhere.mean() == pytest.approx((low + high) / 2, rel=0.01)
    assert anywhere.min() >= low
    assert anywhere.max() <= high

    goal = jnp.full(DRAWS, (low + high) / 2)
    written = device.write(goal, jax.random.key(4), traits).conductance
    np.testing.assert_array_equal(np.asarray(written), np.where(np.isnan(stuck), goal, stuck))
    pulsed = device.pulse(written, jnp.ones(DRAWS), jax.random.key(5), traits)
    assert np.all((np.asarray(pulsed) != np.asarray(written)) == np.isnan(stuck))


@pytest.mark.parametrize(("then", "last"), [("keeps", 40.0), ("low", 0.0), ("high", 100.0)])
def test_a_worn_device_takes_no_further_act(then: str, last: float) -> None:
    endurance = Endurance.model_validate({"writes": 10.0, "then": then})
    device = device_of(cell_with(conductance_max_uS=100.0, endurance=endurance))
    traits = device.traits(jax.random.key(6), (2,))
    # The first device has taken 5 acts, the second 9, so that this one, of two trials, is its last.
    acts, new = jnp.array([5, 9]), jnp.array([2, 2])
    first = device.wear(jnp.array([10.0, 20.0]), jnp.array([30.0, 40.0]), acts, new, traits)
    assert first.tolist() == [30.0, last]
    second = device.wear(first, jnp.array([50.0, 60.0]), acts + new, new, traits)
    assert second.tolist() == [50.0, last]


def test_stuck_devices_neither_leak_nor_wear_out() -> None:
    endurance = Endurance.model_validate({"writes": 10.0, "then": "low"})
    device = device_of(cell_with(conductance_max_uS=100.0, endurance=endurance, leak=Leak(steps=100.0, rest_uS=0.0)))
    traits = {**device.traits(jax.random.key(6), (2,)), "stuck": jnp.array([20.0, jnp.nan])}
    held = jnp.full(2, 20.0)
    leaked = device.leak(held, traits)
    assert leaked[0] == 20
    assert leaked[1] < 20
    assert device.wear(held, held, jnp.array([9, 9]), jnp.array([2, 2]), traits).tolist() == [20.0, 0.0]


@pytest.mark.parametrize(
    ("sd_uS", "train"), [(0.0, None), (0.3, None), (0.0, PulseTrain(pulses=30))], ids=["exact", "trials", "pulses"]
)
def test_stuck_devices_take_all_trials_where_they_are_beyond_tolerance(sd_uS: float, train: PulseTrain | None) -> None:
    programming = Programming(error_sd_uS=sd_uS, tolerance_uS=1.0, trials=30, train=train)
    device = device_of(cell_with(conductance_max_uS=100.0, programming=programming, pulse=Linear(step_uS=0.9)))
    goal, stuck = jnp.array([10.0, 10.0, 10.0]), jnp.array([20.0, 9.5, jnp.nan])
    written = device.write(goal, jax.random.key(9), {"stuck": stuck})
    np.testing.assert_array_equal(written.conductance[:2], stuck[:2])
    assert abs(written.conductance[2] - 10) <= 1
    assert written.trials[0] == 30
    assert written.trials[1] == (1 if train is None else 0)  # pulses are taken after a read, trials before
    assert written.trials[2] < 30


def test_endurance_spreads_by_decades() -> None:
    cell = cell_with(endurance=Endurance(writes=1e5, spread_decades=0.5))
    decades = np.log10(np.asarray(device_of(cell).traits(jax.random.key(7), DRAWS)["endurance"]))
    assert moments(jnp.asarray(decades)) == pytest.approx((5.0, 0.5), rel=0.01)


def test_a_cell_that_leaks_is_1_over_e_of_the_way_after_its_steps() -> None:
    cell = cell_with(leak=Leak(steps=50.0, rest_uS=4.0))
    device = device_of(cell)
    held = jnp.array([104.0, 4.0])
    traits = device.traits(jax.random.key(8), (2,))
    for _ in range(50):
        held = device.leak(held, traits)
    np.testing.assert_allclose(np.asarray(held), [4 + 100 / np.e, 4.0], rtol=1e-5)
