"""The README of a package: its numbers lead from the tables to the values of onnxruntime."""

import csv
import itertools
import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import safetensors.numpy

import cimc
from cimc.api.compile import compile_model
from cimc.chip import Chip, chip_text
from cimc.data.digits import digits
from cimc.dataset import Dataset
from cimc.package import write_package
from tests.cimc.package.package_files import LENET1, package_on, read_table


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


def test_readme_lists_the_digests_of_the_files_beside_it(folder):
    readme = (folder / "README.md").read_text(encoding="utf-8")
    digests = json.loads((folder / "manifest.json").read_text())["sha256"]
    for name in ("program/targets.npy", "program/blocks.csv", "model.onnx", "chip.toml"):
        assert f"| `{name}` | `{digests[name]}` |" in readme
