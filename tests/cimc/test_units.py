"""Targets of differential pairs: on the levels that a chip has, alike in NumPy and JAX, and those of the reference."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from cimc.chip import Cell, Chip, load_chip
from cimc.units import device_targets
from tests.reference import pair_target

LISTED = (10.0, 11.5, 30.0, 64.0)


def chip_with(name: str = "brram-256x64", **changes: object) -> Chip:
    chip = load_chip(name)
    cell = Cell.model_validate({**chip.cell.model_dump(), "granularity_uS": None} | changes)
    return chip.model_copy(update={"cell": cell})


def all_targets(chip: Chip) -> np.ndarray:
    """The targets of weights spread over twice the range, both ends and all places between levels among them."""
    weight = np.linspace(-2, 2, 40_001, dtype=np.float32)[None]
    return np.asarray(device_targets(weight, np.float32(1), chip))


@pytest.mark.parametrize("name", ["brram-256x64", "brram-soc", "hermes", "ideal"])
@pytest.mark.parametrize("levels", [2, 3, 4, 16, 64])
def test_a_chip_with_levels_has_no_other_targets(name: str, levels: int) -> None:
    chip = chip_with(name, levels=levels)
    found = np.unique(all_targets(chip))
    assert len(found) == levels
    expected = np.linspace(chip.cell.conductance_min_uS, chip.cell.conductance_max_uS, levels)
    np.testing.assert_allclose(found, expected, atol=1.01 * chip.target_step_uS)


def test_listed_levels_are_the_targets_and_the_first_is_idle() -> None:
    chip = chip_with(level_uS=list(LISTED))
    targets = all_targets(chip)
    np.testing.assert_allclose(np.unique(targets), LISTED, atol=1.01 * chip.target_step_uS)
    np.testing.assert_allclose(targets.min(axis=0), 10.0, atol=1.01 * chip.target_step_uS)


@pytest.mark.parametrize("changes", [{"levels": 2}, {"levels": 16}, {"level_uS": list(LISTED)}, {}])
def test_targets_are_those_of_the_reference(changes: dict[str, Any]) -> None:
    chip = chip_with(**changes)
    weight = np.random.default_rng(0).normal(0, 0.5, (40, 30)).astype(np.float32)
    targets = device_targets(weight, np.float32(0.7), chip)
    expected = np.array([[pair_target(w, 0.7, chip) for w in row] for row in weight.tolist()])
    np.testing.assert_allclose(np.moveaxis(targets, 0, 2), expected, atol=1.01 * chip.target_step_uS)


@pytest.mark.parametrize("changes", [{"levels": 2}, {"levels": 3}, {"levels": 1000}, {"level_uS": list(LISTED)}])
def test_numpy_and_jax_snap_alike(changes: dict[str, Any]) -> None:
    chip = chip_with(**changes)
    snap = jax.jit(lambda weight, weight_range: device_targets(weight, weight_range, chip))
    held = np.linspace(0, 1, changes["levels"]) if "levels" in changes else (np.array(LISTED) - LISTED[0]) / 60
    middles = (held[1:] + held[:-1]) / 2

    @settings(deadline=None, max_examples=20)
    @given(seed=st.integers(0, 2**32 - 1), weight_range=st.floats(0.01, 10))
    @example(seed=72, weight_range=5.465976204806271)
    def check(seed: int, weight_range: float) -> None:
        weight = np.random.default_rng(seed).uniform(-12, 12, (50, 40)).astype(np.float32)
        weight[0, :3] = [0.0, weight_range, -weight_range]
        here = device_targets(weight, np.float32(weight_range), chip)
        there = snap(jnp.asarray(weight), jnp.float32(weight_range))
        assert here.dtype == there.dtype == np.float32
        # XLA may round the division otherwise, in the last bit: a weight halfway between two levels may take either.
        fraction = np.clip(weight / weight_range, -1, 1)
        shares = np.stack([np.maximum(fraction, 0), np.maximum(-fraction, 0)])[here != there]
        assert np.all(np.min(np.abs(shares[:, None] - middles), axis=1, initial=1.0) < 1e-6)

    check()


@pytest.mark.parametrize("changes", [{"levels": 16}, {"level_uS": list(LISTED)}])
def test_levels_lie_on_the_target_grid_within_the_window(changes: dict[str, Any]) -> None:
    chip = chip_with(**changes)
    targets = np.unique(all_targets(chip)).astype(np.float64)
    np.testing.assert_array_equal(targets / chip.target_step_uS, np.round(targets / chip.target_step_uS))
    assert targets.min() >= chip.cell.conductance_min_uS
    assert targets.max() <= chip.cell.conductance_max_uS
