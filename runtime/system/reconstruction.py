"""Weights, scales and bias of a layer, fitted by gradient to what it should give for what it gets on the chip.

The idea of AdaRound (arXiv 2004.10568) and BRECQ (arXiv 2102.05426): not the weights shall be right but the outputs.
Each step reads some of the layer's vectors through the chip's own converters, with noise where the chip has some; the
gradient goes straight through them (`runtime.crossbar.layer`), and the weights lie on the chip's grid of targets.
"""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from jax import Array

from cimc.units import device_targets, weight_of
from runtime.crossbar.cell_wires import as_read
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.layer import layer_output
from runtime.crossbar.pieces import Floats, Held
from runtime.crossbar.unfold import unfold
from runtime.crossbar.xla import jit

STEPS, VECTORS_A_STEP = 200, 256
# Of a layer with more outputs so many are drawn, as many from each sample.
MOST_VECTORS = 8192
# Of Adam, at the start: the weights in weight ranges, the scales' logarithms, the bias in sd of its column.
WEIGHT_RATE, SCALE_RATE, BIAS_RATE = 2e-3, 2e-3, 1e-2


class Fitted(NamedTuple):
    """What is fitted: weights in weight ranges [rows, columns], logarithm of the scale and bias in sd, [columns]."""

    weight: Array
    scale: Array
    bias: Array


def reconstruct(
    layer: Crossbar, vectors: Floats, wanted: Floats, held: Held, free: npt.NDArray[np.bool_], key: Array
) -> Held:
    """What the layer holds with weights, scales and bias fitted in `STEPS` steps.

    Args:
        layer: static description.
        vectors: [rows of all groups, MVMs], what the layer gets on the chip (`draw_vectors`).
        wanted: [MVMs, columns], what it should give.
        held: where the fit begins.
        free: weights that may change [rows, columns].
        key: for the choice of vectors, and for noise.
    """
    if held.input_factor is not None:
        factor = np.asarray(held.input_factor)
        vectors = vectors / np.repeat(factor, len(vectors) // len(factor))[:, None]
    columns = wanted.shape[1]
    begun = held._replace(
        weight_range=jnp.broadcast_to(held.weight_range, columns),
        gain=jnp.broadcast_to(held.gain, columns),
        bias=jnp.zeros(columns) if held.bias is None else held.bias,
        input_factor=None,
    )
    found = _descend(replace(layer, window=None), vectors, wanted.T, begun, free, key)
    return found._replace(weight_range=held.weight_range, input_factor=held.input_factor)


@partial(jit, static_argnums=0)
def _descend(layer: Crossbar, vectors: Array, wanted: Array, held: Held, free: Array, key: Array) -> Held:
    """Adam; compiled once for each shape of a layer."""
    assert held.bias is not None
    sd = jnp.maximum(jnp.std(wanted, axis=1), 1e-6 * jnp.max(jnp.abs(wanted)) + 1e-30)
    power = jnp.mean(jnp.square(wanted)) + 1e-30
    begin = Fitted(
        weight_of(held.conductance, held.weight_range, layer.chip) / held.weight_range,
        jnp.zeros_like(held.gain),
        held.bias / sd,
    )
    adam = optax.chain(optax.scale_by_adam(), optax.scale_by_schedule(optax.cosine_decay_schedule(-1.0, STEPS)))

    def targets(fitted: Fitted) -> Array:
        return jax.lax.stop_gradient(device_targets(fitted.weight * held.weight_range, held.weight_range, layer.chip))

    def error(fitted: Fitted, some: Array, noise: Array) -> Array:
        y = layer_output(
            layer,
            vectors[:, some],
            fitted.weight * held.weight_range,
            held.gain * jnp.exp(fitted.scale),
            fitted.bias * sd,
            as_read(layer.wires, targets(fitted)),
            held.weight_range,
            held.input_range,
            noise,
        )
        return jnp.mean(jnp.square(y - wanted[:, some])) / power

    def step(carried: tuple[Fitted, optax.OptState], key: Array) -> tuple[tuple[Fitted, optax.OptState], None]:
        fitted, memory = carried
        choice, noise = jax.random.split(key)
        some = jax.random.randint(choice, (VECTORS_A_STEP,), 0, vectors.shape[1])
        change, memory = adam.update(jax.grad(error)(fitted, some, noise), memory)
        weight = jnp.clip(fitted.weight + WEIGHT_RATE * change.weight, -1, 1)
        scale, bias = fitted.scale + SCALE_RATE * change.scale, fitted.bias + BIAS_RATE * change.bias
        return (Fitted(jnp.where(free, weight, begin.weight), scale, bias), memory), None

    (end, _), _ = jax.lax.scan(step, (begin, adam.init(begin)), jax.random.split(key, STEPS))
    return held._replace(conductance=targets(end), gain=held.gain * jnp.exp(end.scale), bias=end.bias * sd)


def draw_vectors(layer: Crossbar, inputs: Floats, random: np.random.Generator) -> tuple[Floats, npt.NDArray[np.int64]]:
    """Input vectors [rows of all groups, MVMs] of some MVMs, and the indices of these.

    At most `MOST_VECTORS`, as many of each sample.

    Args:
        layer: static description.
        inputs: of a convolution [samples, C, *spatial], of a product [vectors, rows].
        random: draws.
    """
    if layer.window is None:
        chosen = random.permutation(len(inputs))[:MOST_VECTORS]
        return inputs[chosen].T, chosen
    parts, indices = [], []
    for number, image in enumerate(inputs):
        vectors = np.asarray(_unfold(image[..., None], layer.window))
        chosen = random.permutation(vectors.shape[1])[: max(MOST_VECTORS // len(inputs), 1)]
        parts.append(vectors[:, chosen])
        indices.append(number * vectors.shape[1] + chosen)
    return np.concatenate(parts, axis=1), np.concatenate(indices)


_unfold = jit(unfold, static_argnums=1)
