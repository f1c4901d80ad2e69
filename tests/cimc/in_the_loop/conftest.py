"""The network of two layers as a package, and data of its classes."""

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.chip import load_chip
from cimc.dataset import Dataset
from cimc.package import Package
from tests.cimc.in_the_loop.two_layers import CHIP, CLASSES, INPUTS, SEED, parameters
from tests.networks import network_proto


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    """Samples with the classes of the network that is programmed."""
    x = np.random.default_rng(0).random((400, INPUTS), np.float32)
    first, last = parameters()
    y = np.argmax(np.maximum(x @ first, 0) @ last, axis=1).astype(np.int32)
    file = tmp_path_factory.mktemp("data") / "data.npz"
    np.savez(file, x_train=x, y_train=y, x_test=x, y_test=y)
    return cimc.load_data(file)


@pytest.fixture(scope="session")
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
