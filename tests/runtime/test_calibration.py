"""Input ranges: which one is chosen, when they are chosen again, and what training makes of it."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.api.compile import compile_model
from cimc.chip import load_chip
from cimc.data.load import load
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.options import RateSchedule
from cimc.units import device_targets
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.product import clipped_conversions
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.input_ranges import calibrating_product
from runtime.system.products import array_product, exact_product
from runtime.system.program import retarget
from runtime.system.state import State, System, build_system, initial_state
from runtime.system.watch import follow, look, new_watch
from runtime.system.weight_range import training_weight_range
from runtime.training.options import TrainingOptions
from runtime.training.run import Run
from runtime.training.start import start
from runtime.training.train import train
from tests import reference

MODELS = Path(__file__).parents[2] / "models"
PIXELS = Preprocess(1 / 255)
CHIP = load_chip("brram-256x64")
EXACT = CHIP.cell.programming.model_copy(update={"error_sd_uS": 0.0})
QUIET = CHIP.model_copy(
    update={
        "name": "brram-256x64 without noise",
        "cell": CHIP.cell.model_copy(update={"read_noise_uS": 0.0, "programming": EXACT}),
        "adc": CHIP.adc.model_copy(update={"noise_lsb": 0.0}),
    }
)


def system_of(model: str, chip: str | None = None) -> System:
    """A network on a built-in chip, or on the quiet one."""
    artifact = compile_model(MODELS / f"{model}.onnx", chip or "brram-256x64", verify=False).artifact
    return build_system(load_network(artifact.network), artifact.mapping, artifact.chip if chip else QUIET)


def trainable(system: System) -> State:
    state = initial_state(system)
    return retarget(system, state, weight_range=training_weight_range)


def few_tests() -> Dataset:
    """The digits, with a few of the test images: accuracy is not looked at."""
    data = load("digits")
    return replace(data, test=data.test.take(slice(64)))


def images(count: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).integers(0, 256, (count, 1, 28, 28), np.uint8))


def test_calibration_takes_the_range_with_the_least_error() -> None:
    system = system_of("mlp")
    state = trainable(system)
    name = next(iter(system.crossbars))
    record: dict[str, jax.Array] = {}
    x = jnp.asarray(np.random.default_rng(0).random((8, 784), np.float32)).T
    calibrating_product(system, state, record)(name, x, None)
    exact = exact_product(system, state)(name, x, None)

    def error(input_range: float) -> float:
        trial = {**state, "input_range": {**state["input_range"], name: jnp.float32(input_range)}}
        return float(jnp.mean(jnp.square(array_product(system, trial)(name, x, None) - exact)))

    best = float(record[name])
    # Neighbouring candidates lie a factor of about 1.4 apart.
    assert error(best) <= 1.001 * min(error(best / 1.4), error(best * 1.4))


def test_clipped_conversions_are_those_of_the_reference() -> None:
    """Cell by cell, in two phases and two row blocks."""
    rows, columns, mvms, signed = 300, 6, 10, True
    random = np.random.default_rng(5)
    x = random.normal(0, 1, (rows, mvms)).astype(np.float32)
    g = device_targets(random.uniform(-1, 1, (rows, columns)).astype(np.float32), np.float32(1), QUIET)
    layer = Crossbar(QUIET, read_rows=256, column_block=32, signed=signed)
    for input_range in (1.0, 4.0, 12.0):
        share = float(
            clipped_conversions(layer.reading, jnp.asarray(x), jnp.asarray(g), jnp.float32(input_range), None)
        )
        codes = reference.dac_codes(x, input_range, QUIET)
        ends = [
            reference.conversion(reference.column_current(phase[rows_of], column[rows_of], QUIET, None), QUIET, None)[0]
            == 255
            for phases in codes.T
            for phase in (np.maximum(phases, 0), np.maximum(-phases, 0))
            for rows_of in (slice(0, 256), slice(256, 300))
            for side in g
            for column in side.T
        ]
        assert share == pytest.approx(np.mean(ends), abs=2e-3)  # rounding ties may fall either way


def test_ranges_are_chosen_at_the_first_look_and_again_only_when_a_layer_has_moved() -> None:
    system = system_of("lenet1")
    state, batch, key = trainable(system), {system.network.input: images(32)}, jax.random.key(0)
    state, watch = follow(system, state, new_watch(system), batch, PIXELS, key)
    assert int(watch.calibrations) == 1
    samples = Samples({name: np.asarray(array) for name, array in batch.items()})
    chosen = calibrate(system, state, samples, PIXELS, key)  # nothing is drawn on the quiet chip
    assert state["input_range"] == chosen["input_range"]
    still, watch = follow(system, state, watch, batch, PIXELS, jax.random.key(1))
    assert (int(watch.calibrations), int(watch.looks)) == (1, 2)
    assert still["input_range"] == state["input_range"]
    # The second layer's inputs grow by a half.
    digital = {**state["digital"], "conv1.gain": state["digital"]["conv1.gain"] * 1.5}
    moved, watch = follow(system, {**state, "digital": digital}, watch, batch, PIXELS, jax.random.key(2))
    assert int(watch.calibrations) == 2
    assert moved["input_range"]["conv2"] == pytest.approx(1.5 * float(state["input_range"]["conv2"]), rel=1e-3)


def test_what_is_seen_are_the_size_of_the_inputs_and_the_shares_that_are_clipped() -> None:
    system = system_of("lenet1")
    state, batch, key = trainable(system), {system.network.input: images(32)}, jax.random.key(0)
    pixels = np.asarray(batch[system.network.input]) / 255
    for factor in (0.25, 0.5, 2.0):
        seen = look(
            system,
            {**state, "input_range": dict.fromkeys(system.crossbars, jnp.float32(factor))},
            batch,
            PIXELS,
            key,
        )
        assert float(seen["conv1"].inputs) == pytest.approx(np.sqrt(np.mean(pixels**2)) / factor, rel=1e-3)
        assert float(seen["conv1"].clipped_inputs) == pytest.approx(np.mean(pixels > factor * 1.001), abs=1e-6)
        assert 0 <= float(seen["conv1"].clipped_codes) < 1


def test_the_loss_has_no_jump_where_ranges_are_chosen_again() -> None:
    """With ranges that stayed for a hundred steps it rose from 2 to 11 at the first new choice."""
    system = system_of("lenet1")
    options = TrainingOptions(epochs=15, steps_per_epoch=20, schedule=RateSchedule.constant)
    run = train(system, start(system, trainable(system), options), options, few_tests())
    assert int(run.watch.calibrations) >= 3, "or there is nothing to see"
    losses = [record["loss"] for record in run.history]
    assert all(after < 1.2 * before + 0.05 for before, after in pairwise(losses)), losses
    assert losses[-1] < 0.4 * losses[0], losses


@pytest.fixture(scope="module")
def noisy_run() -> Run:
    """LeNet-1 trained on noisy arrays over more steps than other tests take: ranges must follow what grows."""
    system, options = system_of("lenet1", "brram-soc"), TrainingOptions(epochs=2, steps_per_epoch=100)
    return train(system, start(system, initial_state(system), options), options, load("digits"))


def test_lenet1_learns_the_synthetic_digits_on_noisy_arrays(noisy_run: Run) -> None:
    first, second = noisy_run.history
    assert second["loss"] < 0.5 * first["loss"], noisy_run.history
    assert second["accuracy"] > 0.8, noisy_run.history


def test_every_epoch_records_the_ranges_and_what_they_clip(noisy_run: Run) -> None:
    run = noisy_run
    for record in run.history:
        assert list(record["layers"]) == ["conv1", "conv2", "fc1"]
        for name, layer in record["layers"].items():
            assert 0 <= layer["clipped_inputs"] < 0.5
            assert 0 <= layer["clipped_codes"] < 0.5
            assert layer["weight_range"] == float(run.state["weight_range"][name])
    assert run.history[-1]["layers"]["fc1"]["input_range"] == float(run.state["input_range"]["fc1"])
