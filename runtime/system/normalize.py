"""Layers of small weights before training: held at the usual size, with the rest of their scale in the digital gain."""

import math

import jax
import numpy as np

from runtime.system.state import State, gain_name
from runtime.system.weight_range import LEAST_SD

# Of the sd of He's initial weights, variance 2 / rows. PyTorch's default has 0.41. Orthogonal matrices, 0.71, train as
# well as others.
SMALL_SD = 0.6
# A step of the digital rate is a larger part of a smaller gain: below this, the weights stay smaller than He's instead.
LEAST_GAIN = 0.2


def normalize_layers(state: State) -> State:
    """Hold the weights of each layer that are smaller than `SMALL_SD` at He's size. The network computes the same.

    Such a layer must grow, and its gain with it: from 1 a digital gain takes hundreds of steps to make up for a factor
    of 0.41, from 0.41 it need not. LeNet-1 with PyTorch's default weights ends 0.2 points higher on brram-soc
    (docs/measured/2026-11-26-initial-weights.md).
    Conductances stay as they are; weight and weight range are divided by what the gain is multiplied by.
    """
    new = {**state, **{group: dict(state[group]) for group in ("weight", "weight_range", "digital")}}
    for name, weight in state["weight"].items():
        held = np.asarray(weight)
        spread = float(np.sqrt(np.mean(np.square(held, dtype=np.float64)))) if held.size else 0.0
        scale = spread / math.sqrt(2 / max(len(held), 1))
        if not LEAST_SD < scale < SMALL_SD:
            continue
        scale, gain = max(scale, LEAST_GAIN), gain_name(name)
        new["weight"][name] = jax.device_put((held / scale).astype(np.float32))
        new["weight_range"][name] = jax.device_put(np.float32(state["weight_range"][name] / scale))
        new["digital"][gain] = jax.device_put(np.float32(state["digital"][gain] * scale))
    return new
