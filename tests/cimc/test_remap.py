"""Rows driven at once through export: those of the file stay, on its own chip and others, or are given anew."""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

import cimc
from cimc.api.compile import compile_model
from cimc.api.remap import remap
from cimc.artifact import Artifact
from cimc.chip import load_chip
from cimc.dataset import Dataset, Samples
from cimc.errors import CimcError
from cimc.mapping import Mapping
from tests.networks import network_proto, weights


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("remap") / "two.onnx"
    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["y"], name="second"),
    ]
    constants = {"w1": weights(60, 50), "w2": weights(50, 4, seed=1)}
    onnx.save(network_proto(nodes, {"x": ["N", 60]}, {"y": ["N", 4]}, constants), path)
    return path


def artifact(model: Path, **options: object) -> Artifact:
    return compile_model(model, "brram-soc", verify=False, **options).artifact  # type: ignore[arg-type]


def rows(mapping: Mapping) -> dict[str, int | None]:
    return {layer.name: layer.rows_per_read for layer in mapping.layers}


def test_the_rows_of_the_file_stay_on_every_chip(model: Path) -> None:
    file = artifact(model, rows_per_read={"": 20, "second": 8})
    kept = {"first": 20, "second": 8}
    assert rows(file.mapping) == kept
    assert remap(file, file.network, chip=None, rows_per_read={}) is file.mapping
    assert rows(remap(file, file.network, chip=load_chip("brram-256x64"), rows_per_read={})) == kept


def test_other_rows_take_their_place_by_layer_or_all(model: Path) -> None:
    file = artifact(model, rows_per_read={"": 20, "second": 8})
    for chip in (None, load_chip("hermes")):
        assert rows(remap(file, file.network, chip=chip, rows_per_read={"second": 5})) == {"first": 20, "second": 5}
        assert rows(remap(file, file.network, chip=chip, rows_per_read={"": 7})) == {"first": 7, "second": 7}
    with pytest.raises(CimcError, match="'third', which is no crossbar layer"):
        remap(file, file.network, chip=None, rows_per_read={"third": 5})


def test_groups_of_layers_that_have_none_are_said_by_compile_and_export(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="grouped", group=2),
        helper.make_node("Conv", ["h", "v"], ["y"], name="plain"),
    ]
    constants = {"w": weights(4, 2, 1, 1), "v": weights(3, 4, 1, 1)}
    onnx.save(network_proto(nodes, {"x": ["N", 4, 2, 2]}, {"y": ["N", 3, 2, 2]}, constants), tmp_path / "g.onnx")

    def said(asked: dict[str, int]) -> list[str]:
        compiled = cimc.compile(tmp_path / "g.onnx", "ideal", groups_per_read=asked, verify=False)
        exported: list[str] = []
        cimc.export(compiled.artifact, groups_per_read=asked, note=exported.append)
        assert [line for line in exported if "--groups" in line] == list(compiled.notes)
        return list(compiled.notes)

    assert said({"": 2}) == said({"grouped": 2}) == []
    only = "--groups-per-read changes nothing for plain: only convolutions on arrays have groups"
    assert said({"plain": 2}) == said({"": 1, "plain": 2}) == [only]


def test_groups_of_a_network_that_has_none_are_said_once(model: Path) -> None:
    (line,) = cimc.compile(model, "brram-soc", groups_per_read=2, verify=False).notes
    assert line == "--groups-per-read changes nothing: no layer on arrays is a convolution with groups"


def test_the_file_is_mapped_again_as_it_was_asked_for(model: Path) -> None:
    asked = {"objective": "interval", "arrays": 40, "row_split": "flat", "input_range": (-1.0, 1.0)}
    file = artifact(model, **asked)
    assert (
        remap(file, file.network, chip=None, rows_per_read={"": 9}) == artifact(model, rows_per_read=9, **asked).mapping
    )


def test_a_package_reads_in_parts_as_its_network_does(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    x = 0.7 + 0.3 * np.abs(weights(40, 60, seed=2))
    samples = Samples({"x": x}, {})
    data = Dataset("own", samples, samples)
    cimc.compile(model, "brram-256x64", output=tmp_path / "two.cim", rows_per_read=15, verify=False)
    outputs = {}
    for name, number in (("parts", None), ("all", 1000)):
        cimc.export(tmp_path / "two.cim", output=tmp_path / name, data=data, rows_per_read=number)
        package = cimc.read_package(tmp_path / name)
        assert set(rows(package.mapping).values()) == {number or 15}
        session = onnxruntime.InferenceSession(tmp_path / name / "model.onnx", providers=["CPUExecutionProvider"])
        (outputs[name],) = session.run(None, {"x": x})
    plain = np.maximum(x @ weights(60, 50), 0) @ weights(50, 4, seed=1)
    assert not np.array_equal(outputs["parts"], outputs["all"])
    for name, found in outputs.items():
        assert np.linalg.norm(found - plain) < 0.2 * np.linalg.norm(plain), name


def test_groups_keep_their_turns_and_the_package_says_which_are_driven_together(tmp_path: Path) -> None:
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], name="depthwise", kernel_shape=[3, 3], group=6)]
    proto = network_proto(nodes, {"x": ["N", 6, 5, 5]}, {"y": ["N", 6, 3, 3]}, {"w": weights(6, 1, 3, 3)})
    onnx.save(proto, tmp_path / "depthwise.onnx")
    file = compile_model(tmp_path / "depthwise.onnx", "brram-256x64", groups_per_read=4, verify=True).artifact
    samples = Samples({"x": np.abs(weights(40, 6, 5, 5, seed=2))}, {})
    package = cimc.export(file, output=tmp_path / "package", data=Dataset("own", samples, samples))
    assert [layer.groups_per_read for layer in package.mapping.layers] == [3]
    assert "driven at once: 3 of depthwise." in (tmp_path / "package" / "README.md").read_text(encoding="utf-8")
    turns = remap(file, file.network, chip=load_chip("hermes"), groups_per_read={"depthwise": 1})
    assert [layer.groups_per_read for layer in turns.layers] == [1]
