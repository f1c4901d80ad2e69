"""Corrections by samples: judged by NumPy's least squares, by onnxruntime, and by what is spoilt on purpose."""

from functools import cache
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper

from cimc.chip import load_chip
from cimc.dataset import Preprocess, Samples
from cimc.options import Correct
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.crossbar.keys import new_key
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.correction import SCALE_SD, Case, Corrected, correct_layers, figures_of, fit_columns, fit_layer
from runtime.system.inference import predict
from runtime.system.layers import held_of
from runtime.system.loss_causes import decibels
from runtime.system.program import program_of, programmed_state
from runtime.system.state import State, System, build_system, gain_name, initial_state
from tests.networks import network, weights

PLAIN = Preprocess()
SAMPLES = Samples({"x": weights(64, 4, 6, 6, seed=7)})  # of both signs
DEAD = 2  # a column of the second layer without weights
# Few levels, which reconstruction has to make up for, and converters fine enough that what is spoilt is seen.
BRRAM = load_chip("brram-256x64")
CHIP = BRRAM.model_copy(
    update={
        "cell": BRRAM.cell.model_copy(update={"levels": 8}),
        "adc": BRRAM.adc.model_copy(update={"bits": 12, "range_uA": 400.0, "noise_lsb": 1.0}),
    }
)
METHODS = [method for method in Correct if method is not Correct.none]


def model() -> ir.Model:
    """A convolution, a grouped one without a bias, and a product with a bias."""
    second = weights(8, 4, 3, 3, seed=1) / 3
    second[DEAD] = 0
    nodes = [
        helper.make_node("Conv", ["x", "a", "p"], ["c1"], name="first", pads=[1] * 4),
        helper.make_node("Tanh", ["c1"], ["t1"]),
        helper.make_node("Conv", ["t1", "b"], ["c2"], name="second", group=2),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Flatten", ["r2"], ["f"]),
        helper.make_node("Gemm", ["f", "c", "q"], ["y"], name="last"),
    ]
    constants = {
        "a": weights(8, 4, 3, 3) / 3,
        "p": weights(8, seed=3),
        "b": second,
        "c": weights(128, 5, seed=2) / 8,
        "q": weights(5, seed=4),
    }
    return network(nodes, {"x": ["N", 4, 6, 6]}, {"y": ["N", 5]}, constants)


@cache
def built() -> tuple[System, ir.Model, Any]:
    lowered = lower(model())
    mapping = map_network(lowered, CHIP, options=MappingOptions(input_range=(-1, 1)))
    return build_system(load_network(lowered), mapping, CHIP), lowered, mapping


@cache
def calibrated() -> State:
    system = built()[0]
    return calibrate(system, initial_state(system), SAMPLES, PLAIN, new_key(0))


def spoilt() -> State:
    """Columns of the first layer count for too little or too much on the chip, and are shifted; gains are trained."""
    state, first = calibrated(), "first"
    factor = jnp.linspace(0.7, 1.3, 8)
    digital = {**state["digital"], gain_name("second"): jnp.float32(1.5)}
    ranges = {**state["weight_range"], first: state["weight_range"][first] * factor}
    return {**state, "digital": digital, "weight_range": ranges, "bias": {first: jnp.linspace(-0.5, 0.5, 8)}}


@cache
def corrected(method: Correct) -> tuple[State, list[Corrected]]:
    return correct_layers(built()[0], spoilt(), SAMPLES, PLAIN, new_key(2), method)


def gains(found: list[Corrected]) -> dict[str, float]:
    """By how many dB the SNR has risen."""
    return {one.name: (decibels(one.before, one.after) or 0.0) for one in found}


def test_scales_and_shifts_are_the_least_squares_of_numpy() -> None:
    random = np.random.default_rng(0)
    found = random.normal(1, [0.5, 2, 1], (40, 3)).astype(np.float32)
    wanted = (found * [0.8, 1.3, 1.0] + [1, -2, 0] + random.normal(0, [0.01, 3, 0.5], (40, 3))).astype(np.float32)
    scale, shift = fit_columns(wanted, found)
    for column in range(3):
        y, t = found[:, column].astype(float), wanted[:, column].astype(float)
        # What is believed before is one more row: the scale is 1, as sure as the error and SCALE_SD say.
        sure = np.std(y - t) / SCALE_SD
        rows = np.vstack([np.stack([y - y.mean(), np.ones(40)], axis=1), [sure, 0]])
        (expected, middle), *_ = np.linalg.lstsq(rows, np.append(t, sure), rcond=None)
        assert scale[column] == pytest.approx(expected, rel=1e-4)
        assert shift[column] == pytest.approx(middle - expected * y.mean(), abs=1e-4)
    assert scale[0] == pytest.approx(0.8, abs=0.01), "a column of little noise is scaled as it should"


def test_dead_columns_and_few_outputs_keep_their_scale() -> None:
    wanted = np.zeros((6, 4), np.float32)
    found = np.zeros((6, 4), np.float32)
    found[:, 1], wanted[:, 2] = 0.25, 3.0  # only shifted
    found[:, 3] = 1e-3 * np.random.default_rng(1).normal(size=6)  # nothing but noise
    scale, shift = fit_columns(wanted, found)
    np.testing.assert_array_equal(scale[:3], 1)
    np.testing.assert_allclose(shift[:3], [0, -0.25, 3])
    assert 0.25 <= scale[3] <= 1
    assert np.isfinite(shift).all()


def test_each_method_mends_more_than_the_one_before() -> None:
    rise = {method: gains(corrected(method)[1]) for method in METHODS}
    assert rise[Correct.bias]["first"] > 1
    assert rise[Correct.affine]["first"] > rise[Correct.bias]["first"] + 5
    assert rise[Correct.reconstruct]["second"] > rise[Correct.affine]["second"]
    for method in METHODS:
        assert rise[method][""] > 1, "the outputs"
        assert method in [one.taken for one in corrected(method)[1]]


def test_what_is_measured_is_what_the_network_then_loses() -> None:
    """On samples that no fit has seen."""
    system = built()[0]
    fresh = Samples({"x": weights(200, 4, 6, 6, seed=8)})
    exact = predict(system, spoilt(), fresh, PLAIN, exact=True)["y"]
    errors = [
        float(np.square(predict(system, state, fresh, PLAIN, key=new_key(5))["y"] - exact).sum())
        for state in (spoilt(), *(corrected(method)[0] for method in METHODS))
    ]
    assert errors[1] < errors[0] / 1.2
    assert errors[2] < errors[1] / 1.2
    assert errors[3] < errors[1] / 1.2


@pytest.mark.parametrize("method", METHODS)
def test_the_corrected_network_is_the_same_in_onnxruntime_and_the_exact_one_is_kept(method: Correct) -> None:
    system, lowered, mapping = built()
    state = corrected(method)[0]
    program = program_of(system, state)
    exported = ir.to_proto(chip_network(lowered, mapping, system.chip, program))
    onnx.checker.check_model(exported)
    session = onnxruntime.InferenceSession(exported.SerializeToString(), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {"x": SAMPLES.inputs["x"]})
    np.testing.assert_array_equal(predict(system, state, SAMPLES, PLAIN)["y"], output)

    exact = predict(system, spoilt(), SAMPLES, PLAIN, exact=True)["y"]
    np.testing.assert_array_equal(predict(system, state, SAMPLES, PLAIN, exact=True)["y"], exact)
    trained = predict(system, calibrated(), SAMPLES, PLAIN, exact=True)["y"]
    assert np.abs(exact - trained).max() > 0.1, "the exact network has the gain that was trained, of small layers too"
    # And as the chip's state is taken from its program.
    taken = programmed_state(system, program)
    np.testing.assert_array_equal(predict(system, taken, SAMPLES, PLAIN)["y"], output)


def test_nothing_is_taken_that_errs_more_on_what_is_held_out() -> None:
    """What is fitted is shifted and scaled, what is held out is right as it is."""
    system, state = built()[0], calibrated()
    wanted = weights(40, 8)
    found = wanted.copy()
    found[:30] = 0.5 * found[:30] + 1
    held = held_of(system, state, "first")
    free = np.ones((36, 8), bool)
    case = Case(system.crossbars["first"], [], lambda held: found, held, wanted, found, 30, free, new_key(0))
    assert fit_layer(case, Correct.affine) == (Correct.none, held)
    alike = Case(
        system.crossbars["first"], [], lambda held: found, held, wanted, 0.5 * wanted + 1, 30, free, new_key(0)
    )
    assert fit_layer(alike, Correct.affine)[0] is Correct.affine


def test_few_samples_change_nothing() -> None:
    system, few = built()[0], Samples({"x": SAMPLES.inputs["x"][:1]})
    state, found = correct_layers(system, spoilt(), few, PLAIN, new_key(2), Correct.affine)
    assert {one.name: one.taken for one in found}["last"] is Correct.none
    assert all(np.isfinite(array).all() for group in ("gain", "bias") for array in state[group].values())


def test_a_layer_used_twice_and_one_in_a_scan_are_left_with_a_note() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"], name="shared"),
        helper.make_node("Tanh", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["c"], name="again"),
        helper.make_node("Transpose", ["c"], ["d"], perm=[1, 0, 2]),
        helper.make_node("RNN", ["d", "v", "r"], ["", "s"], name="rnn", hidden_size=3),
        helper.make_node("Squeeze", ["s", "axes"], ["e"]),
        helper.make_node("MatMul", ["e", "u"], ["y"], name="last"),
    ]
    constants: dict[str, npt.ArrayLike] = {"w": weights(4, 4), "v": weights(1, 3, 4), "r": weights(1, 3, 3)}
    constants |= {"u": weights(3, 2), "axes": np.array([0])}
    lowered = lower(network(nodes, {"x": ["N", 9, 4]}, {"y": ["N", 2]}, constants))
    system, samples = (
        build_system(
            load_network(lowered), map_network(lowered, CHIP, options=MappingOptions(input_range=(-1, 1))), CHIP
        ),
        weights(40, 9, 4),
    )
    some, state = Samples({"x": samples}), initial_state(system)
    state = {**state, "input_range": {name: jnp.float32(2) for name in system.crossbars}}
    _, found = correct_layers(system, state, some, PLAIN, new_key(1), Correct.affine)
    assert [one.note for one in found][:4] == ["used several times", "used several times", "", "a Scan"]
    assert found[-1].name == ""


def test_the_figures_are_json_with_the_median_of_the_layers() -> None:
    found = figures_of(corrected(Correct.affine)[1], Correct.affine)
    assert list(found["layers"]) == ["first", "second", "last"]
    values = sorted(layer["snr_db"] for layer in found["layers"].values())
    assert found["median"]["snr_db"] == values[1]
    assert found["outputs"]["snr_db"] > found["outputs"]["snr_db_before"]
