"""Networks that would take a lifetime or a memory, or compute no numbers: refused in one line, before work is done."""

import time
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper

from cimc.api.compile import compile_model
from cimc.artifact import read_artifact
from cimc.commands.main import app
from cimc.errors import CimcError
from tests.hostile import calls, loops, lstm
from tests.networks import network_proto, weights

CHIP = "brram-256x64"
SECONDS = 5  # of processor time


def _refusal(proto: onnx.ModelProto, folder: Path) -> str:
    (folder / "net.onnx").write_bytes(proto.SerializeToString())
    start = time.process_time()
    with pytest.raises(CimcError) as caught:
        compile_model(folder / "net.onnx", CHIP)
    assert time.process_time() - start < SECONDS
    assert "report this" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("depth", [14, 30, 90])
def test_functions_that_expand_exponentially(depth: int, tmp_path: Path) -> None:
    levels = [*([f"f{number + 1}"] * 2 for number in range(depth)), ["Relu"]]
    assert "nodes" in _refusal(calls(levels), tmp_path)


@pytest.mark.parametrize("levels", [[["f0"]], [["f1"], ["f2"], ["f0"]]])
def test_functions_that_call_themselves(levels: list[list[str]], tmp_path: Path) -> None:
    assert "calls itself" in _refusal(calls(levels), tmp_path)


def test_functions_that_expand_a_little_compile(tmp_path: Path) -> None:
    onnx.save(calls([["f1"] * 8, ["f2"] * 8, ["Relu"]]), tmp_path / "net.onnx")
    assert len(compile_model(tmp_path / "net.onnx", CHIP).artifact.mapping.layers) == 1


def test_the_most_nodes_may_be_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proto = calls([["f1"] * 8, ["f2"] * 8, ["Relu"]])
    monkeypatch.setenv("CIMC_MAX_NODES", "50")
    assert "set CIMC_MAX_NODES=650 to try" in _refusal(proto, tmp_path)
    monkeypatch.setenv("CIMC_MAX_NODES", "650")
    assert len(compile_model(tmp_path / "net.onnx", CHIP).artifact.mapping.layers) == 1


def test_a_recurrent_layer_of_thousands_of_steps_is_one_loop(tmp_path: Path) -> None:
    onnx.save(lstm(2000), tmp_path / "net.onnx")
    start = time.process_time()
    mapping = compile_model(tmp_path / "net.onnx", CHIP, verify=False).artifact.mapping
    assert time.process_time() - start < SECONDS
    assert [layer.positions for layer in mapping.layers] == [2000, 1999]


@pytest.mark.parametrize("count", [12, 200])
def test_diamonds_compile_or_the_node_whose_values_overflow_is_named(count: int, tmp_path: Path) -> None:
    names = ["h", *(f"d{n}" for n in range(count - 1)), "y"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="fc")]
    nodes += [helper.make_node("Add", [a, a], [b], name=f"twice {b}") for a, b in pairwise(names)]
    proto = network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)})
    if count == 200:
        assert "Add 'twice d" in _refusal(proto, tmp_path)
    else:
        onnx.save(proto, tmp_path / "net.onnx")
        compile_model(tmp_path / "net.onnx", CHIP)


def test_a_value_as_large_as_a_memory_that_nothing_declares(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("Expand", ["h", "sizes"], ["large"], name="swell"),
        helper.make_node("ReduceMax", ["large"], ["y"], keepdims=0, name="most"),
    ]
    constants: dict[str, npt.ArrayLike] = {"w": weights(4, 3), "sizes": np.array([1, 2**29, 3], np.int64)}
    assert "swell" in _refusal(network_proto(nodes, {"x": ["N", 1, 4]}, {"y": []}, constants), tmp_path)


@pytest.mark.parametrize(
    ("operator", "constant", "words"),
    [("Add", np.nan, "'c' of 'bad' holds NaN"), ("Mul", np.inf, "Mul 'bad'"), ("Div", 0.0, "Div 'bad'")],
)
def test_a_digital_operator_that_makes_no_numbers_is_named(
    operator: str, constant: float, words: str, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node(operator, ["h", "c"], ["b"], name="bad"),
        helper.make_node("Neg", ["b"], ["y"], name="after"),
    ]
    constants: dict[str, npt.ArrayLike] = {"w": weights(4, 3), "c": np.array(constant, np.float32)}
    assert words in _refusal(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, constants), tmp_path)


def test_a_negative_variance_is_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("BatchNormalization", ["h", "s", "s", "s", "v"], ["y"], name="norm"),
    ]
    constants = {"w": weights(4, 3), "s": np.ones(3, np.float32), "v": np.array([1, -1, 1], np.float32)}
    message = _refusal(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, constants), tmp_path)
    assert "'v' of 'norm' holds a variance of -1" in message


@pytest.mark.parametrize("changed", ["w", "b"])
def test_weights_whose_products_overflow_are_named(changed: str, tmp_path: Path) -> None:
    constants = {"w": weights(4, 3), "b": np.zeros(3, np.float32)}
    constants[changed].flat[1] = 3e38
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], name="fc")
    assert "of 'fc' holds 3e+38" in _refusal(
        network_proto([node], {"x": ["N", 4]}, {"y": ["N", 3]}, constants), tmp_path
    )


def test_weights_of_almost_nothing_are_nothing(tmp_path: Path) -> None:
    array = weights(4, 3)
    array[:, 1] = 1e-44
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    onnx.save(network_proto([node], {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": array}), tmp_path / "net.onnx")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compile_model(tmp_path / "net.onnx", CHIP, output=tmp_path / "net.cim")
    network = read_artifact(tmp_path / "net.cim").network
    held = [value.const_value.numpy() for value in network.graph.initializers.values() if value.const_value is not None]
    (weight,) = [one for one in held if one.shape == (4, 3)]
    np.testing.assert_array_equal(weight, np.where(array < 1e-30, np.where(array > -1e-30, 0, array), array))


@pytest.mark.parametrize("name", ["a" * 10_000, "\x1b[2J[/b]<script>alert(1)</script>"])
def test_hostile_names_are_text_in_files_tables_and_reports(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nodes = [helper.make_node("MatMul", [a, "w"], [b], name=f"{b}{name}") for a, b in (("x", name), (name, "y"))]
    onnx.save(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 4]}, {"w": weights(4, 4)}), tmp_path / "net.onnx")
    for line in (
        f"compile {tmp_path}/net.onnx --chip {CHIP} -o {tmp_path}/net.cim",
        f"inspect {tmp_path}/net.cim",
        f"report {tmp_path}/net.cim -o {tmp_path}/page.html",
    ):
        app(line.split(), standalone_mode=False)
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert "[/b]" in printed or "[/b]" not in name
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


@pytest.mark.parametrize(("trips", "depth"), [(10**9, 1), (100, 4), (2**40, 3)])
def test_loops_in_loops_are_refused_before_they_are_written_out(trips: int, depth: int, tmp_path: Path) -> None:
    assert "operators that a loop may become" in _refusal(loops(trips, depth), tmp_path)
