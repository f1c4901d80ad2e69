"""The networks of the peers' configurations have the shapes from which the published figures follow."""

import math
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from tests.benchmarks.mapper.builder import write
from tests.benchmarks.mapper.networks import CONFIGURATIONS, NETWORKS, network

LIGHT = Path(onnx.__file__).parent / "backend/test/data/light"
PRODUCTS = ("Conv", "Gemm", "MatMul")

# Logical 128x128 arrays of PIMCOMP-NN at one copy, grouped convolutions expanded to dense (measured).
LOGICAL_ARRAYS = {
    "squeezenet": 108,
    "resnet18": 727,
    "resnet34": 1349,
    "resnet50": 1576,
    "googlenet": 566,
    "inception_v3": 1762,
    "mobilenetv2": 3006,
    "shufflenet": 1522,
    "alexnet": 3814,
    "vgg16": 8454,
}
# MARP's results: 256x256 arrays at one layer an array, and the share of their cells that holds a weight.
PACKING_BENCH = {
    "autoencoder": (14, 0.28794642857142855),
    "ds_cnn": (6, 0.050130208333333336),
    "resnet8": (15, 0.09952799479166667),
    "mobilenetv2_cifar": (91, 0.3585540436126374),
}
AREA_BOUNDS = {"autoencoder": 5, "ds_cnn": 1, "resnet8": 2, "mobilenetv2_cifar": 33}
# MVM positions: output positions summed over the layers, from the published maps (56x56, 28x28, ...).
POSITIONS = {
    "resnet18": 112**2 + 4 * 56**2 + 5 * 28**2 + 5 * 14**2 + 5 * 7**2 + 1,
    "vgg16": 2 * 224**2 + 2 * 112**2 + 3 * (56**2 + 28**2 + 14**2) + 3,
    "alexnet": 54**2 + 26**2 + 3 * 12**2 + 3,
    "googlenet": 112**2 + 2 * 56**2 + 6 * (2 * 28**2 + 5 * 14**2 + 2 * 7**2) + 1,
    "ds_cnn": 9 * 25 * 5 + 1,
}


def weight_shapes(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Shapes of all constant tensors, stored or filled by ConstantOfShape."""
    stored = {tensor.name: tensor for tensor in model.graph.initializer}
    shapes = {name: tuple(tensor.dims) for name, tensor in stored.items()}
    for node in model.graph.node:
        if node.op_type == "ConstantOfShape":
            shapes[node.output[0]] = tuple(numpy_helper.to_array(stored[node.input[0]]).tolist())
    return shapes


def matrices(model: onnx.ModelProto) -> list[tuple[int, int, int]]:
    """(rows, columns, groups) of every layer with a constant weight; rows are those of one group."""
    shapes, found = weight_shapes(model), []
    for node in model.graph.node:
        if node.op_type not in PRODUCTS or node.input[1] not in shapes:
            continue
        shape = shapes[node.input[1]]
        attributes = {attribute.name: attribute.i for attribute in node.attribute}
        if node.op_type == "Conv":
            found.append((math.prod(shape[1:]), shape[0], attributes.get("group", 1)))
        else:
            transposed = attributes.get("transB", 0)
            found.append((shape[1], shape[0], 1) if transposed else (shape[0], shape[1], 1))
    return found


def positions(model: onnx.ModelProto) -> int:
    """Output positions summed over all layers with a constant weight."""
    shapes = {value.name: value.type.tensor_type.shape.dim for value in (*model.graph.value_info, *model.graph.output)}
    total = 0
    for node in model.graph.node:
        if node.op_type == "Conv":
            total += math.prod(size.dim_value for size in shapes[node.output[0]][2:])
        elif node.op_type == "Gemm":
            total += 1
    return total


@pytest.mark.parametrize("name", CONFIGURATIONS["A"])
def test_logical_arrays_are_those_of_configuration_a(name: str) -> None:
    dense = sum(
        math.ceil(rows * groups / 128) * math.ceil(columns / 128) for rows, columns, groups in matrices(network(name))
    )
    assert dense == LOGICAL_ARRAYS[name]


@pytest.mark.parametrize("name", CONFIGURATIONS["B"])
def test_arrays_and_weights_are_those_of_configuration_b(name: str) -> None:
    on_arrays = [(rows, columns) for rows, columns, groups in matrices(network(name)) if groups == 1]
    arrays, filled = PACKING_BENCH[name]
    assert sum(math.ceil(rows / 256) * math.ceil(columns / 256) for rows, columns in on_arrays) == arrays
    weights = sum(rows * columns for rows, columns in on_arrays)
    assert weights == pytest.approx(filled * arrays * 256**2, rel=1e-9)
    assert math.ceil(weights / 256**2) == AREA_BOUNDS[name]


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_are_those_of_the_published_maps(name: str) -> None:
    assert positions(network(name)) == POSITIONS[name]


def test_vit_has_the_published_weights() -> None:
    # 12 blocks of 12 x 768^2, the patches (3072 x 768) and the classifier (768 x 1000).
    found = matrices(network("vit_b_32"))
    assert sum(rows * columns for rows, columns, _ in found) == 12 * 12 * 768**2 + 3072 * 768 + 768 * 1000
    assert len(found) == 12 * 6 + 2


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("alexnet", "bvlc_alexnet"),
        ("squeezenet", "squeezenet"),
        ("shufflenet", "shufflenet"),
        ("resnet50", "resnet50"),
    ],
)
def test_layers_are_those_of_the_onnx_packages_networks(name: str, file: str) -> None:
    published = onnx.shape_inference.infer_shapes(onnx.load(LIGHT / f"light_{file}.onnx"))
    built = network(name)
    assert sorted(matrices(built)) == sorted(matrices(published))
    assert positions(built) == positions(published)


@pytest.mark.parametrize("name", NETWORKS)
def test_networks_are_valid_and_light(name: str) -> None:
    model = network(name)
    onnx.checker.check_model(model, full_check=True)
    assert model.ByteSize() < 2**17


@pytest.mark.parametrize("name", ["resnet8", "ds_cnn", "shufflenet", "mobilenetv2_cifar"])
def test_a_stored_network_holds_its_weights(tmp_path: Path, name: str) -> None:
    path = tmp_path / f"{name}.onnx"
    model = network(name)
    written = write(model, path)
    stored = onnx.load(path)
    onnx.checker.check_model(stored, full_check=True)
    assert matrices(stored) == matrices(model)
    layers = matrices(model)
    assert written == sum(rows * columns + columns for rows, columns, _ in layers)
    arrays = [numpy_helper.to_array(tensor) for tensor in stored.graph.initializer if len(tensor.dims) == 4]
    assert max(array.std() for array in arrays) == pytest.approx(0.02, rel=0.2)
