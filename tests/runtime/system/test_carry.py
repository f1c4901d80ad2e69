"""State carried over a stream: against a loop in NumPy, exactly and on arrays, in calibration, on the command line."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

import cimc
from cimc.commands.main import app
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.errors import CimcError
from passes.pipeline import lower
from runtime.deployment.compensation import calibration_of
from runtime.network.load import load_network
from runtime.system.carry import Run, carried, check_carry
from runtime.system.inference import batches, fixed_batch
from runtime.system.state import build_system, initial_state
from tests.networks import network_proto, weights

STEPS, INPUTS, H = 20, 3, 4
CARRY = {"next": "state"}
Floats = np.ndarray[Any, np.dtype[np.float32]]
W, R, V = weights(INPUTS, H), weights(H, H, seed=1), weights(H, 2, seed=2)
X = weights(STEPS, INPUTS, seed=3)
FIRST = weights(STEPS, H, seed=4)


def cell(batch: int | str = "N", size: int = H) -> onnx.ModelProto:
    """next = tanh(x W + state R); y = next V."""
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["of_x"]),
        helper.make_node("MatMul", ["state", "R"], ["of_state"]),
        helper.make_node("Add", ["of_x", "of_state"], ["sum"]),
        helper.make_node("Tanh", ["sum"], ["next"]),
        helper.make_node("MatMul", ["next", "V"], ["y"]),
    ]
    inputs = {"x": [batch, INPUTS], "state": [batch, H]}
    return network_proto(nodes, inputs, {"y": [batch, 2], "next": [batch, H]}, {"W": W, "R": R, "V": V})


def loop(first: Floats | None = None, inputs: Floats = X) -> Floats:
    """The outputs y [steps, 2] of the cell, step by step."""
    state, outputs = np.zeros(H) if first is None else first, []
    for x in inputs:
        state = np.tanh(x @ W + state @ R)
        outputs.append(state @ V)
    return np.array(outputs, np.float32)


def data_of(inputs: dict[str, Floats], labels: Any = None) -> Dataset:
    samples = Samples(inputs, labels)
    return Dataset("stream", samples, samples)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the cell compiled for an ideal chip (`ideal.cim`) and for a noisy one, and its stream."""
    place = tmp_path_factory.mktemp("carry")
    onnx.save(cell(), place / "cell.onnx")
    for chip in ("ideal", "hermes"):
        cimc.compile(place / "cell.onnx", chip, output=place / f"{chip}.cim", input_range=(-1, 1), verify=False)
    stored: dict[str, Any] = {"x": X, "labels/y": loop()}
    np.savez(place / "stream.npz", **stored)
    return place


@pytest.mark.parametrize("exact", [True, False])
@pytest.mark.parametrize("first", [None, FIRST])
def test_each_step_takes_the_state_of_the_step_before(folder: Path, exact: bool, first: Floats | None) -> None:
    inputs = {"x": X} if first is None else {"x": X, "state": FIRST}
    data = data_of(inputs, {"y": loop(None if first is None else first[0])})
    found = cimc.evaluate(folder / "ideal.cim", data, exact=exact, carry=CARRY, metric="mae")
    assert found["mae"] < 1e-5
    without = cimc.evaluate(folder / "ideal.cim", data_of({"x": X, "state": FIRST}, data.test.labels), metric="mae")
    assert without["mae"] > 0.05, "or the state has no effect"


def test_a_cache_grows_from_nothing_by_each_step(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "W"], ["key"]),
        helper.make_node("Concat", ["past", "key"], ["present"], axis=1),
        helper.make_node("MatMul", ["x", "Q"], ["query"]),
        helper.make_node("Transpose", ["present"], ["turned"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["query", "turned"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["shares"]),
        helper.make_node("MatMul", ["shares", "present"], ["y"]),
    ]
    query = weights(INPUTS, H, seed=5)
    outputs: dict[str, list[int | str]] = {"y": ["N", 1, H], "present": ["N", "later", H]}
    proto = network_proto(nodes, {"x": ["N", 1, INPUTS], "past": ["N", "before", H]}, outputs, {"W": W, "Q": query})
    onnx.save(proto, tmp_path / "cache.onnx")
    compiled = cimc.compile(tmp_path / "cache.onnx", "ideal", input_range=(-1, 1))
    assert compiled.verification is not None
    assert compiled.verification.ideal < 1e-5
    keys, expected = np.zeros((0, H)), []
    for x in X:
        keys = np.concatenate([keys, x[None] @ W])
        shares = np.exp(x @ query @ keys.T)
        expected.append(shares @ keys / shares.sum())
    labels = {"y": np.array(expected, np.float32)[:, None]}
    carry = {"present": "past"}
    found = cimc.evaluate(compiled.artifact, data_of({"x": X[:, None]}, labels), carry=carry, metric="mae")
    assert found["mae"] < 1e-5
    closed = cimc.compile(tmp_path / "cache.onnx", "ideal", shapes={"past": ("N", 6, H)}, verify=False).artifact
    with pytest.raises(CimcError, match=r"Nx7x4 but past has float Nx6x4; .* cache that grows is to be left open"):
        cimc.evaluate(closed, data_of({"x": X[:, None]}), carry=carry)


def test_streams_have_states_of_their_own_and_noise_stays_in_them() -> None:
    network = load_network(lower(ir.from_proto(cell())))
    steps = list(batches(network, Samples({"x": X}), Preprocess(), steps=True))
    assert [len(step.samples) for step in steps] == [1] * STEPS

    def adding(number: float) -> Run:
        return carried(network, CARRY, lambda batch: {"next": batch.feeds["state"] + np.float32(number)})

    one, other = adding(1), adding(10)
    both = [(one(step)["next"][0, 0], other(step)["next"][0, 0]) for step in steps[:3]]
    assert both == [(1, 10), (2, 20), (3, 30)]


def test_ranges_are_set_on_the_states_that_the_stream_reaches(tmp_path: Path) -> None:
    """Of a sum over 40 steps the first would be clipped to a fortieth."""
    nodes = [helper.make_node("Add", ["x", "state"], ["next"]), helper.make_node("MatMul", ["next", "V"], ["y"])]
    sizes = ("N", H)
    proto = network_proto(nodes, {"x": sizes, "state": sizes}, {"y": ("N", 2), "next": sizes}, {"V": V})
    onnx.save(proto, tmp_path / "sum.onnx")
    artifact = cimc.compile(tmp_path / "sum.onnx", "hermes", verify=False).artifact
    x = np.random.default_rng(0).random((40, H), np.float32)
    found = cimc.evaluate(artifact, data_of({"x": x}), carry=CARRY, noise=False)
    assert found["agreement"]["next"]["largest_error"] == 0
    assert found["agreement"]["y"]["snr_db"] > 15


def test_compensation_takes_steps_of_the_whole_stream(folder: Path) -> None:
    stored = cimc.read_artifact(folder / "ideal.cim")
    system = build_system(load_network(stored.network), stored.mapping, stored.chip)
    found = calibration_of(system, initial_state(system), Samples({"x": X}), Preprocess(), chips=1, carry=CARRY)
    assert [batch.first for batch in found.batches] == [0, 3, 6, 9, 12, 15, 18]


def test_a_batch_that_is_second_everywhere_is_free() -> None:
    nodes = [helper.make_node("MatMul", ["x", "W"], ["y"])]
    proto = network_proto(nodes, {"x": [5, "N", INPUTS]}, {"y": [5, "N", H]}, {"W": W})
    assert fixed_batch(load_network(lower(ir.from_proto(proto)))) is None


def with_batch_second(stacked: onnx.ModelProto, *, fixed: bool) -> onnx.ModelProto:
    """The cell with a state [2, batch, H / 2], as of speech networks; a sum over the batch fixes that."""
    graph = stacked.graph
    for node in (
        helper.make_node("Reshape", ["swapped", "flat"], ["state_2d"]),
        helper.make_node("Transpose", ["state"], ["swapped"], perm=[1, 0, 2]),
        helper.make_node("ReduceSum", ["x", "first"], ["x_2d"]) if fixed else helper.make_node("Abs", ["x"], ["x_2d"]),
    ):
        graph.node.insert(0, node)
    graph.node[3].input[0], graph.node[4].input[0] = "x_2d", "state_2d"
    graph.node.append(helper.make_node("Reshape", ["next", "deep"], ["next_deep"]))
    graph.node.append(helper.make_node("Transpose", ["next_deep"], ["next_3d"], perm=[1, 0, 2]))
    for name, values in (("flat", [-1, H]), ("deep", [-1, 2, H // 2]), ("first", [0])):
        graph.initializer.append(numpy_helper.from_array(np.array(values), name))
    sizes = [2, 1 if fixed else "N", H // 2]
    graph.input[1].CopyFrom(helper.make_tensor_value_info("state", TensorProto.FLOAT, sizes))
    graph.output[1].CopyFrom(helper.make_tensor_value_info("next_3d", TensorProto.FLOAT, sizes))
    return stacked


@pytest.mark.parametrize(
    ("fixed", "x"), [(False, X), (True, X), (True, X[:, None])], ids=["free", "fixed", "fixed, whole calls"]
)
def test_a_state_whose_batch_is_second(fixed: bool, x: Floats, tmp_path: Path) -> None:
    onnx.save(with_batch_second(cell(1 if fixed else "N"), fixed=fixed), tmp_path / "cell.onnx")
    artifact = cimc.compile(tmp_path / "cell.onnx", "ideal", input_range=(-1, 1), verify=False).artifact
    assert fixed_batch(load_network(artifact.network)) == (1 if fixed else None)
    labels = {"y": loop(inputs=X if fixed else np.abs(X))}
    found = cimc.evaluate(artifact, data_of({"x": x}, labels), carry={"next_3d": "state"}, metric="mae")
    assert found["mae"] < 1e-5


@pytest.mark.parametrize(
    ("carry", "said"),
    [
        ({"last": "state"}, "last is not among the outputs y, next, sum"),
        ({"next": "memory"}, "memory is not among the inputs x, state"),
        ({"y": "state"}, "y has float Nx2 but state has float Nx4"),
        ({"next": "state", "sum": "state"}, "an input takes one output, but next, sum go to state, state"),
    ],
)
def test_a_carry_that_does_not_fit_is_told(carry: dict[str, str], said: str) -> None:
    proto = cell()
    proto.graph.output.append(helper.make_tensor_value_info("sum", TensorProto.FLOAT, ["N", H]))
    with pytest.raises(CimcError, match=said) as error:
        check_carry(load_network(lower(ir.from_proto(proto))), carry)
    assert "\n" not in str(error.value)


def test_a_negative_state_of_a_network_compiled_for_positive_inputs_is_told(folder: Path) -> None:
    artifact = cimc.compile(folder / "cell.onnx", "ideal", verify=False).artifact
    with pytest.raises(CimcError, match=r"state state reaches -0\.\d+ but .* compile it with --input-range -1,1"):
        cimc.evaluate(artifact, data_of({"x": np.abs(X)}), carry=CARRY)


def test_commands_take_the_carry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    def figures(*arguments: str) -> dict[str, Any]:
        options = ["--data", "stream.npz", "--carry", "next=state", "--json"]
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == 0, f"{result.output}{result.exception}"
        found = json.loads(result.stdout)
        assert isinstance(found, dict)
        return found

    assert figures("eval", "ideal.cim", "--metric", "mae")["mae"] < 1e-5
    figures("export", "ideal.cim", "-o", "package")
    dies = figures("deploy", "package", "--chips", "2", "--metric", "mae")
    assert (dies["measure"], dies["baseline_accuracy"] < 1e-5, max(dies["accuracies"]) < 1e-5) == ("mae", True, True)
    noisy = figures("eval", "hermes.cim", "--layers")
    assert noisy["agreement"]["next"]["snr_db"] > 5
    assert len(noisy["layers"]) == 3
    options = ["--data", "stream.npz", "--carry", "next=state"]
    shown = CliRunner().invoke(app, ["export", "ideal.cim", "-o", "again", *options])
    assert "next: cimc deploy again --data stream.npz --carry next=state" in shown.stdout
    twice = CliRunner().invoke(app, ["eval", "ideal.cim", "--carry", "next=state", "--carry", "next=x"])
    assert (twice.exit_code, "OUT=IN" in twice.output) == (2, True)
