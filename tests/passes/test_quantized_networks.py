"""Networks as onnxruntime's quantiser writes them: weights come onto arrays, scales stay, gradients pass."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from cimc.chip import load_chip
from passes.mapper.map_network import map_network
from passes.pipeline import lower
from passes.read import read_network
from passes.verify import random_inputs, run
from passes.verify_mapping import verify_mapping
from passes.watch import verify_each
from runtime.network.load import load_network
from runtime.network.run import run_nodes
from tests.networks import layers, network, network_proto, operators, plain_product, weights

LENET = Path(__file__).parents[2] / "models" / "lenet5.onnx"


class Images(CalibrationDataReader):
    """Random images, one at a time, for the quantiser's calibration."""

    def __init__(self, name: str = "image", shape: tuple[int, ...] = (1, 1, 28, 28)) -> None:
        random = np.random.default_rng(3)
        self.batches = iter([{name: random.random(shape, dtype=np.float32)} for _ in range(8)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.batches, None)


def static(path: Path, **options: object) -> Path:
    quantize_static(LENET, path, Images(), **options)
    return path


def dynamic(path: Path, **options: object) -> Path:
    quantize_dynamic(LENET, path, **options)
    return path


FORMS = {
    "qdq": lambda path: static(path, quant_format=QuantFormat.QDQ),
    "qdq per channel": lambda path: static(path, quant_format=QuantFormat.QDQ, per_channel=True),
    "qdq signed": lambda path: static(
        path, quant_format=QuantFormat.QDQ, activation_type=QuantType.QInt8, weight_type=QuantType.QInt8
    ),
    "qoperator": lambda path: static(path, quant_format=QuantFormat.QOperator),
    "qoperator per channel": lambda path: static(path, quant_format=QuantFormat.QOperator, per_channel=True),
    "dynamic": lambda path: dynamic(path),
    "dynamic per channel": lambda path: dynamic(path, per_channel=True, weight_type=QuantType.QInt8),
}


@pytest.mark.parametrize("opset", [13, 17])
def test_dynamic_quantisation_of_older_opsets(opset: int, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "k"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["y"], name="fc"),
    ]
    constants = {"k": weights(4, 1, 3, 3), "w": weights(64, 5)}
    onnx.save(network_proto(nodes, {"x": ["N", 1, 6, 6]}, {"y": ["N", 5]}, constants, opset), tmp_path / "float.onnx")
    quantize_dynamic(tmp_path / "float.onnx", tmp_path / "quantised.onnx")
    model = read_network(tmp_path / "quantised.onnx")
    lowered = lower(model, verify_each(model, random_inputs(model, 4, 0)))
    assert len(layers(lowered)) == 2


@pytest.mark.parametrize("kind", [TensorProto.INT8, TensorProto.INT16])
def test_levels_whose_type_stands_in_an_attribute(kind: int) -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s"], ["q"], output_dtype=kind),
        helper.make_node("DequantizeLinear", ["q", "s"], ["d"]),
        helper.make_node("MatMul", ["d", "w"], ["y"], name="fc"),
    ]
    model = network(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"s": np.float32(0.02), "w": weights(4, 3)})
    lowered = lower(model, verify_each(model, random_inputs(model, 4, 0, (-1.0, 1.0))))
    assert operators(lowered) == ["FakeQuantize", "CrossbarMatMul"]


@pytest.mark.parametrize("form", FORMS)
def test_a_quantised_lenet_computes_the_same_and_trains(form: str, tmp_path: Path) -> None:
    model = read_network(FORMS[form](tmp_path / "quantised.onnx"))
    feeds = random_inputs(model, 4, 0)
    lowered = lower(model, verify_each(model, feeds))
    assert len(layers(lowered)) == 5
    assert {"FakeQuantize"} <= set(operators(lowered))
    left = {"QuantizeLinear", "DequantizeLinear"} & set(operators(lowered))
    assert not left, "every quantiser is joined with its inverse"
    chip = load_chip("ideal")
    (expected,) = run(model, feeds)
    verify_mapping(model, lowered, map_network(lowered, chip), chip)

    loaded = load_network(lowered)
    names = [node.inputs[1] for node in loaded.layers()]

    @jax.jit
    @partial(jax.grad, has_aux=True)
    def trained_by(trained: dict[str, Any]) -> tuple[jax.Array, jax.Array]:
        changed = replace(loaded, initializers={**loaded.initializers, **trained})
        values, _ = run_nodes(changed, {k: jnp.asarray(v) for k, v in feeds.items()}, plain_product(changed), {}, {})
        output = values[loaded.outputs[0]]
        return jnp.sum(output**2), output

    gradients, computed = trained_by({name: jnp.asarray(loaded.initializers[name]) for name in names})
    assert np.abs(np.asarray(computed) - expected).max() <= np.abs(expected).max() * 0.03
    for name, gradient in gradients.items():
        assert np.any(np.asarray(gradient) != 0), f"{name} is not trained"
