"""Scales fitted to a layer's data: each trouble that one number a layer cannot mend, and bits in onnxruntime."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper

from cimc.chip import Chip, load_chip
from cimc.dataset import Preprocess, Samples
from cimc.units import pair_targets
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.crossbar.keys import new_key
from runtime.crossbar.pieces import Floats, Held, read_in_pieces
from runtime.crossbar.product import Crossbar
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.fit_scales import Case, fit_scales, largest_inputs
from runtime.system.inference import predict
from runtime.system.program import program_of, retarget
from runtime.system.state import build_system, initial_state
from runtime.system.weight_range import best_column_ranges
from tests.networks import network, weights

CHIP = load_chip("brram-256x64")
CELL = CHIP.cell.model_copy(
    update={"read_noise_uS": 0.0, "programming": CHIP.cell.programming.model_copy(update={"error_sd_uS": 0.0})}
)
QUIET = CHIP.model_copy(update={"cell": CELL, "adc": CHIP.adc.model_copy(update={"noise_lsb": 0.0})})


def case(x: Floats, weight: Floats, *, signed: bool = False) -> Case:
    """A product on quiet devices."""
    layer = Crossbar(QUIET, min(len(weight), 256), 32, signed=signed)
    held = Held(*(jnp.zeros((2, *weight.shape)), *map(jnp.float32, (1, 1, 1)), None))
    return Case(layer, x, largest_inputs(x, layer), x @ weight, weight, held, None, 0)


def snr(case: Case, held: Held, columns: Any = slice(None)) -> float:
    """Of the layer's output in these columns, dB."""
    error = read_in_pieces(case.layer, case.inputs, held, None) - case.expected
    signal = np.square(case.expected[..., columns], dtype=np.float64).sum()
    return float(10 * np.log10(signal / np.square(error[..., columns], dtype=np.float64).sum()))


def held_by_layer(case: Case) -> Held:
    """What one weight range of the layer's largest weight and its largest input give."""
    weight, chip = case.weight, case.layer.chip
    largest = np.float32(np.max(np.abs(weight)))
    return case.held._replace(
        conductance=jnp.asarray(pair_targets(weight, largest, chip)),
        weight_range=jnp.asarray(largest),
        input_range=jnp.asarray(np.float32(case.inputs.max())),
    )


def test_a_column_of_small_weights_fills_the_window_too() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(64, 6)).astype(np.float32) * np.array([1, 1, 1, 1, 0.03, 0], np.float32)
    layer = case(random.random((1, 500, 64), np.float32), weight)
    fitted = fit_scales(layer)
    assert snr(layer, fitted, 4) > snr(layer, held_by_layer(layer), 4) + 20
    assert snr(layer, fitted, slice(4)) > snr(layer, held_by_layer(layer), slice(4)) - 0.1
    dead = read_in_pieces(layer.layer, layer.inputs, fitted, None)[..., 5]
    assert np.abs(dead).max() < 1e-3 * layer.expected.std(), "a column of zeros stays silent"


def test_a_channel_of_small_inputs_and_large_weights_fills_the_converter_too() -> None:
    random = np.random.default_rng(1)
    sizes = np.where(np.arange(64) < 4, 1, 0.01).astype(np.float32)
    x = random.random((1, 500, 64), np.float32) * sizes
    layer = case(x, (random.normal(size=(64, 8)) / sizes[:, None]).astype(np.float32))
    fitted = fit_scales(layer)
    assert fitted.input_factor is not None
    assert snr(layer, fitted) > snr(layer, held_by_layer(layer)) + 10


def test_a_channel_that_was_silent_may_speak_later() -> None:
    random = np.random.default_rng(2)
    weight, x = random.normal(size=(32, 8)).astype(np.float32), random.random((1, 500, 32), np.float32)
    x[..., :8] *= 0.02
    x[..., 31] = 0
    layer = case(x, weight)
    fitted = fit_scales(layer)
    later = layer.inputs.copy()
    later[..., 31] = 0.9
    y = read_in_pieces(layer.layer, later, fitted, None)
    error = np.square(y - later @ weight).mean() / np.square(later @ weight).mean()
    assert error < 0.01


def test_column_ranges_of_zeros_are_not_zero() -> None:
    ranges = best_column_ranges(np.zeros((4, 3), np.float32), CHIP)
    assert ranges.shape == (3,)
    assert ranges.min() > 0


def convolutions() -> ir.Model:
    """A convolution, one with a kernel a channel and one with two groups, and a product of signed inputs."""
    nodes = [
        helper.make_node("Conv", ["x", "a", "e"], ["p"], name="first", pads=[1] * 4),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "b"], ["r"], name="depthwise", group=8, pads=[1] * 4),
        helper.make_node("Conv", ["r", "c"], ["s"], name="groups", group=2, strides=[2, 2]),
        helper.make_node("Flatten", ["s"], ["t"]),
        helper.make_node("MatMul", ["t", "d"], ["y"], name="last"),
    ]
    spread = np.geomspace(0.05, 1, 8, dtype=np.float32)
    constants = {
        "a": weights(8, 2, 3, 3) * spread[:, None, None, None],
        "b": weights(8, 1, 3, 3, seed=1) * spread[::-1, None, None, None],
        "c": weights(4, 4, 2, 2, seed=2) / 3,
        "d": weights(36, 5, seed=3) / 8,
        "e": weights(8, seed=4),
    }
    return network(nodes, {"x": ["N", 2, 6, 6]}, {"y": ["N", 5]}, constants)


@pytest.mark.parametrize("chip", [CHIP, QUIET, load_chip("hermes")], ids=["brram", "quiet", "hermes"])
def test_the_chip_network_is_the_runtime_to_the_bit(chip: Chip) -> None:
    lowered = lower(convolutions())
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=(-1.0, 1.0)))
    system = build_system(load_network(lowered), mapping, chip)
    x = np.random.default_rng(5).uniform(-1, 1, (12, 2, 6, 6)).astype(np.float32)
    samples = Samples({"x": x})
    start = retarget(system, initial_state(system))
    state = calibrate(system, start, samples, Preprocess(), new_key(0), fit=True)
    assert state["input_factor"].keys() & {"depthwise", "groups"}, "inputs that differ by a factor of 20"
    model = ir.to_proto(chip_network(lowered, mapping, chip, program_of(system, state)))
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], predict(system, state, samples, Preprocess())["y"])
    if chip is not QUIET:  # the scales serve what writing errs too, which is not in these outputs
        return
    plain = calibrate(system, start, samples, Preprocess(), new_key(0))
    exact = predict(system, state, samples, Preprocess(), exact=True)["y"]
    errors = [
        float(np.square(predict(system, one, samples, Preprocess())["y"] - exact).mean()) for one in (state, plain)
    ]
    assert errors[0] < errors[1]
