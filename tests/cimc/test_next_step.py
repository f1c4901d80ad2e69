"""Which data the hints of commands name: those that were given, else such as the network takes."""

import shlex
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner

from cimc.commands.main import app
from cimc.commands.next_step import after_compile, data_options, fitting_data, known_data
from tests.networks import network_proto, weights


def classifier(*sizes: int | str, classes: int = 10) -> ir.Model:
    rows = 1
    for size in sizes[1:]:
        rows *= int(size)
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "W"], ["y"])]
    scores = {"y": (sizes[0], classes)}
    return ir.from_proto(network_proto(nodes, {"x": sizes}, scores, {"W": weights(rows, classes)}))


@pytest.mark.parametrize(
    ("sizes", "classes", "data"),
    [
        (("N", 1, 28, 28), 10, "mnist"),
        (("N", 28, 28), 10, "mnist"),
        (("N", 784), 10, "mnist"),
        (("N", 3, 32, 32), 10, "cifar10"),
        (("N", 3, 32, 32), 100, "YOUR.npz"),
        (("N", 1, 28, 28), 4, "YOUR.npz"),
        (("N", 16, 49), 10, "YOUR.npz"),
        (("N", 32, 32, 3), 10, "YOUR.npz"),
    ],
)
def test_a_set_is_named_where_its_images_and_classes_are_those_of_the_network(
    sizes: tuple[int | str, ...], classes: int, data: str
) -> None:
    network = classifier(*sizes, classes=classes)
    assert fitting_data(network) == data
    hint = after_compile(network, Path("n.cim"), None)
    assert hint.startswith(f"cimc train n.cim --data {data} -o trained.cim, or cimc eval n.cim --data {data} where")
    assert ("numpy.savez" in hint) == (data == "YOUR.npz")


def test_data_of_ones_own_are_told_by_the_inputs_names_types_and_sizes() -> None:
    nodes = [
        helper.make_node("Gather", ["table", "tokens"], ["e"]),
        helper.make_node("MatMul", ["e", "W"], ["m"]),
        helper.make_node("ReduceSum", ["m", "one"], ["s"], keepdims=0),
        helper.make_node("Add", ["s", "state"], ["next"]),
    ]
    graph = helper.make_graph(
        nodes,
        "steps",
        [
            helper.make_tensor_value_info("tokens", TensorProto.INT64, ["N", "T"]),
            helper.make_tensor_value_info("state", TensorProto.FLOAT, [2, "N", 4]),
        ],
        [helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, "N", 4])],
    )
    hint = after_compile(ir.from_proto(helper.make_model(graph)), Path("my nets/s.cim"), None)
    # The batch is no first size of the state, so training would refuse it.
    assert hint == (
        "cimc eval 'my nets/s.cim' --data YOUR.npz; "
        "YOUR.npz, written by numpy.savez, holds tokens (int64 [N, ?]), state (float32 [N, 2, 4])"
    )


def test_the_data_of_the_command_are_taken_over_as_they_were_typed() -> None:
    typed = data_options("a b.npz", Path("d"), mean="0.1,0.2,0.3", std="2", channels_last=True, carry=["next=state"])
    words = "--data;a b.npz;--data-dir;d;--mean;0.1,0.2,0.3;--std;2;--carry;next=state;--channels-last"
    assert shlex.split(typed) == words.split(";")
    hint = after_compile(classifier("N", 1, 28, 28), Path("n.cim"), typed)
    assert hint == f"cimc train n.cim {typed} -o trained.cim, or cimc eval n.cim {typed} where it is trained already"
    trained = known_data({"data": "mine.npz"}, {"scale": 1.0, "mean": [0.25], "std": (0.5, 2.0), "channels_last": True})
    assert trained == "--data mine.npz --mean 0.25 --std 0.5,2 --channels-last"
    assert known_data({}, {}) == "--data YOUR.npz"


def test_what_is_done_to_inputs_is_in_the_hints_from_compiling_to_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    ir.save(classifier("N", 6, classes=3), "n.onnx")
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {"x_train": random.random((40, 6), np.float32), "y_train": np.arange(40) % 3}
    np.savez("d.npz", **arrays, x_test=arrays["x_train"], y_test=arrays["y_train"])

    def shown(*arguments: str) -> str:
        result = CliRunner().invoke(app, list(arguments))
        assert result.exit_code == 0, f"{result.output}{result.exception}"
        return result.stdout

    data = ("--data-dir", ".", "--mean", "0.5", "--std", "0.25")
    compiled = shown(
        "compile", "n.onnx", "-o", "n.cim", "--chip", "ideal", "--no-verify", "--calibrate", "d.npz", *data
    )
    assert "cimc train n.cim --data d.npz --data-dir . --mean 0.5 --std 0.25 -o trained.cim" in compiled
    shown(
        "train",
        "n.cim",
        "--data",
        "d.npz",
        *data,
        "-o",
        "t.cim",
        "--epochs",
        "1",
        "--steps-per-epoch",
        "2",
        "--update",
        "float",
    )
    package = shown("export", "t.cim", "-o", "p")
    assert "next: cimc deploy p --data d.npz --mean 0.5 --std 0.25 --chips 20" in package
    package = shown("export", "t.cim", "-o", "q", "--data", "d.npz", *data)
    assert "next: cimc deploy q --data d.npz --data-dir . --mean 0.5 --std 0.25 --chips 20" in package
