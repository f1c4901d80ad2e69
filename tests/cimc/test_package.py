"""The package: one program in every form it is written in, read back whole or not at all, in no one else's folder."""

import csv
import hashlib
import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import safetensors.numpy

import cimc
from cimc.api.compile import compile_model
from cimc.chip import Chip, chip_text, parse_chip
from cimc.data.digits import digits
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.package import FORMAT, Package, read_package, write_package
from cimc.program import LayerProgram, Program
from cimc.units import device_targets, weight_of
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.read import read_network
from runtime.network.load import load_network
from runtime.system.inference import predict
from runtime.system.inputs import match_data
from runtime.system.program import programmed_state
from runtime.system.state import build_system

LENET1 = Path(__file__).parents[2] / "models" / "lenet1.onnx"


@pytest.fixture(scope="module")
def package() -> Package:
    """LeNet-1 on brram-soc: six arrays on two chips, layers split by rows. Made-up scales, all different."""
    text = chip_text("brram-soc")
    chip = parse_chip(text, "brram-soc")
    network = lower(read_network(LENET1))
    mapping = map_network(network, chip)
    layers = {}
    for index, layer in enumerate(mapping.layers, 1):
        random = np.random.default_rng(index)
        weight = random.uniform(-0.3, 0.3, (layer.rows, layer.columns)).astype(np.float32)
        weight_range, input_range, gain = (np.float32(index * scale) for scale in (0.3, 0.7, 1.1))
        bias = None if index == 1 else random.random(layer.columns, dtype=np.float32)
        targets = device_targets(weight, weight_range, chip)
        layers[layer.name] = LayerProgram(targets, weight_range, input_range, gain, bias)
    program = Program(layers, {"scale": np.arange(4, dtype=np.float32), "shape": np.array([2, 3])})
    model = ir.to_proto(network).SerializeToString()
    return Package("lenet1", chip, text, mapping, program, model, model, {"trained_on": "brram-soc", "sd": 0.5})


def package_on(package: Package, text: str) -> Package:
    """A package on another chip: its weights, and made-up scales."""
    chip = parse_chip(text, "other")
    mapping = map_network(lower(read_network(LENET1)), chip)
    layers = {
        name: replace(
            layer,
            targets=device_targets(
                weight_of(layer.targets, layer.weight_range, package.chip), layer.weight_range, chip
            ),
        )
        for name, layer in package.program.layers.items()
    }
    return replace(
        package, chip=chip, chip_text=text, mapping=mapping, program=Program(layers, package.program.digital)
    )


@pytest.fixture(scope="module")
def folder(package, tmp_path_factory) -> Path:
    """The package written; read only."""
    folder = tmp_path_factory.mktemp("package") / "lenet1"
    write_package(folder, package)
    return folder


@pytest.fixture
def copy(package, tmp_path) -> Path:
    write_package(tmp_path / "copy", package)
    return tmp_path / "copy"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def all_weights(package: Package):
    """(layer index, layer, row, column) of every weight."""
    for index, layer in enumerate(package.mapping.layers):
        for row, column in np.ndindex(layer.rows, layer.columns):
            yield index, layer.name, row, column


def test_package_that_is_read_equals_the_one_written(folder, package):
    loaded = read_package(folder)
    assert loaded.chip == package.chip
    assert (loaded.model, loaded.chip_text, loaded.notes) == (package.model, package.chip_text, package.notes)
    assert loaded.mapping == package.mapping
    assert (loaded.network, loaded.chip_network) == (package.network, package.chip_network)
    assert loaded.program.layers.keys() == package.program.layers.keys()
    for name, layer in package.program.layers.items():
        back = loaded.program.layers[name]
        np.testing.assert_array_equal(back.targets, layer.targets)
        assert back.targets.dtype == np.float32
        for scale in ("weight_range", "input_range", "gain"):
            assert getattr(back, scale) == getattr(layer, scale)
        if layer.bias is None:
            assert back.bias is None
        else:
            np.testing.assert_array_equal(back.bias, layer.bias)
    assert loaded.program.digital.keys() == package.program.digital.keys()
    for name, array in package.program.digital.items():
        np.testing.assert_array_equal(loaded.program.digital[name], array)


def test_package_written_again_is_the_same_byte_for_byte(folder, tmp_path):
    write_package(tmp_path / "again", read_package(folder))
    assert contents(tmp_path / "again") == contents(folder)


def test_mapping_spreads_over_arrays_and_chips(package):
    assert package.mapping.arrays == 6
    assert package.mapping.chips == 2


def test_arrays_hold_the_program_where_the_mapping_says(folder, package):
    targets = np.load(folder / "program" / "targets.npy", allow_pickle=False)
    left = targets.copy()
    for _, layer, row, column in all_weights(package):
        address = package.mapping.address(layer, row, column)
        array = address.chip * package.mapping.arrays_per_chip + address.array
        plus, minus = package.program.layers[layer].targets[:, row, column]
        assert targets[array, address.row, address.column_plus] == plus
        assert targets[array, address.row, address.column_minus] == minus
        left[array, address.row, [address.column_plus, address.column_minus]] = np.nan
    assert np.isnan(left).all(), "a cell that no weight uses has a target"


def test_address_map_agrees_with_the_mapping_for_every_weight(folder, package):
    with np.load(folder / "program" / "addresses.npz", allow_pickle=False) as file:
        addresses = dict(file)
    assert addresses["layers"].tolist() == [layer.name for layer in package.mapping.layers]
    used = np.zeros(addresses["layer"].shape, bool)
    for index, layer, row, column in all_weights(package):
        address = package.mapping.address(layer, row, column)
        array = address.chip * package.mapping.arrays_per_chip + address.array
        for bit_line, sign in ((address.column_plus, 1), (address.column_minus, -1)):
            cell = array, address.row, bit_line
            found = [int(addresses[key][cell]) for key in ("layer", "weight_row", "weight_column", "sign")]
            assert found == [index, row, column, sign]
            used[cell] = True
    assert (addresses["layer"][~used] == -1).all()
    assert (addresses["sign"][~used] == 0).all()
    assert used.sum() == 2 * sum(layer.rows * layer.columns for layer in package.mapping.layers)


def read_table(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Comments, head and cells of an array's CSV, read as a tester would: float64, NaN where a field is empty."""
    lines = path.read_text(encoding="ascii").splitlines()
    comments = [line[2:] for line in lines if line.startswith("#")]
    head, *rows = list(csv.reader(lines[len(comments) :]))
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    cells = np.array([[float(cell) if cell else np.nan for cell in row[1:]] for row in rows])
    return comments, head, cells


def assert_tables_are_exact(folder: Path) -> None:
    targets = np.load(folder / "program" / "targets.npy", allow_pickle=False)
    files = sorted((folder / "program").glob("array_*.csv"))
    assert len(files) == len(targets)
    assert targets.dtype == np.float32
    for path, array in zip(files, targets, strict=True):
        _, head, cells = read_table(path)
        assert head == ["row", *(f"bl{column}" for column in range(array.shape[1]))]
        np.testing.assert_array_equal(cells, array.astype(np.float64))
        assert np.isnan(cells).any(), "no array here is full"


def test_csv_files_hold_exactly_the_same_targets(folder):
    assert_tables_are_exact(folder)


@pytest.mark.parametrize("off_grid", [1.0, np.float32(np.pi)])
def test_csv_files_are_exact_for_targets_off_the_grid(package, tmp_path, off_grid):
    layers = {
        name: replace(layer, targets=(layer.targets * np.float32(off_grid)).astype(np.float32))
        for name, layer in package.program.layers.items()
    }
    write_package(tmp_path / "off", replace(package, program=Program(layers, package.program.digital)))
    assert_tables_are_exact(tmp_path / "off")
    rows = (tmp_path / "off" / "program" / "array_0000.csv").read_text(encoding="ascii").splitlines()
    places = len(rows[-64].split(",")[1].partition(".")[2])
    assert places == 7 if off_grid == 1.0 else places > 7, "the grid of brram-soc is 2^-7 uS"


def test_first_lines_of_an_array_say_how_to_write_it(folder, package):
    for index in range(package.mapping.arrays):
        lines, _, cells = read_table(folder / "program" / f"array_{index:04d}.csv")
        stated = dict(line.split(": ", 1) for line in lines if not line.startswith("holds"))
        chip, place = divmod(index, 4)
        assert stated[f"target conductances of array {index}"].startswith(f"chip {chip}, array {place} on that chip")
        assert stated["unit"] == "uS"
        assert stated["G_min"] == "8.2 uS; G_max: 32.9 uS"
        assert stated["tolerance"] == f"+-{package.chip.cell.programming.tolerance_uS:g} uS of the target"
        assert stated["most trials"] == f"{package.chip.cell.programming.trials}"
        assert stated["verify voltage"] == f"{package.chip.cell.read_voltage_V:g} V"
        assert "first RESET" in stated["writing order"]
        assert "bring it to G_min" in stated["unused"]
        assert "word line" in stated["order"]
        assert "G+ first, then G-" in stated["sign"]
        (held,) = [line for line in lines if line.startswith("holds")]
        (block,) = [b for layer in package.mapping.layers for b in layer.blocks if b.array == index]
        rows, columns = block.row_stop - block.row_start, 2 * (block.column_stop - block.column_start)
        assert f"weight rows {block.row_start} to {block.row_stop - 1}, " in held
        assert f"in wl 0 to {rows - 1}, bl 0 to {columns - 1}; G+ in bl 0, 2, " in held
        assert np.isfinite(cells[:rows, :columns]).all()


def test_chip_without_a_tolerance_says_so(package, tmp_path):
    write_package(tmp_path / "other", package_on(package, chip_text("brram-256x64")))
    lines, _, _ = read_table(tmp_path / "other" / "program" / "array_0000.csv")
    assert "tolerance: not stated" in lines
    assert "Tolerance: not stated." in (tmp_path / "other" / "README.md").read_text(encoding="utf-8")


def test_names_from_the_network_keep_their_line(package, tmp_path):
    evil = 'a|b\n"<b>' + "\u00b5"
    first = package.mapping.layers[0]
    mapping = package.mapping.model_copy(
        update={"layers": (first.model_copy(update={"name": evil}), *package.mapping.layers[1:])}
    )
    layers = {evil if name == first.name else name: layer for name, layer in package.program.layers.items()}
    write_package(
        tmp_path / "evil", replace(package, mapping=mapping, program=Program(layers, package.program.digital))
    )
    lines, _, _ = read_table(tmp_path / "evil" / "program" / "array_0000.csv")
    (held,) = [line for line in lines if line.startswith("holds")]
    name = held.removeprefix("holds: layer ").partition(", copy")[0]
    assert json.loads(name) == evil
    readme = (tmp_path / "evil" / "README.md").read_text(encoding="utf-8")
    assert "a&#124;b" in readme
    assert "<b>" not in readme
    assert evil in read_package(tmp_path / "evil").program.layers


def test_block_table_lists_every_block_with_its_place(folder, package):
    with (folder / "program" / "blocks.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == sum(len(layer.blocks) for layer in package.mapping.layers)
    for row in rows:
        layer, start = row["layer"], (int(row["row_start"]), int(row["column_start"]))
        address = package.mapping.address(layer, *start)
        place = [int(row[key]) for key in ("chip", "array_on_chip", "array_row", "array_column")]
        assert place == [address.chip, address.array, address.row, address.column_plus]
        last = package.mapping.address(layer, int(row["row_stop"]) - 1, int(row["column_stop"]) - 1)
        assert (last.chip, last.array) == (address.chip, address.array)


def test_every_file_of_the_package_is_under_a_digest(folder):
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["sha256"]) == set(contents(folder)) - {"manifest.json", "manifest.sha256"}
    digest = hashlib.sha256((folder / "manifest.json").read_bytes()).hexdigest()
    assert (folder / "manifest.sha256").read_text() == f"{digest}  manifest.json\n"


@pytest.mark.parametrize(
    "name",
    [
        "chip.toml",
        "mapping.json",
        "digital.safetensors",
        "model.onnx",
        "network.onnx",
        "program/targets.npy",
        "program/array_0003.csv",
        "program/addresses.npz",
        "program/blocks.csv",
        "README.md",
    ],
)
def test_changed_or_missing_file_is_named(copy, name):
    path = copy / name
    original = path.read_bytes()
    path.write_bytes(original[:-1] + bytes([original[-1] ^ 1]))
    with pytest.raises(CimcError, match=f"is damaged: {name} does not match its SHA-256; export it again"):
        read_package(copy)
    path.unlink()
    with pytest.raises(CimcError, match=f"{path.name} is missing"):
        read_package(copy)
    path.write_bytes(original)
    read_package(copy)


def test_a_mapping_of_another_scheme_than_the_chip_is_refused(copy):
    rewrite_mapping(copy, lambda text: text.replace('"columns_per_weight":2', '"columns_per_weight":1', 1))
    with pytest.raises(CimcError, match="damaged"):
        read_package(copy)


def test_a_block_in_an_array_that_is_not_there_is_refused(copy):
    def beyond(text: str) -> str:
        mapping = json.loads(text)
        mapping["layers"][0]["blocks"][0][4] = 99
        return json.dumps(mapping)

    rewrite_mapping(copy, beyond)
    with pytest.raises(CimcError, match=r"no valid mapping \(at layers\.0\)"):
        read_package(copy)


def rewrite_mapping(folder, change):
    """Change the mapping of a package, and its digest with it."""
    path, manifest_path = folder / "mapping.json", folder / "manifest.json"
    changed = change(path.read_text())
    assert changed != path.read_text()
    path.write_text(changed)
    manifest = json.loads(manifest_path.read_text())
    manifest["sha256"]["mapping.json"] = hashlib.sha256(changed.encode()).hexdigest()
    write_manifest(folder, manifest)


def write_manifest(folder, manifest):
    """Write a manifest under a good seal."""
    content = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


@pytest.mark.parametrize("manifest", [b"", b"{", b"[]", b"{}", b'{"format": 2, "sha256": []}', b"\xff"])
def test_damaged_manifest_is_refused(copy, manifest):
    (copy / "manifest.json").write_bytes(manifest)
    with pytest.raises(CimcError, match="damaged"):
        read_package(copy)


def test_any_flipped_bit_of_the_manifest_is_found(copy):
    for name in ("manifest.json", "manifest.sha256"):
        path = copy / name
        original = path.read_bytes()
        for place in range(0, len(original), max(len(original) // 40, 1)):
            changed = bytearray(original)
            changed[place] ^= 1 << place % 8
            path.write_bytes(changed)
            with pytest.raises(CimcError, match="damaged"):
                read_package(copy)
        path.write_bytes(original)


def test_other_format_says_what_to_do(copy):
    path = copy / "manifest.json"
    write_manifest(copy, {**json.loads(path.read_text()), "format": FORMAT + 1})
    with pytest.raises(CimcError, match=f"has format {FORMAT + 1}, this version reads 2 to {FORMAT}; export it again"):
        read_package(copy)


def test_package_of_format_2_is_read(copy, package):
    """Written before the tables had first lines and the folder a README.md."""
    (copy / "README.md").unlink()
    path = copy / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["sha256"]["README.md"]
    path.write_text(json.dumps({**manifest, "format": 2}))
    (copy / "manifest.sha256").unlink()  # earlier versions wrote none
    assert read_package(copy).mapping == package.mapping


@pytest.mark.parametrize(("number", "levels", "step"), [(2, None, 20.0), (FORMAT, 4, None)])
def test_levels_of_format_2_were_the_update_step_alone(package, tmp_path, number, levels, step):
    text = chip_text("brram-256x64").replace("granularity_uS = 4.0 ", "levels = 4 ")
    write_package(tmp_path / "old", package_on(package, text))
    path = tmp_path / "old" / "manifest.json"
    write_manifest(tmp_path / "old", {**json.loads(path.read_text()), "format": number})
    loaded = read_package(tmp_path / "old")
    assert (loaded.chip.cell.levels, loaded.chip.cell.granularity_uS) == (levels, step)
    assert loaded.chip_text == (text if step is None else text.replace("levels = 4 ", "granularity_uS = 20.0 "))
    assert parse_chip(loaded.chip_text, "old") == loaded.chip


def test_folder_without_a_package_says_what_to_do(tmp_path):
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(CimcError, match=r"is not a package .*make one with: cimc export"):
            read_package(place)


def test_earlier_package_is_replaced_whole(copy, package):
    (copy / "left over.txt").write_text("of the earlier package")
    write_package(copy, package)
    assert "left over.txt" not in contents(copy)
    assert read_package(copy).model == "lenet1"
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_empty_folder_is_taken(package, tmp_path):
    (tmp_path / "new").mkdir()
    write_package(tmp_path / "new", package)
    assert read_package(tmp_path / "new").model == "lenet1"


@pytest.mark.parametrize("files", [{"thesis.tex": "mine"}, {".hidden": "mine"}, {"program/thesis.tex": "mine"}])
def test_folder_with_other_files_is_left_alone(package, tmp_path, files):
    target = tmp_path / "home"
    for name, text in files.items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        (target / name).write_text(text)
    with pytest.raises(CimcError, match=r"cannot write .*home: it exists and is not a package"):
        write_package(target, package)
    assert contents(target) == {name: text.encode() for name, text in files.items()}
    assert [path.name for path in tmp_path.iterdir()] == ["home"]


def test_folder_with_a_manifest_of_another_tool_is_left_alone(package, tmp_path):
    target = tmp_path / "browser-extension"
    target.mkdir()
    files = {"manifest.json": b'{"manifest_version": 3, "name": "mine"}', "background.js": b"mine"}
    for name, data in files.items():
        (target / name).write_bytes(data)
    with pytest.raises(CimcError, match="is not a package"):
        write_package(target, package)
    assert contents(target) == files


def test_file_of_that_name_is_left_alone(package, tmp_path):
    (tmp_path / "package").write_text("mine")
    with pytest.raises(CimcError, match=r"cannot write .*not a package"):
        write_package(tmp_path / "package", package)
    assert contents(tmp_path) == {"package": b"mine"}


@pytest.mark.parametrize("error", [OSError("no space left"), KeyboardInterrupt])
def test_failed_export_keeps_the_earlier_package_and_leaves_no_part(copy, package, monkeypatch, error):
    before = contents(copy)

    def save(*arguments, **keywords):
        raise error

    monkeypatch.setattr(np.lib.format, "write_array", save)
    for target in (copy, copy.with_name("new")):
        with pytest.raises(CimcError if isinstance(error, OSError) else error):
            write_package(target, package)
    assert contents(copy) == before
    assert [path.name for path in copy.parent.iterdir()] == ["copy"]


def test_folders_above_a_package_are_made(package, tmp_path):
    write_package(tmp_path / "new" / "below" / "package", package)
    assert read_package(tmp_path / "new" / "below" / "package").model == package.model


@pytest.mark.parametrize("place", ["file/package"])
def test_place_that_cannot_be_written_is_named(package, tmp_path, place):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(CimcError, match=f"cannot write .*{place}"):
        write_package(tmp_path / place, package)
    assert contents(tmp_path) == {"file": b"mine"}


def outputs_of(path: Path, images: np.ndarray) -> np.ndarray:
    onnx.checker.check_model(str(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: images})[0]


def test_exported_networks_compute_in_onnxruntime_what_the_runtime_computes(tmp_path, monkeypatch):
    data = Dataset.of_images("small", *digits(150, 60), synthetic=True, classes=10)
    images = data.preprocess.apply(data.test.inputs[""])
    compile_model(LENET1, "brram-soc", output=tmp_path / "lenet1.cim", verify=False)
    cimc.export(tmp_path / "lenet1.cim", output=tmp_path / "package", data=data)
    package = read_package(tmp_path / "package")

    np.testing.assert_allclose(
        outputs_of(tmp_path / "package" / "network.onnx", images), outputs_of(LENET1, images), rtol=0, atol=1e-4
    )
    constants = {
        tensor.name: onnx.numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(package.network).graph.initializer
    }
    layers = [node for node in onnx.load_from_string(package.network).graph.node if node.domain == "ai.cimc"]
    assert {node.name for node in layers} == package.program.layers.keys()
    for node in layers:
        layer = package.program.layers[node.name]
        expected = device_targets(constants[node.input[1]], layer.weight_range, package.chip)
        np.testing.assert_array_equal(layer.targets, expected)

    exported = outputs_of(tmp_path / "package" / "model.onnx", images)
    system = build_system(load_network(package.network), package.mapping, package.chip)
    state = programmed_state(system, package.program)
    samples, (output,) = match_data(system.network, data).test, system.network.outputs
    computed = predict(system, state, samples, data.preprocess)[output]
    assert computed.std(axis=0).min() > 0.01, "the outputs do not depend on the image"
    np.testing.assert_array_equal(exported, computed)
    noisy = predict(system, state, samples, data.preprocess, key=jax.random.key(0))[output]
    assert np.abs(np.subtract(noisy, computed)).max() > 1e-2, "read noise would not be seen"


def numbers_in_readme(folder: Path) -> dict[str, dict[str, str]]:
    """The table by layer."""
    lines = (folder / "README.md").read_text(encoding="utf-8").splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("| layer | rows x columns"))
    head, _, *rest = ([cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:])
    rows = rest[: rest.index([""])]
    return {row[0]: dict(zip(head, row, strict=True)) for row in rows}


def assert_spans(stated: str, values: np.ndarray) -> None:
    """The README gives a number, or from where to where several go."""
    low, _, high = stated.partition(" to ")
    digits = 1e-6 if not high else 6e-3
    assert [float(low), float(high or low)] == pytest.approx([values.min(), values.max()], rel=digits)


def value_by_the_readme(folder: Path, layer: str, x: np.ndarray, chip: Chip, copy: int = 0) -> np.ndarray:
    """A layer's output [columns] for one input vector, from the package's tables by README.md."""
    numbers = numbers_in_readme(folder)[layer]
    digital = safetensors.numpy.load_file(folder / "digital.safetensors")
    text = (folder / "README.md").read_text(encoding="utf-8")
    per_product = np.float32(text.partition("L = ")[2].split()[0])
    window = float(text.partition("W = G_max - G_min = ")[2].split()[0])
    input_range, factor = digital[f"input_range/{layer}"], digital.get(f"input_factor/{layer}", np.ones(1, np.float32))
    s = digital[f"weight_range/{layer}"] * digital[f"gain/{layer}"] / np.float32(window * per_product)
    u = x
    if chip.input.bits is not None:
        top = 2**chip.input.bits - 1
        s = s * input_range / np.float32(top)
        u = np.clip(np.round(x * (top / np.repeat(input_range * factor, len(x) // len(factor)))), -top, top)
    assert_spans(numbers["s"], s)
    assert_spans(numbers["input range"], input_range * factor)
    d = np.zeros(int(numbers["rows x columns"].split(" x ")[1]))
    with (folder / "program" / "blocks.csv").open(newline="", encoding="utf-8") as file:
        blocks = [row for row in csv.DictReader(file) if (row["layer"], int(row["copy"])) == (layer, copy)]
    step = int(numbers["rows at once"])
    for block in ({key: int(value) for key, value in row.items() if key != "layer"} for row in blocks):
        _, _, cells = read_table(folder / "program" / f"array_{block['array']:04d}.csv")
        phases = (1, -1) if numbers["phases"] == "2" else (1,)
        for phase, first in itertools.product(phases, range(block["row_start"], block["row_stop"], step)):
            lines = np.zeros(len(cells))
            for row in range(first, min(first + step, block["row_stop"])):
                lines[block["array_row"] + row - block["row_start"]] = max(phase * u[row], 0)
            for column in range(block["column_start"], block["column_stop"]):
                bit_line = block["array_column"] + 2 * (column - block["column_start"])
                codes = [
                    per_product * np.float32(np.nansum(lines * cells[:, line])) for line in (bit_line, bit_line + 1)
                ]
                if chip.adc.bits is not None:
                    codes = [np.clip(np.round(code), 0, 2**chip.adc.bits - 1) for code in codes]
                d[column] += phase * (codes[0] - codes[1])
    return (d + digital.get(f"bias/{layer}", np.zeros(1)) / s) * s


@pytest.mark.parametrize(
    ("chip_name", "input_range", "objective", "arrays", "rows_per_read"),
    [
        ("brram-soc", (-1.0, 1.0), None, None, {"conv2": 10}),
        ("brram-soc", (0.0, 1.0), "interval", 9, 10),
        ("brram-soc", (0.0, 1.0), "arrays", 6, None),
        ("ideal", (-1.0, 1.0), None, None, None),
    ],
)
def test_readme_leads_from_tables_to_the_values_of_onnxruntime(
    tmp_path, monkeypatch, chip_name, input_range, objective, arrays, rows_per_read
):
    """Each layer's value by README.md in plain NumPy: the input of the layer is what onnxruntime gives it."""
    data = Dataset.of_images("small", *digits(100, 40), synthetic=True, classes=10)
    source, folder = tmp_path / "lenet1.cim", tmp_path / "package"
    asked = {"input_range": input_range, "objective": objective, "arrays": arrays, "rows_per_read": rows_per_read}
    compile_model(LENET1, chip_name, output=source, verify=False, **asked)
    package = cimc.export(source, output=folder, data=data)
    model = onnx.load(folder / "model.onnx")
    nodes = {node.input[1].removesuffix(".pair"): node for node in model.graph.node if node.domain == "ai.cimc"}
    assert nodes.keys() == numbers_in_readme(folder).keys() == package.program.layers.keys()
    names = [name for node in nodes.values() for name in (node.input[0], node.output[0])]
    shown = {value.name for value in (*model.graph.output, *model.graph.input)}
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n not in shown)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0].name
    low, high = input_range
    image = low + (high - low) * data.preprocess.apply(data.test.inputs[""][:1])
    values = dict(zip([o.name for o in session.get_outputs()], session.run(None, {entry: image}), strict=True))
    values[entry] = image
    for layer in package.mapping.layers:
        node = nodes[layer.name]
        x, y = values[node.input[0]], values[node.output[0]]
        if y.ndim == 4:  # the patch under the output whose channels differ most
            row, column = np.unravel_index(np.argmax(y[0].std(axis=0)), y.shape[2:])
            x, y = x[0, :, row : row + 5, column : column + 5].reshape(-1), y[0, :, row, column]
        else:
            x, y = x[0], y[0]
        assert y.std() > 0.01
        for copy in range(layer.copies):
            found = value_by_the_readme(folder, layer.name, x, package.chip, copy)
            np.testing.assert_allclose(found, y, rtol=1e-4, atol=1e-4 * np.abs(y).max())
    first = package.mapping.layers[0]
    assert (first.signed_input, first.copies > 1) == (low < 0, objective == "interval")
    assert any(layer.read_in_parts for layer in package.mapping.layers) == (rows_per_read is not None)
    assert (package.mapping.arrays < 3) == (objective == "arrays"), "several layers in an array"


def test_readme_states_the_scales_of_every_layer(folder, package):
    chip, numbers = package.chip, numbers_in_readme(folder)
    assert numbers.keys() == package.program.layers.keys()
    for name, layer in package.program.layers.items():
        stated = {key: np.float32(numbers[name][key]) for key in ("weight range", "input range", "gain", "s")}
        assert stated["weight range"] == layer.weight_range
        assert stated["input range"] == layer.input_range
        assert stated["gain"] == layer.gain
        lsb = chip.adc.range_uA / 255
        assert float(numbers[name]["LSB uA"]) == pytest.approx(lsb, rel=1e-8)
        per_product = chip.cell.read_voltage_V / (256 * lsb)
        scale = float(layer.weight_range) * float(layer.input_range) * float(layer.gain)
        assert stated["s"] == pytest.approx(scale / (24.7 * per_product * 255), rel=1e-6)
        assert layer.gain != 1


def test_readme_works_out_one_weight_with_its_numbers(folder, package):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    layer = package.mapping.layers[0].name
    place = readme.rpartition("\nWeight (")[2].partition(f") of layer {layer},")[0]
    row, column = map(int, place.split(", "))
    address = package.mapping.address(layer, row, column)
    targets = np.load(folder / "program" / "targets.npy", allow_pickle=False)
    array = address.chip * package.mapping.arrays_per_chip + address.array
    high, low = (float(targets[array, address.row, line]) for line in (address.column_plus, address.column_minus))
    assert f"G+ = {high:.9g} uS, G- = {low:.9g} uS" in readme
    assert f"word line {address.row}, G+ in bit line {address.column_plus}," in readme
    weight = (high - low) * float(package.program.layers[layer].weight_range) / package.chip.cell.window_uS
    assert abs(weight) > 0.05
    assert f"= {weight:.6g} |" in readme


@pytest.mark.parametrize(
    ("name", "stated"),
    [
        ("brram-soc", [(8.2, 1.0, 2.9), (20.55, 1.0, 2.9), (32.9, 1.0, 2.9)]),
        # 0.16603 + 4.71806 x - 8.48101 x^2 + 4.68961 x^3 at x = 0, 1/2, 1.
        ("hermes", [(0, 0.0, 0.166), (10.35, 0.0, 0.991), (20.7, 0.0, 1.093)]),
    ],
)
def test_readme_states_the_programming_error_of_devices_and_of_weights(package, tmp_path, name, stated):
    other = package_on(package, chip_text(name))
    write_package(tmp_path / "package", other)
    readme = (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    for state, mean, sd in stated:
        row = readme.partition(f"\n| {state} | ")[2].partition(" |\n")[0]
        assert [float(value) for value in row.split(" | ")] == pytest.approx([mean, sd], abs=1e-3)
    cell, law = other.chip.cell, np.polynomial.Polynomial(np.atleast_1d(other.chip.cell.programming.error_sd_uS))
    shares = set()
    for layer, program in other.program.layers.items():
        sd = law(program.targets.astype(np.float64) / cell.conductance_max_uS)
        share = np.sqrt(np.mean(sd[0] ** 2 + sd[1] ** 2)) / cell.window_uS
        shares.add(f"{share:.2%}")
        assert f"| {layer} | {share * float(program.weight_range):.3g} | {share:.2%} |" in readme
    assert (len(shares) > 1) == (name == "hermes"), "layers of one law with other targets err differently"


def test_trials_are_not_stated_where_the_error_is_that_after_the_last(package, tmp_path):
    write_package(tmp_path / "package", package_on(package, chip_text("hermes")))
    lines, _, _ = read_table(tmp_path / "package" / "program" / "array_0000.csv")
    assert "most trials: not stated" in lines
    assert "Most trials a device: not stated." in (tmp_path / "package" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("key", "count", "spread", "listed"),
    [
        ("levels = 4", 4, "evenly from G_min to G_max", [10, 30, 50, 70]),
        ("level_uS = [10.0, 17.5, 64.25]", 3, "as chip.toml lists them", [10, 17.5, 64.25]),
        ("levels = 64", 64, "evenly from G_min to G_max", np.linspace(10, 70, 64)),
        ("levels = 65", 65, "evenly from G_min to G_max", []),
        ("granularity_uS = 4.0", 0, "", []),
    ],
)
def test_tables_and_readme_list_the_levels_of_which_every_target_is_one(package, tmp_path, key, count, spread, listed):
    other = package_on(package, chip_text("brram-256x64").replace("granularity_uS = 4.0", key))
    write_package(tmp_path / "package", other)
    lines, _, cells = read_table(tmp_path / "package" / "program" / "array_0000.csv")
    readme = (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    found = [line.removeprefix("levels: ") for line in lines if line.startswith("levels: ")]
    if not count:
        assert found == []
        assert " levels, " not in readme
        return
    (said,) = found
    head, _, numbers = said.removesuffix(" uS").partition(": ")
    assert head == f"every target is one of {count} levels, {spread}"
    assert f"Of these, {said}." in readme
    values = [float(number) for number in numbers.split(", ") if number]
    assert values == pytest.approx(listed, abs=other.chip.target_step_uS)
    used = set(cells[np.isfinite(cells)].tolist())
    assert 3 <= len(used) <= count
    assert not values or used <= set(values), "the same numbers to the last decimal"


def test_readme_lists_the_digests_of_the_files_beside_it(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    digests = json.loads((folder / "manifest.json").read_text())["sha256"]
    for name in ("program/targets.npy", "program/blocks.csv", "model.onnx", "chip.toml"):
        assert f"| `{name}` | `{digests[name]}` |" in readme


def test_a_package_programs_all_copies_and_packed_layers(tmp_path, monkeypatch):
    """Every copy of every weight has its target; the program read back is the same, and the copies are told apart."""
    data = Dataset.of_images("small", *digits(100, 40), synthetic=True, classes=10)
    budgets: Any = (("interval", 9), ("arrays", 6))
    for objective, arrays in budgets:
        source, folder = tmp_path / f"{objective}.cim", tmp_path / objective
        compile_model(LENET1, "brram-soc", output=source, objective=objective, arrays=arrays)
        package = cimc.export(source, output=folder, data=data)
        again = read_package(folder)
        targets = np.load(folder / "program" / "targets.npy", allow_pickle=False)
        with np.load(folder / "program" / "addresses.npz", allow_pickle=False) as file:
            addresses = dict(file)
        count = 0
        for index, layer in enumerate(package.mapping.layers):
            np.testing.assert_array_equal(
                again.program.layers[layer.name].targets, package.program.layers[layer.name].targets
            )
            for copy in range(layer.copies):
                for row in range(layer.rows):
                    address = package.mapping.address(layer.name, row, layer.columns - 1, copy)
                    cell = address.chip * package.mapping.arrays_per_chip + address.array, address.row
                    for bit_line, side in ((address.column_plus, 0), (address.column_minus, 1)):
                        target = package.program.layers[layer.name].targets[side, row, layer.columns - 1]
                        assert targets[(*cell, bit_line)] == target
                        found = [int(addresses[key][(*cell, bit_line)]) for key in ("layer", "copy", "weight_row")]
                        assert found == [index, copy, row]
            count += 2 * layer.rows * layer.columns * layer.copies
        assert np.isfinite(targets).sum() == count
    assert package.mapping.arrays == 2


def test_a_package_is_verified_with_its_network(package, folder, tmp_path):
    with pytest.raises(CimcError, match=r"model\.onnx differs by .* from what its targets compute"):
        cimc.verify(folder)  # its model.onnx is the lowered network
    network = ir.from_proto(onnx.ModelProto.FromString(package.network))
    on_chip = chip_network(network, package.mapping, package.chip, Program(package.program.layers, {}))
    good = replace(package, chip_network=ir.to_proto(on_chip).SerializeToString())
    write_package(tmp_path / "good", good)
    assert cimc.verify(tmp_path / "good")["model_onnx"] == 0
