"""Closed-loop writes: the statistics that the chip's figures promise."""

import tomllib
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from cimc.chip import Cell, Programming, chip_names, chip_text, load_chip
from cimc.device_file import with_device
from cimc.errors import CimcError
from runtime.crossbar.keys import new_key
from runtime.devices.device import device_of
from runtime.devices.write_law import error_left, trial_error
from runtime.devices.write_verify import Written, write_verify
from tests.runtime.devices.moments import COUNT, assert_moments


def cell_with(chip: str = "brram-256x64", **programming: Any) -> Cell:
    cell = load_chip(chip).cell
    return cell.model_copy(update={"programming": Programming(**programming)}) if programming else cell


def written(cell: Cell, target: float = 200.0, seed: int = 0) -> Written:
    """Many devices programmed to one target."""
    write = jax.jit(lambda key: device_of(cell).write(jnp.full(COUNT, target, jnp.float32), key))
    return write(jax.random.key(seed))


def final_moments(m: float, s: float, tolerance: float, trials: int) -> tuple[float, float]:
    """Mean and sd left by at most `trials` trials of error N(m, s^2): a mixture of an accepted and a last trial."""
    inside = stats.truncnorm((-tolerance - m) / s, (tolerance - m) / s, loc=m, scale=s)
    accept = stats.norm.cdf(tolerance, m, s) - stats.norm.cdf(-tolerance, m, s)
    last = (1 - accept) ** (trials - 1)
    mean = (1 - last) * inside.mean() + last * m
    square = (1 - last) * (inside.var() + inside.mean() ** 2) + last * (s**2 + m**2)
    return float(mean), float(np.sqrt(square - mean**2))


FIGURES = [
    {},  # the chip's own
    {"error_sd_uS": 1.0, "error_mean_uS": -0.3, "trials": 5, "tolerance_uS": 1.7},
    {"error_sd_uS": 0.5, "error_mean_uS": 0.0, "trials": 12, "tolerance_uS": 0.9},
]


@pytest.mark.parametrize("chip", ["brram-soc", "brram-256x64"])
@pytest.mark.parametrize("figures", FIGURES)
def test_programming_leaves_the_stated_mean_and_sd(chip: str, figures: dict[str, Any]) -> None:
    cell = cell_with(chip, **figures)
    error = np.asarray(written(cell).conductance, np.float64) - 200
    programming: Any = cell.programming  # one figure for all conductances
    assert_moments(error, programming.error_mean_uS, programming.error_sd_uS)


@pytest.mark.parametrize("figures", FIGURES[1:])
def test_trials_end_within_the_tolerance_or_with_the_last(figures: dict[str, Any]) -> None:
    cell = cell_with(**figures)
    conductance, trials = (np.asarray(a, np.float64) for a in written(cell)[:2])
    n, tolerance = cell.programming.trials, cell.programming.tolerance_uS
    assert tolerance is not None
    assert trials.min() == 1
    assert trials.max() == n
    error = conductance - 200
    assert np.abs(error[trials < n]).max() <= tolerance + 1e-4
    # Every trial is accepted with the same probability, so the trials taken are geometric.
    m, s = trial_error(cell.programming)
    accept = stats.norm.cdf(tolerance, m, s) - stats.norm.cdf(-tolerance, m, s)
    expected = [accept * (1 - accept) ** (k - 1) for k in range(1, n)] + [(1 - accept) ** (n - 1)]
    observed = np.bincount(trials.astype(int), minlength=n + 1)[1:] / COUNT
    assert np.abs(observed - expected).max() < 5 * 0.5 / np.sqrt(COUNT) + 1e-3


def test_a_failed_last_trial_stays_and_owes_nothing_to_the_first() -> None:
    cell = cell_with("brram-soc")
    m, s = trial_error(cell.programming)
    conductance, trials = (np.asarray(a, np.float64) for a in written(cell)[:2])
    second = conductance[trials == 2] - 200
    assert (np.abs(second) > cell.programming.tolerance_uS).mean() > 0.1
    assert_moments(second, m, s)


def test_one_trial_has_the_stated_error_itself() -> None:
    programming = Programming(error_sd_uS=2.0, error_mean_uS=0.7)
    assert trial_error(programming) == (0.7, 2.0)
    conductance, trials = written(cell_with(error_sd_uS=2.0, error_mean_uS=0.7))[:2]
    assert_moments(np.asarray(conductance, np.float64) - 200, 0.7, 2.0)
    assert (np.asarray(trials) == 1).all()


def test_no_error_writes_the_target_exactly() -> None:
    conductance, trials = written(cell_with("ideal"), 0.625)[:2]
    assert (np.asarray(conductance) == 0.625).all()
    assert (np.asarray(trials) == 1).all()
    shifted = cell_with(error_mean_uS=0.5, trials=3, tolerance_uS=1.0)
    assert (np.asarray(written(shifted).conductance) == 200.5).all()


STATES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])  # of the window; 0 is the idle device


@pytest.mark.parametrize("name", chip_names())
def test_a_write_leaves_the_stated_law_at_every_state(name: str) -> None:
    """Over a million writes, idle devices included: mean and sd within 1 % of what the chip's file says."""
    cell = load_chip(name).cell
    stated = with_device(tomllib.loads(chip_text(name)), name)["cell"].get("programming", {})
    targets = cell.conductance_min_uS + STATES * cell.window_uS
    aim = jnp.broadcast_to(jnp.asarray(targets, jnp.float32)[:, None], (len(STATES), 1_000_000))
    written = jax.jit(device_of(cell).write)(aim, new_key(7))
    error = np.asarray(written.conductance, np.float64) - np.asarray(aim, np.float64)
    mean, sd = (
        np.polynomial.Polynomial(np.atleast_1d(stated.get(key, 0.0)))(targets / cell.conductance_max_uS)
        for key in ("error_mean_uS", "error_sd_uS")
    )
    assert cell.limits_uS is None
    assert (np.abs(error.mean(axis=1) - mean) <= 0.01 * sd).all()
    assert (np.abs(error.std(axis=1) - sd) <= 0.01 * sd).all()


def test_a_write_ends_where_its_error_takes_it_beyond_the_window_and_below_zero() -> None:
    cell = cell_with("hermes")
    idle, full = (np.asarray(written(cell, target).conductance, np.float64) for target in (0.0, 20.7))
    assert (idle < 0).mean() == pytest.approx(0.5, abs=0.005)
    assert (full > cell.conductance_max_uS).mean() == pytest.approx(0.5, abs=0.005)


@pytest.mark.parametrize("figures", FIGURES)
@pytest.mark.parametrize("target", [10.0, 11.0, 40.0, 70.0])
def test_stated_limits_hold_and_the_law_that_results_is_computed(figures: dict[str, Any], target: float) -> None:
    cell = cell_with(**figures).model_copy(update={"limits_uS": (9.5, 70.0)})
    conductance, trials = (np.asarray(a, np.float64) for a in written(cell, target)[:2])
    assert conductance.min() >= np.float32(9.5)
    assert conductance.max() <= 70.0
    law = error_left(cell, target)
    error = conductance - target
    assert_moments(error, law.mean_uS, law.sd_uS)
    assert trials.mean() == pytest.approx(law.trials, abs=5e-3)
    if target == 70.0:
        assert (conductance == 70).mean() > 0.4, "half of all trials end beyond and are clipped there"
        programming: Any = cell.programming
        assert law.mean_uS < programming.error_mean_uS - 0.1


def test_the_law_of_the_error_left_is_that_of_the_writes() -> None:
    cell = cell_with("brram-soc")
    conductance, trials = (np.asarray(a, np.float64) for a in written(cell, 32.9)[:2])
    law = error_left(cell, 32.9)
    deviation = (conductance - conductance.mean()) / conductance.std()
    assert law.mean_uS == pytest.approx(1.0, abs=1e-3)
    assert law.sd_uS == pytest.approx(2.9, rel=1e-3)
    assert law.excess_kurtosis == pytest.approx(np.mean(deviation**4) - 3, abs=0.03)
    assert law.beyond_3_sd == pytest.approx((np.abs(deviation) > 3).mean(), abs=4e-4)
    assert law.accepted_first == pytest.approx((trials == 1).mean(), abs=2e-3)
    assert law.trials == pytest.approx(trials.mean(), abs=2e-3)
    assert law.beyond_window == pytest.approx((conductance > 32.9).mean(), abs=2e-3)


def test_an_error_that_follows_the_state_is_that_of_each_device() -> None:
    cell = cell_with("hermes", error_sd_uS=(0.1, 2.0), error_mean_uS=(0.0, 0.0, 1.0))
    targets = jnp.tile(jnp.array([0.0, 10.35, 20.7], jnp.float32), COUNT)
    left = device_of(cell).write(targets, jax.random.key(3))
    error = np.asarray(left.conductance - targets, np.float64).reshape(COUNT, 3)
    for column, (mean, sd) in zip(error.T, [(0.0, 0.1), (0.25, 1.1), (1.0, 2.1)], strict=True):
        assert_moments(column, mean, sd)
    assert (np.asarray(left.trials) == 1).all()


@settings(deadline=None, max_examples=60)
@given(mean=st.floats(-0.4, 0.4), sd=st.floats(0.05, 1.2), trials=st.integers(2, 8), tolerance=st.floats(0.5, 8))
def test_the_trial_error_is_found_from_the_figures_it_leaves(
    mean: float, sd: float, trials: int, tolerance: float
) -> None:
    left_mean, left_sd = final_moments(mean * tolerance, sd * tolerance, tolerance, trials)
    found = trial_error(
        Programming(error_sd_uS=left_sd, error_mean_uS=left_mean, trials=trials, tolerance_uS=tolerance)
    )
    again = final_moments(*found, tolerance, trials)
    assert again == pytest.approx((left_mean, left_sd), rel=1e-5, abs=1e-5 * tolerance)


@settings(deadline=None, max_examples=60)
@example(mean=1.674264835695153, sd=6.0, trials=972, tolerance=3.0)  # far from all near starts
@given(mean=st.floats(-3, 3), sd=st.floats(0.3, 20), trials=st.integers(2, 1000), tolerance=st.floats(0.5, 8))
def test_figures_are_met_or_refused_never_missed(mean: float, sd: float, trials: int, tolerance: float) -> None:
    try:
        found = trial_error(Programming(error_sd_uS=sd, error_mean_uS=mean, trials=trials, tolerance_uS=tolerance))
    except CimcError:
        return
    # Where hardly any trial is accepted, the truncated law has no moments to compare with.
    assume(stats.norm.cdf(tolerance, *found) - stats.norm.cdf(-tolerance, *found) > 1e-6)
    assert final_moments(*found, tolerance, trials) == pytest.approx((mean, sd), rel=1e-4, abs=1e-4)


def test_more_trials_of_the_same_kind_leave_a_smaller_error() -> None:
    left = []
    for trials in (1, 2, 4, 8):
        mean, sd = final_moments(0.4, 2.0, 1.5, trials)
        cell = cell_with(error_sd_uS=sd, error_mean_uS=mean, trials=trials, tolerance_uS=1.5)
        assert trial_error(cell.programming) == pytest.approx((0.4, 2.0), rel=1e-5)
        left.append(float(np.std(np.asarray(written(cell).conductance, np.float64))))
    assert left[0] == pytest.approx(2.0, rel=0.01)
    assert all(fewer > 1.05 * more for fewer, more in pairwise(left))


def test_writes_repeat_with_their_key_and_differ_between_devices() -> None:
    cell = cell_with("brram-soc")
    one, again, other = written(cell), written(cell), written(cell, seed=1)
    np.testing.assert_array_equal(one.conductance, again.conductance)
    np.testing.assert_array_equal(one.trials, again.trials)
    values = np.asarray(one.conductance, np.float64) - 200
    others = np.asarray(other.conductance, np.float64) - 200
    assert abs(np.corrcoef(values, others)[0, 1]) < 5e-3
    assert abs(np.corrcoef(values[1:], values[:-1])[0, 1]) < 5e-3


def test_a_write_without_spread_that_misses_its_tolerance_takes_all_trials() -> None:
    cell = load_chip("brram-256x64").cell
    missing = Programming(error_mean_uS=3.0, tolerance_uS=1.0, trials=5)
    within = Programming(error_mean_uS=0.5, tolerance_uS=1.0, trials=5)
    for programming, trials in ((missing, 5), (within, 1)):
        written = write_verify(
            jnp.full(4, 30.0), jax.random.key(0), cell=cell.model_copy(update={"programming": programming})
        )
        np.testing.assert_array_equal(written.trials, trials)
