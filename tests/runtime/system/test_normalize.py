"""Layers of small weights are held at the usual size before training; the network computes the same."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cimc
from cimc.dataset import Preprocess
from cimc.units import weight_of
from runtime.network.load import load_network
from runtime.system.normalize import LEAST_GAIN, normalize_layers
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System, build_system, gain_name, initial_state
from runtime.system.weight_range import training_weight_range
from runtime.training.logits import logits


def lenet1(scale: float) -> tuple[System, State]:
    """LeNet-1 with the weights of its second layer times that."""
    artifact = cimc.compile(Path(__file__).parents[3] / "models" / "lenet1.onnx", "brram-soc", verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    state = initial_state(system, weight_range=training_weight_range)
    for group in ("weight", "weight_range"):
        state[group]["conv2"] = state[group]["conv2"] * scale
    return system, state


@pytest.mark.parametrize("scale", [0.05, 0.3, 0.5, 1.0, 3.0, 0.0])
def test_a_layer_of_small_weights_is_held_at_he_s_size_and_computes_the_same(scale: float) -> None:
    system, state = lenet1(scale)
    after = normalize_layers(state)
    small, gain = 0 < scale < 0.6, max(scale, LEAST_GAIN)
    assert float(after["digital"][gain_name("conv2")]) == pytest.approx(gain if small else 1.0, rel=0.1)
    assert float(after["digital"][gain_name("conv1")]) == 1.0
    if small:
        rows = len(after["weight"]["conv2"])
        assert float(jnp.std(after["weight"]["conv2"])) == pytest.approx((2 / rows) ** 0.5 * scale / gain, rel=0.06)
    else:
        jax.tree.map(np.testing.assert_array_equal, after, state)
    images = np.random.default_rng(0).integers(0, 256, (20, 1, 28, 28), np.uint8)
    (output,) = system.network.logits
    for product in (exact_product, array_product):
        before, now = (
            logits(
                system,
                {**s, "input_range": dict.fromkeys(s["input_range"], jnp.float32(2))},
                {system.network.input: images},
                Preprocess(1 / 255),
                None,
                product,
            )[output]
            for s in (state, after)
        )
        np.testing.assert_allclose(now, before, rtol=1e-4, atol=1e-4)
    for name, pair in after["conductance"].items():
        held = weight_of(pair, after["weight_range"][name], system.chip) * after["digital"][gain_name(name)]
        as_before = weight_of(state["conductance"][name], state["weight_range"][name], system.chip)
        np.testing.assert_allclose(held, as_before, rtol=1e-5, atol=1e-7)
