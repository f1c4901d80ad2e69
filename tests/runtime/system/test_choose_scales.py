"""The network's outputs decide between fitted scales and simpler ones; they are computed here anew."""

import numpy as np
from onnx import helper

from cimc.chip import load_chip
from cimc.dataset import Preprocess, Samples
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.network.load import load_network
from runtime.system.calibration import calibrate
from runtime.system.choose_scales import ENOUGH_DB, choose_scales
from runtime.system.inference import predict
from runtime.system.program import retarget
from runtime.system.state import State, System, build_system, initial_state
from tests.networks import network

CHIP = load_chip("brram-256x64")
COARSE = CHIP.model_copy(update={"adc": CHIP.adc.model_copy(update={"bits": 4})})  # no layer reaches 20 dB
WIDTH, DEPTH = 24, 5


def deep(seed: int) -> tuple[System, State, Samples]:
    """Products in a row with outlier weights, their targets exact."""
    random = np.random.default_rng(seed)
    nodes, constants = [], {}
    for n in range(DEPTH):
        constants[f"w{n}"] = (random.standard_t(2, (WIDTH, WIDTH)) / WIDTH**0.5).astype(np.float32)
        nodes.append(helper.make_node("MatMul", [f"x{n}", f"w{n}"], [f"y{n}"], name=f"layer{n}"))
        nodes.append(helper.make_node("Relu", [f"y{n}"], [f"x{n + 1}"], name=f"relu{n}"))
    lowered = lower(network(nodes, {"x0": ["N", WIDTH]}, {f"x{DEPTH}": ["N", WIDTH]}, constants))
    system = build_system(
        load_network(lowered), map_network(lowered, COARSE, options=MappingOptions(input_range=(0.0, 1.0))), COARSE
    )
    samples = Samples({"x0": random.random((16, WIDTH), np.float32)})
    return system, retarget(system, initial_state(system)), samples


def snr_db(system: System, state: State, samples: Samples) -> float:
    (found,), (wanted,) = (
        predict(system, state, samples, Preprocess(), exact=exact).values() for exact in (False, True)
    )
    return float(10 * np.log10(np.sum(wanted**2) / np.sum((found - wanted) ** 2)))


def test_the_scales_with_the_better_outputs_are_taken() -> None:
    taken = set()
    for seed in range(8):
        system, start, samples = deep(seed)
        fitted = calibrate(system, start, samples, Preprocess(), None, fit=True)
        simple = calibrate(system, start, samples, Preprocess(), None)
        both = [snr_db(system, state, samples) for state in (fitted, simple)]
        assert both[0] < ENOUGH_DB
        chosen = snr_db(system, choose_scales(system, start, samples, Preprocess(), None), samples)
        assert np.isclose(chosen, max(both), atol=1e-3)
        taken.add(int(np.argmax(both)))
    assert taken == {0, 1}  # else this shows nothing
