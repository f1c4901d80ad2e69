"""The exported network is the runtime's own prediction, without noise: every chip, and every scheme, plane and ADC."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc.chip import Adc, Chip, Input, Weights, chip_names, load_chip
from cimc.dataset import Samples
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.verify import run
from runtime.network.load import load_network
from runtime.system.inference import Batch, outputs_on_arrays
from runtime.system.program import program_of
from runtime.system.state import build_system, initial_state
from tests.networks import network, weights

# Kinds that no built-in chip has: digits in two phases, rows in slices, bipolar converters with a range.
SCHEMES: dict[str, dict[str, Any]] = {
    "offset whole, reference": {
        "weights": Weights(scheme="offset", offset_columns=1),
        "adc": Adc(bits=8, range_uA=60.0),
    },
    "offset in digits, reference": {
        "weights": Weights(scheme="offset", bits=8, bits_per_cell=3, slices_in="arrays", offset_columns=2),
        "input": Input(bits=6, encoding="bit-serial", bits_per_cycle=2, signed="two-phase"),
        "adc": Adc(bits=12),
    },
    "rows in digits": {
        "weights": Weights(scheme="differential-rows", bits=6, bits_per_cell=2),
        "input": Input(bits=6, encoding="bit-serial", bits_per_cycle=3, signed="one-phase"),
        "adc": Adc(bits=9, range_uA=80.0),
    },
    "pairs, both polarities": {
        "input": Input(bits=5, encoding="pulse-width", signed="one-phase"),
        "adc": Adc(bits=8, range_uA=30.0),
    },
    "pairs, bit by bit without states": {
        "input": Input(bits=5, encoding="bit-serial", signed="one-phase"),
        "adc": Adc(bits=10),
    },
}
MODEL = network(
    [
        helper.make_node("Conv", ["x", "w", "b"], ["h"], "conv", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"], "dense"),
    ],
    {"x": ["N", 4, 5, 5]},
    {"y": ["N", 7]},
    {"w": weights(6, 4, 3, 3), "b": weights(6, seed=1), "v": weights(54, 7, seed=2)},
)


def chip_of(name: str) -> Chip:
    """A built-in chip, or one of `SCHEMES` with small arrays; all of them without noise."""
    if name in chip_names():
        return load_chip(name)
    base = load_chip("brram-256x64")
    array = base.array.model_copy(update={"rows": 32, "columns": 60})
    return base.model_copy(update={"array": array, "row_split": "flat", **SCHEMES[name]})


@pytest.mark.parametrize("name", [*chip_names(), *SCHEMES])
def test_the_exported_network_gives_what_the_arrays_give(name: str) -> None:
    chip, lowered = chip_of(name), lower(MODEL.clone())
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=(-1.0, 1.0)))
    system = build_system(load_network(ir.to_proto(lowered).SerializeToString()), mapping, chip)
    state = initial_state(system)
    state["input_range"] = {"conv": jnp.float32(1), "dense": jnp.float32(4)}
    x = np.random.default_rng(3).uniform(-1, 1, (4, 4, 5, 5)).astype(np.float32)
    batch = Batch(0, Samples({"x": x}), {"x": x})
    (on_arrays,) = outputs_on_arrays(system, state, batch, None).values()
    exported = np.asarray(run(chip_network(lowered, mapping, chip, program_of(system, state)), {"x": x})[0], np.float32)
    exact = np.asarray(run(lowered, {"x": x})[0], np.float32)
    np.testing.assert_allclose(exported, on_arrays, atol=2e-5 * np.abs(exact).max())
    # What is compared is the network and not two times nothing.
    assert np.corrcoef(exported.ravel(), exact.ravel())[0, 1] > 0.6
