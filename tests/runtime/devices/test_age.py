"""Time: one path a device, whatever the time; what comes before the first time; bounds; the law of what is left."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Cell, load_chip
from runtime.crossbar.keys import new_key
from runtime.devices.age import age_devices
from tests.runtime.devices.age_law import state_left

DRIFT = {"start_s": 20.0, "exponent": {"constant": 0.05}, "exponent_sd": {"constant": 0.02}}
RELAXATION = {"times_s": [1.0, 100.0, 1e6], "sd_uS": [0.5, 1.0, [1.0, 2.0]], "mean_uS": [0.0, 0.5, -1.0]}
RETENTION = {"tau_s": 1e5, "rest_uS": 30.0, "stretch": 0.5, "tau_d2d": 0.5}
ALL: dict[str, Any] = {"drift": DRIFT, "relaxation": RELAXATION, "retention": RETENTION}
DAY = 86400.0


def cell_with(**sections: Any) -> Cell:
    cell = load_chip("ideal").cell.model_dump()
    return Cell.model_validate({**cell, "conductance_min_uS": 5.0, "conductance_max_uS": 80.0} | sections)


def aged(cell: Cell, conductance: Any, seconds: Any, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float64]]:
    held = jnp.asarray(conductance, jnp.float32)
    run = jax.jit(lambda g, after, key: age_devices(g, after, key, cell=cell))
    return np.asarray(run(held, jnp.float32(seconds), new_key(seed)), np.float64)


def test_a_device_without_laws_of_time_keeps_what_it_holds() -> None:
    conductance = np.linspace(-1, 90, 12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(aged(cell_with(), conductance, 1e9), conductance)


@pytest.mark.parametrize(
    ("energy_eV", "measured_C", "kept_C", "factor"),
    [(0.7, 55.0, 125.0, 77.9), (0.7, 125.0, 55.0, 1 / 77.9), (1.1, 25.0, None, 1.0), (1.0, 25.0, 25.0, 1.0)],
)
def test_heat_speeds_time_up_by_the_acceleration_factor(
    energy_eV: float, measured_C: float, kept_C: float | None, factor: float
) -> None:
    """77.9 is what reliability reports by JEDEC's rules have for 0.7 eV from 55 to 125 C; they take 273 K for 0 C."""
    thermal = {"activation_energy_eV": energy_eV, "measured_at_C": measured_C, "kept_at_C": kept_C}
    warm, conductance = cell_with(**ALL, thermal=thermal), np.linspace(5, 80, 50)
    assert warm.thermal is not None
    assert warm.thermal.acceleration == pytest.approx(factor, rel=5e-3)
    same = aged(cell_with(**ALL), conductance, DAY * warm.thermal.acceleration)
    np.testing.assert_allclose(aged(warm, conductance, DAY), same, rtol=1e-5)
    if factor != 1:
        assert np.abs(same - aged(cell_with(**ALL), conductance, DAY)).max() > 1


def test_a_temperature_at_which_no_law_holds_is_refused() -> None:
    with pytest.raises(ValueError, match=r"at 500 C time would run 1e24 times as fast as at 25 C"):
        cell_with(thermal={"activation_energy_eV": 2.3, "kept_at_C": 500.0})


@pytest.mark.parametrize("sections", [{"drift": DRIFT}, {"relaxation": RELAXATION}], ids=["drift", "relaxation"])
def test_before_its_first_time_a_device_holds_what_was_written(sections: dict[str, Any]) -> None:
    conductance = np.linspace(5, 80, 50, dtype=np.float32)
    for seconds in (0.0, 0.5):
        np.testing.assert_array_equal(aged(cell_with(**sections), conductance, seconds), conductance)


def test_the_same_key_gives_the_same_device_at_every_time() -> None:
    """Of a drifting device log g falls on a straight line of ln t, of a relaxing one its place in the spread stays."""
    conductance = np.full(1000, 40.0)
    times = np.array([40.0, 1e3, DAY, 1e7])
    drifted = np.stack([aged(cell_with(drift=DRIFT), conductance, t) for t in times])
    exponents = -np.log(drifted / 40) / np.log(times / 20)[:, None]
    np.testing.assert_allclose(exponents, np.broadcast_to(exponents[-1], exponents.shape), atol=2e-5)
    assert exponents[-1].std() == pytest.approx(0.02, rel=0.1)

    relaxed = np.stack([aged(cell_with(relaxation=RELAXATION), conductance, t) for t in times])
    place = (relaxed - relaxed.mean(axis=1, keepdims=True)) / relaxed.std(axis=1, keepdims=True)
    np.testing.assert_allclose(place, np.broadcast_to(place[-1], place.shape), atol=1e-3)
    other = aged(cell_with(relaxation=RELAXATION), conductance, DAY, seed=1)
    assert abs(np.corrcoef(other, relaxed[2])[0, 1]) < 0.2


def test_the_draws_of_the_laws_are_independent() -> None:
    conductance = np.full(100_000, 40.0)
    drifted, relaxed, kept = (aged(cell_with(**{name: ALL[name]}), conductance, DAY) for name in ALL)
    assert np.abs(np.corrcoef([drifted, relaxed, kept]) - np.eye(3)).max() < 0.02


def test_what_time_adds_to_a_write_gives_the_spread_that_was_measured_from_the_target() -> None:
    cell = cell_with(relaxation={**RELAXATION, "mean_uS": [0.2, 0.7, 0.2]}, programming={"error_sd_uS": 0.5})
    written = 40 + 0.2 + 0.5 * np.random.default_rng(0).standard_normal(400_000)
    after = aged(cell, written, 100.0)
    assert (after.mean() - 40, after.std()) == pytest.approx((0.7, 1.0), rel=0.01)


def test_limits_hold_devices_in_but_move_none_that_was_left_beyond() -> None:
    cell = cell_with(relaxation={"times_s": [1.0, 10.0], "sd_uS": [0.0, 30.0]}, limits_uS=[0.0, 80.0])
    after = aged(cell, [[79.0] * 500, [2.0] * 500, [95.0] * 500], 10.0)
    assert after[0].max() == 80
    assert after[1].min() == 0
    assert after[2].max() == 95


@pytest.mark.parametrize("names", [("retention",), ("drift", "relaxation", "retention")], ids=len)
@pytest.mark.parametrize("sign", ["any", "positive"])
def test_mean_and_sd_of_what_is_left_are_those_of_the_draws(names: tuple[str, ...], sign: str) -> None:
    wide = {**DRIFT, "sign": sign, "exponent_sd": {"constant": 0.06}}
    cell = cell_with(**{name: wide if name == "drift" else ALL[name] for name in names})
    for seconds in (100.0, DAY):
        after = aged(cell, np.full(1_000_000, 60.0), seconds)
        left = state_left(cell, 60.0, seconds)
        assert after.mean() == pytest.approx(left.mean_uS, rel=0.002)
        assert after.std() == pytest.approx(left.sd_uS, rel=0.01)


def test_after_its_time_a_cell_is_1_over_e_of_the_way_from_its_rest() -> None:
    cell = cell_with(retention={"tau_s": 1e5, "rest_uS": 30.0})
    assert aged(cell, [60.0], 1e5)[0] == pytest.approx(30 + 30 / np.e, rel=1e-6)
    assert state_left(cell, 60.0, 1e5) == pytest.approx((30 + 30 / np.e, 0.0), abs=1e-5)
