"""`cimc weights`: onnxruntime makes of the file what `cimc eval --exact` makes of the trained network.

The judge is onnxruntime on what was written, beside the runtime's own float32 outputs.
"""

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper, save
from typer.testing import CliRunner

import cimc
from cimc.api.system_of import state_of, system_of
from cimc.commands.main import app
from cimc.dataset import Preprocess, Samples
from runtime.system.inference import predict
from tests.as_trained import as_trained
from tests.networks import network_proto, weights

IMAGES = weights(6, 4, 6, 6)


def proto() -> onnx.ModelProto:
    """Every kind of trained value: a grouped convolution, a batch normalisation, Gemm with its weight transposed, a
    bias as an Add. Opset 17; the names are an exporter's.
    """
    nodes = [
        helper.make_node("Conv", ["image", "a.weight"], ["c"], "a", kernel_shape=[3, 3], group=2),
        helper.make_node("BatchNormalization", ["c", "n.weight", "n.bias", "n.mean", "n.var"], ["n"], "n"),
        helper.make_node("Relu", ["n"], ["r"], "r"),
        helper.make_node("Flatten", ["r"], ["f"], "f"),
        helper.make_node("Gemm", ["f", "b.weight", "b.bias"], ["g"], "b", transB=1),
        helper.make_node("MatMul", ["g", "d.weight"], ["m"], "d"),
        helper.make_node("Add", ["m", "d.shift"], ["scores"], "d.add"),
    ]
    constants = {
        "a.weight": weights(6, 2, 3, 3),
        "n.weight": weights(6, seed=1) + 2,
        "n.bias": weights(6, seed=2),
        "n.mean": weights(6, seed=3),
        "n.var": weights(6, seed=4) + 2,
        "b.weight": weights(5, 96) * 0.1,
        "b.bias": weights(5, seed=5),
        "d.weight": weights(5, 3, seed=6),
        "d.shift": weights(3, seed=7),
    }
    return network_proto(nodes, {"image": ("N", 4, 6, 6)}, {"scores": ("N", 3)}, constants, opset=17)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ONNX file."""
    path = tmp_path_factory.mktemp("weights") / "net.onnx"
    save(proto(), path)
    return path


def exact_outputs(artifact: cimc.Artifact) -> np.ndarray:
    """What `cimc eval --exact` measures."""
    system = system_of(artifact)
    state, _ = state_of(artifact, system, "test", weight_range=None)
    return predict(system, state, Samples({"image": IMAGES}), Preprocess(scale=1.0), exact=True)["scores"]


def run(model: onnx.ModelProto) -> np.ndarray:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (scores,) = session.run(None, {"image": IMAGES})
    return np.asarray(scores)


def test_both_files_compute_the_trained_network_exactly(source: Path) -> None:
    compiled = cimc.compile(source, "brram-256x64", verify=False)
    trained = as_trained(compiled.artifact)
    wanted = exact_outputs(trained)
    assert np.max(np.abs(wanted - run(onnx.load(source)))) > 0.1, "training changed nothing"
    plain, same = cimc.weights(trained), cimc.weights(trained, source)
    for written in (plain, same):
        onnx.checker.check_model(written)
        np.testing.assert_allclose(run(written), wanted, rtol=1e-5, atol=1e-5 * np.max(np.abs(wanted)))
    assert {opset.domain for opset in plain.opset_import} == {""}
    before = onnx.load(source)
    assert [node.SerializeToString() for node in same.graph.node] == [
        node.SerializeToString() for node in before.graph.node
    ]
    assert same.opset_import[0].version == 17
    values = {one.name: numpy_helper.to_array(one) for one in same.graph.initializer}
    old = {one.name: numpy_helper.to_array(one) for one in before.graph.initializer}
    assert values.keys() == old.keys()
    assert all(values[name].shape == old[name].shape for name in old)
    assert [name for name in old if np.array_equal(values[name], old[name])] == []


@pytest.mark.parametrize("options", [{"fill_rows": 200}, {"digital": ["a"]}], ids=str)
def test_how_layers_were_laid_out_changes_no_weight(source: Path, options: dict[str, object]) -> None:
    trained = as_trained(cimc.compile(source, "brram-256x64", verify=False, **options).artifact)  # type: ignore[arg-type]
    wanted = exact_outputs(trained)
    for written in (cimc.weights(trained), cimc.weights(trained, source)):
        np.testing.assert_allclose(run(written), wanted, rtol=1e-5, atol=1e-5 * np.max(np.abs(wanted)))


def test_rows_of_a_recurrent_layer_that_are_held_several_times_are_read_and_written() -> None:
    """The layer is in the body of a Scan: what repeats its inputs must be found there, by the runtime too."""
    nodes = [
        helper.make_node("Transpose", ["image"], ["steps"], perm=[1, 0, 2]),
        helper.make_node("LSTM", ["steps", "W", "R"], ["", "h"], "lstm", hidden_size=4),
        helper.make_node("Squeeze", ["h"], ["scores"]),
    ]
    constants = {"W": weights(1, 16, 6) * 0.25, "R": weights(1, 16, 4, seed=1)}
    original = network_proto(nodes, {"image": ("N", 20, 6)}, {"scores": ("N", 4)}, constants, opset=17)
    compiled = cimc.compile(original, "brram-256x64", verify=False, fill_rows=300, input_range=(-1, 1)).artifact
    assert [layer.row_copies for layer in compiled.mapping.layers] == [50, 75]
    trained, samples = as_trained(compiled), Samples({"image": weights(5, 20, 6)})
    system = system_of(trained)
    state, _ = state_of(trained, system, "test", weight_range=None)
    wanted = predict(system, state, samples, Preprocess(scale=1.0), exact=True)["scores"]
    for written in (cimc.weights(trained), cimc.weights(trained, original)):
        session = onnxruntime.InferenceSession(written.SerializeToString(), providers=["CPUExecutionProvider"])
        (scores,) = session.run(None, samples.inputs)
        np.testing.assert_allclose(scores, wanted, rtol=0, atol=1e-5)
    x, labels = samples.inputs["image"], np.arange(5, dtype=np.int32) % 4
    data = cimc.Dataset.of_images("steps", x, labels, x, labels, classes=4)
    assert cimc.evaluate(compiled, data, noise=False)["agreement"]["scores"]["snr_db"] > 10


def test_command_writes_the_same_bytes_again(source: Path, tmp_path: Path) -> None:
    cimc.write_artifact(tmp_path / "t.cim", as_trained(cimc.compile(source, "brram-256x64", verify=False).artifact))
    for name in ("one.onnx", "two.onnx"):
        result = CliRunner().invoke(app, ["weights", str(tmp_path / "t.cim"), "-o", str(tmp_path / name)])
        assert result.exit_code == 0, result.output
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "two.onnx").read_bytes()
    assert onnx.load(tmp_path / "one.onnx") == cimc.weights(tmp_path / "t.cim")


def test_another_network_is_refused(source: Path) -> None:
    other = proto()
    del other.graph.node[2]  # the Relu
    other.graph.node[2].input[0] = "n"
    trained = as_trained(cimc.compile(source, "brram-256x64", verify=False).artifact)
    with pytest.raises(cimc.CimcError, match="is not the network that was trained"):
        cimc.weights(trained, other)
    with pytest.raises(cimc.CimcError, match="it is the input"):
        cimc.weights(trained, source, output=source)


def test_weights_in_constant_nodes_are_taken() -> None:
    network = proto()
    constants = [helper.make_node("Constant", [], [one.name], value=one) for one in network.graph.initializer]
    nodes = [*constants, *network.graph.node]
    del network.graph.initializer[:], network.graph.node[:]
    network.graph.node.extend(nodes)
    trained = as_trained(cimc.compile(network, "brram-256x64", verify=False).artifact)
    wanted = exact_outputs(trained)
    np.testing.assert_allclose(
        run(cimc.weights(trained, network)), wanted, rtol=1e-5, atol=1e-5 * np.max(np.abs(wanted))
    )
