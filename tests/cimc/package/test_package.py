"""The package: one program, written and read back whole, in no one else's folder."""

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

import cimc
from cimc.api.compile import compile_model
from cimc.data.digits import digits
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.package import Package, read_package, write_package
from cimc.program import Program
from cimc.units import device_targets
from passes.chip_network import chip_network
from runtime.network.load import load_network
from runtime.system.inference import predict
from runtime.system.inputs import match_data
from runtime.system.program import programmed_state
from runtime.system.state import build_system
from tests.cimc.package.package_files import LENET1, contents


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


def test_earlier_package_is_replaced_whole_and_files_of_others_are_not(copy, package):
    (copy / "notes.txt").write_text("mine")
    before = contents(copy)
    with pytest.raises(CimcError, match=r"it holds notes\.txt, which is no file of the package; move that, or choose"):
        write_package(copy, package)
    assert contents(copy) == before
    (copy / "notes.txt").rename(copy / "program" / "array_9999.csv")
    manifest = json.loads((copy / "manifest.json").read_text())
    manifest["sha256"]["program/array_9999.csv"] = "of the earlier package"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    write_package(copy, package)
    assert "program/array_9999.csv" not in {path.relative_to(copy).as_posix() for path in copy.rglob("*")}
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
