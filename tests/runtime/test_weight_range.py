"""The weight range of a layer: the one with the least expected error on its devices, levels and all."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from cimc.api.compile import compile_model
from cimc.chip import Cell, Chip, load_chip
from cimc.data.load import load
from cimc.units import device_targets, weight_of
from runtime.crossbar.keys import new_key
from runtime.devices.device import device_of
from runtime.devices.write_law import ErrorLeft, error_left
from runtime.network.load import load_network
from runtime.system import weight_range
from runtime.system.program import retarget
from runtime.system.state import build_system, initial_state
from runtime.system.weight_range import best_weight_range, range_in_sds, training_weight_range, write_errors
from runtime.training.options import TrainingOptions
from runtime.training.start import start
from runtime.training.train import train

Floats = npt.NDArray[np.float32]
QUIET: dict[str, Any] = {"read_noise_uS": 0.0, "programming": {}}
FEW_LEVELS: dict[str, Any] = {**QUIET, "levels": 2}


def chip_with(name: str = "brram-256x64", **changes: Any) -> Chip:
    chip = load_chip(name)
    cell = Cell.model_validate({**chip.cell.model_dump(), "granularity_uS": None} | changes)
    return chip.model_copy(update={"cell": cell})


@partial(jax.jit, static_argnums=1)
def write(targets: jax.Array, cell: Cell, key: jax.Array) -> jax.Array:
    return device_of(cell).write(targets, key).conductance


def normal_weights(count: int = 20_000, outlier: float = 0.0) -> Floats:
    weight = np.random.default_rng(0).normal(0, 0.1, (1, count)).astype(np.float32)
    weight[0, 0] = outlier or weight[0, 0]
    return weight


def squared_error(weight: Floats, weight_range: float, chip: Chip) -> float:
    """Mean squared error of weights that are written and read, over draws of both."""
    targets = jnp.asarray(device_targets(weight, np.float32(weight_range), chip))
    errors = []
    for seed in range(4):
        held = np.asarray(write(targets, chip.cell, new_key(seed)), np.float64)
        held += np.random.default_rng(seed).normal(0, 1, held.shape) * np.sqrt(chip.cell.read_noise_variance(held))
        errors.append(np.mean(np.square(weight_of(held, weight_range, chip) - weight)))
    return float(np.mean(errors))


@pytest.mark.parametrize("name", ["brram-256x64", "ideal", "brram-soc"])
def test_devices_that_hold_any_value_exactly_take_the_largest_weight(name: str) -> None:
    weight = normal_weights(outlier=-0.9)
    assert best_weight_range(weight, chip_with(name, **QUIET)) == np.float32(0.9)
    assert best_weight_range(np.zeros((3, 2), np.float32), chip_with(name, **QUIET)) == 1


@pytest.mark.parametrize(
    "chip",
    [
        load_chip("brram-256x64"),
        load_chip("brram-soc"),
        load_chip("hermes"),
        chip_with(**FEW_LEVELS),
        chip_with(levels=4),
        chip_with(**QUIET, level_uS=[10.0, 14.0, 20.0, 66.0]),
        chip_with("hermes", limits_uS=[0.0, 20.7]),
        chip_with("hermes", programming={"error_sd_uS": [0.1, 0.0, 4.0]}),
    ],
    ids=["256x64", "soc", "hermes", "2 levels", "4 noisy levels", "listed", "limits", "worse at G_max"],
)
@pytest.mark.parametrize("outlier", [0.0, 1.6])
def test_no_other_range_gives_a_smaller_error(chip: Chip, outlier: float) -> None:
    weight = normal_weights(outlier=outlier)
    chosen = float(best_weight_range(weight, chip))
    largest = float(np.abs(weight).max())
    others = [squared_error(weight, r, chip) for r in np.linspace(0.05, 1.0, 20) * largest]
    assert squared_error(weight, chosen, chip) <= 1.01 * min(others)


def test_few_levels_and_noisy_devices_clip_the_largest_weights() -> None:
    weight = normal_weights()
    largest = float(np.abs(weight).max())
    two, sixteen, many = (float(best_weight_range(weight, chip_with(**QUIET, levels=n))) for n in (2, 16, 4096))
    assert two < 0.5 * largest
    assert two < sixteen < many
    assert many > 0.95 * largest


def test_the_range_of_millions_of_weights_is_that_of_their_distribution() -> None:
    few = normal_weights(outlier=0.6)
    many = np.tile(few, (150, 1))
    for chip in (load_chip("brram-256x64"), chip_with(**FEW_LEVELS)):
        assert best_weight_range(many, chip) == best_weight_range(few, chip)


@pytest.mark.parametrize(
    "chip", [load_chip("brram-256x64"), chip_with(**FEW_LEVELS)], ids=["any conductance", "2 levels"]
)
def test_training_starts_with_a_range_in_sd_of_the_weights_but_few_levels_with_the_best(chip: Chip) -> None:
    weight = normal_weights(2000)
    system: Any = SimpleNamespace(chip_of=lambda layer: chip)
    state: Any = {"weight": {"a": weight}}
    best = best_weight_range(weight, chip)
    rules = (best_weight_range, training_weight_range)
    chosen = [retarget(system, state, weight_range=rule) for rule in rules]
    assert chosen[0]["weight_range"]["a"] == best
    spread = np.sqrt(np.mean(weight.astype(np.float64) ** 2))
    assert chosen[1]["weight_range"]["a"] == pytest.approx(
        range_in_sds(chip) * spread if chip.cell.levels is None else best, rel=1e-6
    )
    if chip.cell.levels is not None:
        targets = np.asarray(chosen[1]["conductance"]["a"])
        assert len(np.unique(targets)) == 2
        assert np.mean(targets.max(axis=0) > 10.1) > 0.3, "weights that do not start as 0"


# --- In training ---


def test_training_does_not_hang_on_one_outlier() -> None:
    chip = chip_with()
    plain, outlier = (float(training_weight_range(normal_weights(outlier=value), chip)) for value in (0.0, 1.4))
    assert outlier == pytest.approx(plain, rel=0.01)
    uniform = np.random.default_rng(1).uniform(-1, 1, 20_000).astype(np.float32)
    assert float(training_weight_range(uniform, chip)) == pytest.approx(range_in_sds(chip) / np.sqrt(3), rel=0.01)
    zeros = np.zeros((50, 4), np.float32)
    assert float(training_weight_range(zeros, chip)) == pytest.approx(range_in_sds(chip) * np.sqrt(2 / 50))


def test_a_layer_in_another_unit_trains_the_same_way() -> None:
    """Weights of the first layer x 4 and of the second / 4: updates stay what they are, but for the bias between."""
    artifact = compile_model(
        Path(__file__).parents[2] / "models" / "lenet1.onnx", "brram-256x64", verify=False
    ).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    options = TrainingOptions(epochs=2, steps_per_epoch=20, weight_decay=0.0)
    data, runs = load("digits"), []
    data = replace(data, test=data.test.take(slice(64)))
    for unit in (1.0, 4.0):
        state = initial_state(system)
        factors = {"conv1": unit, "conv2": 1 / unit, "fc1": 1.0}
        state["weight"] = {name: weight * factors[name] for name, weight in state["weight"].items()}
        state = retarget(system, state, weight_range=training_weight_range)
        runs.append(train(system, start(system, state, options), options, data))
    plain, other = runs
    assert float(other.state["weight_range"]["conv1"]) == 4 * float(plain.state["weight_range"]["conv1"])
    assert other.history[0]["loss"] == pytest.approx(plain.history[0]["loss"], rel=0.1)
    assert other.history[-1]["updates"] == pytest.approx(plain.history[-1]["updates"], rel=0.1)


def test_the_coarser_and_noisier_the_devices_the_smaller_is_the_range_in_training() -> None:
    soc, large, ideal = (range_in_sds(load_chip(name)) for name in ("brram-soc", "brram-256x64", "ideal"))
    assert 0.8 < soc < 1.2
    assert 1.8 < large < 2.2
    assert ideal == 3
    # By simulation for brram-256x64: no other range has less of clipping and weighted errors together.
    cell, z = load_chip("brram-256x64").cell, np.random.default_rng(0).normal(size=400_000)
    error = 2.2 * (2 * (2.0**2 + 1.2**2) / 60**2 + (1 / 15) ** 2 / 3)
    assert cell.largest_error_sd_uS == 2.0
    cost = {r: error * r**2 + np.mean(np.maximum(np.abs(z) - r, 0) ** 2) for r in (large - 0.2, large, large + 0.2)}
    assert min(cost, key=lambda r: cost[r]) == large


def test_a_range_in_training_knows_that_errors_follow_the_state() -> None:
    """Of two laws with the same largest sd, the one whose small states are quiet clips less."""
    flat, constant, quiet = (
        range_in_sds(chip_with(granularity_uS=1.0, read_noise_uS=0.0, programming={"error_sd_uS": sd}))
        for sd in ([6.0], 6.0, [0.0, 0.0, 6.0])
    )
    assert flat == constant
    assert quiet > 1.2 * constant
    noisy, steep = (
        range_in_sds(chip_with(granularity_uS=1.0, programming={}, **reads))
        for reads in ({"read_noise_uS": 6.0}, {"read_noise_uS": 0.0, "read_noise_polynomial_uS": [0.0, 0.0, 6.0]})
    )
    assert (noisy, steep) == (constant, quiet)


def test_the_law_of_a_cell_with_limits_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fitting scales asks for it dozens of times, a second each."""
    states: list[float] = []
    law = error_left

    def counted(cell: Cell, state: float) -> ErrorLeft:
        states.append(state)
        return law(cell, state)

    monkeypatch.setattr(weight_range, "error_left", counted)
    for targets in (np.full((3, 2), 30.0), np.full(5, 20.0)):
        write_errors(targets, chip_with(limits_uS=[1.5, 81.5]).cell)  # of another test is none with these limits
    assert len(states) == len(set(states))
