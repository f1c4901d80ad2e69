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
from cimc.units import device_targets
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.keys import new_key
from runtime.crossbar.pieces import Floats, Held, read_in_pieces
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.fit_scales import WEIGHTS_AT_ONCE, Case, Seen, fit_scales, largest_inputs
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
# Without 1/f noise, which is no part of the exported network and leaves factors little to gain.
_HERMES = load_chip("hermes")
HERMES = _HERMES.model_copy(update={"cell": _HERMES.cell.model_copy(update={"flicker": None})})


def case(x: Floats, weight: Floats, *, signed: bool = False, held_out: Floats | None = None) -> Case:
    """A product on quiet devices, for vectors x and others, or of every second vector and the rest."""
    layer = Crossbar(QUIET, min(len(weight), 256), 32, signed=signed)
    halves = (x[::2], x[1::2]) if held_out is None else (x, held_out)
    seen = [Seen(half, largest_inputs(half, layer)) for half in halves]
    return Case(layer, seen[0], seen[1], weight, np.ones((), np.float32), None, 0)


def snr(case: Case, held: Held, columns: Any = slice(None), x: Floats | None = None) -> float:
    """Of the layer's output in these columns, dB, for vectors x or for those that choose."""
    vectors = case.chosen_on.vectors if x is None else x
    expected = vectors @ case.weight
    error = read_in_pieces(case.layer, vectors[None], held, None)[0] - expected
    signal = np.square(expected[..., columns], dtype=np.float64).sum()
    return float(10 * np.log10(signal / np.square(error[..., columns], dtype=np.float64).sum()))


def held_by_layer(case: Case) -> Held:
    """What one weight range of the layer's largest weight and its largest input give."""
    weight, chip = case.weight, case.layer.chip
    largest = np.float32(np.max(np.abs(weight)))
    targets = jnp.asarray(device_targets(weight, largest, chip))
    return Held(targets, jnp.asarray(largest), jnp.asarray(case.chosen_on.vectors.max()), jnp.float32(1), None)


def test_a_column_of_small_weights_fills_the_window_too() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(64, 6)).astype(np.float32) * np.array([1, 1, 1, 1, 0.03, 0], np.float32)
    layer = case(random.random((1000, 64), np.float32), weight)
    fitted = fit_scales(layer)
    assert snr(layer, fitted, 4) > snr(layer, held_by_layer(layer), 4) + 20
    assert snr(layer, fitted, slice(4)) > snr(layer, held_by_layer(layer), slice(4)) - 0.1
    dead = read_in_pieces(layer.layer, layer.chosen_on.vectors[None], fitted, None)[..., 5]
    assert np.abs(dead).max() < 1e-3 * (layer.chosen_on.vectors @ weight).std(), "a column of zeros stays silent"


def test_a_channel_of_small_inputs_and_large_weights_fills_the_converter_too() -> None:
    random = np.random.default_rng(1)
    sizes = np.where(np.arange(64) < 4, 1, 0.01).astype(np.float32)
    x = random.random((1000, 64), np.float32) * sizes
    layer = case(x, (random.normal(size=(64, 8)) / sizes[:, None]).astype(np.float32))
    fitted = fit_scales(layer)
    assert fitted.input_factor is not None
    assert snr(layer, fitted) > snr(layer, held_by_layer(layer)) + 10


def test_a_channel_that_was_silent_may_speak_later() -> None:
    random = np.random.default_rng(2)
    weight, x = random.normal(size=(32, 8)).astype(np.float32), random.random((1000, 32), np.float32)
    x[..., :8] *= 0.02
    x[..., 31] = 0
    layer = case(x, weight)
    fitted = fit_scales(layer)
    later = layer.chosen_on.vectors[None].copy()
    later[..., 31] = 0.9
    y = read_in_pieces(layer.layer, later, fitted, None)
    error = np.square(y - later @ weight).mean() / np.square(later @ weight).mean()
    assert error < 0.01


def test_what_few_inputs_say_is_not_taken_where_others_gainsay_it() -> None:
    """Channels that are small by chance in the inputs that choose: their factors would clip all others."""
    random = np.random.default_rng(3)
    weight = random.normal(size=(64, 8)).astype(np.float32)
    later = random.random((500, 64), np.float32)
    few = random.random((8, 64), np.float32) * np.where(np.arange(64) % 2, 1, 0.02).astype(np.float32)
    alone, judged = case(few, weight, held_out=few), case(few, weight, held_out=later)
    assert fit_scales(alone).input_factor is not None, "by themselves they want factors"
    assert fit_scales(judged).input_factor is None
    assert snr(judged, fit_scales(judged), x=later) > snr(judged, held_by_layer(case(later, weight)), x=later) - 0.1


def test_a_layer_in_parts_of_its_columns_is_fitted_as_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    weight = random.normal(size=(16, 10)).astype(np.float32) * np.geomspace(0.1, 1, 10, dtype=np.float32)
    layer = case(random.random((200, 16), np.float32), weight)
    whole = fit_scales(layer)
    assert weight.size < WEIGHTS_AT_ONCE
    monkeypatch.setattr("runtime.system.fit_scales.WEIGHTS_AT_ONCE", 16 * 4)  # 4, 4, and 4 of which 2 overlap
    for part, found in zip(fit_scales(layer), whole, strict=True):
        np.testing.assert_array_equal(part, found)


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


@pytest.mark.parametrize("chip", [CHIP, QUIET, HERMES], ids=["brram", "quiet", "hermes"])
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
