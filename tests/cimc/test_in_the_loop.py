"""Chip in the loop: what is programmed stays as the die holds it, the rest learns on it, and the package is that die's.
And reprogramming: the devices that are written again are those whose errors cost most.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper
from typer.testing import CliRunner

import cimc
from cimc.addresses import cell_addresses
from cimc.api.reprogram import choose_cells, reprogram_of
from cimc.api.tune import tuning_options
from cimc.chip import load_chip
from cimc.commands.main import app
from cimc.dataset import Dataset
from cimc.device_time import Drift, Faults, StateLaw
from cimc.errors import CimcError
from cimc.package import Package, read_package
from cimc.program_files import array_targets
from cimc.reprogram import parse_amount, parse_shares
from cimc.wiring import Wiring
from runtime.deployment.population import Request, chip_keys, population_of
from runtime.deployment.programming import program_chip
from runtime.deployment.reprogram import Reprogram, choose_devices, gains
from runtime.network.load import load_network
from runtime.system.inputs import match_data
from runtime.system.program import programmed_state
from runtime.system.state import System, build_system
from tests.networks import network_proto, weights

INPUTS, HIDDEN, CLASSES, SEED = 30, 12, 4, 3
# Writes err by a tenth of the window, and reads not at all.
CHIP = {
    "array": {"rows": 32, "columns": 32, "columns_per_adc": 1},
    "cell": {"read_noise_uS": 0.0, "programming": {"error_sd_uS": 6.0}},
    "adc": {"noise_lsb": 0.0},
}
TUNING = cimc.TrainingOptions(policy=cimc.Policy(method="float"), epochs=20, lr=0.01, batch_size=32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Samples with the classes of the network that is programmed."""
    x = np.random.default_rng(0).random((400, INPUTS), np.float32)
    first, last = parameters()
    y = np.argmax(np.maximum(x @ first, 0) @ last, axis=1).astype(np.int32)
    file = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    return cimc.load_data(file)


def parameters() -> tuple[np.ndarray, np.ndarray]:
    """Without a mean, so that the classes are of like size."""
    found = [weights(INPUTS, HIDDEN), weights(HIDDEN, CLASSES, seed=1)]
    return found[0] - found[0].mean(axis=0), found[1] - found[1].mean(axis=1, keepdims=True)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, data: Dataset) -> Package:
    """The network of two layers, of no die in particular."""
    first, last = parameters()
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="last"),
    ]
    proto = network_proto(nodes, {"x": ["N", INPUTS]}, {"y": ["N", CLASSES]}, {"w1": first, "w2": last})
    model = tmp_path_factory.mktemp("model") / "model.onnx"
    onnx.save(proto, model)
    return cimc.export(
        cimc.compile(model, load_chip("brram-256x64", settings=CHIP), verify=False), data=data, seed=SEED
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tuned") / "die"


@pytest.fixture(scope="module")
def tuned(plain: Package, data: Dataset, folder: Path) -> Package:
    """That network on a virtual die, programmed in the loop."""
    return cimc.tune(plain, data, options=TUNING, seed=SEED, output=folder)


def system_of(package: Package) -> System:
    return build_system(load_network(package.network), package.mapping, package.chip)


def held_by_die(package: Package) -> dict[str, np.ndarray]:
    """What the die holds that `deploy` programs first with the seed."""
    system = system_of(package)
    chip = program_chip(system, programmed_state(system, package.program), chip_keys(SEED, 1)[0][0])
    return {name: np.asarray(conductance) for name, conductance in chip.items()}


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


# --- A real die ---


def measurement(package: Package, layers: list[str], file: Path) -> dict[str, np.ndarray]:
    """A file with what the die holds of these layers, no other cell measured; and that by layer."""
    held = held_by_die(package)
    layers_of = {
        name: replace(layer, targets=held[name] if name in layers else np.full_like(layer.targets, np.nan))
        for name, layer in package.program.layers.items()
    }
    program = replace(package.program, layers=layers_of)
    np.savez(file, conductance_uS=array_targets(package.mapping, package.chip, program))
    return held


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


# --- Devices to write again ---


def test_a_gain_is_what_the_output_error_falls_by() -> None:
    """Device by device: the error of a layer with it off its target, less that with it on its target."""
    random = np.random.default_rng(0)
    held, targets = random.random((2, 2, 3, 4))
    importance, counts = random.random((3, 4)), np.array([1.0, -1.0]) / 60

    def error(conductance: np.ndarray) -> float:
        weight = np.tensordot(counts, conductance - targets.astype(np.float32), axes=1)
        return float(np.sum(importance * np.square(weight)))

    held, targets = held.astype(np.float32), targets.astype(np.float32)
    found = gains(held, targets, importance, counts)
    for device in np.ndindex(*held.shape):
        written = held.astype(np.float64)
        written[device] = targets[device]
        assert found[device] == pytest.approx(error(held.astype(np.float64)) - error(written), abs=1e-12)


def test_a_share_is_of_all_layers_together() -> None:
    gained = {"a": np.array([[[3.0, -1.0, 0.5, 0.4]]]), "b": np.array([[[2.0, 1.0, 0.0, -2.0]]])}
    chosen = choose_devices(gained, 0.25)
    assert {name: of_layer.sum() for name, of_layer in chosen.items()} == {"a": 1, "b": 1}
    every = choose_devices(gained, 1.0)
    assert {name: of_layer.sum() for name, of_layer in every.items()} == {"a": 3, "b": 2}, "none without a gain"


@pytest.fixture(scope="module")
def costs(plain: Package, data: Dataset) -> Reprogram:
    system = system_of(plain)
    return reprogram_of(system, plain, match_data(system.network, data), 0, carry={})


@pytest.mark.parametrize("moved", [False, True])
def test_the_list_has_what_costs_most_in_the_order_of_rows(plain: Package, costs: Reprogram, moved: bool) -> None:
    """On a die whose lines were moved, too: with the places that the die has."""
    arrays, random = plain.mapping.arrays, np.random.default_rng(1)
    rows, columns = (np.stack([random.permutation(32) for _ in range(arrays)]) for _ in range(2))
    package = replace(plain, wiring=Wiring(np.arange(arrays)[::-1], rows, columns, arrays)) if moved else plain
    targets = array_targets(package.mapping, package.chip, package.program, package.wiring)
    used = np.argwhere(np.isfinite(targets))
    off = [tuple(used[n]) for n in random.permutation(len(used))[:6]]
    values = targets.copy()
    for number, cell in enumerate(off):
        values[cell] += 5 if number % 2 else -5
    values[tuple(used[0])] += 0.01
    found = choose_cells(package, values, costs, parse_amount("1uS"))
    assert {tuple(cell) for cell in found.cells} == set(off)
    order = [
        (array, row, held < target, column)
        for (array, row, column), held, target in zip(
            found.cells.tolist(), found.measured.tolist(), found.targets.tolist(), strict=True
        )
    ]
    assert order == sorted(order), "row by row, RESET before SET"
    np.testing.assert_array_equal(found.targets, targets[tuple(found.cells.T)])
    assert found.expected_error["after"] < 1e-4 * found.expected_error["before"]
    most = choose_cells(package, values, costs, parse_amount("0.1%"))
    assert len(most.cells) == 1
    assert tuple(most.cells[0]) in off


def test_a_tolerance_leaves_out_cells_not_in_use_and_pairs_that_are_off_together(
    plain: Package, costs: Reprogram
) -> None:
    """Of these each device would make its weight worse, written alone."""
    targets = array_targets(plain.mapping, plain.chip, plain.program)
    values = np.nan_to_num(targets, nan=70.0)
    pair = tuple(part[:, 0, 0] for part in cell_addresses(plain.mapping, "first"))
    values[pair] += 4
    alone = tuple(part[0, 1, 1] for part in cell_addresses(plain.mapping, "first"))
    values[alone] += 4
    found = choose_cells(plain, values, costs, parse_amount("1uS"))
    assert [tuple(cell) for cell in found.cells] == [alone]


def test_measure_lists_the_devices_of_each_chip(plain: Package, data: Dataset, tmp_path: Path) -> None:
    measurement(plain, ["first", "last"], tmp_path / "die7.npz")
    (found,) = cimc.measure(plain, tmp_path / "die7.npz", data=data, reprogram="5%", output=tmp_path / "again")
    assert found.reprogram is not None
    lines = (tmp_path / "again" / "die7.csv").read_text().splitlines()
    assert lines[0] == "array,row,column,pulse,measured_uS,target_uS"
    assert len(lines) - 1 == len(found.reprogram.cells) == np.ceil(0.05 * found.reprogram.devices)
    errors = found.figures["reprogram"]["expected_error"]
    assert errors["after"] < 0.8 * errors["before"]


@pytest.mark.parametrize(
    ("measured", "output", "message"),
    [
        ("chips", "chips", "chips: it is the input"),
        ("chips/die7.csv", "chips", "chips/die7.csv: it is the input"),
        ("chips/die7.csv", "chips/die7.csv", "it is the input"),
        ("chips", "file", "file: File exists"),
    ],
)
def test_lists_of_devices_leave_measurements_alone(
    plain: Package, data: Dataset, tmp_path: Path, measured: str, output: str, message: str
) -> None:
    (tmp_path / "chips").mkdir()
    for name in ("chips/die7.csv", "file"):
        (tmp_path / name).write_text("array,row,column,conductance_uS\n")
    with pytest.raises(CimcError, match=message):
        cimc.measure(plain, tmp_path / measured, data=data, reprogram="5%", output=tmp_path / output)
    with pytest.raises(CimcError, match="seed is"):
        cimc.measure(plain, tmp_path / measured, data=data, seed=2**80)


def test_a_package_is_not_tuned_into_itself(folder: Path, tuned: Package) -> None:
    told = CliRunner().invoke(app, ["tune", str(folder), "-o", str(folder)]).exception
    assert isinstance(told, CimcError)
    assert "it is the input" in str(told)


def test_rounds_write_the_worst_again_and_leave_the_others(plain: Package, data: Dataset, costs: Reprogram) -> None:
    system = system_of(plain)
    matched = match_data(system.network, data)

    def chips(*shares: float) -> dict[str, np.ndarray]:
        request = Request(2, 0, reprogram=replace(costs, shares=shares))
        made = population_of(system, plain.program, matched, request).make(np.arange(2))[None]
        return {name: np.asarray(array) for name, array in made.own["conductance"].items()}

    def error(held: dict[str, np.ndarray], chip: int) -> float:
        return sum(
            float(
                np.sum(
                    costs.importance[name]
                    * np.square(np.tensordot(costs.counts, held[name][chip].astype(np.float64) - layer.targets, axes=1))
                )
            )
            for name, layer in plain.program.layers.items()
        )

    rounds = [chips(), chips(0.05), chips(0.05, 0.05)]
    for chip in range(2):
        errors = [error(held, chip) for held in rounds]
        assert errors[2] < errors[1] < 0.9 * errors[0]
        changed = sum(np.count_nonzero(rounds[1][name][chip] != rounds[0][name][chip]) for name in rounds[0])
        assert changed == np.ceil(0.05 * sum(array[chip].size for array in rounds[0].values()))
    deployed = cimc.deploy(plain, data, chips=2, reprogram="5%,5%")
    assert [share for share, _ in deployed.reprogrammed] == [0.05, 0.05]
    before = cimc.deploy(plain, data, chips=2).accuracies
    np.testing.assert_array_equal(deployed.reprogrammed[0][1], before)
    assert deployed.accuracies.mean() > before.mean()


@pytest.mark.parametrize("text", ["5", "0%", "101%", "-2uS", "2nS", "some"])
def test_a_wrong_amount_is_told(text: str) -> None:
    with pytest.raises(CimcError, match=r"--reprogram is .*; give a share of the devices \(5%\), or how far"):
        parse_amount(text)


def test_rounds_of_virtual_chips_take_shares() -> None:
    assert parse_shares("5%, 2.5%") == parse_shares([0.05, 0.025]) == (0.05, 0.025)
    with pytest.raises(CimcError, match="of virtual chips give a share"):
        parse_shares("2uS")
