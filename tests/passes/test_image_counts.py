"""What one image counts: batches that stand several times in an axis, inputs beside each other, digital products."""

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import load_chip
from cimc.mapping import Mapping
from cimc.schedule import Stage
from passes.mapper.map_network import map_network
from passes.mapper.traffic import network_bytes
from passes.pipeline import lower
from passes.simulator.simulate import simulate
from tests.networks import network, weights

node = helper.make_node


def mapped(model: ir.Model, chip: str = "pimcomp-a") -> tuple[ir.Model, Mapping]:
    lowered = lower(model)
    return lowered, map_network(lowered, load_chip(chip))


def stages(mapping: Mapping) -> dict[str, Stage]:
    assert mapping.schedule is not None
    return {stage.name: stage for stage in mapping.schedule.stages}


def test_outputs_that_the_network_reads_itself_leave_it_too_and_unused_results_do_not() -> None:
    """20 values in, 8 hidden ones that go on, and one half of 6; 2 bytes a value."""
    nodes = [
        node("MatMul", ["x", "w"], ["hidden"], name="fc"),
        node("MatMul", ["hidden", "v"], ["p"], name="head"),
        node("Split", ["p"], ["unused", "y"], axis=1, num_outputs=2),
    ]
    outputs = {"hidden": ["N", 8], "y": ["N", 3]}
    mapping = mapped(network(nodes, {"x": ["N", 20]}, outputs, {"w": weights(20, 8), "v": weights(8, 6)}))[1]
    assert mapping.schedule is not None
    assert network_bytes(mapping.schedule.stages, load_chip("pimcomp-a")) == 2 * (20 + 8 + 3)


def video(frames: int) -> ir.Model:
    """A convolution over the frames of a video, which stand in the axis of the batch."""
    nodes = [
        node("Reshape", ["x", "frames"], ["f"]),
        node("Conv", ["f", "k"], ["c"], name="conv", pads=[1, 1, 1, 1]),
        node("Reshape", ["c", "video"], ["y"]),
    ]
    constants = {
        "frames": np.array([-1, 3, 8, 8]),
        "video": np.array([-1, frames, 4, 8, 8]),
        "k": weights(4, 3, 3, 3),
    }
    return network(nodes, {"x": ["N", frames, 3, 8, 8]}, {"y": ["N", frames, 4, 8, 8]}, constants)


def test_a_convolution_over_the_frames_of_a_video_counts_every_frame() -> None:
    lowered, mapping = mapped(video(5))
    assert mapping.cost.mvm_positions == 5 * 64
    one = mapped(video(1))[1]
    assert mapping.cost.latency_ms == pytest.approx(5 * one.cost.latency_ms)
    assert mapping.cost.energy_mj == pytest.approx(5 * one.cost.energy_mj)
    conv = stages(mapping)["c"]
    assert (conv.elements, conv.inputs[0].bytes) == (5 * 4 * 64, 2 * 5 * 3 * 64)
    assert mapping.schedule is not None
    assert simulate(lowered, mapping, load_chip("pimcomp-a")).latency_ns == pytest.approx(
        mapping.schedule.latency_ns, rel=0.1
    )


def test_digital_work_on_the_windows_of_an_image_counts_every_window() -> None:
    nodes = [
        node("Reshape", ["x", "windows"], ["f"]),
        node("MatMul", ["f", "w"], ["p"], name="fc"),
        node("Exp", ["p"], ["e"]),
        node("Reshape", ["e", "whole"], ["y"]),
    ]
    constants = {"windows": np.array([-1, 2, 6]), "whole": np.array([-1, 8, 6]), "w": weights(6, 6)}
    mapping = mapped(network(nodes, {"x": ["N", 8, 6]}, {"y": ["N", 8, 6]}, constants))[1]
    assert stages(mapping)["e"].operations == 8 * 6


def test_all_inputs_of_a_network_are_read_from_the_shared_memory() -> None:
    """Two of 8 values that are read twice, one of 100; 2 bytes a value."""
    nodes = [
        node("Concat", ["a", "b", "c"], ["h"], axis=1),
        node("MatMul", ["h", "w"], ["p"], name="fc"),
        node("Add", ["a", "b"], ["s"]),
        node("Concat", ["p", "s"], ["y"], axis=1),
    ]
    inputs = {"a": ["N", 8], "b": ["N", 8], "c": ["N", 100]}
    mapping = mapped(network(nodes, inputs, {"y": ["N", 12]}, {"w": weights(116, 4)}))[1]
    assert mapping.schedule is not None
    assert network_bytes(mapping.schedule.stages, load_chip("pimcomp-a")) == 2 * (8 + 8 + 100 + 12)


@pytest.mark.parametrize(
    "product",
    [
        node("Gemm", ["a", "b"], ["y"], transA=1),
        node("Einsum", ["a", "b"], ["y"], equation="km,kn->mn"),
        node("MatMul", ["t", "b"], ["y"]),
    ],
    ids=lambda product: product.op_type,
)
def test_a_product_of_two_values_takes_its_multiply_adds(product: onnx.NodeProto) -> None:
    """4 x 6 times 6 x 3, whichever way the left one stands."""
    nodes = [
        node("MatMul", ["x", "w"], ["p"], name="fc"),
        node("Reshape", ["p", "six_four"], ["a"]),
        node("Transpose", ["a"], ["t"], perm=[1, 0]),
        node("MatMul", ["x", "v"], ["q"], name="other"),
        node("Reshape", ["q", "six_three"], ["b"]),
        product,
    ]
    constants = {
        "w": weights(5, 24),
        "v": weights(5, 18),
        "six_four": np.array([6, 4]),
        "six_three": np.array([6, 3]),
    }
    mapping = mapped(network(nodes, {"x": [1, 5]}, {"y": [4, 3]}, constants))[1]
    assert stages(mapping)["y"].operations == 4 * 6 * 3
