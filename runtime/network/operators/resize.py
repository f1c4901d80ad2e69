"""Resize: every axis in turn is a product with a small matrix of interpolation weights, known when traced."""

from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.errors import CimcError
from runtime.network.operators.kinds import Attributes, Operators, given, static, text

# Weights of the taps around a position, for its fraction beyond the left neighbour: [taps, outputs].
Kernel = Callable[[np.ndarray], np.ndarray]


def _resize(inputs: Sequence[Any], attributes: Attributes) -> Array:
    x = jnp.asarray(inputs[0])
    roi, scales, sizes = (given(inputs, i) for i in (1, 2, 3))
    axes = [int(a) % x.ndim for a in attributes.get("axes", range(x.ndim))]
    lengths = [x.shape[a] for a in axes]
    if sizes is not None and np.size(sizes):
        targets = [int(n) for n in static(sizes, "the sizes of a Resize")]
        factors = [target / n for target, n in zip(targets, lengths, strict=True)]
        policy = text(attributes, "keep_aspect_ratio_policy", "stretch")
        if policy != "stretch":
            factor = min(factors) if policy == "not_larger" else max(factors)
            factors = [factor] * len(factors)
            targets = [int(np.floor(factor * n + 0.5)) for n in lengths]
    else:
        factors = [float(f) for f in static(scales, "the scales of a Resize")]
        targets = [int(np.floor(n * f)) for n, f in zip(lengths, factors, strict=True)]
    region = np.asarray(static(roi, "the region of a Resize")) if roi is not None and np.size(roi) else None
    for place, (axis, target, factor) in enumerate(zip(axes, targets, factors, strict=True)):
        bounds = (0.0, 1.0) if region is None else (float(region[place]), float(region[len(axes) + place]))
        if target == x.shape[axis] and factor == 1 and bounds == (0.0, 1.0):
            continue
        matrix, outside = _weights(x.shape[axis], target, factor, bounds, attributes)
        x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(matrix, x.dtype), ((axis,), (1,))), -1, axis)
        if outside.any():
            shape = [-1 if a == axis else 1 for a in range(x.ndim)]
            value = float(attributes.get("extrapolation_value", 0.0))
            x = jnp.where(jnp.asarray(outside.reshape(shape)), value, x)
    return x


def _weights(
    length: int, target: int, factor: float, bounds: tuple[float, float], attributes: Attributes
) -> tuple[np.ndarray, np.ndarray]:
    """Interpolation weights [target, length] of one axis, and which outputs lie outside the region [target]."""
    mode = text(attributes, "mode", "nearest")
    transform = text(attributes, "coordinate_transformation_mode", "half_pixel")
    place = _coordinates(np.arange(target, dtype=np.float64), length, target, factor, bounds, transform)
    outside = np.zeros(target, bool)
    if transform == "tf_crop_and_resize":
        outside = (place < 0) | (place > length - 1)
    if mode == "nearest":
        index = _nearest(place, text(attributes, "nearest_mode", "round_prefer_floor"))
        matrix = np.zeros((target, length))
        matrix[np.arange(target), np.clip(index, 0, length - 1)] = 1
        return matrix, outside
    kernel: Callable[[np.ndarray], np.ndarray]
    if mode == "linear":
        kernel, reach = _triangle, 1
    elif mode == "cubic":
        a = float(attributes.get("cubic_coeff_a", -0.75))
        kernel, reach = (lambda t: _cubic(t, a)), 2
    else:
        raise CimcError(f"Resize has no mode {mode}; choose nearest, linear or cubic")
    # Antialiasing widens the kernel where the image shrinks.
    stretch = min(factor, 1.0) if attributes.get("antialias", 0) else 1.0
    reach_in = int(np.ceil(reach / stretch))
    taps = np.floor(place).astype(int)[:, None] + np.arange(-reach_in + 1, reach_in + 1)
    weights = kernel((place[:, None] - taps) * stretch)
    if attributes.get("exclude_outside", 0):
        weights = weights * ((taps >= 0) & (taps < length))
    weights = weights / weights.sum(1, keepdims=True)
    matrix = np.zeros((target, length))
    np.add.at(matrix, (np.arange(target)[:, None], np.clip(taps, 0, length - 1)), weights)
    return matrix, outside


def _coordinates(
    out: np.ndarray, length: int, target: int, factor: float, bounds: tuple[float, float], transform: str
) -> np.ndarray:
    """Where the outputs lie in the input (ONNX's coordinate_transformation_mode)."""
    if transform == "half_pixel":
        return (out + 0.5) / factor - 0.5
    if transform == "half_pixel_symmetric":
        adjustment = target / (factor * length)
        return length / 2 * (1 - adjustment) + (out + 0.5) / factor - 0.5
    if transform == "pytorch_half_pixel":
        return (out + 0.5) / factor - 0.5 if target > 1 else np.zeros_like(out)
    if transform == "align_corners":
        # The size before it is rounded down, as ONNX defines it.
        return out * (length - 1) / (factor * length - 1) if target > 1 else np.zeros_like(out)
    if transform == "asymmetric":
        return out / factor
    if transform == "tf_crop_and_resize":
        start, end = bounds
        if target == 1:
            return np.full_like(out, 0.5 * (start + end) * (length - 1))
        return start * (length - 1) + out * (end - start) * (length - 1) / (target - 1)
    raise CimcError(f"Resize has no coordinate_transformation_mode {transform}; export it with half_pixel")


def _nearest(place: np.ndarray, mode: str) -> np.ndarray:
    if mode == "floor":
        return np.floor(place).astype(int)
    if mode == "ceil":
        return np.ceil(place).astype(int)
    if mode == "round_prefer_ceil":
        return np.floor(place + 0.5).astype(int)
    return np.ceil(place - 0.5).astype(int)


def _triangle(t: np.ndarray) -> np.ndarray:
    return np.maximum(0, 1 - np.abs(t))


def _cubic(t: np.ndarray, a: float) -> np.ndarray:
    """Keys (1981): cubic convolution."""
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, near, np.where(t < 2, far, 0))


RESIZE: Operators = {"Resize": _resize}
