"""Sign, EaPU and the options of mixed precision against three steps of one weight in plain Python."""

from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Chip, load_chip
from cimc.errors import CimcError
from cimc.units import device_targets
from runtime.training.policies import make_rule
from runtime.training.policies.policy import Change, LayerState, UpdateRule
from tests.runtime.one_layer import forget_programs, update_one

EXACT = load_chip("ideal", "soft-bounds-10")  # closed-loop writes without error, a granularity of 0.1
START = 0.3


def start(rule: UpdateRule, shape: tuple[int, ...]) -> LayerState:
    weight = jnp.full(shape, START, jnp.float32)
    pairs, zeros = device_targets(weight, jnp.float32(1), EXACT), jnp.zeros((2, *shape), jnp.int32)
    memory = {name: jnp.zeros(shape, jnp.float32) for name in rule.policy.memory}
    return LayerState(weight, memory, pairs, zeros[0], zeros, zeros)


def take(rule: UpdateRule, layer: LayerState, step: Any, number: int, chip: Chip = EXACT) -> LayerState:
    """One step that asks every weight for this; the gradient points the other way and is ten times as large."""
    asked = jnp.broadcast_to(jnp.asarray(step, jnp.float32), layer.weight.shape)
    return update_one(
        rule,
        chip,
        layer,
        Change(asked, -10 * asked, largest_step=0.7, rate=0.5, number=number),
        weight_range=jnp.float32(1),
        key=jax.random.key(number),
    )


def follow(rule: UpdateRule, *steps: float) -> list[tuple[float, float]]:
    """Weight and accumulator of one weight after each step."""
    layer, after = start(rule, (1, 1)), []
    for number, step in enumerate(steps):
        layer = take(rule, layer, step, number)
        assert float(layer.conductance[0, 0, 0] - layer.conductance[1, 0, 0]) == pytest.approx(
            100 * float(layer.weight[0, 0]), abs=0.05
        )
        after.append((float(layer.weight[0, 0]), float(layer.memory["accumulator"][0, 0])))
    return after


@pytest.fixture
def always_half(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def half(key: Any, shape: Any = (), dtype: Any = jnp.float32, **given: Any) -> jax.Array:
        return jnp.full(shape, 0.5, dtype)

    monkeypatch.setattr(jax.random, "uniform", half)
    forget_programs()
    yield
    forget_programs()


# Every draw is 0.5. Weight and accumulator after the steps 0.06, -0.03 and 0.25, or as stated.
CASES: dict[str, tuple[dict[str, Any], list[tuple[float, float]]]] = {
    "sign": ({"size": 0.05}, [(0.35, 0), (0.30, 0), (0.35, 0)]),
    # c is 0.1 of the window: 0.06 is at least half of it, 0.03 is not, 0.25 is written as it is.
    "eapu": ({"c_uS": 10.0}, [(0.4, 0), (0.4, 0), (0.65, 0)]),
    # 0.06 is written as 0.1, which leaves a debt of 0.04; -0.03 adds to it; 0.25 - 0.07 is above the threshold.
    "eapu-accumulator": ({"threshold": 0.1}, [(0.4, -0.04), (0.4, -0.07), (0.58, 0)]),
    # The accumulator's unit is 2 x 0.2 / 8 = 0.05: 0.06 -> 0.05; 0.02 -> 0 (and a half goes up); 0.25 is due.
    "mixed-precision": ({"threshold": 0.2, "accumulator_bits": 4}, [(0.3, 0.05), (0.3, 0), (0.55, 0)]),
}


@pytest.mark.parametrize("name", CASES)
def test_three_steps_of_one_weight_are_those_of_the_equations(name: str, always_half: None) -> None:
    options, wanted = CASES[name]
    for got, (weight, accumulator) in zip(follow(make_rule(name, **options), 0.06, -0.03, 0.25), wanted, strict=True):
        assert got == pytest.approx((weight, accumulator), abs=2e-4)


def test_steps_are_rounded_to_the_bits_of_the_largest_of_their_layer(always_half: None) -> None:
    """Three bits of a largest step of 0.7: multiples of 0.7 / 3, to the nearest where every draw is 0.5."""
    rule = make_rule("mixed-precision", threshold=0.6, gradient_bits=3)
    accumulators = [accumulator for _, accumulator in follow(rule, 0.2, -0.1, 0.4)]
    assert accumulators == pytest.approx([0.7 / 3, 0.7 / 3, 0.7], abs=1e-5) or accumulators == pytest.approx(
        [0.7 / 3, 0.7 / 3, 0.0], abs=1e-5
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("eapu", {"c_uS": 10.0}),
        ("eapu-accumulator", {"threshold": 0.1}),
        ("mixed-precision", {"threshold": 0.1, "accumulator_bits": 3}),
        ("mixed-precision", {"threshold": 0.1, "gradient_bits": 4}),
    ],
)
def test_on_average_what_is_written_is_what_was_asked_for(name: str, options: dict[str, Any]) -> None:
    """Steps far below the smallest write, or the unit that they are rounded to."""
    rule = make_rule(name, **options)
    layer = start(rule, (60, 60))
    for number in range(30):
        layer = take(rule, layer, 0.004, number)
    gained = np.asarray(layer.weight) - START
    if name != "eapu":
        gained = gained + np.asarray(layer.memory["accumulator"])
    assert gained.mean() == pytest.approx(30 * 0.004, rel=0.05)
    share = float(np.mean(layer.updates)) / 30
    assert share < 0.06, "rarely written"


def test_spread_accumulators_come_due_one_after_another_and_zero_ones_together() -> None:
    """Twenty equal steps of a hundredth, a threshold of a tenth: all are due at once, or at most a few in each step."""
    due: dict[float, list[float]] = {}
    for spread in (0.0, 1.0):
        rule = make_rule("mixed-precision", threshold=0.1, spread=spread)
        layer = start(rule, (60, 60))
        assert rule.policy.begin is not None
        layer = layer._replace(
            memory=layer.memory
            | rule.policy.begin(rule.options, EXACT, layer.weight.shape, jnp.float32(1), jax.random.key(9))
        )
        first = np.asarray(layer.memory["accumulator"])
        assert np.abs(first).max() <= 0.1 * spread
        assert first.std() == pytest.approx(0.1 * spread / 3**0.5, rel=0.03)
        before, due[spread] = 0.0, []
        for number in range(20):
            layer = take(rule, layer, 0.01, number)
            due[spread].append(float(np.mean(layer.updates)) - before)
            before = float(np.mean(layer.updates))
        total = np.asarray(layer.weight) + np.asarray(layer.memory["accumulator"])
        np.testing.assert_allclose(total, START + 0.2 + first, atol=1e-4)
    assert max(due[0.0]) == 1
    assert max(due[1.0]) < 0.15


def test_on_average_blind_pulses_of_eapu_are_what_was_asked_for() -> None:
    """A fifth of a pulse; from G_min the first pulse is twice as long, which nearest rounding would never give."""
    rule, weights, step = make_rule("eapu", write="pulse"), jnp.array([0.0, 0.03, 0.3, 0.6]), 0.02
    weight = jnp.repeat(weights[:, None], 40_000, axis=1)
    pairs = device_targets(weight, jnp.float32(1), EXACT)
    for asked in (step, -step):
        layer = start(rule, weight.shape)._replace(weight=weight, conductance=pairs)
        layer = take(rule, layer, asked, 0)
        gained = np.asarray(layer.conductance[0] - layer.conductance[1], np.float64) / 100 - np.asarray(weight)
        np.testing.assert_array_less(abs(gained.mean(axis=1) - asked), 5 * gained.std(axis=1) / 200)
        assert 0.02 < np.mean(layer.updates) < 0.4


@pytest.mark.parametrize("name", ["isaac", "packing-256", "aimc-128"])
def test_rules_that_pulse_pairs_refuse_chips_without_them(name: str) -> None:
    chip = load_chip(name, "soft-bounds-10")
    for policy in ("pulsed-sgd", "tiki-taka", "agad", "residual-learning", "multi-tile"):
        rule = make_rule(policy)
        with pytest.raises(CimcError, match=f"{policy} pulses pairs of devices, and {name} holds a weight otherwise"):
            rule.policy.check(rule.options, chip)


def test_a_sign_step_is_that_of_a_weight_however_it_is_held() -> None:
    """Bits of a weight on isaac's cells: a state of the last cell, not one of the first."""
    chip = load_chip("isaac")
    assert make_rule("sign").threshold(chip) == chip.weight_granularity < chip.cell.granularity / 100


def test_the_chance_of_a_sign_step_follows_the_learning_rate() -> None:
    """A share of 0.4 at a learning rate of 0.5: a fifth of all weights in each step, by one level."""
    for write, weight in (("verify", START + 0.1), ("pulse", None)):
        rule = make_rule("sign", share=0.4, write=write)
        layer = take(rule, start(rule, (60, 60)), 1e-6, 0)
        assert float(np.mean(layer.updates)) == pytest.approx(0.2, abs=0.03)
        moved = np.asarray(layer.weight)[np.asarray(layer.updates) > 0]
        if weight is not None:
            np.testing.assert_allclose(moved, weight, atol=1e-4)
        # 30 uS up by 10 (100 - 30) / 50, 0 uS down by nothing.
        else:
            np.testing.assert_allclose(moved, 0.44, atol=1e-4)


def test_the_smallest_write_of_eapu_is_the_write_noise_unless_levels_or_pulses_are_wider() -> None:
    def smallest(chip: Chip, **options: Any) -> float:
        return make_rule("eapu", **options).threshold(chip) * chip.cell.window_uS

    hermes, levels = load_chip("hermes"), load_chip("brram-256x64", settings={"cell": {"levels": 16}})
    assert smallest(hermes) == pytest.approx(hermes.cell.largest_error_sd_uS)
    assert smallest(hermes, c_uS=2.0) == 2.0
    assert levels.cell.largest_error_sd_uS < levels.cell.window_uS / 15
    assert smallest(levels) == pytest.approx(levels.cell.window_uS / 15)
    assert smallest(EXACT, write="pulse") == pytest.approx(10.0)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("eapu", {"c_uS": 100.0}, "c_uS is no less than the largest weight of ideal, 100 uS"),
        ("eapu", {"c_uS": 0}, "c_uS of the update policy eapu is 0: input should be greater than 0"),
        ("mixed-precision", {"accumulator_bits": 1}, "accumulator_bits of the update policy mixed-precision is 1"),
        ("mixed-precision", {"accumulator_bits": 4, "threshold": 0.0}, "give --threshold above 0"),
        ("sign", {"size": 0.1, "write": "pulse"}, "size of the update policy sign is that of closed-loop writes"),
        ("agad", {"chop": 0.1}, "the update policy agad has no option 'chop'; it has most, rate, sweep, momentum"),
        ("sign", {"write": "pulse", "sync": "target"}, "the update policy sign moves its copy by a whole step a pulse"),
        (
            "tiki-taka",
            {"most": 32},
            "most of the update policy tiki-taka is 32: input should be less than",
        ),
        # What A holds has the sign of the chopper: read with W it is wrong for half of the rows.
        ("agad", {"gamma": 0.5}, "the update policy agad has no option 'gamma'"),
        ("chopped-tiki-taka-v2", {"gamma": 0.5}, "the update policy chopped-tiki-taka-v2 has no option 'gamma'"),
    ],
)
def test_options_that_do_not_fit_are_one_line(name: str, options: dict[str, Any], message: str) -> None:
    def make_and_check() -> None:
        rule = make_rule(name, **options)
        rule.policy.check(rule.options, EXACT)

    with pytest.raises(CimcError, match=message) as error:
        make_and_check()
    assert "\n" not in str(error.value)
