"""Chip in the loop: what is programmed stays as the die holds it, the rest learns on it; the package is that die's."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from typer.testing import CliRunner

import cimc
from cimc.api.tune import tuning_options
from cimc.commands.main import app
from cimc.dataset import Dataset
from cimc.device_time import Drift, Faults, StateLaw
from cimc.errors import CimcError
from cimc.package import Package, read_package
from cimc.program_files import array_targets
from runtime.deployment.population import Request, population_of
from runtime.system.inputs import match_data
from runtime.system.products import exact_layer
from runtime.system.program import programmed_state
from runtime.system.state import initial_state
from runtime.training.programmed import PartlyProgrammed
from tests.cimc.in_the_loop.two_layers import (
    CLASSES,
    HIDDEN,
    INPUTS,
    SEED,
    held_by_die,
    measurement,
    parameters,
    system_of,
)

TUNING = cimc.TrainingOptions(policy=cimc.Policy(method="float"), epochs=20, lr=0.01, batch_size=32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned") / "die"


@pytest.fixture(scope="module")
def tuned(plain: Package, data: Dataset, folder: Path) -> Package:
    """That network on a virtual die, programmed in the loop."""
    return cimc.tune(plain, data, options=TUNING, seed=SEED, output=folder)


def test_the_die_is_the_one_that_deploy_programs(plain: Package, tuned: Package) -> None:
    """The first layer is programmed with the same targets; the last one's are others by then, its errors the same."""
    held, step = held_by_die(plain), plain.chip.target_step_uS
    np.testing.assert_allclose(tuned.program.layers["first"].targets, held["first"], rtol=0, atol=step)
    assert np.abs(tuned.program.layers["last"].targets - held["last"]).max() > 1
    assert tuned.programmed == {"first", "last"}


def test_tuning_brings_back_some_of_what_the_die_loses(plain: Package, tuned: Package, data: Dataset) -> None:
    before = cimc.deploy(plain, data, chips=1, seed=SEED).accuracies[0]
    after = cimc.deploy(tuned, data, chips=1, seed=SEED).accuracies[0]
    assert after > before + 0.06
    first, last = tuned.notes["in_the_loop"]["steps"]
    assert first["after"] > first["before"] + 0.06
    assert last["before"] == last["after"], "no layer is left that could learn"
    assert 5 < first["off_target_uS"] < 7


def test_deploy_leaves_a_programmed_die_as_it_is(tuned: Package, folder: Path, data: Dataset) -> None:
    """Of any seed, and from its folder: what model.onnx computes, as reads have no noise."""
    session = onnxruntime.InferenceSession(tuned.chip_network, providers=["CPUExecutionProvider"])
    found = session.run(None, {"x": data.test.inputs[""]})[0]
    right = np.mean(np.argmax(found, axis=1) == data.test.labels)
    assert cimc.deploy(tuned, data, chips=2, seed=99).accuracies.tolist() == [right, right]
    assert cimc.deploy(folder, data, chips=1).accuracies.tolist() == [right]
    assert cimc.verify(folder)["model_onnx"] == 0
    assert "programmed: layer" in (folder / "program" / "array_0000.csv").read_text()
    assert "one die, virtual die of seed 3, on which these layers are programmed" in (folder / "README.md").read_text()


def test_a_package_is_not_tuned_into_itself(folder: Path, tuned: Package) -> None:
    told = CliRunner().invoke(app, ["tune", str(folder), "-o", str(folder)]).exception
    assert isinstance(told, CimcError)
    assert "it is the input" in str(told)


def test_gradients_pass_a_programmed_layer_with_input_factors_as_they_pass_its_weights(plain: Package) -> None:
    """Devices hold the weights times the factors that the inputs are divided by: the gradient has neither."""
    system = system_of(plain)
    state = {**initial_state(system), **programmed_state(system, plain.program)}
    factors = jnp.asarray(np.geomspace(0.1, 2, HIDDEN, dtype=np.float32))
    state = {**state, "input_factor": {"last": factors}, "input_range": dict.fromkeys(state["weight"], jnp.float32(9))}
    way = PartlyProgrammed(method="float", programmed=frozenset({"last"})).compute
    x = jnp.asarray(np.random.default_rng(2).random((HIDDEN, 5), np.float32))

    def gradient(product: Any) -> np.ndarray:
        return np.asarray(jax.grad(lambda inputs: jnp.sum(jnp.sin(jnp.arange(CLASSES))[:, None] * product(inputs)))(x))

    found = gradient(lambda inputs: way.product(system, state)("last", inputs, None))
    exact = gradient(lambda inputs: exact_layer(system, state, "last", inputs, state["weight"]["last"]))
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-6)


# --- A real die ---


def test_a_real_die_is_tuned_to_what_was_measured_of_it(plain: Package, data: Dataset, tmp_path: Path) -> None:
    """What the chip alone has of a layer stays as it was programmed; the network's own scale is in its weights."""
    spans = {"input_factor": (0.5, 2, INPUTS), "gain": (1.4, 1.6, HIDDEN), "bias": (-1, 1, HIDDEN)}
    own: dict[str, Any] = {name: np.linspace(*span, dtype=np.float32) for name, span in spans.items()}
    first = replace(plain.program.layers["first"], **own)
    given = replace(plain, program=replace(plain.program, layers={**plain.program.layers, "first": first}))
    held = measurement(plain, ["first"], tmp_path / "die7.npz")
    options = replace(TUNING, micro_batch=tuning_options(plain, micro_batch=16).micro_batch)
    package = cimc.tune(given, data, measured=tmp_path / "die7.npz", options=options, output=tmp_path / "next")
    for name, values in own.items():
        np.testing.assert_array_equal(getattr(package.program.layers["first"], name), values, err_msg=name)
    graph, before = onnx.ModelProto.FromString(package.network).graph, parameters()[0]
    (weight,) = (onnx.numpy_helper.to_array(one) for one in graph.initializer if one.dims == [INPUTS, HIDDEN])
    np.testing.assert_allclose(np.sum(weight * before, axis=0) / np.sum(np.square(before), axis=0), 1, atol=0.3)
    assert package.programmed == {"first"}
    assert package.notes["in_the_loop"]["die"] == "die7"
    step = plain.chip.target_step_uS
    np.testing.assert_allclose(package.program.layers["first"].targets, held["first"], rtol=0, atol=step)
    # Virtual chips of it: the first layer is there, the last one is programmed anew on each.
    system = system_of(package)
    request = Request(2, 0, programmed=read_package(tmp_path / "next").programmed)
    population = population_of(system, package.program, match_data(system.network, data), request)
    chips = population.make(np.arange(2))[None].own["conductance"]
    for chip in range(2):
        np.testing.assert_array_equal(chips["first"][chip], package.program.layers["first"].targets)
        assert np.abs(chips["last"][chip] - package.program.layers["last"].targets).std() > 3


@pytest.mark.parametrize(
    ("layers", "gap", "message"),
    [
        ([], False, "no device of any layer was measured; program and measure the first layer"),
        (["first"], True, r"719 of the 720 devices of first were measured; measure all of a layer"),
    ],
)
def test_a_measurement_of_no_layer_or_a_part_is_refused(
    plain: Package, data: Dataset, tmp_path: Path, layers: list[str], gap: bool, message: str
) -> None:
    file = tmp_path / "die.npz"
    measurement(plain, layers or ["first"], file)
    values = np.load(file)["conductance_uS"].copy()
    if gap:
        values[tuple(np.argwhere(np.isfinite(values))[3])] = np.nan
    if not layers:
        spare = np.argwhere(np.isnan(array_targets(plain.mapping, plain.chip, plain.program)))[0]
        values[:] = np.nan
        values[tuple(spare)] = 10.0
    np.savez(file, conductance_uS=values)
    with pytest.raises(CimcError, match=message):
        cimc.tune(plain, data, measured=file)


def test_what_cannot_be_tuned_is_told(plain: Package, data: Dataset) -> None:
    with pytest.raises(CimcError, match="--update naive writes devices; choose one of float"):
        cimc.tune(plain, data, options=cimc.TrainingOptions(policy=cimc.Policy(method="naive")))
    first, *rest = plain.mapping.layers
    copied = plain.mapping.model_copy(update={"layers": (first.model_copy(update={"copies": 2}), *rest)})
    with pytest.raises(CimcError, match="first has 2 copies on the chip"):
        cimc.tune(replace(plain, mapping=copied), data)


def test_layers_to_freeze_are_known_before_the_first_is_programmed(
    plain: Package, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cimc.api.tune.program_layer", lambda *_: pytest.fail("programmed first"))
    with pytest.raises(CimcError, match="--freeze nothing matches no layer and no digital parameter"):
        cimc.tune(plain, data, options=replace(TUNING, freeze=("nothing",)))


def test_a_frozen_last_layer_is_programmed_as_it_is(plain: Package, data: Dataset) -> None:
    """When it alone is left, nothing is to be tuned: this ended in an error after all layers before were programmed."""
    found = cimc.tune(plain, data, options=replace(TUNING, freeze=("last",)), seed=SEED)
    assert found.programmed == {"first", "last"}
    first = found.notes["in_the_loop"]["steps"][0]
    assert first["before"] == first["after"]


def test_a_die_that_is_programmed_whole_is_done(
    plain: Package, tuned: Package, folder: Path, data: Dataset, tmp_path: Path
) -> None:
    """Nothing is left to tune or to write again; the last step of a real die keeps what all devices hold."""
    with pytest.raises(CimcError, match="all layers of this package are programmed on its die"):
        cimc.tune(tuned, data)
    with pytest.raises(CimcError, match="--reprogram writes devices that are off their targets"):
        cimc.deploy(tuned, data, chips=1, reprogram="5%")
    with pytest.raises(CimcError, match="it is the input; choose another name"):
        cimc.tune(folder, data, output=folder)
    told = CliRunner().invoke(app, ["tune", str(folder), "-o", str(folder), "--data", "digits"])
    assert "it is the input; choose another name" in str(told.exception)
    held = measurement(plain, ["first", "last"], tmp_path / "die.npz")
    whole = cimc.tune(plain, data, measured=tmp_path / "die.npz", options=TUNING)
    assert whole.programmed == {"first", "last"}
    for name, layer in whole.program.layers.items():
        np.testing.assert_allclose(layer.targets, held[name], rtol=0, atol=plain.chip.target_step_uS)


def test_a_programmed_die_has_no_stuck_cells_of_other_dies(plain: Package, tuned: Package, data: Dataset) -> None:
    """Faults that the chip's description draws are those of dies that nobody programmed; nor do they come with time."""
    cell = plain.chip.cell.model_copy(
        update={
            "faults": Faults(stuck_low=0.1, stuck_high=0.1),
            "drift": Drift(start_s=20.0, exponent=StateLaw(constant=1e-9)),
        }
    )
    system = system_of(replace(tuned, chip=plain.chip.model_copy(update={"cell": cell})))
    request = Request(3, 0, programmed=tuned.programmed, at=(3600.0,))
    population = population_of(system, tuned.program, match_data(system.network, data), request)
    later = population.make(np.arange(3))[3600.0].own["conductance"]
    for name, layer in tuned.program.layers.items():
        for chip in later[name]:
            np.testing.assert_allclose(chip, layer.targets, rtol=1e-5, atol=1e-4)
    np.testing.assert_array_equal(population.stuck_shares(np.arange(3)), 0)
