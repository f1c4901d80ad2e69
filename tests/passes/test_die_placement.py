"""Placement around stuck cells, against brute force: every order of the lines, every target of the good devices."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.chip import load_chip
from passes.dies.assign import (
    Order,
    Wanted,
    as_mapped,
    best_order,
    bound,
    error,
    found_of,
    order_columns,
    order_rows,
)
from passes.dies.reach import Programmable, bounds, coefficients, compensate, held, programmable

CHIP = load_chip("brram-256x64")
PAIR, ANALOG = coefficients(CHIP), programmable(CHIP)
LEVELS = Programmable(0.0, 3.0, 1.0, np.arange(4, dtype=np.float32))


def draw_stuck(random: np.random.Generator, shape: tuple[int, ...], low: float, high: float) -> np.ndarray:
    """A third of the cells stuck: at either end, or in between."""
    stuck = np.full(shape, np.nan, np.float32)
    drawn = random.random(shape)
    stuck[drawn < 0.15] = low
    stuck[drawn > 0.85] = high
    between = (drawn > 0.5) & (drawn < 0.55)
    stuck[between] = random.uniform(low, high, shape)[between]
    return stuck


def draw_case(seed: int, rows: int, columns: int, high: int = 1, wide: int = 2):
    """An array of the mapping and one of a die, in units of that many lines."""
    random = np.random.default_rng(seed)
    wanted = Wanted(random.uniform(-1, 1, (rows, columns)), random.random((rows, columns)))
    wanted.importance[random.random((rows, columns)) < 0.1] = 0
    return wanted, found_of(draw_stuck(random, (1, high, wide, rows, columns), 10, 70), PAIR, ANALOG)


@pytest.mark.parametrize("seed", range(6))
def test_rows_are_the_best_of_all_orders_with_the_columns_given_and_columns_with_the_rows(seed: int) -> None:
    wanted, found = draw_case(seed, 4, 5)
    straight = as_mapped(4, 5)
    orders = [replace(straight, row=np.array(rows)) for rows in permutations(range(4))]
    least = min(error(wanted, found, order) for order in orders)
    assert error(wanted, found, order_rows(wanted, found, straight)) == pytest.approx(least, abs=1e-12)
    wanted, found = draw_case(seed, 5, 4)
    straight = as_mapped(5, 4)
    # Both places of G+ and G- in every pair of bit lines.
    orders = [
        replace(straight, column=np.array(columns), column_reversed=np.array(turned))
        for columns in permutations(range(4))
        for turned in product((0, 1), repeat=4)
    ]
    least = min(error(wanted, found, order) for order in orders)
    assert error(wanted, found, order_columns(wanted, found, straight)) == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_pairs_in_rows_are_turned_as_those_in_columns_are(seed: int) -> None:
    wanted, found = draw_case(seed, 4, 3, high=2, wide=1)
    straight = as_mapped(4, 3)
    orders = [
        replace(straight, row=np.array(rows), row_reversed=np.array(turned))
        for rows in permutations(range(4))
        for turned in product((0, 1), repeat=4)
    ]
    least = min(error(wanted, found, order) for order in orders)
    assert error(wanted, found, order_rows(wanted, found, straight)) == pytest.approx(least, abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_no_order_of_both_is_below_the_bound_and_turns_gain(seed: int) -> None:
    wanted, found = draw_case(seed, 4, 3)
    reached = error(wanted, found, best_order(wanted, found))
    every = [
        error(wanted, found, Order(np.array(rows), np.array(columns), np.zeros(4, int), np.array(turned)))
        for rows in permutations(range(4))
        for columns in permutations(range(3))
        for turned in product((0, 1), repeat=3)
    ]
    assert bound(wanted, found) <= min(every) + 1e-12
    assert min(every) - 1e-12 <= reached <= error(wanted, found, as_mapped(4, 3))
    assert reached < np.median(every) / 2


def test_the_bound_is_above_nothing_where_every_weight_must_lose() -> None:
    wanted = Wanted(np.full((3, 3), 0.5), np.ones((3, 3)))
    found = found_of(np.full((1, 1, 2, 3, 3), 10, np.float32), PAIR, ANALOG)
    assert bound(wanted, found) == pytest.approx(9 * 0.25) == error(wanted, found, best_order(wanted, found))


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_good_devices_of_pairs_come_as_near_as_any_levels(seed: int) -> None:
    random = np.random.default_rng(seed)
    targets = random.integers(0, 4, (2, 3, 4)).astype(np.float32)
    stuck = draw_stuck(random, targets.shape, 0, 3)
    counts = np.array([1.0, -1.0])
    made = compensate(targets, stuck, counts, LEVELS)
    there = held(targets, stuck, LEVELS)
    for place in np.ndindex(targets.shape[1:]):
        free = [np.arange(4) if np.isnan(stuck[(d, *place)]) else [there[(d, *place)]] for d in range(2)]
        goal = targets[(0, *place)] - targets[(1, *place)]
        least = min(abs(plus - minus - goal) for plus, minus in product(*free))
        assert abs(made[(0, *place)] - made[(1, *place)] - goal) == pytest.approx(least, abs=1e-6)
        if all(np.isnan(stuck[(slice(None), *place)])):
            np.testing.assert_array_equal(made[(slice(None), *place)], targets[(slice(None), *place)])


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000))
def test_devices_of_any_number_stay_within_bounds_and_lose_no_more_than_without(seed: int) -> None:
    """Two slices of two bits and their pairs: 4, 1, -4, -1."""
    random = np.random.default_rng(seed)
    counts = np.array([4.0, 1.0, -4.0, -1.0])
    targets = random.integers(0, 4, (4, 2, 3)).astype(np.float32)
    stuck = draw_stuck(random, targets.shape, 0, 3)
    made, before = compensate(targets, stuck, counts, LEVELS), held(targets, stuck, LEVELS)
    good = np.isnan(stuck)
    assert set(np.unique(made[good])) <= {0.0, 1.0, 2.0, 3.0}
    np.testing.assert_array_equal(made[~good], before[~good])
    goal, reached, without = (np.tensordot(counts, part, axes=1) for part in (targets, made, before))
    assert np.all(np.abs(reached - goal) <= np.abs(without - goal) + 1e-6)
    low, high = bounds(np.where(good, np.float32(np.nan), before), counts, LEVELS)
    assert np.all((reached >= low - 1e-6) & (reached <= high + 1e-6))


def test_analog_pairs_miss_a_weight_by_its_distance_from_what_they_can_hold() -> None:
    random = np.random.default_rng(1)
    targets = np.stack([np.full((20, 20), 10.0), random.uniform(10, 70, (20, 20))]).astype(np.float32)
    targets = np.round(targets / ANALOG.step).astype(np.float32) * np.float32(ANALOG.step)
    stuck = draw_stuck(random, targets.shape, 10, 70)
    made = compensate(targets, stuck, PAIR, ANALOG)
    low, high = bounds(stuck, PAIR, ANALOG)
    goal, reached = (np.tensordot(PAIR, part.astype(float), axes=1) for part in (targets, made))
    np.testing.assert_allclose(np.abs(reached - goal), np.abs(goal - np.clip(goal, low, high)), atol=ANALOG.step / 60)
