"""Networks that run on several chips as one program give what each chip gives step by step; others do not run so."""

from pathlib import Path

import jax
import numpy as np
import onnx
import pytest
from onnx import NodeProto, helper

import cimc
from cimc.chip import load_chip
from cimc.dataset import Preprocess, Samples
from runtime.crossbar.keys import new_key
from runtime.deployment.chips import Chips, outputs_on_chips
from runtime.deployment.one_program import samples_in_one_program
from runtime.network.load import load_network
from runtime.system.inference import batches, outputs_on_arrays
from runtime.system.program import programmed_state
from runtime.system.state import State, System, build_system
from tests.networks import network_proto, weights

X = np.random.default_rng(0).random((70, 2, 8, 8), np.float32)
CHIPS = 3


def exported(nodes: list[NodeProto], folder: Path, columns: int = 5) -> tuple[System, State]:
    """A convolution `k` [4, 2, 3, 3] of images [2, 8, 8], what `nodes` make of it, `c`, and the output y."""
    first = helper.make_node("Conv", ["x", "k", "b"], ["c"], name="conv", pads=[1, 1, 1, 1])
    constants = {"k": weights(4, 2, 3, 3), "b": weights(4, seed=1), "w": weights(64, columns, seed=2)}
    constants["v"] = weights(columns, columns, seed=3)
    used = {name for node in nodes for name in node.input}
    constants = {name: array for name, array in constants.items() if name in used | {"k", "b"}}
    proto = network_proto([first, *nodes], {"x": ["N", 2, 8, 8]}, {"y": ["N", columns]}, constants)
    onnx.save(proto, folder / "net.onnx")
    labels = np.zeros(len(X), np.int32)
    compiled = cimc.compile(folder / "net.onnx", load_chip("brram-256x64"), verify=False)
    package = cimc.export(compiled.artifact, data=cimc.Dataset.of_images("d", X, labels, X, labels))
    system = build_system(load_network(package.network), package.mapping, package.chip)
    return system, programmed_state(system, package.program)


def pooled(*after: NodeProto) -> list[NodeProto]:
    return [
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        *after,
    ]


def test_one_program_gives_what_each_chip_gives_step_by_step(tmp_path: Path) -> None:
    system, state = exported(pooled(helper.make_node("Gemm", ["f", "w"], ["y"], name="fc")), tmp_path)
    assert samples_in_one_program(system.network, system.crossbars, CHIPS, 1) == 64
    random = np.random.default_rng(1)
    own = {
        name: jax.device_put(np.stack([g + random.normal(0, 1, g.shape).astype(np.float32) for _ in range(CHIPS)]))
        for name, g in ((name, np.asarray(g)) for name, g in state["conductance"].items())
    }
    chips = Chips(system, state, {"conductance": own}, jax.random.split(new_key(0), CHIPS))
    (batch,) = batches(system.network, Samples({"x": X}), Preprocess())
    together = outputs_on_chips(chips, batch)
    for chip, outputs in enumerate(together):
        alone = outputs_on_arrays(system, chips.state_of(chip), batch, chips.keys[chip])
        np.testing.assert_array_equal(outputs["y"], alone["y"])
    assert not np.array_equal(together[0]["y"], together[1]["y"]), "each chip has its own devices"


@pytest.mark.parametrize(
    "after",
    [
        [helper.make_node("Gemm", ["f", "w"], ["z"]), helper.make_node("Softmax", ["z"], ["y"])],
        [helper.make_node("Gemm", ["f", "w"], ["z"]), helper.make_node("Sigmoid", ["z"], ["y"])],
        [
            helper.make_node("Gemm", ["f", "w"], ["g"]),
            helper.make_node("Gemm", ["g", "v"], ["h"]),
            helper.make_node("Gemm", ["h", "v"], ["y"]),
        ],
    ],
    ids=["softmax", "sigmoid", "a layer used twice"],
)
def test_others_run_step_by_step(after: list[NodeProto], tmp_path: Path) -> None:
    system, _ = exported(pooled(*after), tmp_path)
    assert samples_in_one_program(system.network, system.crossbars, CHIPS, 1) == 0
