"""Programming and reading devices: the statistics that the chip's figures promise."""

from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from cimc.chip import Cell, Programming, load_chip
from runtime.cells import Written, blind_pulses, read_cells, trial_error, write_verify

COUNT = 1 << 20


def cell_with(chip: str = "brram-256x64", **programming: Any) -> Cell:
    cell = load_chip(chip).cell
    return cell.model_copy(update={"programming": Programming(**programming)}) if programming else cell


def written(cell: Cell, target: float = 200.0, seed: int = 0) -> Written:
    """Many devices programmed to one target, by default too high for the bound at zero to matter."""
    write = jax.jit(lambda key: write_verify(jnp.full(COUNT, target, jnp.float32), cell, key))
    return write(jax.random.key(seed))


def final_moments(m: float, s: float, tolerance: float, trials: int) -> tuple[float, float]:
    """Mean and sd left by at most `trials` trials of error N(m, s^2): a mixture of an accepted and a last trial."""
    inside = stats.truncnorm((-tolerance - m) / s, (tolerance - m) / s, loc=m, scale=s)
    accept = stats.norm.cdf(tolerance, m, s) - stats.norm.cdf(-tolerance, m, s)
    last = (1 - accept) ** (trials - 1)
    mean = (1 - last) * inside.mean() + last * m
    square = (1 - last) * (inside.var() + inside.mean() ** 2) + last * (s**2 + m**2)
    return float(mean), float(np.sqrt(square - mean**2))


def assert_moments(sample: npt.ArrayLike, mean: float, sd: float) -> None:
    """Mean and sd agree within five standard errors (and the 1e-4 of the noise generator)."""
    values = np.asarray(sample, np.float64)
    n = values.size
    deviation = values - values.mean()
    spread = np.sqrt((np.mean(deviation**4) - np.mean(deviation**2) ** 2) / n) / (2 * sd)
    assert abs(values.mean() - mean) < 5 * sd / np.sqrt(n) + 1e-5
    assert abs(values.std() - sd) < 5 * spread + 2e-4 * sd


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
    assert_moments(error, cell.programming.error_mean_uS, cell.programming.error_sd_uS)


@pytest.mark.parametrize("figures", FIGURES[1:])
def test_trials_end_within_the_tolerance_or_with_the_last(figures: dict[str, Any]) -> None:
    cell = cell_with(**figures)
    conductance, trials = (np.asarray(a, np.float64) for a in written(cell))
    n, tolerance = cell.programming.trials, cell.programming.tolerance_uS
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
    conductance, trials = (np.asarray(a, np.float64) for a in written(cell))
    second = conductance[trials == 2] - 200
    assert (np.abs(second) > cell.programming.tolerance_uS).mean() > 0.1
    assert_moments(second, m, s)


def test_one_trial_has_the_stated_error_itself() -> None:
    programming = Programming(error_sd_uS=2.0, error_mean_uS=0.7)
    assert trial_error(programming) == (0.7, 2.0)
    conductance, trials = written(cell_with(error_sd_uS=2.0, error_mean_uS=0.7))
    assert_moments(np.asarray(conductance, np.float64) - 200, 0.7, 2.0)
    assert (np.asarray(trials) == 1).all()


def test_no_error_writes_the_target_exactly() -> None:
    conductance, trials = written(cell_with("ideal"), 0.625)
    assert (np.asarray(conductance) == 0.625).all()
    assert (np.asarray(trials) == 1).all()
    shifted = cell_with(error_mean_uS=0.5, trials=3, tolerance_uS=1.0)
    assert (np.asarray(written(shifted).conductance) == 200.5).all()


def test_conductances_are_never_negative() -> None:
    conductance = np.asarray(written(cell_with(error_sd_uS=2.0), 1.0).conductance)
    assert conductance.min() == 0
    assert (conductance == 0).mean() == pytest.approx(stats.norm.cdf(-0.5), abs=0.005)


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
@given(mean=st.floats(-3, 3), sd=st.floats(0.3, 20), trials=st.integers(2, 1000), tolerance=st.floats(0.5, 8))
def test_figures_are_met_or_refused_never_missed(mean: float, sd: float, trials: int, tolerance: float) -> None:
    try:
        found = trial_error(Programming(error_sd_uS=sd, error_mean_uS=mean, trials=trials, tolerance_uS=tolerance))
    except ValueError:
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


# --- Blind pulses ---


@pytest.mark.parametrize("pulses", [1, 3, -2, -5])
def test_blind_pulses_move_by_whole_steps_and_their_errors_add_up(pulses: int) -> None:
    cell = load_chip("brram-256x64").cell.model_copy(update={"conductance_max_uS": 400.0})
    start = jnp.full(COUNT, 200.0, jnp.float32)
    moved = np.asarray(blind_pulses(start, jnp.float32(pulses), cell, jax.random.key(0)), np.float64) - 200
    assert_moments(moved, 4.0 * pulses, np.sqrt(abs(pulses)) * 4.0 * 0.5)


def test_blind_pulses_stop_at_both_bounds() -> None:
    cell = load_chip("brram-256x64").cell
    start = jnp.linspace(10, 70, 4096, dtype=jnp.float32)
    for pulses in (30.0, -30.0):
        moved = np.asarray(blind_pulses(start, jnp.float32(pulses), cell, jax.random.key(1)))
        assert moved.min() >= cell.conductance_min_uS
        assert moved.max() <= cell.conductance_max_uS
        stop = cell.conductance_max_uS if pulses > 0 else cell.conductance_min_uS
        assert (moved == np.float32(stop)).mean() > 0.9


def test_no_pulse_leaves_a_device_alone_even_beyond_the_bounds() -> None:
    cell = load_chip("brram-256x64").cell
    start = jnp.array([3.0, 40.0, 90.0], jnp.float32)
    np.testing.assert_array_equal(blind_pulses(start, jnp.zeros(3), cell, jax.random.key(0)), start)
    moved = blind_pulses(start, jnp.array([0.0, 1.0, 0.0]), cell, jax.random.key(0))
    np.testing.assert_array_equal(moved != start, [False, True, False])


def test_pulses_of_the_ideal_chip_are_exact() -> None:
    cell = load_chip("ideal").cell
    moved = blind_pulses(jnp.float32(0.5), jnp.array([1.0, -7.0, 600.0]), cell, jax.random.key(0))
    np.testing.assert_array_equal(moved, [0.5 + 1 / 1024, 0.5 - 7 / 1024, 1.0])


def test_pulses_of_a_chip_without_a_pulse_response_are_refused() -> None:
    cell = load_chip("ideal").cell.model_copy(update={"pulse": None})
    with pytest.raises(ValueError, match=r"\[cell\.pulse\]"):
        blind_pulses(jnp.zeros(3), jnp.ones(3), cell, jax.random.key(0))


# --- Reads ---


@pytest.mark.parametrize("chip", ["brram-soc", "brram-256x64"])
def test_reads_have_the_stated_noise_and_leave_the_devices_alone(chip: str) -> None:
    cell = load_chip(chip).cell
    conductance = jnp.full(COUNT, 30.0, jnp.float32)
    first, second = (
        np.asarray(read_cells(conductance, cell, jax.random.key(seed)), np.float64) - 30 for seed in (0, 1)
    )
    assert_moments(first, 0.0, cell.read_noise_uS)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5e-3


def test_a_read_without_noise_is_exact() -> None:
    conductance = jnp.linspace(0, 1, 100)
    np.testing.assert_array_equal(read_cells(conductance, load_chip("ideal").cell, jax.random.key(0)), conductance)
