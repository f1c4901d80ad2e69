"""A package in memory, and written."""

import shutil
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from cimc.chip import chip_text, parse_chip
from cimc.package import Package, write_package
from cimc.program import LayerProgram, Program
from cimc.units import device_targets
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.read import read_network
from tests.cimc.package.package_files import LENET1


@pytest.fixture(scope="session")
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


@pytest.fixture(scope="session")
def folder(package, tmp_path_factory) -> Path:
    """The package written; read only."""
    folder = tmp_path_factory.mktemp("package") / "lenet1"
    write_package(folder, package)
    return folder


@pytest.fixture
def copy(folder, tmp_path) -> Path:
    """A copy of what was written: the same bytes in a tenth of the time."""
    return Path(shutil.copytree(folder, tmp_path / "copy"))
