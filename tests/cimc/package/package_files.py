"""A package on another chip, and what is read of its files."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np

from cimc.chip import parse_chip
from cimc.package import Package
from cimc.program import Program
from cimc.units import device_targets, weight_of
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.read import read_network

LENET1 = Path(__file__).parents[3] / "models" / "lenet1.onnx"


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


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_table(path: Path) -> tuple[list[str], list[str], np.ndarray]:
    """Comments, head and cells of an array's CSV, read as a tester would: float64, NaN where a field is empty."""
    lines = path.read_text(encoding="ascii").splitlines()
    comments = [line[2:] for line in lines if line.startswith("#")]
    head, *rows = list(csv.reader(lines[len(comments) :]))
    assert [int(row[0]) for row in rows] == list(range(len(rows)))
    cells = np.array([[float(cell) if cell else np.nan for cell in row[1:]] for row in rows])
    return comments, head, cells
