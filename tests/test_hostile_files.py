"""Files that a broken exporter, a bad disk or an attacker could hand over: each is refused in one line, or works."""

import hashlib
import io
import json
import os
import re
import tracemalloc
import zipfile
from itertools import pairwise
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.api.compile import compile_model
from cimc.artifact import read_artifact
from cimc.device_file import device_text, parse_device
from cimc.errors import CimcError
from cimc.package import SEAL, read_package
from tests.benchmarks.fuzz import CHIP, LENET1, fuzz
from tests.mutated_files import KINDS, make_good
from tests.mutations import networks
from tests.networks import network_proto, weights
from tests.sealing import members_of, redigested, sealed

IN_CI = 500
OTHERS_IN_CI = 240


def _product() -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    return network_proto([node], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)})


def _refusal(proto: onnx.ModelProto, folder: Path) -> str:
    path = folder / "net.onnx"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(CimcError) as caught:
        compile_model(path, CHIP, output=folder / "net.cim")
    assert not (folder / "net.cim").exists()
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A valid `.cim` file."""
    path = tmp_path_factory.mktemp("good") / "good.cim"
    compile_model(LENET1, CHIP, output=path)
    return path.read_bytes()


@pytest.mark.parametrize("name", sorted(networks()))
def test_the_networks_that_are_mutated_compile(name: str, tmp_path: Path) -> None:
    onnx.save(networks()[name], tmp_path / "net.onnx")
    compiled = compile_model(tmp_path / "net.onnx", CHIP, output=tmp_path / "net.cim")
    assert compiled.artifact.mapping.arrays


@pytest.mark.parametrize("bytes_too_few", [1, 4, 47, 48, -4, -400])
def test_data_that_does_not_fit_its_sizes(bytes_too_few: int, tmp_path: Path) -> None:
    proto = _product()
    (tensor,) = proto.graph.initializer
    tensor.raw_data = (tensor.raw_data + bytes(400))[: len(tensor.raw_data) - bytes_too_few]
    _refusal(proto, tmp_path)


@pytest.mark.parametrize("dims", [[-4, 3], [2**40, 3], [2**31, 2**31], [2**62, 4], [0, 3], [4, 3, 2**63 - 1], [12]])
def test_sizes_of_a_weight_that_cannot_be(dims: list[int], tmp_path: Path) -> None:
    proto = _product()
    proto.graph.initializer[0].dims[:] = dims
    _refusal(proto, tmp_path)


@pytest.mark.parametrize("sizes", [["N", -4], ["N", 2**62], [2**40, 2**40], ["N", 0], [2**31, 4], [4] * 3000])
def test_sizes_of_an_input_that_cannot_be(sizes: list[int | str], tmp_path: Path) -> None:
    proto = _product()
    proto.graph.input[0].CopyFrom(helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes))
    _refusal(proto, tmp_path)


def test_a_constant_that_would_fill_the_memory(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("ConstantOfShape", ["huge"], ["w"], name="fill"),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"),
    ]
    constants = {"huge": np.array([4, 2**38], np.int64)}
    tracemalloc.start()
    _refusal(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 2**38]}, constants), tmp_path)
    assert tracemalloc.get_traced_memory()[1] < 2**28
    tracemalloc.stop()


def test_a_cycle(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Add", ["x", "b"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="second"),
        helper.make_node("MatMul", ["b", "w"], ["y"], name="fc"),
    ]
    _refusal(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)}), tmp_path)


def test_a_value_computed_twice(tmp_path: Path) -> None:
    proto = _product()
    proto.graph.node.append(proto.graph.node[0])
    _refusal(proto, tmp_path)


def test_a_constant_given_twice(tmp_path: Path) -> None:
    proto = _product()
    proto.graph.initializer.append(numpy_helper.from_array(weights(4, 3) + 1, "w"))
    _refusal(proto, tmp_path)


def test_nodes_of_one_name_compile(tmp_path: Path) -> None:
    nodes = [helper.make_node("MatMul", [a, "w"], [b], name="same") for a, b in (("x", "h"), ("h", "y"))]
    onnx.save(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": weights(4, 4)}), tmp_path / "net.onnx")
    compile_model(tmp_path / "net.onnx", CHIP, output=tmp_path / "net.cim")


@pytest.mark.parametrize("depth", [1, 6])
def test_nested_control_flow(depth: int, tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("z", TensorProto.FLOAT, ["N", 4])
    leaf = helper.make_graph([helper.make_node("Identity", ["x"], ["z"])], "leaf", [], [value])
    body = leaf
    for level in range(depth):
        node = helper.make_node("If", ["c"], ["z"], name=f"if{level}", then_branch=body, else_branch=leaf)
        body = helper.make_graph([node], "branch", [], [value])
    nodes = [body.node[0], helper.make_node("MatMul", ["z", "w"], ["y"], name="fc")]
    proto = network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)})
    proto.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    onnx.save(proto, tmp_path / "net.onnx")
    compiled = compile_model(tmp_path / "net.onnx", CHIP)
    assert [layer.name for layer in compiled.artifact.mapping.layers] == ["fc"]


@pytest.mark.parametrize("depth", [30, 100, 5000])
def test_deep_nesting(depth: int, tmp_path: Path) -> None:
    def message(field: int, content: bytes) -> bytes:
        size, length = len(content), b""
        while size > 127:
            length, size = length + bytes([size & 127 | 128]), size >> 7
        return bytes([field << 3 | 2]) + length + bytes([size]) + content

    # GraphProto.node, NodeProto.attribute, AttributeProto.g, over and over, in ModelProto.graph.
    graph = b""
    for _ in range(depth):
        graph = message(1, message(5, message(6, graph)))
    (tmp_path / "net.onnx").write_bytes(_product().SerializeToString() + message(7, graph))
    with pytest.raises(CimcError):
        compile_model(tmp_path / "net.onnx", CHIP)


def test_the_file_of_the_weights_is_not_overwritten(tmp_path: Path) -> None:
    onnx.save(_product(), tmp_path / "net.onnx", save_as_external_data=True, location="net.data", size_threshold=0)
    before = (tmp_path / "net.data").read_bytes()
    with pytest.raises(CimcError, match="holds the weights"):
        compile_model(tmp_path / "net.onnx", CHIP, output=tmp_path / "net.data")
    assert (tmp_path / "net.data").read_bytes() == before


def test_a_pipe_in_the_place_of_a_file_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(CimcError, match="pipe"):
        read_artifact(tmp_path / "pipe")
    with pytest.raises(CimcError, match="pipe"):
        compile_model(tmp_path / "pipe", CHIP)


@pytest.mark.parametrize("verify_passes", [False, True])
def test_weights_that_are_no_numbers_are_named_whether_or_not_passes_are_checked(
    tmp_path: Path, verify_passes: bool
) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    array = weights(4, 3)
    array[1, 1] = np.nan
    onnx.save(network_proto([node], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": array}), tmp_path / "net.onnx")
    with pytest.raises(CimcError, match="NaN"):
        compile_model(tmp_path / "net.onnx", CHIP, verify_passes=verify_passes)


def test_an_empty_weight_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    assert "nothing to map" in _refusal(
        network_proto([node], {"x": ["N", 4]}, {"y": ["N", 0]}, {"w": weights(4, 0)}), tmp_path
    )


def test_a_chain_of_many_nodes_compiles(tmp_path: Path) -> None:
    names = ["x", *(f"v{n}" for n in range(3000))]
    nodes = [helper.make_node("Relu", [a], [b]) for a, b in pairwise(names)]
    nodes.append(helper.make_node("MatMul", [names[-1], "w"], ["y"], name="fc"))
    onnx.save(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)}), tmp_path / "net.onnx")
    compile_model(tmp_path / "net.onnx", CHIP, output=tmp_path / "net.cim")


def test_names_cannot_write_to_the_terminal(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"], name="noise\n\x1b[2Jerror: all is well\u202e"),
        helper.make_node("MatMul", ["r", "w"], ["y"], name="fc"),
    ]
    message = _refusal(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)}), tmp_path)
    assert "noise\\n\\x1b[2Jerror: all is well\\u202e" in message


def test_a_zip_bomb_is_refused_before_it_is_unpacked(good: bytes, tmp_path: Path) -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("network.onnx", "w") as member:
        for _ in range(256):
            member.write(bytes(2**20))
    (tmp_path / "plain.cim").write_bytes(bomb.getvalue())
    with zipfile.ZipFile(bomb) as archive:
        network = archive.read("network.onnx")
    (tmp_path / "sealed.cim").write_bytes(sealed(redigested(good, "network.onnx", network), zipfile.ZIP_DEFLATED))
    tracemalloc.start()
    for name in ("plain.cim", "sealed.cim"):
        with pytest.raises(CimcError, match="damaged"):
            read_artifact(tmp_path / name)
    assert tracemalloc.get_traced_memory()[1] < 2**24
    tracemalloc.stop()


@pytest.mark.parametrize("member", ["manifest.json", "mapping.json", "history.json"])
def test_deeply_nested_json_under_a_good_seal(member: str, good: bytes, tmp_path: Path) -> None:
    deep = b"[" * 200_000 + b"]" * 200_000
    members = redigested(good, member, deep) if member != "manifest.json" else {**members_of(good), member: deep}
    (tmp_path / "deep.cim").write_bytes(sealed(members))
    with pytest.raises(CimcError):
        read_artifact(tmp_path / "deep.cim")


def test_mutated_files_work_or_are_refused_in_one_line() -> None:
    counts = fuzz(first=0, cases=IN_CI, workers=1)
    assert set(counts) == {"done", "refused"}
    assert counts.total() == IN_CI
    assert counts["done"] > IN_CI // 20


def test_mutated_files_of_every_other_kind_too() -> None:
    counts = fuzz(first=0, cases=OTHERS_IN_CI, workers=1, files=True)
    assert set(counts) == {"done", "refused"}
    assert counts.total() == OTHERS_IN_CI
    assert counts["done"] > OTHERS_IN_CI // 20


def test_what_fuzzing_found_is_refused_and_a_package_reads_no_file_outside_its_folder(tmp_path: Path) -> None:
    good = make_good(tmp_path)
    for seed in (16355,):  # a network that can be read and not be written
        _, use = KINDS["package"](Random(seed), tmp_path / "changed", good)
        with pytest.raises(CimcError, match="holds a network that is damaged"):
            use()
    for name in ("/dev/zero", "../net.onnx", "program"):
        manifest = json.loads((tmp_path / "package" / "manifest.json").read_text())
        manifest["sha256"] = {name: "0" * 64, **manifest["sha256"]}
        text = json.dumps(manifest).encode()
        (tmp_path / "package" / "manifest.json").write_bytes(text)
        (tmp_path / "package" / SEAL).write_text(f"{hashlib.sha256(text).hexdigest()}  manifest.json\n")
        with pytest.raises(CimcError, match="no file of its folder"):
            read_package(tmp_path / "package")


def test_a_polynomial_of_thousands_of_coefficients_is_refused() -> None:
    text = device_text("idealised")
    with pytest.raises(CimcError, match="at most 32 coefficients"):
        parse_device(re.sub(r"error_sd_uS = .*", f"error_sd_uS = {[1.0] * 5000}", text), "device.toml")
