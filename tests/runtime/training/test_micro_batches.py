"""A step in parts: the same gradients, for less memory."""

import numpy as np
import onnx
import pytest
from onnx import helper

import cimc
from cimc.api.compile import compile_model
from cimc.artifact import Artifact
from cimc.data.digits import digits
from cimc.dataset import Dataset
from cimc.errors import CimcError
from runtime.network.load import load_network
from runtime.system.state import build_system
from tests.networks import network_proto, weights
from tests.training_step import trace_steps

DATA = Dataset.of_images("digits", *digits(160, 40), synthetic=True, classes=10)


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    path = tmp_path_factory.mktemp("network") / "small.onnx"
    nodes = [
        helper.make_node("Conv", ["x", "a", "b"], ["c"], name="conv1", strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"], name="fc1"),
    ]
    constants = {"a": 0.3 * weights(8, 1, 3, 3), "b": weights(8, seed=2), "w": 0.1 * weights(1352, 10, seed=1)}
    onnx.save(network_proto(nodes, {"x": ["N", 1, 28, 28]}, {"y": ["N", 10]}, constants), path)
    return compile_model(path, "brram-256x64", verify=False).artifact


def options(method: str, micro_batch: int | None, batch_size: int = 16) -> cimc.TrainingOptions:
    return cimc.TrainingOptions(
        policy=cimc.Policy(method=method),
        epochs=1,
        steps_per_epoch=8,
        batch_size=batch_size,
        lr=0.01,
        weight_decay=0.0,
        micro_batch=micro_batch,
    )


def test_parts_of_a_batch_make_the_steps_of_the_whole(artifact: Artifact) -> None:
    whole, parts = (cimc.train(artifact, DATA, options=options("float", size)) for size in (None, 4))
    assert parts.figures["loss"] == pytest.approx(whole.figures["loss"], rel=1e-4)
    trained = [name for name in whole.artifact.state if name.startswith(("weight/", "digital/"))]
    assert len(trained) > 2  # a bias too
    for name in trained:
        one, other = whole.artifact.state[name], parts.artifact.state[name]
        assert np.abs(one - other).max() < 1e-3 * np.abs(one).max(), name


def test_a_step_in_parts_takes_the_memory_of_a_part(artifact: Artifact) -> None:
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)

    def bytes_of(micro_batch: int | None) -> int:
        compiled = trace_steps(system, DATA, options("float", micro_batch, 160)).lower().compile()
        return int(compiled.memory_analysis().temp_size_in_bytes)

    assert bytes_of(4) < bytes_of(None) / 3


@pytest.mark.parametrize(
    ("size", "line"),
    [(3, "a batch of 16 is no multiple of a micro-batch of 3"), (0, "micro_batch is 0; give a whole number from 1 to")],
)
def test_a_micro_batch_that_does_not_fit_is_one_line(size: int, line: str) -> None:
    with pytest.raises(CimcError, match=line):
        options("float", size)
