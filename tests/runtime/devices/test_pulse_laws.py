"""Pulse laws: staircases against a scalar calculation by hand; noise, traits and bounds of laws with a state."""

import math
from collections.abc import Callable
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import Array

from cimc.chip import Cell, load_chip
from cimc.device_pulse import (
    LAWS,
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
from runtime.devices.pulse_laws import PULSE_LAWS, neurosim_a
from runtime.devices.pulses import draw_write_noise
from tests.runtime.devices.moments import COUNT, assert_moments

LOW, HIGH, MIDDLE = 10.0, 50.0, 30.0


def cell_with(pulse: Pulse, **changes: Any) -> Cell:
    """A window of 10 to 50 uS."""
    window = {"conductance_min_uS": LOW, "conductance_max_uS": HIGH, "limits_uS": None}
    return load_chip("ideal").cell.model_copy(update={**window, "pulse": pulse, **changes})


def staircase(cell: Cell, start: float, pulses: int, sign: int) -> list[float]:
    """Conductances after 0, 1, .. pulses, one device each."""
    counts = jnp.arange(pulses + 1, dtype=jnp.float32) * sign
    held = jnp.full(pulses + 1, start, jnp.float32)
    return np.asarray(device_of(cell).pulse(held, counts, jax.random.key(0))).tolist()


def test_every_law_that_a_chip_file_may_name_has_its_row() -> None:
    assert set(PULSE_LAWS) == {get_args(law.model_fields["law"].annotation)[0] for law in LAWS}


def test_a_chip_that_names_no_law_is_linear() -> None:
    assert Linear(step_uS=1.0) == Linear(step_uS=1.0, law="linear")


def test_a_law_that_is_not_in_the_table_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="linear"):
        Linear.model_validate({"step_uS": 1.0, "law": "lineer"})


# --- Staircases by hand ---


def test_the_staircase_of_soft_bounds_shrinks_to_nothing_at_the_bound() -> None:
    cell = cell_with(SoftBounds(law="soft-bounds", step_uS=2.0, step_down_uS=3.0))
    up, down = [LOW], [HIGH]
    for _ in range(50):
        up.append(up[-1] + 2.0 * (HIGH - up[-1]) / (HIGH - MIDDLE))
        down.append(down[-1] - 3.0 * (down[-1] - LOW) / (MIDDLE - LOW))
    np.testing.assert_allclose(staircase(cell, LOW, 50, +1), up, rtol=1e-5)
    np.testing.assert_allclose(staircase(cell, HIGH, 50, -1), down, rtol=1e-5)


@pytest.mark.parametrize(("label", "label_down"), [(2.4, 4.88), (-1.0, 0.0), (6.0, -3.0)])
def test_the_staircase_of_the_exponential_law_is_neurosims_curve(label: float, label_down: float) -> None:
    law = Exponential(law="exponential", step_uS=0.8, nonlinearity=label, nonlinearity_down=label_down)
    cell = cell_with(law)

    def curve(n: int, label: float) -> float:
        """Of the window, after n of 50 pulses."""
        if label == 0:
            return n / 50
        a = neurosim_a(label) * 50
        return (1 - math.exp(-n / a)) / (1 - math.exp(-50 / a))

    up = [LOW + 40 * curve(n, label) for n in range(51)]
    down = [HIGH - 40 * curve(n, label_down) for n in range(51)]
    np.testing.assert_allclose(staircase(cell, LOW, 50, +1), up, rtol=2e-5)
    np.testing.assert_allclose(staircase(cell, HIGH, 50, -1), down, rtol=2e-5)


@pytest.mark.parametrize(
    ("label", "a"),
    [(0.01, 126.269), (0.19, 6.6437), (1.51, 0.8195), (3.01, 0.3853), (4.51, 0.2266), (6.01, 0.1351), (7.51, 0.0702)],
)
def test_a_is_that_of_neurosims_table(label: float, a: float) -> None:
    assert neurosim_a(label) == pytest.approx(a, abs=5.1e-5, rel=5e-6)
    assert neurosim_a(-label) == pytest.approx(-a, abs=5.1e-5, rel=5e-6)


def test_a_one_sided_device_climbs_and_ignores_reset_pulses() -> None:
    cell = cell_with(SoftBounds(law="soft-bounds", step_uS=2.0, directions="up"))
    up = [LOW]
    for _ in range(50):
        up.append(up[-1] + 2.0 * (HIGH - up[-1]) / (HIGH - MIDDLE))
    np.testing.assert_allclose(staircase(cell, LOW, 50, +1), up, rtol=1e-5)
    np.testing.assert_array_equal(staircase(cell, HIGH, 50, -1), [HIGH] * 51)


def test_the_step_of_gongs_device_falls_exponentially_towards_both_bounds() -> None:
    cell = cell_with(ExponentialStep(law="exponential-step", step_uS=2.0))
    up, down = [LOW], [HIGH]
    for _ in range(50):
        z = 2 * 0.244 * (up[-1] - MIDDLE) / 40 + 0.2425
        up.append(up[-1] + 2.0 * max(1 - 0.00081 * math.exp(12.44625 * z), 0))
        z = 2 * 0.244 * (down[-1] - MIDDLE) / 40 + 0.2425
        down.append(down[-1] - 2.0 * max(1 - 0.36833 * math.exp(-12.78785 * z), 0))
    np.testing.assert_allclose(staircase(cell, LOW, 50, +1), np.minimum(up, HIGH), rtol=1e-5)
    np.testing.assert_allclose(staircase(cell, HIGH, 50, -1), np.maximum(down, LOW), rtol=1e-5)


def test_the_step_of_the_power_law_is_the_stated_one_at_the_middle() -> None:
    cell = cell_with(Power(law="power", step_uS=2.0, exponent=1.5, exponent_down=0.5))
    up, down = [LOW], [HIGH]
    for _ in range(50):
        up.append(up[-1] + 2.0 * (2 * (HIGH - up[-1]) / 40) ** 1.5)
        down.append(max(down[-1] - 2.0 * (2 * (down[-1] - LOW) / 40) ** 0.5, LOW))
    np.testing.assert_allclose(staircase(cell, LOW, 50, +1), up, rtol=1e-5)
    np.testing.assert_allclose(staircase(cell, HIGH, 50, -1), down, rtol=1e-4)
    assert staircase(cell, MIDDLE, 1, +1)[1] == pytest.approx(MIDDLE + 2.0)


def test_the_step_of_a_piecewise_law_is_read_off_between_its_nodes() -> None:
    cell = cell_with(
        Piecewise(law="piecewise", step_uS=2.0, factors=(1.5, 1.0, 0.5), factors_down=(0.2, 0.4, 0.9, 1.2))
    )
    assert staircase(cell, 20.0, 1, +1)[1] == pytest.approx(20.0 + 2.0 * 1.25)
    assert staircase(cell, 45.0, 1, +1)[1] == pytest.approx(45.0 + 2.0 * 0.625)
    assert staircase(cell, 30.0, 1, -1)[1] == pytest.approx(30.0 - 2.0 * 0.65)
    assert staircase(cell, HIGH, 1, -1)[1] == pytest.approx(HIGH - 2.0 * 1.2)
    mirrored = cell_with(Piecewise(law="piecewise", step_uS=2.0, factors=(1.5, 1.0, 0.5)))
    assert staircase(mirrored, 40.0, 1, -1)[1] == pytest.approx(40.0 - 2.0 * 1.25)


def test_a_tabulated_law_returns_its_curves_and_passes_between_their_points() -> None:
    up, down = (12.0, 20.0, 26.0, 30.0, 32.0), (40.0, 25.0, 20.0, 18.0)
    cell = cell_with(Tabulated(law="tabulated", step_uS=4.0, curve_uS=up, curve_down_uS=down))
    np.testing.assert_allclose(staircase(cell, 12.0, 6, +1), [*up, 32.0, 32.0], rtol=1e-6)
    np.testing.assert_allclose(staircase(cell, 40.0, 5, -1), [*down, 18.0, 18.0], rtol=1e-6)
    np.testing.assert_allclose(staircase(cell, 16.0, 2, +1), [16.0, 23.0, 28.0], rtol=1e-6)


def test_a_binary_device_switches_with_its_probability_or_stays() -> None:
    cell = cell_with(Binary(law="binary", step_uS=40.0, probability=0.3, probability_down=0.8))
    key = jax.random.key(3)
    for held, pulses, switched in ((LOW, 1.0, 0.3), (LOW, 3.0, 1 - 0.7**3), (HIGH, -1.0, 0.8), (HIGH, -2.0, 0.96)):
        after = np.asarray(device_of(cell).pulse(jnp.full(COUNT, held), jnp.float32(pulses), key))
        assert set(np.unique(after)) == {LOW, HIGH}
        assert np.mean(after != held) == pytest.approx(switched, abs=5 * math.sqrt(0.25 / COUNT))


# --- Noise, traits, bounds ---


@pytest.mark.parametrize(("of", "sd"), [("step", 0.3 * 1.5), ("nominal-step", 0.3 * 2.0), ("window", 0.3 * 40.0)])
@pytest.mark.parametrize("law", ["linear", "soft-bounds"])
def test_cycle_to_cycle_noise_is_a_fraction_of_what_is_said(law: str, of: str, sd: float) -> None:
    # At 35 uS the step of soft bounds is 2 (50 - 35) / 20; bounds far away let all of the noise be seen.
    made: Callable[..., Pulse] = Linear if law == "linear" else SoftBounds
    cell = cell_with(made(law=law, step_uS=2.0, c2c=0.3, c2c_of=of))
    mean = 2.0 if law == "linear" else 1.5
    sd = sd if of != "step" else 0.3 * mean
    high = jnp.full(COUNT, HIGH, jnp.float32)
    start = jnp.full(COUNT, 35.0, jnp.float32)
    bounds = {"low": high - 1000, "high": high if law != "linear" else high + 1000}
    if law != "linear" and of == "window":
        cell = cell_with(made(law=law, step_uS=2.0, c2c=0.03, c2c_of=of))
        sd /= 10
    moved = np.asarray(device_of(cell).pulse(start, jnp.float32(1), jax.random.key(1), bounds)) - 35.0
    assert_moments(moved, mean, sd)


def test_pulses_with_a_state_have_noise_of_their_own() -> None:
    cell = cell_with(SoftBounds(law="soft-bounds", step_uS=0.2, c2c=2.0, c2c_of="nominal-step"))
    start = jnp.full(COUNT, MIDDLE, jnp.float32)
    moved = np.asarray(device_of(cell).pulse(start, jnp.float32(9), jax.random.key(1))) - MIDDLE
    # room shrinks by r = 1 - 0.01 a pulse, and so does what noise is in it
    shrinks = 0.99 ** np.arange(9)
    assert_moments(moved, 20 * (1 - 0.99**9), 0.4 * math.sqrt(np.sum(shrinks**2)))


def test_each_device_has_its_own_step_and_bounds() -> None:
    cell = cell_with(SoftBounds(law="soft-bounds", step_uS=2.0))
    traits = {
        "step_up": jnp.array([1.0, 3.0, 1.0]),
        "step_down": jnp.array([4.0, 5.0, 4.0]),
        "low": jnp.array([0.0, 10.0, 20.0]),
        "high": jnp.array([40.0, 60.0, 50.0]),
    }
    start = jnp.array([35.0, 35.0, 35.0])
    up = device_of(cell).pulse(start, jnp.ones(3), jax.random.key(0), traits)
    np.testing.assert_allclose(up, [35 + 1 * 5 / 10, 35 + 3 * 25 / 30, 35 + 1 * 15 / 20], rtol=1e-6)
    down = device_of(cell).pulse(start, -jnp.ones(3), jax.random.key(0), traits)
    np.testing.assert_allclose(down, [35 - 4 * 35 / 30, 35 - 5 * 25 / 20, 35 - 4 * 15 / 10], rtol=1e-6)


def test_write_noise_is_seen_but_not_held() -> None:
    cell = cell_with(SoftBounds(law="soft-bounds", step_uS=2.0, write_noise_uS=0.5))
    start, seen = jnp.full(COUNT, MIDDLE, jnp.float32), jnp.float32(0)
    for n in range(3):
        key = jax.random.key(n)
        start = device_of(cell).pulse(start, jnp.float32(1), key, {"seen": seen})
        seen = draw_write_noise(key, (COUNT,), cell=cell)
    assert_moments(np.asarray(start) - MIDDLE, 20 * (1 - 0.9**3), 0.5)


ANY_LAW = [
    Linear(step_uS=3.0, c2c=0.7),
    SoftBounds(law="soft-bounds", step_uS=3.0, c2c=0.5, c2c_of="nominal-step"),
    SoftBounds(law="soft-bounds", step_uS=20.0, step_down_uS=5.0, c2c=0.3),
    Exponential(law="exponential", step_uS=1.0, nonlinearity=4.0, nonlinearity_down=-2.0, c2c=0.1, c2c_of="window"),
    ExponentialStep(law="exponential-step", step_uS=1.0, c2c=0.5),
    Power(law="power", step_uS=2.0, exponent=1.7, c2c=1.0),
    Piecewise(law="piecewise", step_uS=2.0, factors=(2.0, 0.5, 0.1), c2c=0.5),
    Tabulated(law="tabulated", step_uS=2.0, curve_uS=(10.0, 25.0, 33.0, 45.0), c2c=0.5),
    Binary(law="binary", step_uS=40.0, probability=0.5),
]


@pytest.mark.parametrize("pulse", ANY_LAW, ids=lambda pulse: f"{pulse.law_name} {pulse.step_uS:g}")
def test_no_pulse_takes_a_device_beyond_its_own_bounds(pulse: Pulse) -> None:
    device = device_of(cell_with(pulse))

    @jax.jit
    def apply(start: Array, counts: Array, seed: Array, traits: dict[str, Array]) -> Array:
        return device.pulse(start, counts, jax.random.key(seed), traits)

    @settings(max_examples=10, deadline=None)
    @given(st.integers(0, 2**31 - 1))
    def stays(seed: int) -> None:
        random = np.random.default_rng(seed)
        low, high = (random.uniform(*ends, 256).astype(np.float32) for ends in ((0, 28), (32, 90)))
        steps = {name: random.uniform(0, 8, 256).astype(np.float32) for name in ("step_up", "step_down")}
        start, counts = random.uniform(low - 5, high + 5), random.integers(-12, 13, 256)
        before = start.astype(np.float32)
        traits = {name: jnp.asarray(values) for name, values in {**steps, "low": low, "high": high}.items()}
        after = np.asarray(apply(jnp.asarray(before), jnp.asarray(counts, jnp.float32), jnp.uint32(seed), traits))
        assert np.all(after >= np.minimum(low, before))
        assert np.all(after <= np.maximum(high, before))
        np.testing.assert_array_equal(after[counts == 0], before[counts == 0])

    stays()


def test_an_exponential_step_without_amplitude_is_linear_also_where_e_to_the_power_is_beyond_float32() -> None:
    law = ExponentialStep(law="exponential-step", step_uS=1.0, amplitude=0.0, amplitude_down=0.0, gamma=500.0)
    cell = cell_with(law)
    held = jnp.array([10.0, 30.0, 40.0])
    after = device_of(cell).pulse(held, jnp.ones(3), jax.random.key(0))
    np.testing.assert_allclose(after, held + 1.0, rtol=1e-6)
