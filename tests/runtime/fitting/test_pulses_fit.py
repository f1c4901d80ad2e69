"""Fits of pulse laws: data drawn from a law give that law, and its figures within the stated confidence."""

import time
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip_cell import Cell
from runtime.crossbar.keys import new_key
from runtime.devices.device import device_of
from runtime.devices.pulse_laws import step_factor
from runtime.fitting.law_keys import FittedShape, law_keys
from runtime.fitting.pulse_trains import PulseTrains, rows_by_device, steps_of, without_outliers
from runtime.fitting.pulses import PulseFit, fit_pulses
from runtime.fitting.shapes import FIXED, SHAPES
from runtime.fitting.sides import sides_of
from tests.runtime.fitting.drawn_trains import C2C, DOWN, HIGH, LOW, SPREADS, STEP, drawn

TRUE = {
    "conductance_min_uS": LOW,
    "conductance_max_uS": HIGH,
    "pulse.step_uS": STEP,
    "pulse.step_down_uS": DOWN,
    "pulse.c2c": C2C,
} | {f"pulse.{key}": value for key, value in SPREADS.items()}


def assert_within_confidence(found: PulseFit, true: dict[str, float]) -> None:
    """All figures within 3 standard errors (1.5 intervals to one side), all but two within the 95 % interval, and that
    narrow enough to say something. Of nine figures of one drawing, one lies outside of its interval every other time.
    """
    inside = 0
    for key, value in true.items():
        one = found.figures[key]
        assert abs(one.value - value) <= 1.5 * (one.high - one.value), (key, one)
        assert one.high - one.value < 0.3 * max(abs(value), 0.05 * HIGH if key.startswith("conductance") else 0), key
        inside += one.low <= value <= one.high
    assert inside >= len(true) - 2


@pytest.mark.parametrize("law", ["soft-bounds", "linear"])
@pytest.mark.parametrize(("outliers", "missing"), [(0.0, 0.0), (0.02, 0.05)])
def test_a_device_returns_its_law_and_figures(law: str, outliers: float, missing: float) -> None:
    found = fit_pulses(drawn(law, outliers=outliers, missing=missing))
    assert (found.law, found.settings["c2c_of"], found.devices) == (law, "step", 100)
    assert found.scores[law][0] == min(score for score, _ in found.scores.values())
    if outliers:
        assert 0.5 * outliers * 20_000 < found.outliers < 1.5 * outliers * 20_000
    else:
        assert found.outliers == 0
    assert_within_confidence(found, TRUE)


def test_a_power_law_is_told_from_soft_bounds() -> None:
    found = fit_pulses(drawn("power", exponent=2.0, devices=50, bounds=False))
    assert found.law == "power"
    assert found.figures["pulse.exponent"].value == pytest.approx(2.0, abs=0.15)
    assert found.figures["pulse.exponent_down"].value == pytest.approx(2.0, abs=0.15)


def test_the_runtimes_own_device_returns_its_figures() -> None:
    """Traits and pulses of the runtime: what a description's spreads mean is the same in the fit."""
    pulse = {"law": "soft-bounds", "step_uS": STEP, "step_down_uS": DOWN, "c2c": C2C, **SPREADS}
    cell = Cell.model_validate(
        {
            "technology": "test",
            "conductance_min_uS": LOW,
            "conductance_max_uS": HIGH,
            "read_voltage_V": 0.2,
            "pulse": pulse,
        }
    )
    device, key, count = device_of(cell), new_key(1), 100
    traits = device.traits(key, (count,))
    held = traits["low"] + 0.5
    take, rows = jax.jit(device.pulse), [held]
    for step, sign in enumerate([1.0] * 100 + [-1.0] * 100):
        held = take(held, jnp.full((count,), sign), jax.random.fold_in(key, step), traits)
        rows.append(held)
    conductance = np.stack(rows).T.astype(float)
    number = np.tile(np.arange(201), count)
    direction = np.tile(np.array([0] + [1] * 100 + [-1] * 100), count)
    trains = PulseTrains(
        np.repeat(np.arange(count), 201), np.zeros(len(number), np.int64), number, direction, conductance.ravel()
    )
    found = fit_pulses(trains)
    assert found.law == "soft-bounds"
    assert_within_confidence(found, TRUE)


@pytest.mark.parametrize(
    ("law", "given"),
    [
        ("linear", []),
        ("soft-bounds", [1.1]),
        ("exponential", [1.2]),
        ("exponential", [-0.8]),
        ("exponential", [0.0]),
        ("power", [1.1, 1.7]),
        ("exponential-step", [-2.0, 1.5]),
        ("piecewise", [1.5, 1.4, 1.2, 1.1, 0.9, 0.7, 0.4, 0.2]),
    ],
)
def test_keys_of_a_law_describe_the_fitted_shape(law: str, given: list[float]) -> None:
    """The runtime's law of the keys makes the mean steps of the shape, up and down."""
    start, width, factors = 10.0, 80.0, (2.0, 1.5)
    end = given[0] * width if law in ("soft-bounds", "power") else width
    low, high = (start + width - end, start + end)
    shapes = [FittedShape(np.array(given), factor, width) for factor in factors]
    keys: dict[str, Any] = {
        key.removeprefix("pulse."): value for key, value in law_keys(law, shapes, low, high).items()
    }
    for name in ("factors", "factors_down"):
        values = [keys.pop(f"{name}.{index}") for index in range(len(given)) if f"{name}.{index}" in keys]
        keys |= {name: values} if values else {}
    window = {key: keys.pop(key) for key in ("conductance_min_uS", "conductance_max_uS")}
    pulse = {"law": law, **keys, **FIXED.get(law, {})}
    cell = Cell.model_validate({"technology": "t", "read_voltage_V": 0.2, "pulse": pulse, **window})
    assert cell.pulse is not None
    states = np.linspace(start + 1, start + width - 1, 9)
    for up, factor, step in ((True, factors[0], cell.pulse.step_uS), (False, factors[1], cell.pulse.down_uS)):
        x = (states - start) / width if up else (start + width - states) / width
        wanted = factor * SHAPES[law].mean(x, np.array(given))
        got = step * step_factor(states, up=up, low=low, high=high, cell=cell) * np.ones_like(states)
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-6)


def test_stuck_devices_and_single_wrong_readings_are_left_out() -> None:
    trains = drawn("soft-bounds", devices=20)
    conductance = trains.conductance.copy()
    conductance[trains.device == 3] = 40.0
    conductance[1000] = 1.0
    cleaned, outliers, stuck = without_outliers(
        PulseTrains(trains.device, trains.train, trains.pulse, trains.direction, conductance)
    )
    assert (outliers, stuck) == (1, 1)
    assert 3 not in cleaned.device
    assert len(cleaned.device) == len(trains.device) - 201 - 1


def test_a_device_that_only_goes_up_has_no_figures_of_reset() -> None:
    trains = drawn("soft-bounds", devices=30)
    up = PulseTrains(*(getattr(trains, key)[trains.pulse <= 100] for key in trains.__dataclass_fields__))
    found = fit_pulses(up)
    assert found.law == "soft-bounds"
    assert found.settings["directions"] == "up"
    assert found.figures["pulse.step_uS"].value == pytest.approx(STEP, rel=0.1)
    assert "pulse.step_down_uS" not in found.figures


@pytest.mark.parametrize("devices", [3, 4])
def test_few_devices_whose_bounds_are_seen_have_their_spreads(devices: int) -> None:
    """A draw of the bootstrap may hold one device only: it has the same figures nevertheless."""
    random = np.random.default_rng(1)
    rows = []
    for device in range(devices):
        top, g = 60.0 + 4 * device, 4.0
        for pulse in range(91):
            way = 0 if pulse == 0 else 1 if pulse <= 45 else -1
            g = float(np.clip(g + way * 3 * (1 + 0.1 * random.standard_normal()), 4.0, top))
            rows.append((device, 0, pulse, way, g))
    device, train, pulse, direction, conductance = np.array(rows).T
    device, train, pulse, direction = np.array([device, train, pulse, direction], np.int64)
    fitted = fit_pulses(PulseTrains(device, train, pulse, direction, conductance))
    tops = 60.0 + 4 * np.arange(devices)
    assert fitted.figures["conductance_max_uS"].value == pytest.approx(tops.mean(), rel=1e-6)
    half = (tops.mean() - 4.0) / 2
    assert fitted.figures["pulse.high_d2d"].value == pytest.approx(np.std(tops, ddof=1) / half, rel=1e-3)
    assert all(np.isfinite([one.value, one.low, one.high]).all() for one in fitted.figures.values())


def test_devices_that_never_move_are_left_out_where_they_are_most() -> None:
    moving = drawn("linear", devices=4, pulses=30)
    device = np.concatenate([moving.device, *(np.full(61, 4 + n) for n in range(5))])
    train, pulse, direction = (
        np.concatenate([one, np.tile(one[:61], 5)]) for one in (moving.train, moving.pulse, moving.direction)
    )
    trains = PulseTrains(device, train, pulse, direction, np.concatenate([moving.conductance, np.full(305, 20.0)]))
    assert without_outliers(trains)[2] == 5


def test_a_device_of_picosiemens_has_the_same_law() -> None:
    """The search ended where it began: its gradient in uS was below the tolerance."""
    trains = drawn("power", exponent=2.0, devices=20, pulses=50, bounds=False)
    small = replace(trains, conductance=1e-6 * trains.conductance)
    found, scaled = fit_pulses(trains), fit_pulses(small)
    assert (scaled.law, scaled.own_bounds) == (found.law, found.own_bounds)
    for key, one in found.figures.items():
        unit = 1e-6 if key.endswith("_uS") else 1.0
        assert scaled.figures[key].value == pytest.approx(unit * one.value, rel=1e-3, abs=1e-4 * unit), key


def test_rows_are_not_compared_with_every_device() -> None:
    """With thousands of devices that took minutes. A device is a slice of its rows, those without rows are passed."""
    found = list(rows_by_device(np.array([0, 0, 2, 2, 2, 5])))
    assert found == [(0, slice(0, 2)), (2, slice(2, 5)), (5, slice(5, 6))]
    assert list(rows_by_device(np.array([], np.int64))) == []
    rows = 20
    device = np.repeat(np.arange(20_000), rows)
    pulse = np.tile(np.arange(rows), 20_000)
    conductance = np.random.default_rng(0).random(len(device)) + pulse
    direction = np.where(pulse == 0, 0, np.where(pulse <= 10, 1, -1))
    trains = PulseTrains(device, np.zeros_like(device), pulse, direction, conductance)
    began = time.process_time()
    clean, _, stuck = without_outliers(trains)
    up, down = sides_of(clean, (steps_of(clean, 1), steps_of(clean, -1)))
    assert time.process_time() - began < 25  # 5 s; 60 s where each device is compared with all rows
    assert stuck == 0
    assert up.half[:10].tolist() == [0, 1] * 5
    assert len(down.change) == 9 * 20_000
