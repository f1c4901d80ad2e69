from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from cimc.errors import CimcError
from passes.pipeline import lower
from passes.read import read_network
from tests.networks import constant, largest_difference, layers, network_proto, weights


def _mlp() -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="fc"), helper.make_node("Relu", ["p"], ["y"])]
    return network_proto(nodes, {"x": ["N", 64]}, {"y": ["N", 32]}, {"w": weights(64, 32)})


def _refusal(path: Path) -> str:
    with pytest.raises(CimcError) as caught:
        read_network(path)
    message = str(caught.value)
    assert "\n" not in message
    assert path.name in message
    assert ";" in message, "the message says what to do"
    return message


def _save_external(folder: Path, location: str = "weights.bin") -> Path:
    proto = _mlp()
    onnx.save(proto, folder / "net.onnx", save_as_external_data=True, location=location, size_threshold=0)
    return folder / "net.onnx"


def _point_to(path: Path, location: str) -> None:
    proto = onnx.load(path, load_external_data=False)
    for entry in proto.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(proto.SerializeToString())


def test_a_good_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "net.onnx"
    onnx.save(_mlp(), path)
    assert [node.op_type for node in read_network(path).graph] == ["MatMul", "Relu"]


def test_missing_file_folder_and_other_files_are_refused(tmp_path: Path) -> None:
    assert "no such file" in _refusal(tmp_path / "none.onnx")
    assert "folder" in _refusal(tmp_path)
    for name, content in {
        "empty": b"",
        "text": b"hello, world\n" * 50,
        "zeros": bytes(1000),
        "png": b"\x89PNG\r\n",
    }.items():
        (tmp_path / name).write_bytes(content)
        _refusal(tmp_path / name)


def test_a_file_in_an_unreadable_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    _refusal(tmp_path / "file" / "net.onnx")


@pytest.mark.parametrize("part", [0.0, 0.01, 0.1, 0.5, 0.9, 0.99, 1.0])
def test_a_truncated_file_is_refused_at_any_length(tmp_path: Path, part: float) -> None:
    content = _mlp().SerializeToString()
    path = tmp_path / "net.onnx"
    path.write_bytes(content[: min(int(len(content) * part), len(content) - 1)])
    _refusal(path)


def test_no_cut_of_a_small_file_gives_anything_but_one_line(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    content = network_proto([node], {"x": ["N", 4]}, {"y": ["N", 4]}).SerializeToString()
    path = tmp_path / "net.onnx"
    for length in range(len(content)):
        path.write_bytes(content[:length])
        _refusal(path)


def test_what_the_checker_rejects_is_one_line(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["nowhere"], ["y"], name="relu")
    onnx.save(network_proto([node], {"x": ["N", 4]}, {"y": ["N", 4]}), tmp_path / "net.onnx")
    assert "checker" in _refusal(tmp_path / "net.onnx")


def test_external_data_is_used_and_stays_on_disk(tmp_path: Path) -> None:
    model = read_network(_save_external(tmp_path))
    assert not constant(model.graph.initializers["w"]).flags.owndata
    lowered = lower(model)
    np.testing.assert_array_equal(constant(lowered.graph.initializers["fc.weight"]), weights(64, 32))
    assert len(layers(lowered)) == 1
    assert largest_difference(model, lowered) <= 1e-5


def test_external_data_of_a_model_in_the_working_directory_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _save_external(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert constant(read_network(Path("net.onnx")).graph.initializers["w"]).shape == (64, 32)


@pytest.mark.parametrize("location", ["../weights.bin", "sub/../../weights.bin", "{outside}"])
def test_external_data_outside_the_folder_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = _save_external(folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    _point_to(path, location.format(outside=tmp_path / "weights.bin"))
    _refusal(path)
    monkeypatch.chdir(folder)
    _refusal(Path("net.onnx"))


def test_external_data_behind_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = _save_external(folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    _refusal(path)


def test_missing_and_short_external_data_is_refused(tmp_path: Path) -> None:
    path = _save_external(tmp_path)
    content = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(content[:-4])
    _refusal(path)
    (tmp_path / "weights.bin").write_bytes(b"")
    _refusal(path)
    (tmp_path / "weights.bin").unlink()
    _refusal(path)


def test_sparse_constants_are_refused(tmp_path: Path) -> None:
    values = helper.make_tensor("v", TensorProto.FLOAT, [1], [1.0])
    sparse = helper.make_sparse_tensor(values, helper.make_tensor("i", TensorProto.INT64, [1], [3]), [8])
    nodes = [
        helper.make_node("Constant", [], ["c"], name="sparse", sparse_value=sparse),
        helper.make_node("Add", ["x", "c"], ["y"]),
    ]
    onnx.save(network_proto(nodes, {"x": ["N", 8]}, {"y": ["N", 8]}), tmp_path / "net.onnx")
    assert "parse" in _refusal(tmp_path / "net.onnx")


def test_external_data_of_a_constant_node_is_used(tmp_path: Path) -> None:
    path = _save_external(tmp_path)
    proto = onnx.load(path, load_external_data=False)
    source = helper.make_node("Constant", [], ["w"], value=proto.graph.initializer.pop())
    proto.graph.node.insert(0, source)
    path.write_bytes(proto.SerializeToString())
    model = read_network(path)
    lowered = lower(model)
    np.testing.assert_array_equal(constant(lowered.graph.initializers["fc.weight"]), weights(64, 32))
    assert largest_difference(model, lowered) <= 1e-5


@pytest.mark.parametrize("opset", [12, 17, 21])
@pytest.mark.parametrize("operator", ["LayerNormalization", "SimplifiedLayerNormalization"])
def test_normalisations_of_onnxruntime_in_the_standards_domain(operator: str, opset: int, tmp_path: Path) -> None:
    """Its optimiser and its builder of language models write them; the checker knows neither below opset 17."""
    nodes = [
        helper.make_node(operator, ["x", "scale"], ["n"], name="norm", axis=-1, epsilon=1e-3),
        helper.make_node("MatMul", ["n", "w"], ["y"], name="fc"),
    ]
    initializers = {"scale": weights(64), "w": weights(64, 32)}
    proto = network_proto(nodes, {"x": ["N", 5, 64]}, {"y": ["N", 5, 32]}, initializers)
    proto.opset_import[0].version = opset
    path = tmp_path / "net.onnx"
    onnx.save(proto, path, save_as_external_data=True, location="weights.bin", size_threshold=1024)
    model = read_network(path)
    lowered = lower(model)
    assert len(layers(lowered)) == 1
    assert largest_difference(model, lowered) <= 1e-5
    (tmp_path / "weights.bin").unlink()
    assert "weights.bin" in _refusal(path)
