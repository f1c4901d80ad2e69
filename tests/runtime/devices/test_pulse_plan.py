"""Plans: the pulses that a change of weights takes, and the refresh of one-sided pairs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from cimc.chip import Cell, load_chip
from cimc.device_pulse import (
    Binary,
    Exponential,
    ExponentialStep,
    Linear,
    Piecewise,
    Power,
    Pulse,
    SoftBounds,
    Tabulated,
)
from runtime.devices.device import device_of
from runtime.devices.pulse_laws import step_factor
from runtime.devices.pulse_plan import find_full_pairs


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


# --- Laws that follow the state ---

LAWS = [
    SoftBounds(law="soft-bounds", step_uS=4.0),
    SoftBounds(law="soft-bounds", step_uS=1.0, step_down_uS=2.5),
    SoftBounds(law="soft-bounds", step_uS=30.0),  # two states
    Linear(step_uS=4.0, step_down_uS=3.0),
    Exponential(law="exponential", step_uS=2.0, nonlinearity=3.0, nonlinearity_down=-2.0),
    Exponential(law="exponential", step_uS=2.0, nonlinearity=0.0, nonlinearity_down=6.0),
    ExponentialStep(law="exponential-step", step_uS=1.5),
    Power(law="power", step_uS=2.0, exponent=1.7, exponent_down=0.5),
    Piecewise(law="piecewise", step_uS=2.0, factors=(1.8, 1.0, 0.2)),
    Tabulated(law="tabulated", step_uS=3.0, curve_uS=(0.0, 20.0, 35.0, 48.0, 58.0, 64.0)),
]


def largest_step(cell: Cell) -> float:
    """The largest mean step of a pulse anywhere in the window, of the weight range."""
    assert cell.pulse is not None
    states = np.linspace(0, 64, 257)
    factors = [np.max(step_factor(states, up=up, low=0.0, high=64.0, cell=cell)) for up in (True, False)]
    return float(max(cell.pulse.step_uS * factors[0], cell.pulse.down_uS * factors[1]) / 64)


@pytest.mark.parametrize("directions", ["both", "up"])
@pytest.mark.parametrize("pulse", LAWS, ids=lambda pulse: f"{pulse.law_name} {pulse.step_uS:g}")
def test_the_pulses_of_a_plan_end_within_a_step_of_the_target(pulse: Pulse, directions: str) -> None:
    cell = plain_cell().model_copy(update={"pulse": pulse.model_copy(update={"directions": directions})})
    device = device_of(cell)

    @jax.jit
    def write(change: Array, base: Array) -> tuple[Array, Array, Array]:
        pulses, aimed = device.plan(change, base, weight_range=jnp.float32(1))
        held = jnp.stack([jnp.maximum(base, 0), jnp.maximum(-base, 0)]) * 64
        return pulses, aimed, device.pulse(held, pulses, jax.random.key(0))

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 2**31 - 1))
    def ends_there(seed: int) -> None:
        random = np.random.default_rng(seed)
        base = random.uniform(-0.8, 0.8, 256).astype(np.float32)
        target = random.uniform(-0.8, 0.8, 256)
        if directions == "up":  # what the pair can do without a refresh
            target = np.sign(base) * random.uniform(np.abs(base), 0.8)
        pulses, aimed, after = (np.asarray(a) for a in write(jnp.float32(target - base), jnp.asarray(base)))
        reached = (after[0] - after[1]) / 64
        assert np.all(np.abs(reached - target) <= largest_step(cell) + 1e-3)
        # A staircase that is interpolated between its own nodes knows the way from elsewhere to a part of a step.
        np.testing.assert_allclose(aimed, reached, atol=0.15 * largest_step(cell))
        assert np.all(after >= 0)
        assert np.all(after <= 64)
        np.testing.assert_array_equal(pulses, np.round(pulses))

    ends_there()


@pytest.mark.parametrize("pulse", LAWS, ids=lambda pulse: f"{pulse.law_name} {pulse.step_uS:g}")
def test_pulses_rounded_by_chance_are_on_average_what_is_asked(pulse: Pulse) -> None:
    """Also near 0, where a step is longer than in the middle, and where a device is too near its bound to fall."""
    cell, draws = plain_cell().model_copy(update={"pulse": pulse}), 20_000
    bases, changes = (
        jnp.repeat(jnp.ravel(grid)[:, None], draws, axis=1)
        for grid in jnp.meshgrid(jnp.array([0.0, 0.03, 0.3, -0.5]), jnp.array([0.004, -0.004, 0.03, -0.03]))
    )
    chance = jax.random.uniform(jax.random.key(0), (2, *bases.shape))
    pulses, after = device_of(cell).plan(changes, bases, weight_range=jnp.float32(1), chance=chance)
    np.testing.assert_array_equal(pulses, np.round(pulses))
    gained = np.asarray(after - bases, np.float64)
    np.testing.assert_array_less(
        abs(gained.mean(axis=1) - np.asarray(changes[:, 0])), 5 * gained.std(axis=1) / np.sqrt(draws) + 1e-5
    )


@pytest.mark.parametrize("pulse", LAWS, ids=lambda pulse: pulse.law_name)
def test_a_plan_asks_for_no_pulse_that_a_device_at_its_bound_cannot_take(pulse: Pulse) -> None:
    cell = plain_cell().model_copy(update={"pulse": pulse})
    for change, base, held in ((0.5, 1.0, (64.0, 0.0)), (-0.5, -1.0, (0.0, 64.0)), (0.5, 1.0, (70.0, -2.0))):
        pulses, aimed = planned(cell, change, base, held)
        assert pulses == [0, 0]
        assert aimed == pytest.approx(base)


def test_less_than_half_a_pulse_where_the_device_is_takes_none_and_stays_wanted() -> None:
    # At 60 of 64 uS a SET pulse of soft bounds is 4 (64 - 60) / 32 = 0.5 uS; at 0 it is 8 uS.
    cell = plain_cell().model_copy(update={"pulse": SoftBounds(law="soft-bounds", step_uS=4.0)})
    assert planned(cell, 3.7 / 64, 0.0) == ([0, 0], 0.0)
    assert planned(cell, 4.5 / 64, 0.0)[0] == [1, 0]
    pulses, aimed = planned(cell, 0.6 / 64, 60 / 64)
    assert pulses == [1, 0]
    assert aimed == pytest.approx(60.5 / 64)


@pytest.mark.parametrize(
    ("weight", "held", "pulses"),
    [
        (1.0, (0.0, 0.0), [1, 0]),
        (0.4, (0.0, 0.0), [0, 0]),
        (-1.0, (64.0, 0.0), [-1, 1]),
        (0.2, (64.0, 0.0), [-1, 0]),
        (1.0, (60.0, 3.0), [0, 0]),
    ],
)
def test_a_binary_device_takes_one_pulse_where_it_is_on_the_wrong_side(
    weight: float, held: tuple[float, float], pulses: list[float]
) -> None:
    cell = plain_cell().model_copy(update={"pulse": Binary(law="binary", step_uS=64.0)})
    base = (held[0] - held[1]) / 64
    assert planned(cell, weight - base, base, held)[0] == pulses


def test_one_sided_devices_answer_a_decrease_with_the_other_device() -> None:
    cell = plain_cell().model_copy(update={"pulse": Linear(step_uS=4.0, directions="up")})
    assert planned(cell, -0.25, 0.5) == ([0, 4], 0.25)
    assert planned(cell, 0.25, 0.5) == ([4, 0], 0.75)


def test_one_sided_pairs_without_room_are_found_and_a_plan_writes_them_anew() -> None:
    law = SoftBounds(law="soft-bounds", step_uS=2.0, directions="up")
    cell = plain_cell().model_copy(update={"pulse": law})
    held = jnp.array([[63.0, 63.0, 20.0, 5.0, 0.0], [40.0, 0.0, 10.0, 63.5, 0.0]])
    full = find_full_pairs(held, cell=cell)
    np.testing.assert_array_equal(full, [True, False, False, True, False])  # the second is just a large weight
    weight, idle = (held[0] - held[1]) / 64, jnp.zeros_like(held)
    pulses, _ = device_of(cell).plan(weight, weight * 0, weight_range=jnp.float32(1), held=idle)
    after = device_of(cell).pulse(idle, pulses, jax.random.key(0))
    np.testing.assert_allclose((after[0] - after[1])[full], [23.0, -58.5], atol=4.0)
    assert np.min(after, axis=0).tolist() == [0] * 5
