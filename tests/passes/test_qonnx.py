"""Quantisers of QONNX; the judge is their definition, computed here."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from passes.pipeline import lower
from passes.read import read_network
from passes.verify import run
from tests.networks import layers, operators, weights

DOMAIN = "qonnx.custom_op.general"
ROUNDINGS: dict[str, Any] = {"ROUND": np.round, "FLOOR": np.floor, "CEIL": np.ceil}
# scale of the weights, scale of the activations, bits of both, attributes
FORMS: dict[str, tuple[Any, Any, int, dict[str, Any]]] = {
    "4 bits": (0.1, 0.2, 4, {}),
    "narrow": (0.1, 0.2, 3, {"narrow": 1}),
    "unsigned": (0.1, 0.2, 2, {"signed": 0}),
    "a scale a channel": (weights(5, 1, 1, 1) ** 2 + 0.05, weights(1, 2, 1, 1) ** 2 + 0.05, 8, {}),
    "10 bits": (0.01, 0.01, 10, {}),
    "floor": (0.1, 0.2, 4, {"rounding_mode": "FLOOR"}),
    "binary": (0.1, 0.2, 1, {}),
}


def quant(x: np.ndarray, scale: Any, bits: int, options: dict[str, Any]) -> np.ndarray:
    signed, narrow = options.get("signed", 1), options.get("narrow", 0)
    if bits == 1 and signed:
        return np.where(x >= 0, scale, -scale).astype(np.float32)
    low, high = (-(2 ** (bits - 1)) + narrow, 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1 - narrow)
    rounded = ROUNDINGS[options.get("rounding_mode", "ROUND")](np.clip(x / np.float32(scale), low, high))
    return (rounded * np.float32(scale)).astype(np.float32)


@pytest.mark.parametrize("form", FORMS)
def test_quantised_weights_come_onto_arrays_and_activations_stay_quantised(form: str, tmp_path: Path) -> None:
    weight_scale, scale, bits, options = FORMS[form]
    attributes = {"signed": 1, "narrow": 0, "rounding_mode": "ROUND"} | options
    constants = {"w": weights(5, 2, 3, 3), "ws": weight_scale, "s": scale, "z": 0.0, "b": float(bits)}
    graph = helper.make_graph(
        [
            helper.make_node("Quant", ["w", "ws", "z", "b"], ["wq"], domain=DOMAIN, **attributes),
            helper.make_node("Quant", ["x", "s", "z", "b"], ["xq"], domain=DOMAIN, **attributes),
            helper.make_node("Conv", ["xq", "wq"], ["y"], name="conv"),
        ],
        "qonnx",
        [helper.make_tensor_value_info("x", 1, ["N", 2, 6, 6])],
        [helper.make_tensor_value_info("y", 1, ["N", 5, 4, 4])],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
    )
    opsets = [helper.make_opsetid("", 13), helper.make_opsetid(DOMAIN, 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "quant.onnx")

    lowered = lower(read_network(tmp_path / "quant.onnx"))
    assert len(layers(lowered)) == 1
    if "rounding_mode" not in options and bits > 1:
        assert operators(lowered) == ["Max", "Min", "FakeQuantize", "CrossbarConv"]
    x = 2 * weights(3, 2, 6, 6, seed=1)
    kernel, images = quant(constants["w"], weight_scale, bits, options), quant(x, scale, bits, options)
    windows = np.lib.stride_tricks.sliding_window_view(images, (3, 3), (2, 3))
    computed: Any = run(lowered, {"x": x})[0]
    np.testing.assert_allclose(computed, np.einsum("nchwij,ocij->nohw", windows, kernel), atol=1e-4)
