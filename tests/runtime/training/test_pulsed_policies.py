"""Each rule by pulses against three steps of one weight in plain Python, and what pulses do where devices differ."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import floor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Chip, load_chip
from cimc.errors import CimcError
from cimc.units import device_targets
from runtime.devices.traits import draw_traits
from runtime.training.layer_groups import what_is_read
from runtime.training.policies import make_rule
from runtime.training.policies.policy import Change, LayerState, Place, Tile, UpdateRule
from runtime.training.policies.pulsed import draw_for_lines, take_turn
from tests.runtime.one_layer import forget_programs, update_one

CHIP = load_chip("ideal", "soft-bounds-10")
STEP, WINDOW, HALF = 10.0, 100.0, 50.0  # uS, of that device
PAIR_STEP = 2 * STEP / WINDOW
GRADIENTS = (1.0, -0.5, 1.0)  # the layer's largest is 1 in each step
RATE = 0.1  # the learning rate
START = 0.3  # the weight, of its range


@dataclass
class Pair:
    """A pair of soft-bounds devices."""

    plus: float = 50.0
    minus: float = 50.0

    def pulse(self, count: float) -> None:
        for _ in range(int(abs(count))):
            if count > 0:
                self.plus += STEP * (WINDOW - self.plus) / HALF
                self.minus -= STEP * self.minus / HALF
            else:
                self.plus -= STEP * self.plus / HALF
                self.minus += STEP * (WINDOW - self.minus) / HALF

    @property
    def weight(self) -> float:
        return (self.plus - self.minus) / WINDOW


@dataclass
class Weight:
    """The pair that is written, the tiles, and what the rule remembers."""

    main: Pair = field(default_factory=lambda: Pair(START * WINDOW, 0.0))
    tiles: list[Pair] = field(default_factory=list)
    memory: dict[str, float] = field(default_factory=dict)


def whole(mean: float) -> int:
    """Stochastic rounding where every draw is 0.5."""
    return floor(mean + 0.5)


@pytest.fixture
def always_half(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def half(key: Any, shape: Any = (), dtype: Any = jnp.float32, **given: Any) -> jax.Array:
        return jnp.full(shape, 0.5, dtype)

    monkeypatch.setattr(jax.random, "uniform", half)
    forget_programs()
    yield
    forget_programs()


def layer_for(rule: UpdateRule, chip: Chip, shape: tuple[int, ...], weight: float = START) -> LayerState:
    """Weights as in training at first: their pairs at their targets, tiles in the middle of the window."""
    start = jnp.full(shape, weight, jnp.float32)
    pairs, zeros = device_targets(start, jnp.float32(1), chip), jnp.zeros((2, *shape), jnp.int32)
    middle = jnp.full_like(pairs, (chip.cell.conductance_min_uS + chip.cell.conductance_max_uS) / 2)
    tiles = {name: Tile(middle, zeros, {}) for name in rule.tiles}
    memory = {name: jnp.zeros(shape, jnp.float32) for name in rule.policy.memory}
    return LayerState(start, memory, pairs, zeros[0], zeros, zeros, None, tiles)


def take_steps(rule: UpdateRule) -> list[tuple[LayerState, float]]:
    """After each step the layer of one weight, and the weight that the network reads."""
    layer, after = layer_for(rule, CHIP, (1, 1)), []
    place = Place(jnp.zeros((1, 1), jnp.int32), jnp.int32(1), jnp.zeros((1, 1), jnp.int32))
    for number, gradient in enumerate(GRADIENTS):
        g = jnp.full((1, 1), gradient, jnp.float32)
        change = Change(-RATE * g, g, RATE, 1.0, RATE, number, place)
        layer = update_one(
            rule,
            CHIP,
            layer,
            change,
            weight_range=jnp.float32(1),
            key=jax.random.key(number),
        )
        read = what_is_read(rule, CHIP, [layer])[0]
        after.append((layer, float((read[0] - read[1])[0, 0]) / WINDOW))
    return after


def pulsed_sgd(weight: Weight, gradient: float, number: int) -> float:
    weight.main.pulse(whole(-RATE * 4 * gradient / PAIR_STEP))
    return weight.main.weight


def tiki_taka(weight: Weight, gradient: float, number: int) -> float:
    (fast,) = weight.tiles
    fast.pulse(whole(-2 * gradient))
    weight.main.pulse(whole(10 * RATE * fast.weight / PAIR_STEP))
    return weight.main.weight + 0.5 * fast.weight


def tiki_taka_v2(weight: Weight, gradient: float, number: int) -> float:
    (fast,) = weight.tiles
    fast.pulse(whole(-2 * gradient))
    buffer = weight.memory.get("buffer", 0.0) + 8 * RATE * fast.weight / PAIR_STEP
    if abs(buffer) >= 1:
        weight.main.pulse(np.sign(buffer))
        buffer *= 0.25
    weight.memory["buffer"] = buffer
    return weight.main.weight


def chopped(weight: Weight, gradient: float, number: int) -> float:
    """The chopper flips after every read."""
    (fast,) = weight.tiles
    chopper = (-1) ** number
    fast.pulse(whole(-2 * gradient * chopper))
    buffer = weight.memory.get("buffer", 0.0) + 8 * RATE * chopper * fast.weight / PAIR_STEP
    if abs(buffer) >= 1:
        weight.main.pulse(np.sign(buffer))
        buffer -= np.sign(buffer)
    weight.memory["buffer"] = buffer
    return weight.main.weight


def agad(weight: Weight, gradient: float, number: int) -> float:
    """The chopper flips after reads 0 and 2, and the reference is then the mean."""
    (fast,), memory = weight.tiles, weight.memory
    chopper = 1 if number == 0 else -1
    fast.pulse(whole(-2 * gradient * chopper))
    read = fast.weight
    buffer = memory.get("buffer", 0.0) + 8 * RATE * chopper * (read - memory.get("reference", 0.0)) / PAIR_STEP
    memory["mean"] = 0.75 * memory.get("mean", 0.0) + 0.25 * read
    if number in (0, 2):
        memory["reference"] = memory["mean"]
    if abs(buffer) >= 1:
        weight.main.pulse(np.sign(buffer))
        buffer *= 0.1
    memory["buffer"] = buffer
    return weight.main.weight


def residual_learning(weight: Weight, gradient: float, number: int) -> float:
    (fast,), memory = weight.tiles, weight.memory
    fast.pulse(whole(-2 * gradient))
    memory["filter"] = 0.5 * memory.get("filter", 0.0) + 0.5 * fast.weight
    if abs(memory["filter"]) >= 0.5 * PAIR_STEP:
        weight.main.pulse(whole(20 * RATE * memory["filter"] / PAIR_STEP))
    return weight.main.weight + 0.4 * fast.weight


def multi_tile(weight: Weight, gradient: float, number: int) -> float:
    """Three tiles; the last is read in every step, the one above it in every second."""
    first, second = weight.tiles
    second.pulse(whole(-2 * gradient))
    first.pulse(whole(2 * 2**2 * RATE * second.weight / PAIR_STEP))
    if number % 2 == 0:
        weight.main.pulse(whole(2 * 2 * RATE * first.weight / PAIR_STEP))
    return weight.main.weight + 0.5 * first.weight + 0.25 * second.weight


RULES: dict[str, tuple[dict[str, Any], Callable[[Weight, float, int], float]]] = {
    "pulsed-sgd": ({"scale": 4}, pulsed_sgd),
    "tiki-taka": ({"most": 2, "rate": 10, "sweep": 1, "gamma": 0.5}, tiki_taka),
    "tiki-taka-v2": ({"most": 2, "rate": 8, "sweep": 1, "momentum": 0.25}, tiki_taka_v2),
    "chopped-tiki-taka-v2": ({"most": 2, "rate": 8, "sweep": 1, "forget": False, "chop": 1}, chopped),
    "agad": ({"most": 2, "rate": 8, "sweep": 1, "chop_every": 2, "b": 0.25}, agad),
    "residual-learning": ({"most": 2, "rate": 20, "sweep": 1, "b": 0.5, "least": 0.5, "gamma": 0.4}, residual_learning),
    "multi-tile": ({"most": 2, "rate": 2, "growth": 2, "sweep": 1, "slower": 2}, multi_tile),
}


@pytest.mark.parametrize("name", RULES)
def test_three_steps_of_one_weight_are_those_of_the_equations(name: str, always_half: None) -> None:
    options, by_hand = RULES[name]
    rule = make_rule(name, **options)
    weight = Weight(tiles=[Pair() for _ in rule.tiles])
    moved = set()
    for number, (layer, read) in enumerate(take_steps(rule)):
        wanted = by_hand(weight, GRADIENTS[number], number)
        assert read == pytest.approx(wanted, abs=1e-5), number
        assert float(layer.weight[0, 0]) == pytest.approx(wanted, abs=1e-5), "the backward pass sees what is read"
        for tile, pair in zip(layer.tiles.values(), weight.tiles, strict=True):
            np.testing.assert_allclose(np.ravel(tile.conductance), [pair.plus, pair.minus], atol=1e-3)
        np.testing.assert_allclose(np.ravel(layer.conductance), [weight.main.plus, weight.main.minus], atol=1e-3)
        for memory, value in weight.memory.items():
            assert float(layer.memory[memory][0, 0]) == pytest.approx(value, abs=1e-5), (memory, number)
        moved.add(round(weight.main.weight, 6))
    assert len(moved) > 1, "the case must write the pair, or it says little"
    last = layer
    np.testing.assert_array_equal(last.trials[0], last.trials[1])
    assert last.trials.max() > 0


@pytest.mark.parametrize(("name", "options"), [("tiki-taka", {}), ("tiki-taka-v2", {"forget": False})])
def test_rows_are_read_and_written_in_turn_each_once_in_a_sweep(name: str, options: dict[str, Any]) -> None:
    rule = make_rule(name, sweep=5, rate=1e6, most=3, **options)
    row = jnp.arange(20, dtype=jnp.int32)[:, None]
    layer = layer_for(rule, CHIP, (20, 1), 0.0)
    gradient = -jnp.ones((20, 1))
    written = []
    for number in range(10):
        change = Change(gradient, gradient, 1.0, 1.0, RATE, number, Place(row, jnp.int32(20), row))
        before = np.asarray(layer.updates)
        layer = update_one(rule, CHIP, layer, change, weight_range=jnp.float32(1), key=jax.random.key(number))
        written.append(np.flatnonzero(np.asarray(layer.updates) - before))
    assert [len(rows) for rows in written] == [4] * 10
    assert sorted(np.concatenate(written[:5])) == list(range(20))


@pytest.mark.parametrize("period", [7, 100_000, 2_000_000_000])
def test_turns_of_long_sweeps_are_spread_over_many_rows(period: int) -> None:
    """The product of row and period does not fit in 32 bits."""
    row = np.arange(0, 30_000, 5).astype(np.int32)
    place = Place(jnp.asarray(row), jnp.int32(30_000), jnp.asarray(row))
    turns = row.astype(np.int64) * period // 30_000
    for number in (int(turns[5_000]), int(turns[1])):
        took = take_turn(Change(place.row * 1.0, place.row * 1.0, number=number, place=place), period)
        np.testing.assert_array_equal(took, (number - turns) % period == 0)


def test_choppers_are_those_of_word_lines_and_fair() -> None:
    line = jnp.repeat(jnp.arange(5000, dtype=jnp.int32), 2)
    change = Change(line * 1.0, line * 1.0, place=Place(line, jnp.int32(1), line))
    one, two = (np.asarray(draw_for_lines(change, jax.random.key(seed))).reshape(-1, 2) for seed in (0, 1))
    np.testing.assert_array_equal(one[:, 0], one[:, 1])
    assert (np.abs(one - 0.5) <= 0.5).all()
    assert abs(one.mean() - 0.5) < 0.02
    assert abs((one < 0.1).mean() - 0.1) < 0.02
    assert abs(np.corrcoef(one[:, 0], two[:, 0])[0, 1]) < 0.05
    assert abs(np.corrcoef(one[:-1, 0], one[1:, 0])[0, 1]) < 0.05


def test_noise_drives_pulsed_sgd_to_the_symmetric_points_of_its_devices() -> None:
    """Steps without a direction, on devices whose up and down steps differ: each pair ends near its own point."""
    pulse = CHIP.cell.pulse
    assert pulse is not None
    uneven = CHIP.cell.model_copy(update={"pulse": pulse.model_copy(update={"step_uS": 2.0, "asymmetry_d2d": 0.3})})
    chip, shape = CHIP.model_copy(update={"cell": uneven}), (40, 50)
    rule = make_rule("pulsed-sgd")
    traits = draw_traits(jax.random.key(5), (2, *shape), cell=uneven)
    layer = layer_for(rule, chip, shape, 0.0)
    random = np.random.default_rng(0)

    @jax.jit
    def step(layer: LayerState, asked: jax.Array, key: jax.Array) -> LayerState:
        return update_one(
            rule,
            chip,
            layer,
            Change(asked, -asked),
            weight_range=jnp.float32(1),
            traits=traits,
            key=key,
        )

    size, late = 2 * 0.04, []  # two pulses of a pair at a time
    for number in range(400):
        asked = jnp.asarray(random.choice([-size, size], shape), jnp.float32)
        layer = step(layer, asked, jax.random.key(number))
        if number >= 200:
            late.append(np.asarray(layer.weight))
    up, down = np.asarray(traits["step_up"], np.float64), np.asarray(traits["step_down"], np.float64)
    point = WINDOW * up / (up + down)  # of each device: up (100 - g) = down g
    wanted = (point[0] - point[1]) / WINDOW
    ended = np.mean(late, axis=0)
    assert wanted.std() > 0.1, "there must be something to be driven to"
    assert np.corrcoef(wanted.ravel(), ended.ravel())[0, 1] > 0.95
    assert np.abs(ended - wanted).mean() < 0.3 * np.abs(wanted).mean()


def test_stuck_and_noisy_devices_of_tiles_are_those_of_the_device() -> None:
    """A stuck device of a tile stays, and what is seen of a noisy one does not add up from pulse to pulse."""
    pulse = CHIP.cell.pulse
    assert pulse is not None
    noisy = CHIP.cell.model_copy(update={"pulse": pulse.model_copy(update={"write_noise_uS": 3.0, "step_uS": 0.01})})
    chip, shape = CHIP.model_copy(update={"cell": noisy}), (30, 30)
    rule = make_rule("tiki-taka", most=1)
    layer = layer_for(rule, chip, shape, 0.0)
    fast = layer.tiles["fast"]
    stuck = jnp.where(jnp.arange(900).reshape(shape) % 2, 77.0, jnp.nan) * jnp.ones((2, 1, 1))
    layer = layer._replace(
        tiles={"fast": fast._replace(traits={"stuck": stuck}, seen=jnp.zeros_like(fast.conductance))},
        seen=jnp.zeros_like(fast.conductance),
    )
    line = jnp.zeros(shape, jnp.int32)
    for number in range(8):
        sign = jnp.ones(shape) * (-1) ** number
        change = Change(sign, sign, 1.0, 1.0, 1e-9, number, Place(line, jnp.int32(1), line))
        layer = update_one(rule, chip, layer, change, weight_range=jnp.float32(1), key=jax.random.key(number))
    held, healthy = np.asarray(layer.tiles["fast"].conductance), np.isnan(np.asarray(stuck))
    assert (held[~healthy] == 77).all()
    assert held[healthy].std() == pytest.approx(3.0, rel=0.1), "of eight pulses, each of 3 uS, the last alone is seen"


@pytest.mark.parametrize("name", [*RULES, "sign"])
@pytest.mark.parametrize(
    ("chip", "what"),
    [
        (load_chip("hermes"), "has no pulse response"),
        (load_chip("ideal", "pcm-pair"), "has devices that pulses only raise"),
    ],
)
def test_a_chip_without_pulses_both_ways_is_refused_with_what_to_do(name: str, chip: Chip, what: str) -> None:
    rule = make_rule(name, **({"write": "pulse"} if name == "sign" else {}))
    with pytest.raises(CimcError, match=rf"{name} .*{what}; use --update mixed-precision") as error:
        rule.policy.check(rule.options, chip)
    assert "\n" not in str(error.value)
