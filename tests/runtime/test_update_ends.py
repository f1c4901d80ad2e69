"""Updates that end: no device is written for ever, and what can never be due, or does not fit, is refused."""

from collections.abc import Callable
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import Array

from cimc.chip import Cell, Chip
from cimc.errors import CimcError
from cimc.options import Backward, Sync, Write
from cimc.units import weight_of
from runtime.crossbar.keys import new_key
from runtime.training.options import Policy
from runtime.training.policies.policy import LayerState
from tests.runtime.layer_updates import COARSE, HERMES, IDEAL, QUIET, SHAPE, SOC, apply, change_layer, layer_of

# --- Options ---

NO_PULSE = COARSE.model_copy(update={"cell": COARSE.cell.model_copy(update={"pulse": None})})


@pytest.mark.parametrize(
    ("chip", "options", "message"),
    [
        (NO_PULSE, {"write": "pulse"}, r"brram-256x64 has no pulse response; .*--write verify"),
        (COARSE, {"sync": "none"}, r"--sync none .*--backward analog"),
        (COARSE, {"threshold": 1.0}, r"--threshold 1 .*0 to below 1"),
        (COARSE, {"threshold": -0.1}, r"--threshold is -0\.1, .*; give one from 0 on"),
        (COARSE, {"threshold": float("nan")}, r"--threshold is nan, .*; give one from 0 on"),
        (
            COARSE,
            {"method": "Naive"},
            r"no update policy; choose mixed-precision, naive, .*float, .*; did you mean naive\?",
        ),
        (COARSE, {"residual": "zero"}, r"residual is 'zero'; choose keep, drop$"),
    ],
)
def test_options_that_do_not_fit_are_one_line(chip: Chip, options: dict[str, Any], message: str) -> None:
    with pytest.raises(CimcError, match=message) as error:
        Policy(**options).check(chip)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "policy",
    [
        Policy(),
        Policy(write=Write.pulse),
        Policy(sync=Sync.none, backward=Backward.analog),
        Policy(threshold=0.0),
        Policy(method="naive"),
        Policy(method="float"),
    ],
)
def test_options_that_fit_pass(policy: Policy) -> None:
    policy.check(COARSE)


# --- Errors that no write can mend ---


def with_cell(chip: Chip, **changes: Any) -> Chip:
    cell = Cell.model_validate({**chip.cell.model_dump(), "granularity_uS": None, **changes})
    return chip.model_copy(update={"name": "-".join(map(str, changes.values())), "cell": cell})


EXACT = with_cell(COARSE, levels=16, read_noise_uS=0.0, programming={})


NOISY = with_cell(COARSE, levels=64)


UNEVEN = with_cell(COARSE, level_uS=[10.0, 14.0, 30.0, 50.0], read_noise_uS=0.0, programming={})


@cache
def steps_with(policy: Policy, chip: Chip) -> Callable[[LayerState, float, bool], LayerState]:
    """What a step of that size and 199 without a gradient make of a layer whose devices may all be stuck."""

    @jax.jit
    def steps(before: LayerState, size: Array, stuck: Array) -> LayerState:
        def one(n: Array, layer: LayerState) -> LayerState:
            step = jnp.where(n == 0, size, 0.0) * jnp.ones(layer.weight.shape)
            layer = change_layer(policy, chip, layer, step, jnp.float32(1), jax.random.fold_in(new_key(3), n))
            return layer._replace(conductance=jnp.where(stuck, before.conductance, layer.conductance))

        return jax.lax.fori_loop(0, 200, one, before)

    return steps


@pytest.mark.parametrize("sync", [Sync.readback, Sync.none])
@pytest.mark.parametrize("stuck", [False, True], ids=["idle device off", "and the active one stuck"])
@pytest.mark.parametrize("chip", [COARSE, SOC, HERMES, EXACT, NOISY, UNEVEN], ids=lambda chip: chip.name)
def test_an_error_that_no_write_mends_is_not_written_for_ever(chip: Chip, stuck: bool, sync: Any) -> None:
    """250 pairs, their idle devices off by up to 3 thresholds: one step up or down, then 199 without a gradient."""
    policy, count = Policy(sync=sync, backward=Backward.analog), 250
    threshold = policy.rule.threshold(chip)
    layer = layer_of(np.full(count, 0.4), chip)
    off = jnp.linspace(-1, 3, count) * threshold * chip.cell.window_uS
    idle = jnp.minimum(layer.conductance[1] + off, chip.cell.conductance_max_uS)
    before = layer.conductance.at[1].set(idle)
    start = layer._replace(conductance=before, weight=weight_of(before, jnp.float32(1), chip))
    for size in (1.2 * threshold, -1.2 * threshold):
        after = steps_with(policy, chip)(start, size, stuck)
        assert np.asarray(after.writes).max() <= 3
        assert np.asarray(after.updates).max() <= 3
        if stuck or sync == "none":
            continue
        # What was wanted is kept: in the devices and in the accumulator together, but for half a threshold of a miss.
        wanted = np.clip(np.asarray(start.weight) + size, -1, 1)
        kept = np.asarray(after.weight + after.memory["accumulator"]) - wanted
        written = np.asarray(after.updates) > 0
        if not written.any():  # of uneven levels the next one up is further than the step
            continue
        spread = np.sqrt(2) * (chip.cell.largest_error_sd_uS + chip.cell.read_noise_uS) / chip.cell.window_uS
        assert np.abs(kept[written]).mean() < 0.5 * threshold + spread


def test_the_active_device_makes_up_for_what_the_idle_one_holds() -> None:
    count, off = 4000, 0.1
    for chip, error in ((QUIET, 2.0), (IDEAL, 0.0)):
        layer = layer_of(np.full(count, 0.2), chip)
        held = layer.conductance + jnp.array([[0.0], [off * chip.cell.window_uS]], jnp.float32)
        after = apply(Policy(), chip, layer._replace(conductance=held), np.full(count, 0.3))
        np.testing.assert_array_equal(after.writes[1], 0)
        reached = np.asarray(weight_of(after.conductance, jnp.float32(1), chip), np.float64)
        assert reached.mean() == pytest.approx(0.5, abs=1e-5 + 5 * error / 60 / np.sqrt(count))


def test_a_mean_error_of_writes_does_not_push_the_weight_outward() -> None:
    """Both devices of a pair have it, so that it cancels: it must not be made up for and then added again."""
    for wanted, step in ((0.5, 0.4), (-0.5, -0.4)):
        count = 40_000
        layer = layer_of(np.full(count, wanted - step), SOC)
        mean = jnp.float32(1.0)  # uS, the chip's
        after = apply(Policy(), SOC, layer._replace(conductance=layer.conductance + mean), np.full(count, step))
        held = np.asarray(weight_of(after.conductance, jnp.float32(1), SOC), np.float64)
        assert held.mean() == pytest.approx(wanted, abs=0.003)


def test_an_idle_device_that_leaves_no_room_is_written_too() -> None:
    layer = layer_of(np.full(SHAPE, 0.5), QUIET)
    off = layer._replace(conductance=layer.conductance.at[1].add(20.0))  # a third of the window
    after = apply(Policy(), QUIET, off, np.full(SHAPE, 0.4))
    np.testing.assert_array_equal(after.writes, 1)
    assert np.abs(after.conductance[1] - 10).max() < 10


@pytest.mark.parametrize("sync", [Sync.target, Sync.readback])
def test_a_pulse_that_cannot_move_its_device_is_not_due(sync: Any) -> None:
    policy = Policy(write=Write.pulse, sync=sync)
    at_bound = layer_of(np.ones(SHAPE), QUIET)
    if sync == "readback":  # the idle device is off, so that the weight is not yet at its range
        at_bound = at_bound._replace(
            conductance=at_bound.conductance.at[1].add(1.0), weight=jnp.full(SHAPE, 59 / 60, jnp.float32)
        )
    after = apply(policy, QUIET, at_bound, *[np.full(SHAPE, 0.1)] * 20)
    np.testing.assert_array_equal(after.updates, 0)
    np.testing.assert_array_equal(after.trials, 0)


# --- Few levels ---


def with_levels(levels: int) -> Chip:
    """A chip with that many levels, exact writes and reads."""
    return with_cell(COARSE, levels=levels, read_noise_uS=0.0, programming={})


@pytest.mark.parametrize("levels", [2, 3, 4, 16])
def test_devices_of_few_levels_hold_levels_only_and_reach_all_of_them(levels: int) -> None:
    chip = with_levels(levels)
    allowed = np.round(np.linspace(10, 70, levels), 3)
    layer = layer_of(np.zeros(SHAPE), chip)
    seen = set()
    for sign in (1, -1):
        for index in range(80 * levels):
            layer = apply(Policy(), chip, layer, np.full(SHAPE, sign * 0.03), seed=index)
            values = np.unique(np.round(np.asarray(layer.conductance), 3))
            assert np.isin(values, allowed).all()
            seen.update(values.tolist())
        np.testing.assert_allclose(layer.weight, sign, atol=1e-5)
    assert seen == set(allowed.tolist())


def test_what_is_less_than_a_level_stays_in_the_accumulator() -> None:
    chip = with_levels(4)
    after = apply(Policy(), chip, layer_of(np.zeros(SHAPE), chip), np.full(SHAPE, 0.45))
    np.testing.assert_allclose(after.weight, 1 / 3, atol=1e-5)
    np.testing.assert_allclose(after.memory["accumulator"], 0.45 - 1 / 3, atol=1e-5)


def test_levels_that_end_below_the_window_do_not_wind_up_the_accumulator() -> None:
    after = apply(Policy(), UNEVEN, layer_of(np.zeros(SHAPE), UNEVEN), *[np.full(SHAPE, 0.02)] * 100)
    np.testing.assert_allclose(after.weight, 40 / 60, atol=1e-5)
    assert np.asarray(after.memory["accumulator"]).max() <= 10 / 60 + 1e-5


def test_naive_keeps_nothing_of_a_step_below_a_level() -> None:
    after = apply(Policy(method="naive"), EXACT, layer_of(np.zeros(SHAPE), EXACT), *[np.full(SHAPE, 0.01)] * 50)
    np.testing.assert_array_equal(after.weight, 0)
    np.testing.assert_array_equal(after.memory["accumulator"], 0)


def test_two_levels_are_trained_and_a_threshold_that_nothing_passes_is_refused() -> None:
    two = with_levels(2)
    Policy(threshold=1.0).check(two)
    for chip, threshold in ((two, 1.5), (COARSE, 1.0)):
        with pytest.raises(CimcError, match="give one from 0 to below"):
            Policy(threshold=threshold).check(chip)


def test_a_threshold_below_a_level_does_not_write_a_biased_device_for_ever() -> None:
    """What is missed may be more than a threshold: 5 levels, writes 6 uS too high, one step, then none."""
    biased = with_cell(COARSE, levels=5, read_noise_uS=0.0, programming={"error_mean_uS": 6.0})
    policy, layer = Policy(threshold=0.05), layer_of(np.zeros(SHAPE), biased)
    after = apply(policy, biased, layer, np.full(SHAPE, 0.3), *[np.zeros(SHAPE)] * 8)
    assert np.asarray(after.updates).max() <= 2


def test_a_device_that_can_never_be_due_is_refused() -> None:
    ends_early = with_cell(COARSE, level_uS=[10.0, 20.0]).cell.model_copy(update={"granularity_uS": 50.0})
    with pytest.raises(CimcError, match=r"the granularity of the device, 0\.8\d* .*--threshold from 0 to below 0\.25"):
        Policy().check(COARSE.model_copy(update={"cell": ends_early}))


def test_options_of_the_policy_given_by_name_are_those_that_everything_else_sees() -> None:
    given = Policy(settings=(("sync", "target"), ("threshold", "0.5")))
    assert given == Policy(sync=Sync.target, threshold=0.5)
    with pytest.raises(CimcError, match=r"--sync none .*--backward analog"):
        Policy(settings=(("sync", "none"),)).check(COARSE)
    Policy(method="float", sync=Sync.none, write=Write.pulse).check(NO_PULSE)  # asks no policy
