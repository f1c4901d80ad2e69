"""Batch normalisation and dropout, the two operators that differ in training; `runtime.network.run` calls them."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array


def batch_norm(
    inputs: list[Any], attributes: Mapping[str, Any], train: bool, channel_axis: int
) -> tuple[Array, Array, Array]:
    """Normalised values and the running mean and variance; in training over the batch (biased variance)."""
    x, scale, bias, running_mean, running_variance = inputs
    epsilon, momentum = float(attributes.get("epsilon", 1e-5)), float(attributes.get("momentum", 0.9))
    shape = [-1 if axis == channel_axis else 1 for axis in range(x.ndim)]
    mean, variance = running_mean, running_variance
    if train:
        axes = tuple(axis for axis in range(x.ndim) if axis != channel_axis)
        mean, variance = jnp.mean(x, axes), jnp.var(x, axes)
        running_mean = momentum * running_mean + (1 - momentum) * jax.lax.stop_gradient(mean)
        running_variance = momentum * running_variance + (1 - momentum) * jax.lax.stop_gradient(variance)
    factor = scale / jnp.sqrt(variance + epsilon)
    return (x - mean.reshape(shape)) * factor.reshape(shape) + bias.reshape(shape), running_mean, running_variance


def dropout(inputs: list[Any], key: Array | None) -> tuple[Array, Array]:
    """Inverted dropout with the node's ratio (default 1/2), and its mask; without a key the input itself."""
    x = jnp.asarray(inputs[0])
    ratio = float(inputs[1]) if len(inputs) > 1 and inputs[1] is not None else 0.5
    if key is None or ratio == 0:
        return x, jnp.ones(x.shape, bool)
    kept = jax.random.bernoulli(key, 1 - ratio, x.shape)
    return jnp.where(kept, x / (1 - ratio), 0.0), kept
