"""Compensation of virtual chips against what its definitions say, in plain NumPy, on a network of two layers."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.chip import Chip, load_chip
from cimc.dataset import Preprocess, Samples
from cimc.errors import CimcError
from cimc.options import Compensate, parse_compensate
from cimc.units import weight_of
from runtime.crossbar.keys import new_key
from runtime.deployment.chips import Chips, outputs_on_chips
from runtime.deployment.compensation import Calibration, calibration_of, compensate_chips, digital_numbers
from runtime.network.load import load_network
from runtime.system import calibration as of_ranges
from runtime.system.inference import batches, outputs_on_arrays
from runtime.system.input_ranges import RANGE_FACTORS
from runtime.system.program import programmed_state
from runtime.system.state import State, System, build_system
from tests.networks import network_proto, weights

Arrays = Mapping[str, np.ndarray]
RANDOM = np.random.default_rng(0)
X = RANDOM.random((48, 12), np.float32)
W1, W2, B1, B2 = weights(12, 6), weights(6, 4, seed=1), weights(6, seed=2), weights(4, seed=3)
CHIPS = 3


def system_on(chip: Chip, folder: Path) -> tuple[System, State]:
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2", "b2"], ["y"], name="second"),
    ]
    constants = {"w1": W1, "b1": B1, "w2": W2, "b2": B2}
    proto = network_proto(nodes, {"x": ["N", 12]}, {"y": ["N", 4]}, constants)
    data = cimc.Dataset.of_images("d", X, np.zeros(48, np.int32), X, np.zeros(48, np.int32))
    onnx.save(proto, folder / "two.onnx")
    package = cimc.export(cimc.compile(folder / "two.onnx", chip, verify=False).artifact, data=data)
    system = build_system(load_network(package.network), package.mapping, package.chip)
    return system, programmed_state(system, package.program)


@pytest.fixture(scope="module")
def ideal(tmp_path_factory: pytest.TempPathFactory) -> tuple[System, State]:
    return system_on(load_chip("ideal"), tmp_path_factory.mktemp("two"))


@pytest.fixture(scope="module")
def coarse(tmp_path_factory: pytest.TempPathFactory) -> tuple[System, State]:
    """With few codes of inputs."""
    chip = load_chip("ideal", settings={"input": {"bits": 4, "signed": "two-phase"}})
    return system_on(chip, tmp_path_factory.mktemp("coarse"))


@pytest.fixture(scope="module")
def noisy(tmp_path_factory: pytest.TempPathFactory) -> tuple[System, State]:
    return system_on(load_chip("brram-256x64"), tmp_path_factory.mktemp("noisy"))


def drifted(system: System, state: State) -> tuple[Chips, Chips]:
    """Chips right after programming, and with each device at its own share of what it held."""
    random, own = np.random.default_rng(5), {}
    for name, targets in state["conductance"].items():
        share = random.uniform(0.4, 0.9, (CHIPS, *targets.shape)).astype(np.float32)
        own[name] = np.asarray(targets)[None] * share
    fresh = {name: np.stack([np.asarray(targets)] * CHIPS) for name, targets in state["conductance"].items()}
    keys = jax.random.split(new_key(0), CHIPS)
    new, aged = (
        Chips(system, state, {"conductance": {name: jax.device_put(a) for name, a in held.items()}}, keys)
        for held in (fresh, own)
    )
    return new, aged


def held_weights(chips: Chips, chip: int) -> list[np.ndarray]:
    """What a chip's devices stand for, with the gains of the program."""
    state, made = chips.state_of(chip), []
    for name in ("first", "second"):
        weight = weight_of(np.asarray(state["conductance"][name]), np.asarray(state["weight_range"][name]), CHIP)
        made.append(np.asarray(weight, np.float64) * np.asarray(chips.state["digital"][f"{name}.gain"], np.float64))
    return made


CHIP = load_chip("ideal")


def judge(kinds: tuple[str, ...], fresh: Chips, old: Chips, chip: int, x: np.ndarray) -> np.ndarray:
    """The outputs of a compensated chip: every definition as it reads."""
    aged = held_weights(old, chip)
    biases, exact, found = (B1, B2), x.astype(np.float64), x.astype(np.float64)
    for index, (name, weight) in enumerate({"first": W1, "second": W2}.items()):
        then, now = (  # what all one-hot inputs read, before the digital scales
            np.abs(np.subtract(*np.asarray(chips.own["conductance"][name][chip], np.float64))) for chips in (fresh, old)
        )
        if "global" in kinds:
            gain: Any = then.mean() / now.mean()
        elif "column" in kinds:
            gain = then.mean(axis=0) / now.mean(axis=0)
        else:
            gain = 1.0
        wanted, y = exact @ weight + biases[index], found @ aged[index] * gain + biases[index]
        if "bn" in kinds:
            y = (y - y.mean(axis=0)) * wanted.std(axis=0) / y.std(axis=0) + wanted.mean(axis=0)
        if "affine" in kinds:
            for column in range(y.shape[1]):
                centred, goal = (part[:, column] - part[:, column].mean() for part in (y, wanted))
                error = centred - goal
                prior = np.mean(error**2) / 0.25**2  # a slope of 1 is believed to 0.25
                slope = np.clip(1 - centred @ error / (centred @ centred + prior), 0.25, 4)
                y[:, column] = slope * centred + wanted[:, column].mean()
        exact, found = (wanted, y) if index else (np.maximum(wanted, 0), np.maximum(y, 0))
    return found


@pytest.mark.parametrize("text", ["none", "global", "column", "bn", "affine", "bn,affine", "global+affine"])
def test_each_compensation_does_what_its_definition_says(ideal: tuple[System, State], text: str) -> None:
    system, state = ideal
    fresh, aged = drifted(system, state)
    samples, kinds = Samples({"x": X}), parse_compensate(text)
    calibration = calibration_of(system, state, samples, Preprocess(), chips=CHIPS, carry={})
    made = compensate_chips(kinds, fresh, aged, calibration, aged.keys)
    (batch,) = batches(system.network, samples, Preprocess())
    for chip, outputs in enumerate(outputs_on_chips(made, batch)):
        expected = judge(kinds, fresh, aged, chip, X)
        np.testing.assert_allclose(outputs["y"], expected, rtol=2e-4, atol=2e-4, err_msg=f"chip {chip}")


def test_one_chip_alone_is_compensated_as_beside_others(ideal: tuple[System, State]) -> None:
    system, state = ideal
    fresh, aged = drifted(system, state)
    alone = [
        Chips(system, state, {"conductance": {n: a[1:2] for n, a in c.own["conductance"].items()}}, c.keys[1:2])
        for c in (fresh, aged)
    ]
    calibration = calibration_of(system, state, Samples({"x": X}), Preprocess(), chips=1, carry={})
    kinds = parse_compensate("global+bn")
    one, all_of_them = (
        compensate_chips(kinds, *pair, calibration, pair[0].keys).state_of(chip)
        for pair, chip in (((alone[0], alone[1]), 0), ((fresh, aged), 1))
    )
    for group in ("gain", "bias"):
        for layer in ("first", "second"):
            np.testing.assert_allclose(one[group][layer], all_of_them[group][layer], rtol=1e-4, atol=1e-5)


def test_ranges_are_those_with_the_least_error_from_what_the_devices_hold(coarse: tuple[System, State]) -> None:
    system, state = coarse
    fresh, aged = drifted(system, state)
    samples = Samples({"x": X})
    calibration = calibration_of(system, state, samples, Preprocess(), chips=CHIPS, carry={})
    made = compensate_chips([Compensate.ranges], fresh, aged, calibration, aged.keys)
    for chip in range(CHIPS):
        weight = held_weights(aged, chip)[0]
        factor = state["input_factor"].get("first")
        scaled = X / np.asarray(1 if factor is None else factor)

        def error(span: float, weight: np.ndarray = weight, scaled: np.ndarray = scaled) -> float:
            applied = np.clip(np.round(scaled * (15 / span)), -15, 15) * span / 15
            return float(np.mean(((applied - scaled) @ weight) ** 2))

        tried = [scaled.max() * factor for factor in RANGE_FACTORS]
        best = min(tried, key=error)
        assert float(made.own["input_range"]["first"][chip]) == pytest.approx(best, rel=1e-5)


def test_ranges_are_chosen_on_all_batches_and_the_one_that_is_there(
    coarse: tuple[System, State], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream, or a network of a fixed batch, begins with one sample, which may be of no size."""
    system, state = coarse
    fresh, aged = drifted(system, state)

    def chosen(*parts: np.ndarray) -> np.ndarray:
        each = [
            calibration_of(system, state, Samples({"x": part}), Preprocess(), chips=CHIPS, carry={}) for part in parts
        ]
        calibration = Calibration([one.batches[0] for one in each], [one.wanted[0] for one in each])
        made = compensate_chips([Compensate.ranges], fresh, aged, calibration, aged.keys)
        return np.asarray(made.own["input_range"]["first"])

    np.testing.assert_array_equal(chosen(X * 0, X), chosen(X))
    monkeypatch.setattr(of_ranges, "RANGE_FACTORS", (50.0,))
    np.testing.assert_array_equal(chosen(X), np.full(CHIPS, state["input_range"]["first"]))


def test_compensation_reads_with_noise_of_its_own(noisy: tuple[System, State]) -> None:
    """With that of the reads to come, its shifts would make up for what nobody can know."""
    system, state = noisy
    fresh, aged = drifted(system, state)
    calibration = calibration_of(system, state, Samples({"x": X}), Preprocess(), chips=CHIPS, carry={})
    own, others = (
        compensate_chips([Compensate.affine], fresh, aged, calibration, keys)
        for keys in (aged.keys, jax.random.split(new_key(1), CHIPS))
    )
    assert np.all(np.asarray(own.own["bias"]["first"]) != np.asarray(others.own["bias"]["first"]))
    assert others.keys is aged.keys


def test_a_chip_that_is_compensated_after_it_was_looked_at(ideal: tuple[System, State]) -> None:
    """Networks with a Scan look at the whole chip on the way: what is compensated behind it must not be lost."""
    _, aged = drifted(*ideal)
    before = aged.state_of(0)["gain"]
    gains = {"second": jax.device_put(np.full((CHIPS, 4), 2, np.float32))}
    assert "second" not in before
    assert replace(aged, own={**aged.own, "gain": gains}).state_of(0)["gain"]["second"].tolist() == [2, 2, 2, 2]


def test_chips_side_by_side_give_what_each_gives_alone(noisy: tuple[System, State]) -> None:
    system, state = noisy
    fresh, _ = drifted(system, state)
    (batch,) = batches(system.network, Samples({"x": X}), Preprocess())
    together = outputs_on_chips(fresh, batch)
    for chip, outputs in enumerate(together):
        alone = outputs_on_arrays(system, fresh.state_of(chip), batch, fresh.keys[chip])
        np.testing.assert_allclose(outputs["y"], alone["y"], rtol=1e-5, atol=1e-6)
    assert not np.array_equal(together[0]["y"], together[1]["y"]), "each chip has its own noise"


def test_what_compensation_costs(ideal: tuple[System, State]) -> None:
    numbers = digital_numbers(ideal[0], parse_compensate("affine+global,column+ranges+bn"))
    assert numbers == {"global": 0, "column": 10, "ranges": 2, "bn": 20, "affine": 20}
    assert digital_numbers(ideal[0], parse_compensate("global")) == {"global": 2}


def test_unknown_compensation_is_named() -> None:
    with pytest.raises(CimcError, match=r"compensate is 'colum'; choose .*did you mean column"):
        parse_compensate("global+colum")
