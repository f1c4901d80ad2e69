"""Packages for one die: the files say where everything is, nothing else changes, and stuck cells cost less."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import cimc
from cimc.chip import Chip, load_chip
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.package import Package, read_package, write_package
from cimc.program_files import address_map, array_targets
from cimc.units import weight_of
from cimc.wiring import Wiring, layers_on_die
from passes.dies.place import require_placeable
from runtime.network.load import load_network
from runtime.system.inference import predict
from runtime.system.inputs import match_data
from runtime.system.program import programmed_state
from runtime.system.state import build_system
from tests.networks import network_proto, weights

ROWS, COLUMNS, ARRAYS, INPUTS, HIDDEN, CLASSES = 16, 12, 12, 30, 9, 4
QUIET = {
    "array": {"rows": ROWS, "columns": COLUMNS, "columns_per_adc": 1, "spare_columns": 2, "per_chip": ARRAYS},
    "cell": {"read_noise_uS": 0.0, "programming": {"error_sd_uS": 0.0}},
    "adc": {"noise_lsb": 0.0},
}


@pytest.fixture(scope="module")
def chip() -> Chip:
    """Small arrays with a spare pair of columns, and no noise."""
    return load_chip("brram-256x64", settings=QUIET)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data.npz, whose labels are a network's own, and that network compiled, as small.cim."""
    folder = tmp_path_factory.mktemp("dies")
    random = np.random.default_rng(0)
    first, last = weights(INPUTS, HIDDEN), weights(HIDDEN, CLASSES, seed=1)
    x = random.random((200, INPUTS), np.float32)
    y = np.argmax(np.maximum(x @ first, 0) @ last, axis=1).astype(np.int32)
    np.savez(folder / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w2"], ["y"], name="last"),
    ]
    proto = network_proto(nodes, {"x": ["N", INPUTS]}, {"y": ["N", CLASSES]}, {"w1": first, "w2": last})
    onnx.save(proto, folder / "small.onnx")
    quiet = load_chip("brram-256x64", settings=QUIET)
    cimc.compile(folder / "small.onnx", quiet, output=folder / "small.cim", verify=False)
    return folder


@pytest.fixture(scope="module")
def data(place: Path) -> Dataset:
    return cimc.load_data(place / "data.npz")


def draw_die(path: Path, share: float, seed: int, *, arrays: int, spare: int = 0) -> Path:
    """A fault map of so many arrays, half of the stuck cells low and half high; the spare ones are good."""
    drawn = np.random.default_rng(seed).random((arrays + spare, ROWS, COLUMNS))
    drawn[arrays:] = 0.5
    stuck = np.full(drawn.shape, np.nan, np.float32)
    stuck[drawn < share / 2], stuck[drawn > 1 - share / 2] = 10, 70
    np.savez(path, stuck_uS=stuck)
    return path


@pytest.fixture(scope="module")
def straight(place: Path, data: Dataset) -> Package:
    """The package of no die in particular."""
    return cimc.export(place / "small.cim", data=data)


@pytest.fixture(scope="module")
def die(place: Path, straight: Package) -> Path:
    return draw_die(place / "die7.npz", 0.2, 7, arrays=straight.mapping.arrays)


@pytest.fixture(scope="module")
def placed(place: Path, data: Dataset, die: Path) -> Package:
    """The package for a die of which a fifth is stuck, written to placed/."""
    return cimc.export(place / "small.cim", data=data, die=die, output=place / "placed")


def draw_wiring(random: np.random.Generator, package: Package) -> Wiring:
    """Arrays of the chip and orders of lines, drawn."""
    arrays = package.mapping.arrays
    rows, columns = (np.stack([random.permutation(n) for _ in range(arrays)]) for n in (ROWS, COLUMNS))
    return Wiring(random.permutation(ARRAYS)[:arrays], rows, columns, ARRAYS)


def products_on_die(package: Package, targets: np.ndarray, layer: str, x: np.ndarray) -> np.ndarray:
    """u (G+ - G-) of a layer [.., columns], bit line by bit line of the die's arrays, as its files name them."""
    parts = address_map(package.mapping, package.chip, package.wiring)
    cells = {name: np.stack(list(arrays)) for name, _, arrays in parts}
    number = [mapped.name for mapped in package.mapping.layers].index(layer)
    y = np.zeros((len(x), package.mapping.layer(layer).columns))
    for array, held in enumerate(targets):
        here = cells["layer"][array] == number
        for column in range(COLUMNS):
            used = here[:, column]
            if used.any():
                (output,) = {*cells["weight_column"][array][used, column].tolist()}
                (sign,) = {*cells["sign"][array][used, column].tolist()}
                y[:, output] += sign * x[:, cells["weight_row"][array][used, column]] @ held[used, column]
    return y


# --- Where everything is ---


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_any_wiring_computes_what_the_mapping_does(straight: Package, seed: int) -> None:
    """Bit line by bit line of the die, with the inputs and outputs that addresses.npz names."""
    random = np.random.default_rng(seed)
    wired = replace(straight, wiring=draw_wiring(random, straight))
    targets = array_targets(wired.mapping, wired.chip, wired.program, wired.wiring)
    for name, layer in straight.program.layers.items():
        x = random.random((3, layer.targets.shape[1]))
        plus, minus = layer.targets.astype(float)
        np.testing.assert_allclose(products_on_die(wired, targets, name, x), x @ (plus - minus), rtol=1e-9, atol=1e-9)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 10_000))
def test_values_go_to_the_die_and_come_back(straight: Package, seed: int) -> None:
    random = np.random.default_rng(seed)
    wiring = draw_wiring(random, straight)
    values = random.random((straight.mapping.arrays, ROWS, COLUMNS))
    on_die = wiring.to_die(values, fill=-1)
    np.testing.assert_array_equal(wiring.from_die(on_die), values)
    assert np.count_nonzero(on_die == -1) == (ARRAYS - len(values)) * ROWS * COLUMNS


def test_a_line_or_an_array_is_not_used_twice() -> None:
    rows, columns = (np.stack([np.arange(n)] * 2) for n in (4, 3))
    with pytest.raises(ValueError, match="array of the die is used twice"):
        Wiring(np.array([1, 1]), rows, columns, 3)
    with pytest.raises(ValueError, match="array of the die is used twice, or is not there"):
        Wiring(np.array([1, 3]), rows, columns, 3)
    rows[1, 0] = 1
    with pytest.raises(ValueError, match="line of an array is used twice"):
        Wiring(np.array([1, 0]), rows, columns, 3)


def test_a_package_for_a_die_without_faults_is_the_package(place: Path, data: Dataset, straight: Package) -> None:
    good = draw_die(place / "good.npz", 0, 0, arrays=straight.mapping.arrays)
    package = cimc.export(place / "small.cim", data=data, die=good)
    assert package.wiring is None
    assert package.chip_network == straight.chip_network
    for name, layer in straight.program.layers.items():
        np.testing.assert_array_equal(package.program.layers[name].targets, layer.targets)


def test_a_package_is_read_back_with_its_die(place: Path, placed: Package) -> None:
    again = read_package(place / "placed")
    assert placed.wiring is not None
    assert again.wiring is not None
    assert again.die is not None
    assert again.die.name == "die7"
    for field in ("array", "word_lines", "bit_lines"):
        np.testing.assert_array_equal(getattr(again.wiring, field), getattr(placed.wiring, field))
    for name, layer in placed.program.layers.items():
        np.testing.assert_array_equal(again.program.layers[name].targets, layer.targets)
    targets = np.load(place / "placed" / "program" / "targets.npy")
    stuck = np.load(place / "placed" / "program" / "stuck.npz")["stuck_uS"]
    both = np.isfinite(targets) & ~np.isnan(stuck[: len(targets)])
    np.testing.assert_array_equal(targets[both], stuck[: len(targets)][both], err_msg="a stuck cell has its own target")
    table = (place / "placed" / "program" / "array_0000.csv").read_text()
    assert f"# stuck: {np.count_nonzero(both[0])} of these cells" in table
    assert "on lines that addresses.npz and wiring.npz name" in table
    assert "This package is for die die7 alone" in (place / "placed" / "README.md").read_text()


def test_a_wiring_that_uses_a_line_twice_is_damage(placed: Package, tmp_path: Path) -> None:
    assert placed.wiring is not None
    lines = placed.wiring.word_lines.copy()
    wrong = replace(placed.wiring)
    lines[0, 0] = lines[0, 1]
    object.__setattr__(wrong, "word_lines", lines)
    write_package(tmp_path / "wrong", replace(placed, wiring=wrong))
    with pytest.raises(CimcError, match="is damaged"):
        read_package(tmp_path / "wrong")


# --- What it computes ---


def run_onnx(package: Package, x: np.ndarray) -> Any:
    """What model.onnx gives in onnxruntime."""
    session = onnxruntime.InferenceSession(package.chip_network, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x})[0]


def check_agreement(package: Package, data: Dataset, x: np.ndarray) -> None:
    """The runtime, with what the die of the package holds, gives what model.onnx gives in onnxruntime."""
    assert package.die is not None
    system = build_system(load_network(package.network), package.mapping, package.chip)
    state = programmed_state(system, package.program)
    stuck = layers_on_die(package.mapping, package.wiring, package.die.stuck)
    for name, targets in state["conductance"].items():
        held = np.where(np.isnan(stuck[name]), targets, stuck[name])
        np.testing.assert_array_equal(held, targets, err_msg="the targets are what the die can hold")
    matched = match_data(system.network, data, free_batch=False)
    found = predict(system, state, matched.test, matched.preprocess)
    np.testing.assert_allclose(next(iter(found.values())), run_onnx(package, x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("placement", ["none", "pairs", "full"])
def test_the_runtime_with_the_stuck_cells_agrees_with_model_onnx(
    place: Path, data: Dataset, die: Path, placement: str
) -> None:
    package = cimc.export(place / "small.cim", data=data, die=die, placement=placement)
    check_agreement(package, data, np.load(place / "data.npz")["x_test"])


@pytest.mark.parametrize(
    "scheme",
    [
        {"scheme": "differential-rows"},
        {"scheme": "differential", "bits": 4, "bits_per_cell": 2},
        {"scheme": "differential", "bits": 5, "bits_per_cell": 2, "slices_in": "arrays"},
        {"scheme": "offset"},
        {"scheme": "single", "bits": 4, "bits_per_cell": 1},
    ],
    ids=lambda scheme: "-".join(map(str, scheme.values())),
)
def test_a_die_of_every_scheme_is_placed_and_agrees(
    place: Path, data: Dataset, tmp_path: Path, scheme: dict[str, Any]
) -> None:
    chip = load_chip("brram-256x64", settings={**QUIET, "weights": scheme})
    compiled = cimc.compile(place / "small.onnx", chip, verify=False).artifact
    draw_die(tmp_path / "die.npz", 0.2, 7, arrays=compiled.mapping.arrays * chip.physical_per_array)
    package = cimc.export(compiled, data=data, die=tmp_path / "die.npz", output=tmp_path / "package")
    errors = package.notes["die"]["expected_error"]
    assert errors["bound"] <= errors["full"] < errors["pairs"] / 2 <= errors["none"] / 2
    check_agreement(read_package(tmp_path / "package"), data, np.load(place / "data.npz")["x_test"])


def test_placement_gains_step_by_step_and_says_what(place: Path, data: Dataset, die: Path, straight: Package) -> None:
    """The expected error is that of the weights, with the mean square of the inputs; NumPy finds the same."""
    x = np.load(place / "data.npz")["x_test"][:32]
    snr = {}
    whole = run_onnx(straight, x)
    for placement in ("none", "pairs", "full"):
        package = cimc.export(place / "small.cim", data=data, die=die, placement=placement)
        errors = package.notes["die"]["expected_error"]
        before, after = (
            weight_of(of.program.layers["first"].targets, of.program.layers["first"].weight_range, of.chip)
            for of in (straight, package)
        )
        # The samples that set the ranges are others of the same law, so the figures are near and not equal.
        power = np.mean(np.square(np.load(place / "data.npz")["x_train"]), axis=0)[:, None]
        ratio = np.sum(power * np.square(after - before)) / np.sum(power * np.square(before))
        assert package.notes["die"]["layers"]["first"][placement] == pytest.approx(ratio, rel=0.2)
        snr[placement] = float(np.sum(np.square(run_onnx(package, x) - whole)) / np.sum(np.square(whole)))
    assert errors["full"] < errors["pairs"] / 4 < errors["none"] / 4
    assert errors["bound"] <= errors["full"]
    assert snr["full"] < snr["pairs"] / 2 < snr["none"] / 2


def test_a_spare_array_takes_the_place_of_a_bad_one(place: Path, data: Dataset, straight: Package) -> None:
    bad = draw_die(place / "spare.npz", 0.9, 3, arrays=straight.mapping.arrays, spare=straight.mapping.arrays)
    package = cimc.export(place / "small.cim", data=data, die=bad)
    assert package.wiring is not None
    assert set(package.wiring.array.tolist()) == set(range(straight.mapping.arrays, 2 * straight.mapping.arrays))
    assert package.notes["die"]["expected_error"]["full"] == 0
    x = np.load(place / "data.npz")["x_test"]
    np.testing.assert_array_equal(run_onnx(package, x), run_onnx(straight, x))


def test_spare_columns_take_the_place_of_bad_ones(place: Path, data: Dataset, straight: Package) -> None:
    stuck = np.full((straight.mapping.arrays, ROWS, COLUMNS), np.nan, np.float32)
    stuck[:, :, 0] = 70
    np.savez(place / "column.npz", stuck_uS=stuck)
    package = cimc.export(place / "small.cim", data=data, die=place / "column.npz")
    assert package.notes["die"]["expected_error"]["none"] > 0.1
    assert package.notes["die"]["expected_error"]["full"] == 0
    assert package.notes["die"]["stuck"] == 0


def test_copies_and_reference_columns_are_refused(straight: Package) -> None:
    first, *rest = straight.mapping.layers
    copied = straight.mapping.model_copy(update={"layers": (first.model_copy(update={"copies": 2}), *rest)})
    with pytest.raises(CimcError, match=r"first has 2 copies on the chip, .*; add --chip brram-256x64 \(or its file\)"):
        require_placeable(copied, straight.chip)
    with pytest.raises(CimcError, match="arrays of isaac have a reference column"):
        require_placeable(straight.mapping, load_chip("isaac"))
    require_placeable(straight.mapping, straight.chip)


# --- Chips ---


def test_the_die_keeps_its_accuracy_in_its_own_package(
    place: Path, data: Dataset, die: Path, straight: Package, placed: Package
) -> None:
    good = cimc.deploy(straight, data, chips=1).accuracies[0]
    lost = cimc.deploy(straight, data, chips=1, faults=die).accuracies[0]
    kept = cimc.deploy(placed, data, chips=1, faults=die).accuracies[0]
    assert lost < good - 0.1
    assert kept > lost + 0.8 * (good - lost)
    own = cimc.deploy(place / "placed", data, chips=1).accuracies[0]
    assert own == kept, "without a map the chips are the die that the package was made for"


def test_dies_of_a_folder_come_by_name_each_with_its_own_faults(
    place: Path, data: Dataset, straight: Package, tmp_path: Path
) -> None:
    arrays = straight.mapping.arrays
    draw_die(tmp_path / "b.npz", 0.4, 1, arrays=arrays)
    draw_die(tmp_path / "a.npz", 0, 1, arrays=arrays)
    (tmp_path / "c.csv").write_text("array,row,column,kind\n0,0,0,stuck-low\n")
    (tmp_path / "notes.txt").write_text("not a map")
    result = cimc.deploy(straight, data, dies=tmp_path)
    assert result.dies == ("a", "b", "c")
    alone = [cimc.deploy(straight, data, chips=1, faults=tmp_path / name).accuracies[0] for name in ("a.npz", "b.npz")]
    assert result.accuracies[:2].tolist() == alone
    twice = cimc.deploy(straight, data, chips=2, dies=tmp_path)
    assert twice.dies == ("a", "b", "c", "a", "b", "c")
    (tmp_path / "a.csv").write_text("array,row,column,kind\n")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CimcError, match="holds two files of die a; leave one out"):
        cimc.deploy(straight, data, dies=tmp_path)
    with pytest.raises(CimcError, match="faults and dies were both given"):
        cimc.deploy(straight, data, dies=tmp_path, faults=tmp_path / "b.npz")
    with pytest.raises(CimcError, match="holds no CSV, NPZ or NPY file"):
        cimc.deploy(straight, data, dies=tmp_path / "empty")
    with pytest.raises(CimcError, match="is no folder with a file a die"):
        cimc.deploy(straight, data, dies=tmp_path / "b.npz")


# --- Chips that were measured ---


def test_what_was_measured_is_what_is_computed(place: Path, data: Dataset, placed: Package) -> None:
    """The targets themselves: then the chip computes model.onnx, and that of the die's own arrays and lines."""
    values = array_targets(placed.mapping, placed.chip, placed.program, placed.wiring)
    np.savez(place / "chip.npz", conductance_uS=values)
    (found,) = cimc.measure(placed, place / "chip.npz", data=data)
    stored = np.load(place / "data.npz")
    right = np.argmax(run_onnx(placed, stored["x_test"]), axis=1) == stored["y_test"]
    assert found.chip.value == pytest.approx(np.mean(right))
    assert found.deviation_uS == {"mean": 0, "sd": 0, "largest": 0}
    assert [error.name for error in found.chip.layers] == ["first", "last"]
    text = io.StringIO()
    text.write("array,row,column,conductance_uS\n")
    for cell in np.argwhere(np.isfinite(values)).tolist():
        text.write(f"{cell[0]},{cell[1]},{cell[2]},{values[tuple(cell)] + (5 if cell[2] % 2 else -5):.6f}\n")
    folder = place / "measured"
    folder.mkdir()
    (folder / "worse.csv").write_text(text.getvalue())
    np.savez(folder / "as_good.npz", conductance_uS=values)
    notes: list[str] = []
    first, second = cimc.measure(placed, folder, data=data, note=notes.append)
    assert (first.name, second.name) == ("as_good", "worse")
    assert first.chip.value == found.chip.value
    assert second.deviation_uS["largest"] == pytest.approx(5, abs=1e-3)


def test_cells_left_out_other_units_and_other_chips_are_told(place: Path, data: Dataset, straight: Package) -> None:
    values = array_targets(straight.mapping, straight.chip, straight.program)
    cell = tuple(np.argwhere(np.isfinite(values))[5].tolist())
    file = place / "wrong.npz"

    def refusal(changed: np.ndarray) -> str:
        np.savez(file, conductance_uS=changed)
        with pytest.raises(CimcError) as caught:
            cimc.measure(straight, file, data=data)
        return str(caught.value)

    gap = values.copy()
    gap[cell] = np.nan
    assert (
        f"1 of the {np.isfinite(values).sum()} cells in use were not measured, the first at array {cell[0]}, row "
        in (refusal(gap))
    )
    assert "look like another unit; give uS" in refusal(values * 1e-3)
    assert "look like another unit; give uS" in refusal(values * 1e3)
    assert "is it of another package?" in refusal(values[:, :-1])
    assert "is it of another package?" in refusal(values[:1])
    notes: list[str] = []
    np.savez(file, conductance_uS=np.where(np.isnan(values), np.nan, np.nan_to_num(values[:, ::-1], nan=10)))
    cimc.measure(straight, file, data=data, note=notes.append)
    assert any("does not follow the package's targets" in note for note in notes)
