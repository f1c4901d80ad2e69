"""Every device of cimc/devices: over a million draws it does what its file says, by formulas written here anew."""

import math
import tomllib
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from cimc.chip import Cell
from cimc.device_file import DEVICES_FOLDER, load_device
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import jit
from runtime.devices.age import age_devices
from runtime.devices.device import device_of
from tests.runtime.devices.age_law import state_left

Doubles = npt.NDArray[np.float64]

NAMES = sorted(path.stem for path in DEVICES_FOLDER.glob("*.toml"))
COUNT = 1_000_000
STATES = np.array([0.0, 0.25, 0.5, 0.75, 1.0])  # of the window
TIMES = np.array([60.0, 3600.0, 86400.0, 2_592_000.0])  # s after the write
WITHIN = 0.01


def text_of(name: str) -> str:
    return (DEVICES_FOLDER / f"{name}.toml").read_text(encoding="utf-8")


def states_of(cell: Cell) -> Doubles:
    return cell.conductance_min_uS + STATES * cell.window_uS


def assert_statistics(draws: npt.ArrayLike, expected: Doubles, mean: Doubles, sd: Doubles) -> None:
    """Draws [.., COUNT] deviate from `expected` by that mean and sd, to 1 % of the sd."""
    deviation = np.asarray(draws, np.float64) - expected[..., None]
    rounding = 1e-6 * np.abs(expected)
    assert (np.abs(deviation.mean(axis=-1) - mean) <= WITHIN * sd + rounding).all()
    assert (np.abs(deviation.std(axis=-1) - sd) <= WITHIN * sd + rounding).all()


def polynomial(law: Any, x: Doubles) -> Doubles:
    return np.asarray(sum(c * x**k for k, c in enumerate(np.atleast_1d(law)))) + 0 * x


def of_state(law: dict[str, Any], x: Doubles) -> Doubles:
    """constant + log ln x + scale x^power within its bounds; from `beyond` on a polynomial."""
    x = np.maximum(x, 1e-6)
    value = law.get("constant", 0) + law.get("log", 0) * np.log(x) + law.get("scale", 0) * x ** law.get("power", 0)
    value = np.minimum(np.maximum(value, law.get("least", -np.inf)), law.get("most", np.inf))
    return np.where(x < law["beyond"], value, polynomial(law["polynomial"], x)) if "beyond" in law else value


def folded(sd: float) -> tuple[float, float]:
    """Mean and sd of |1 + sd z|."""
    if sd == 0:
        return 1.0, 0.0
    mean = sd * math.sqrt(2 / math.pi) * math.exp(-1 / (2 * sd**2)) + math.erf(1 / (sd * math.sqrt(2)))
    return mean, math.sqrt(1 + sd**2 - mean**2)


@pytest.mark.parametrize("name", NAMES)
def test_a_preset_loads_names_itself_and_says_where_its_figures_come_from(name: str) -> None:
    device, text = load_device(name), text_of(name)
    assert device.name == name
    assert text.startswith("# "), "the source stands first"
    for line in text.splitlines():
        assert not ("not stated" in line and line.strip().endswith("not stated:")), line


@pytest.mark.parametrize("name", NAMES)
def test_a_million_writes_and_reads_leave_the_stated_errors(name: str) -> None:
    cell, stated = load_device(name), tomllib.loads(text_of(name))
    states, device = states_of(cell), device_of(load_device(name))
    x = states / stated["conductance_max_uS"]
    aim = jnp.broadcast_to(jnp.asarray(states, jnp.float32)[:, None], (len(states), COUNT))
    written, read = jit(lambda goal, key: (device.write(goal, key).conductance, device.read(goal, key)))(
        aim, new_key(7)
    )
    programming = stated.get("programming", {})
    mean, sd = (polynomial(programming.get(key, 0.0), x) for key in ("error_mean_uS", "error_sd_uS"))
    assert_statistics(written, states, mean, sd)
    variance = stated.get("read_noise_uS", 0.0) ** 2 + polynomial(stated.get("read_noise_polynomial_uS", 0.0), x) ** 2
    if "flicker" in stated:
        flicker = stated["flicker"]
        q = of_state(flicker["q_uS"], x) if "q_uS" in flicker else states * of_state(flicker["q"], x)
        spread = math.log((flicker["after_s"] + flicker["read_s"]) / (2 * flicker["read_s"]))
        variance = variance + q**2 * spread
    assert_statistics(read, states, 0 * x, np.sqrt(variance))


@pytest.mark.parametrize(
    "name", [name for name in NAMES if {"drift", "relaxation"} & tomllib.loads(text_of(name)).keys()]
)
def test_a_million_devices_age_by_the_stated_law(name: str) -> None:
    cell, stated = load_device(name), tomllib.loads(text_of(name))
    states = states_of(cell)[1:, None]
    x = states / stated["conductance_max_uS"]
    held = jnp.broadcast_to(jnp.asarray(states, jnp.float32)[:, None], (4, 1, COUNT))
    times = jnp.asarray(TIMES, jnp.float32)[:, None]
    aged = jit(lambda g, after, key: age_devices(g, after, key, cell=cell))(held, times, new_key(11))
    expected, mean, sd = np.broadcast_to(states, (4, 4)), np.zeros((4, 4)), np.zeros((4, 4))
    if "drift" in stated:
        # nu is normal, its sign practically never turns: g(t) is log-normal.
        drift = stated["drift"]
        nu, spread = of_state(drift["exponent"], x), of_state(drift.get("exponent_sd", {}), x)
        assert (nu > 2.5 * spread).all()
        passed = np.log(np.maximum(TIMES / drift["start_s"], 1))
        first = np.exp(-nu * passed + (spread * passed) ** 2 / 2)
        mean = states * first - states
        sd = states * first * np.sqrt(np.expm1((spread * passed) ** 2))
    if "relaxation" in stated:
        relaxation = stated["relaxation"]
        place = np.log(relaxation["times_s"])

        def between(laws: list[Any]) -> Doubles:
            values = np.concatenate([polynomial(law, x) for law in laws], axis=1)
            return np.stack([np.interp(np.log(TIMES), place, row) for row in values])

        none = [0.0] * len(place)
        mean, sd = between(relaxation.get("mean_uS", none)), between(relaxation["sd_uS"])
        if relaxation.get("of", "target") == "target":
            sd = np.sqrt(np.maximum(sd**2 - polynomial(relaxation["sd_uS"][0], x) ** 2, 0))
            mean = mean - polynomial(relaxation.get("mean_uS", none)[0], x)
    assert_statistics(aged, expected, mean, sd)
    for row, state in enumerate(states[:, 0].tolist()):
        for column, seconds in enumerate(TIMES.tolist()):
            left = state_left(cell, state, seconds)
            assert left.mean_uS - state == pytest.approx(mean[row, column], rel=WITHIN / 2, abs=1e-6)
            assert left.sd_uS == pytest.approx(sd[row, column], rel=WITHIN / 2, abs=1e-6)


@pytest.mark.parametrize("name", [name for name in NAMES if device_of(load_device(name)).trait_names])
def test_a_million_devices_of_a_chip_spread_as_stated(name: str) -> None:
    cell, stated = load_device(name), tomllib.loads(text_of(name))
    traits = jit(lambda key: device_of(cell).traits(key, (COUNT,)))(new_key(13))
    if "step_up" in traits:
        pulse, middle, half = stated["pulse"], (states_of(cell)[[0, -1]]).mean(), cell.window_uS / 2
        rho, spread = pulse.get("asymmetry_d2d", 0.0), pulse.get("step_d2d", 0.0)
        if pulse.get("step_d2d_law") == "log-normal":
            factor = math.exp(spread**2 / 2), math.sqrt(math.expm1(spread**2) * math.exp(spread**2) + rho**2)
        else:
            factor = folded(math.hypot(spread, rho))
        steps = {"step_up": pulse["step_uS"], "step_down": pulse.get("step_down_uS", pulse["step_uS"])}
        expected = {key: (0.0, step * factor[0], step * factor[1]) for key, step in steps.items()}
        for key, sign in (("high", half), ("low", -half)):
            mean, sd = folded(pulse.get(f"{key}_d2d", 0.0))
            expected[key] = (middle, sign * mean, half * sd)
        for key, (start, mean, sd) in expected.items():
            assert_statistics(traits[key], np.asarray(start), np.asarray(mean), np.asarray(sd))
    if "faults" in stated:
        stuck = np.asarray(traits["stuck"])
        assert np.mean(stuck == stated["faults"]["low_uS"]) == pytest.approx(stated["faults"]["stuck_low"], rel=WITHIN)
        assert np.isnan(stuck).mean() == pytest.approx(1 - stated["faults"]["stuck_low"], rel=WITHIN)
    if "endurance" in stated:
        decades, spread = np.log10(np.asarray(traits["endurance"])), stated["endurance"].get("spread_decades", 0.0)
        assert_statistics(
            decades, np.asarray(math.log10(stated["endurance"]["writes"])), np.zeros(()), np.asarray(spread)
        )
    if "leak" in stated:
        lifetimes = np.log(-1 / np.log1p(-np.asarray(traits["leak"], np.float64)))
        spread = stated["leak"].get("steps_d2d", 0.0)
        assert_statistics(lifetimes, np.asarray(math.log(stated["leak"]["steps"])), np.zeros(()), np.asarray(spread))


# NeuroSim's table of A for labels of nonlinearity (getParamA of MLP+NeuroSim 3.0), as a part of all pulses.
NEUROSIM_A = {1.75: 0.702081, 1.46: 0.848677}


def mean_step(pulse: dict[str, Any], y: Doubles, *, up: bool, window: float) -> Doubles:
    """Mean change by one pulse from the part y of the window, over the stated step of its direction."""
    law, suffix = pulse.get("law", "linear"), "" if up else "_down"
    room = 1 - y if up else y
    if law == "soft-bounds":
        return 2 * room
    if law == "piecewise":
        factors = pulse["factors"] if up else pulse.get("factors_down", pulse["factors"][::-1])
        return np.interp(y, np.linspace(0, 1, len(factors)), factors)
    if law == "exponential-step":
        z = pulse["slope"] * (2 * y - 1) + pulse["shift"]
        return np.maximum(1 - pulse[f"amplitude{suffix}"] * np.exp(pulse[f"gamma{suffix}"] * (z if up else -z)), 0)
    if law == "exponential":
        # The curve y(n) = B (1 - exp(-n / (A P))) of P pulses, one pulse further from where it passes the state.
        a, pulses = NEUROSIM_A[pulse[f"nonlinearity{suffix}"]], window / pulse["step_uS"]
        b = 1 / (1 - math.exp(-1 / a))
        passed = 1 - room
        n = -a * pulses * np.log(1 - passed / b)
        return (b * (1 - np.exp(-(n + 1) / (a * pulses))) - passed) * pulses
    assert law == "linear"
    return np.ones_like(y)


@pytest.mark.parametrize("name", [name for name in NAMES if load_device(name).pulse is not None])
def test_a_million_pulses_move_devices_by_the_stated_step_and_noise(name: str) -> None:
    """One pulse from a quarter, half and three quarters of the window, where the bound is far enough."""
    cell, stated = load_device(name), tomllib.loads(text_of(name))
    pulse, window, states = stated["pulse"], cell.window_uS, states_of(cell)[1:4]
    device = device_of(cell)
    held = jnp.broadcast_to(jnp.asarray(states, jnp.float32)[:, None], (3, COUNT))
    press = jit(lambda g, n, key: device.pulse(g, n, key))
    for up in (True, False):
        y = STATES[1:4]
        moved = press(held, jnp.full(held.shape, 1.0 if up else -1.0), new_key(17))
        sign, step = (1, pulse["step_uS"]) if up else (-1, pulse.get("step_down_uS", pulse["step_uS"]))
        room = window * (1 - y if up else y)
        if not up and pulse.get("directions") == "up":
            np.testing.assert_array_equal(moved, held)
            continue
        if pulse.get("law") == "binary":
            p = pulse.get("probability", 1.0)
            assert pulse.get("probability_down", p) == p
            assert_statistics(moved, states, sign * p * room, math.sqrt(p * (1 - p)) * room)
            continue
        mean = step * mean_step(pulse, y, up=up, window=window)
        of = {"step": mean, "nominal-step": np.full(3, step), "window": np.full(3, window)}[pulse.get("c2c_of", "step")]
        c2c = pulse.get("c2c", 0.0) * of
        clear = room > mean + 3.5 * c2c
        assert clear.any()
        sd = np.hypot(c2c, pulse.get("write_noise_uS", 0.0))
        assert_statistics(np.asarray(moved)[clear], states[clear], sign * mean[clear], sd[clear])


# --- Against the published formulas, in uS and in s ---

PUBLISHED_SD = {
    "pcm-nandakumar": lambda g: 0.26348 + 1.9650 * (g / 25) - 1.1731 * (g / 25) ** 2,
    "pcm-hermes": lambda g: 0.16603 + 4.71806 * (g / 20.7) - 8.48101 * (g / 20.7) ** 2 + 4.68961 * (g / 20.7) ** 3,
    "pcm-joshi": lambda g: -0.00178767 * g**2 + 0.07585724 * g + 0.28638599,
    "rram-milo": lambda g: 4.782321 - 0.009107 * g,
    "cmo-hfox": lambda g: 0.01129027418 * g + 0.0112185391,
    "sonos": lambda g: 0.1988665 * (1 - np.exp(-g / 1.763115)),
}


@pytest.mark.parametrize("name", PUBLISHED_SD)
def test_the_programming_error_of_a_preset_is_the_published_one(name: str) -> None:
    cell = load_device(name)
    states = states_of(cell)[1:]
    np.testing.assert_allclose(cell.error_sd_uS(states), PUBLISHED_SD[name](states), rtol=3e-3)


@pytest.mark.parametrize(
    ("name", "g", "seconds", "nu"),
    [
        # clip(-0.0155 ln x + 0.0244, 0.049, 0.1) at x = 0.02, 0.1 and 0.8
        ("pcm-nandakumar", 0.5, 86400.0, 0.0850363),
        ("pcm-nandakumar", 2.5, 86400.0, 0.0600901),
        ("pcm-nandakumar", 20.0, 86400.0, 0.049),
        # below 0.0945 clip(-0.0387 ln x - 0.0182, 0.0720, 0.13), at x = 0.05
        ("pcm-hermes", 1.035, 86400.0, 0.0977348),
        # above, -0.0436 x^2 - 0.0126 x + 0.0736, at x = 0.5
        ("pcm-hermes", 10.35, 86400.0, 0.0564),
    ],
)
def test_the_drift_of_pcm_is_the_published_one(name: str, g: float, seconds: float, nu: float) -> None:
    cell = load_device(name)
    assert cell.drift is not None
    still = cell.model_copy(
        update={"drift": cell.drift.model_copy(update={"exponent_sd": type(cell.drift.exponent)()})}
    )
    left = state_left(still, g, seconds)
    assert left.mean_uS / g == pytest.approx((seconds / cell.drift.start_s) ** -nu, rel=1e-4)
    assert left.sd_uS == pytest.approx(0, abs=1e-6)
