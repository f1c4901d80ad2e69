"""Chips and options that differ in numbers alone train by the same compiled step, each with its own numbers."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np
import onnx
import pytest

from cimc.api.compile import compile_model
from cimc.chip import load_chip
from cimc.dataset import Dataset
from runtime.crossbar import figures
from runtime.crossbar.figures import MOST_FIGURES, figure, jit_with_figures
from runtime.network.load import load_network
from runtime.system.state import System, build_system, initial_state
from runtime.training.options import Policy, TrainingOptions
from runtime.training.start import start
from runtime.training.train import train
from tests.networks import network_proto
from tests.training_step import trace_steps

# Of chips, options of mixed precision, and numbers that change no program: of the chip, or the threshold.
VERIFIED: dict[str, Any] = {"write": "verify"}
BLIND: dict[str, Any] = {"write": "pulse", "sync": "readback"}
ANOTHER_CHIP = {
    "adc": {"bits": 6, "noise_lsb": 1.0, "range_uA": 30.0},
    "input": {"bits": 6},
    "cell": {
        "read_noise_uS": 1.5,
        "read_voltage_V": 0.15,
        "conductance_max_uS": 37.0,
        "programming": {"error_sd_uS": 1.0},
    },
}
CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "one trial": ("brram-256x64", VERIFIED, {**ANOTHER_CHIP, "threshold": 0.2}),
    "verified": ("brram-soc", VERIFIED, {"cell": {"programming": {"error_sd_uS": 1.5, "tolerance_uS": 4.0}}}),
    "pulses": ("brram-256x64", BLIND, {"cell": {"pulse": {"step_uS": 3.0, "c2c": 0.3}}, "threshold": 0.1}),
}


def system_of(chip: str, numbers: dict[str, Any]) -> System:
    weights = {"w": np.linspace(-1, 1, 48, dtype=np.float32).reshape(12, 4)}
    dense = network_proto(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["N", 12]}, {"y": ["N", 4]}, weights
    )
    settings = {key: value for key, value in numbers.items() if key != "threshold"}
    artifact = compile_model(dense, load_chip(chip, settings=settings), verify=False).artifact
    return build_system(load_network(artifact.network), artifact.mapping, artifact.chip)


def data() -> Dataset:
    random = np.random.default_rng(0)
    inputs, labels = random.uniform(0, 1, (64, 12)).astype(np.float32), random.integers(0, 4, 64).astype(np.int32)
    return Dataset.of_images("random", inputs, labels, inputs, labels, synthetic=True, classes=4)


def options_of(policy: dict[str, Any], numbers: dict[str, Any]) -> TrainingOptions:
    threshold = numbers.get("threshold", 0.05)
    return TrainingOptions(Policy(threshold=threshold, **policy), epochs=1, steps_per_epoch=3, batch_size=8, lr=0.3)


@pytest.mark.parametrize("case", CASES)
def test_other_numbers_are_the_same_program(case: str) -> None:
    chip, policy, numbers = CASES[case]
    texts = []
    for given in ({}, numbers):
        traced = trace_steps(system_of(chip, given), data(), options_of(policy, given))
        texts.append(traced.lower().as_text())
    assert texts[0] == texts[1]


@pytest.mark.parametrize("case", CASES)
def test_each_is_computed_with_its_own(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    chip, policy, numbers = CASES[case]
    system, options = system_of(chip, numbers), options_of(policy, numbers)

    def weights(system: System) -> np.ndarray:
        run = train(system, start(system, initial_state(system), options), options, data())
        (layer,) = run.state["conductance"].values()
        return np.asarray(layer)

    as_values = weights(system)
    monkeypatch.setattr(figures._Recorder, "take", lambda self, value: value)
    np.testing.assert_allclose(as_values, weights(system_of(chip, numbers)), rtol=1e-5)


def test_numbers_and_arrays_are_taken_in_their_order_and_elsewhere_are_themselves() -> None:
    @jit_with_figures(static_argnums=(0,))
    def scaled(factors: tuple[float, ...], x: jax.Array) -> jax.Array:
        first, rest = figure(factors[0]), figure(np.array(factors[1:], np.float32))
        return jax.lax.fori_loop(0, 2, lambda n, y: y * first, x) + rest

    x = np.ones(2, np.float32)
    np.testing.assert_array_equal(scaled((3.0, 1.0, 2.0), x), [10, 11])
    np.testing.assert_array_equal(scaled((2.0, 5.0, 7.0), x), [9, 11])
    np.testing.assert_array_equal(scaled((2.0, 5.0, 7.0), np.ones((3, 2), np.float32)), [[9, 11]] * 3)
    texts = [
        program.compiled.lower(np.zeros(MOST_FIGURES, np.float32), x).as_text()
        for program in [scaled.program((3.0, 1.0, 2.0), x)[0], scaled.program((2.0, 5.0, 7.0), x)[0]]
    ]
    assert texts[0] == texts[1]
    assert figure(2.0) == 2.0


def test_threads_that_share_a_program_share_its_figures() -> None:
    tracing = threading.Event()

    @jit_with_figures(static_argnums=(0,))
    def scaled(factor: float, x: jax.Array) -> jax.Array:
        tracing.set()
        time.sleep(0.2)
        return x * figure(factor)

    x = np.ones(3, np.float32)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(scaled, 3.0, x)
        tracing.wait()
        second = threads.submit(scaled, 3.0, x)
        np.testing.assert_array_equal([first.result(), second.result(), scaled(3.0, x)], np.full((3, 3), 3.0))


def test_an_interrupted_trace_leaves_no_figures_behind() -> None:
    interrupts = [True]

    @jit_with_figures(static_argnums=(0,))
    def scaled(factor: float, x: jax.Array) -> jax.Array:
        y = x * figure(factor)
        if interrupts:
            interrupts.clear()
            raise KeyboardInterrupt
        return y

    x = np.ones(3, np.float32)
    with pytest.raises(KeyboardInterrupt):
        scaled(3.0, x)
    np.testing.assert_array_equal(scaled(3.0, x), 3.0)
