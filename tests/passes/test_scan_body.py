"""A Scan in a user's network: digital steps run as they are; what would silently stay off the arrays is refused."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
import pytest
from onnx import TensorProto, helper, numpy_helper

from cimc.errors import CimcError
from cimc.report.graph import network_boxes
from passes.pipeline import lower
from passes.verify import run
from runtime.network.load import load_network
from runtime.network.run import run_nodes
from tests.networks import lower_and_compare, network, plain_product, weights
from tests.passes.test_lower_recurrent import recurrent

LONG = 5000  # steps: short ones are written out


def scan_network(nodes: Sequence[onnx.NodeProto], length: int = LONG, constants: Sequence[str] = ()) -> ir.Model:
    """A layer on [N, length, 3], and a Scan over its rows whose body turns `state` and `part` into `next`."""
    names = {"weight": weights(3, 3), "half": np.float32(0.5)}
    body = helper.make_graph(
        nodes,
        "body",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("state", "part")],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("next", "copy")],
        [numpy_helper.from_array(names[name], name) for name in constants],
    )
    outer = [
        helper.make_node("MatMul", ["x", "w"], ["rows"], name="layer"),
        helper.make_node("Scan", ["start", "rows"], ["last", "sums"], name="sums", body=body, num_scan_inputs=1),
    ]
    given = {"w": weights(3, 3, seed=4), "start": np.zeros((2, 3), np.float32)}
    return network(outer, {"x": [length, 2, 3]}, {"last": [2, 3], "sums": [length, 2, 3]}, given)


COPY = helper.make_node("Identity", ["next"], ["copy"])


def test_digital_steps_with_constants_of_their_own_run_in_the_runtime() -> None:
    halve = helper.make_node(
        "Constant", [], ["factor"], value=numpy_helper.from_array(np.array([0.5, 1, 2], np.float32))
    )
    nodes = [
        halve,
        helper.make_node("Mul", ["state", "half"], ["kept"]),
        helper.make_node("Mul", ["part", "factor"], ["scaled"]),
        helper.make_node("Add", ["kept", "scaled"], ["next"]),
        COPY,
    ]
    model = scan_network(nodes, constants=["half"])
    loaded = load_network(lower_and_compare(model))
    x = weights(LONG, 2, 3, seed=5)
    values, _ = run_nodes(loaded, {"x": jnp.asarray(x)}, plain_product(loaded), {}, {})
    for name, expected in zip(loaded.outputs, run(model, {"x": x}), strict=True):
        assert np.abs(np.asarray(values[name]) - expected).max() < 1e-6


def test_a_state_that_no_step_makes_is_refused() -> None:
    model = scan_network([helper.make_node("Add", ["state", "part"], ["next"]), COPY])
    body = next(node for node in model.graph if node.op_type == "Scan").attributes["body"].as_graph()
    body.outputs[0] = body.inputs[0]
    with pytest.raises(CimcError, match="Scan 'sums' is not supported: its body holds"):
        lower(model)


def test_a_product_with_constant_weights_in_a_body_does_not_stay_digital_silently() -> None:
    nodes = [
        helper.make_node("MatMul", ["state", "weight"], ["kept"]),
        helper.make_node("Add", ["kept", "part"], ["next"]),
        COPY,
    ]
    with pytest.raises(CimcError, match="Scan 'sums': 5000 steps of 3 operators, products with constant weights"):
        lower(scan_network(nodes, constants=["weight"]))


def test_the_drawing_shows_the_layer_in_the_body_between_what_feeds_it_and_what_it_feeds() -> None:
    graph = network_boxes(lower(recurrent("LSTM", states=True)))
    boxes = {box.layer: number for number, box in graph.nodes(data="box") if box.layer}
    assert list(boxes) == ["rnn.input", "rnn.recurrent"]
    (after,) = graph.successors(boxes["rnn.recurrent"])
    assert after in graph.successors(boxes["rnn.input"]), "the sum of both products"
