"""Inference step by step: any network as onnxruntime computes it, in any batch and memory; values are dropped."""

import gc
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper

from cimc.chip import load_chip
from cimc.dataset import Preprocess, Samples
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.verify import run
from runtime.crossbar.keys import new_key
from runtime.network.load import load_network
from runtime.network.network import Network
from runtime.network.stepwise import LayerStep, bytes_at_once, run_exactly, run_steps
from runtime.system.calibration import calibrate
from runtime.system.inference import MOST_SAMPLES, batch_size, fixed_batch, predict
from runtime.system.state import State, System, build_system, initial_state, program
from tests.networks import network_proto, weights

Floats = np.ndarray[Any, np.dtype[np.float32]]
H = 4


def network_of(proto: onnx.ModelProto) -> Network:
    return load_network(lower(ir.from_proto(proto)))


def system_of(proto: onnx.ModelProto, chip: str = "ideal") -> tuple[System, State]:
    lowered, described = lower(ir.from_proto(proto)), load_chip(chip)
    mapping = map_network(lowered, described, options=MappingOptions(input_range=(-1.0, 1.0)))
    system = build_system(load_network(lowered), mapping, described)
    return system, initial_state(system)


def original(proto: onnx.ModelProto, inputs: Mapping[str, Any]) -> Sequence[Any]:
    """The outputs of the network as it was, in onnxruntime."""
    return run(ir.from_proto(proto), dict(inputs))


def computed(proto: onnx.ModelProto, inputs: Mapping[str, Any], **options: Any) -> dict[str, Any]:
    system, state = system_of(proto)
    return predict(system, state, Samples(inputs), Preprocess(), **options)


def images() -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A convolution with normalisation and pooling, and a classifier."""
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c", "g", "b", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("MaxPool", ["r"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("Gemm", ["f", "w"], ["y"]),
    ]
    normal = {"g": weights(3, seed=1), "b": weights(3, seed=2), "m": weights(3, seed=3), "v": 1 + weights(3) ** 2}
    constants = {"k": weights(3, 2, 3, 3), "w": weights(27, 5, seed=4), **normal}
    return network_proto(nodes, {"x": ("N", 2, 6, 6)}, {"y": ("N", 5)}, constants), {"x": weights(7, 2, 6, 6, seed=5)}


def tokens() -> tuple[onnx.ModelProto, dict[str, Any]]:
    """An embedding, a product of two values, and a Softmax."""
    nodes = [
        helper.make_node("Gather", ["table", "x"], ["e"]),
        helper.make_node("MatMul", ["e", "q"], ["h"]),
        helper.make_node("Transpose", ["h"], ["t"], perm=[0, 2, 1]),
        helper.make_node("MatMul", ["h", "t"], ["s"]),
        helper.make_node("Softmax", ["s"], ["a"]),
        helper.make_node("MatMul", ["a", "h"], ["y"]),
    ]
    proto = network_proto(nodes, {"x": ("N", 5)}, {"y": ("N", 5, H)}, {"table": weights(9, H), "q": weights(H, H)})
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.INT64
    return proto, {"x": np.random.default_rng(0).integers(0, 9, (7, 5))}


def sequences() -> tuple[onnx.ModelProto, dict[str, Any]]:
    """A GRU over six steps, whose layers stand in the body of a Scan."""
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
        helper.make_node("GRU", ["t", "w", "r"], ["", "h"], hidden_size=H),
        helper.make_node("Squeeze", ["h", "axis"], ["y"]),
    ]
    constants = {"w": weights(1, 3 * H, 3), "r": weights(1, 3 * H, H, seed=1), "axis": np.array([0])}
    return network_proto(nodes, {"x": ("N", 6, 3)}, {"y": ("N", H)}, constants), {"x": weights(7, 6, 3, seed=2)}


@pytest.mark.parametrize("kind", [images, tokens, sequences])
def test_computed_exactly_a_network_is_what_onnxruntime_makes_of_the_original(kind: Any) -> None:
    proto, inputs = kind()
    (expected,) = original(proto, inputs)
    for options in ({"exact": True}, {"exact": False}):  # the chip is ideal
        (y,) = computed(proto, inputs, **options).values()
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)


def test_small_weights_that_training_changed_are_those_of_the_exact_network() -> None:
    """Weights of the file itself, baked into the session, would judge a trained network by the untrained one."""
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], name="layer")]
    system, state = system_of(network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)}))
    x, trained = np.ones((2, 4), np.float32), weights(4, 3, seed=1)
    samples, state = Samples({"x": x}), {**state, "weight": {"layer": jnp.asarray(trained)}}
    np.testing.assert_allclose(predict(system, state, samples, Preprocess(), exact=True)["y"], x @ trained, rtol=1e-6)


def test_two_inputs_two_outputs_and_an_operator_that_only_onnxruntime_has() -> None:
    nodes = [
        helper.make_node("MatMul", ["a", "W"], ["h"]),
        helper.make_node("Det", ["square"], ["scale"]),
        helper.make_node("Unsqueeze", ["scale", "last"], ["column"]),
        helper.make_node("Mul", ["h", "column"], ["y"]),
        helper.make_node("ArgMax", ["y"], ["best"], axis=1, keepdims=0),
    ]
    constants = {"W": weights(3, H), "last": np.array([1])}
    proto = network_proto(nodes, {"a": ("N", 3), "square": ("N", 2, 2)}, {"y": ("N", H), "best": ("N",)}, constants)
    proto.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    assert any(node.foreign is not None for node in network_of(proto).nodes), "or it is none that only onnxruntime has"
    inputs = {"a": weights(7, 3), "square": weights(7, 2, 2, seed=1)}
    found = computed(proto, inputs)
    assert list(found) == ["y", "best"]
    for array, expected in zip(found.values(), original(proto, inputs), strict=True):
        assert array.dtype == expected.dtype
        np.testing.assert_allclose(array, expected, rtol=1e-4, atol=1e-5)


def summed(batch: int) -> onnx.ModelProto:
    """A sum from sample to sample, which keeps the batch fixed; later samples do not change what earlier ones give."""
    nodes = [helper.make_node("MatMul", ["x", "W"], ["h"]), helper.make_node("CumSum", ["h", "axis"], ["y"])]
    constants = {"W": weights(3, H), "axis": np.array(0)}
    return network_proto(nodes, {"x": (batch, 3)}, {"y": (batch, H)}, constants)


@pytest.mark.parametrize("exact", [True, False])
def test_a_fixed_batch_is_filled_up_and_cut(exact: bool) -> None:
    proto, x = summed(4), weights(6, 3)
    assert fixed_batch(network_of(proto)) == 4
    expected = np.concatenate([np.cumsum(part @ weights(3, H), axis=0) for part in (x[:4], x[4:])])
    np.testing.assert_allclose(computed(proto, {"x": x}, exact=exact)["y"], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("exact", [True, False])
def test_a_sample_may_be_all_that_a_call_of_a_fixed_batch_takes(exact: bool) -> None:
    calls = weights(3, 4, 3)
    expected = np.concatenate([np.cumsum(call @ weights(3, H), axis=0) for call in calls])
    np.testing.assert_allclose(computed(summed(4), {"x": calls}, exact=exact)["y"], expected, rtol=1e-4, atol=1e-5)


def chain(layers: int, *, skip: bool = False) -> onnx.ModelProto:
    """Layers of `H` x `H` with a Relu after each but the last; with the input added at the end."""
    nodes, last = [], "x"
    for number in range(layers):
        made = "y" if number == layers - 1 and not skip else f"h{number}"
        nodes.append(helper.make_node("MatMul", [last, f"w{number}"], [made]))
        if number < layers - 1:
            nodes.append(helper.make_node("Relu", [made], [last := f"r{number}"]))
    if skip:
        nodes.append(helper.make_node("Add", [made, "x"], ["y"]))
    constants = {f"w{number}": weights(H, H, seed=number) for number in range(layers)}
    return network_proto(nodes, {"x": ("N", H)}, {"y": ("N", H)}, constants)


def test_values_are_dropped_after_their_last_use() -> None:
    network, alive = network_of(chain(5)), list[int]()
    seen: list[weakref.ref[Any]] = []

    def layer(step: LayerStep, x: Floats) -> Floats:
        alive.append(sum(value() is not None for value in seen))
        y: Floats = x @ network.initializers[step.node.input[1]]
        seen.extend((weakref.ref(x), weakref.ref(y)))
        return y

    def scan(step: Any, values: Any) -> Any:
        raise AssertionError("there is none")

    feeds = {"x": weights(3, H)}
    found = run_steps(network, feeds, {}, layer=layer, scan=scan)["y"]
    np.testing.assert_allclose(found, run_exactly(network, feeds, {})["y"], rtol=1e-5)
    assert alive == [0, 1, 1, 1, 1], "the input is the caller's; all else is dropped before the next layer"


def test_the_most_bytes_at_once_do_not_grow_with_the_depth() -> None:
    def most(proto: onnx.ModelProto) -> int:
        network = network_of(proto)
        return bytes_at_once(network, lambda name: 0 if name in network.initializers else 10)

    assert most(chain(2)) == most(chain(6)) == 4 * 2 * 10
    assert most(chain(2, skip=True)) == most(chain(6, skip=True)) == 4 * 3 * 10


def test_the_batch_is_what_the_memory_holds() -> None:
    network = network_of(chain(3))
    of_one = 4 * 2 * H
    assert [batch_size(network, memory) for memory in (1, of_one, 10 * of_one, 1 << 40)] == [1, 1, 10, MOST_SAMPLES]
    assert batch_size(network_of(summed(4)), 1) == 4


def test_neither_memory_nor_batch_changes_the_result_with_noise() -> None:
    system, state = system_of(chain(2), "hermes")
    samples = Samples({"x": weights(9, H)})
    state = calibrate(system, program(system, state, new_key(2))[0], samples, Preprocess(), new_key(3))
    one, two = (
        predict(system, state, samples, Preprocess(), key=new_key(0), memory=memory)["y"] for memory in (1, 1 << 30)
    )
    assert np.isfinite(one).all()
    np.testing.assert_array_equal(one, two)
    assert np.abs(one - predict(system, state, samples, Preprocess(), key=new_key(1))["y"]).max() > 1e-3


def test_a_network_that_is_gone_takes_no_memory() -> None:
    """What was made for its runs, sessions and copies of its constants, goes with it."""
    system, state = system_of(chain(3))
    predict(system, state, Samples({"x": weights(2, H)}), Preprocess())
    predict(system, state, Samples({"x": weights(2, H)}), Preprocess(), exact=True)
    seen = weakref.ref(system.network)
    del system, state
    gc.collect()
    assert seen() is None


def test_a_position_embedding_resized_to_the_image_is_computed_at_compile_time() -> None:
    """The sizes come from those of the input, before the first layer; the embedding is too large to stay in a step."""
    nodes = [
        helper.make_node("Shape", ["x"], ["all"]),
        helper.make_node("Gather", ["all", "two"], ["height"]),
        helper.make_node("Conv", ["x", "k"], ["patches"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Div", ["height", "size"], ["rows"]),
        helper.make_node("Transpose", ["p"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Shape", ["first"], ["of"]),
        helper.make_node("Slice", ["of", "zero", "two_"], ["kept"]),
        helper.make_node("Unsqueeze", ["rows", "zero"], ["row"]),
        helper.make_node("Concat", ["kept", "row", "row"], ["sizes"], axis=0),
        helper.make_node("Resize", ["first", "", "", "sizes"], ["q"], mode="cubic"),
        helper.make_node("Add", ["patches", "q"], ["y"]),
    ]
    constants = {
        "k": weights(64, 3, 2, 2), "p": weights(1, 7, 7, 64), "two": np.array(2), "size": np.array(2),
        "zero": np.array([0]), "two_": np.array([2]),
    }  # fmt: skip
    proto = network_proto(nodes, {"x": ["N", 3, 8, 8]}, {"y": ["N", 64, 4, 4]}, constants)
    assert [node.op_type for node in lower(ir.from_proto(proto)).graph] == ["CrossbarConv", "Add"]
    x = np.random.default_rng(0).random((3, 3, 8, 8), np.float32)
    np.testing.assert_allclose(computed(proto, {"x": x}, exact=True)["y"], original(proto, {"x": x})[0], atol=1e-5)
