"""Recurrent layers compute in onnxruntime what the operators they replace compute."""

import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import load_chip
from cimc.errors import CimcError
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from tests.networks import lower_and_compare, network, weights

T, INPUTS, H = 4, 3, 2
GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


def recurrent(
    operator: str,
    direction: str = "forward",
    bias: bool = True,
    states: bool = False,
    lengths: bool = False,
    length: int = T,
    **more: object,
) -> ir.Model:
    """A network of one recurrent node with all its outputs."""
    count, gates = 1 + (direction == "bidirectional"), GATES[operator]
    constants = {"w": weights(count, gates * H, INPUTS), "r": weights(count, gates * H, H, seed=1)}
    inputs = ["x", "w", "r", "", "", ""]
    feeds: dict[str, list] = {"x": [length, 3, INPUTS]}
    if bias:
        constants["b"] = weights(count, 2 * gates * H, seed=2)
        inputs[3] = "b"
    if lengths:
        constants["lengths"] = np.array([4, 2, 1], np.int32)
        inputs[4] = "lengths"
    if states:
        feeds["h0"] = [count, 3, H]
        inputs[5] = "h0"
        if operator == "LSTM":
            feeds["c0"] = [count, 3, H]
            inputs.append("c0")
    if more.pop("peepholes", False):
        constants["p"] = weights(count, 3 * H, seed=3)
        inputs += [""] * (7 - len(inputs)) + ["p"]
    outputs: dict[str, list] = {"y": [length, count, 3, H], "h": [count, 3, H]}
    if operator == "LSTM":
        outputs["c"] = [count, 3, H]
    node = helper.make_node(operator, inputs, list(outputs), name="rnn", hidden_size=H, direction=direction, **more)
    return network([node], feeds, outputs, constants)


@pytest.mark.parametrize("lengths", [False, True])
@pytest.mark.parametrize("states", [False, True])
@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("operator", sorted(GATES))
def test_every_direction_with_states_and_lengths(operator: str, direction: str, states: bool, lengths: bool) -> None:
    lower_and_compare(recurrent(operator, direction, states=states, lengths=lengths))


@pytest.mark.parametrize(
    ("operator", "more"),
    [
        ("LSTM", {"peepholes": True}),
        ("LSTM", {"peepholes": True, "states": True}),
        ("LSTM", {"clip": 0.3}),
        ("LSTM", {"bias": False}),
        ("LSTM", {"activations": ["HardSigmoid", "Relu", "Softsign"], "activation_alpha": [0.3]}),
        ("GRU", {"linear_before_reset": 1}),
        ("GRU", {"linear_before_reset": 1, "states": True, "direction": "bidirectional"}),
        ("GRU", {"bias": False}),
        ("RNN", {"activations": ["LeakyRelu"], "activation_alpha": [0.2]}),
    ],
)
def test_every_option(operator: str, more: dict) -> None:
    lower_and_compare(recurrent(operator, **more))


def test_all_steps_use_one_recurrent_layer_and_its_positions_are_counted() -> None:
    """Time steps reuse the arrays: two layers, not one a step."""
    mapping = map_network(lower(recurrent("LSTM")), load_chip("brram-256x64"))
    assert [(layer.rows, layer.columns) for layer in mapping.layers] == [(INPUTS, 4 * H), (H, 4 * H)]
    assert mapping.layers[1].positions == (T - 1)  # the first step starts from zero: no product


def test_an_unknown_activation_is_named() -> None:
    with pytest.raises(CimcError, match="its activation Affine is not known"):
        lower(recurrent("RNN", activations=["Affine"], activation_alpha=[1.0], activation_beta=[0.0]))
