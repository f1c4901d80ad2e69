"""The synthetic digit set: ten digits drawn from strokes, so that everything runs without a download.

The images look like MNIST's (28x28, white on black, centred, about 20 pixels high) but are generated; whoever
shows a figure measured on them calls it synthetic.
"""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from cimc.errors import CimcError

__all__ = ["CLASSES", "SIZE", "digits"]

Floats = NDArray[np.float32]
Stroke = NDArray[np.float64]

CLASSES = 10
SIZE = 28

_POINTS = 112  # samples along one digit: about half a pixel apart on the longest one
_HEIGHT = 20.0  # pixels, as MNIST normalises its digits
_CHUNK = 500  # images rendered at once: keeps the working set in the processor's cache


def digits(
    train: int = 12000, test: int = 2000, seed: int = 0
) -> tuple[NDArray[np.uint8], NDArray[np.int32], NDArray[np.uint8], NDArray[np.int32]]:
    """Generate the synthetic digits: `(x_train, y_train, x_test, y_test)`.

    Images are uint8 of shape (N, 1, 28, 28), 0 black to 255 white; labels are int32 of shape (N,), 0 to 9, in random
    order and as evenly shared as N allows. The same seed gives the same images; the test images depend on the seed
    and `test` only, so they stay the same when more training images are asked for.

    Raises CimcError where a count is below 1 or the seed is negative.
    """
    if train < 1 or test < 1:
        raise CimcError(f"digits: {train} training and {test} test images asked for: ask for at least 1 of each")
    if seed < 0:
        raise CimcError(f"digits: seed {seed} is negative: give a seed of 0 or more")
    x_train, y_train = _draw_set(train, np.random.default_rng([seed, 0]))
    x_test, y_test = _draw_set(test, np.random.default_rng([seed, 1]))
    return x_train, y_train, x_test, y_test


def _draw_set(count: int, rng: np.random.Generator) -> tuple[NDArray[np.uint8], NDArray[np.int32]]:
    """Draw `count` images (count, 1, 28, 28) with their labels (count,)."""
    labels = rng.permutation(np.arange(count, dtype=np.int32) % CLASSES)
    images = np.empty((count, 1, SIZE, SIZE), np.uint8)
    for start in range(0, count, _CHUNK):
        part = slice(start, start + _CHUNK)
        images[part, 0] = _render(*_place(labels[part], rng), rng)
    return images, labels


def _uniform(rng: np.random.Generator, low: float, high: float, shape: int | tuple[int, ...]) -> Floats:
    return rng.random(shape, np.float32) * np.float32(high - low) + np.float32(low)


def _place(labels: NDArray[np.int32], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Choose a style for each label and distort it: points (N, P, 2) as x, y in pixels, and pixels per point (N,)."""
    points, lengths, first, styles = _templates()
    count = len(labels)
    style = first[labels] + (rng.random(count) * styles[labels]).astype(np.int64)
    shape = _warp(points[style], rng)

    angle = np.clip(rng.normal(0.0, 0.16, count), -0.4, 0.4).astype(np.float32)
    shear = np.clip(rng.normal(0.12, 0.22, count), -0.4, 0.6).astype(np.float32)
    height = _HEIGHT * _uniform(rng, 0.8, 1.1, count)
    width = height * _uniform(rng, 0.72, 1.1, count)
    x, y = shape[..., 0] * width[:, None], shape[..., 1] * height[:, None]
    x = x - shear[:, None] * y
    cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]
    placed = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
    shift = np.clip(rng.normal(0.0, 1.0, (count, 1, 2)), -2.5, 2.5).astype(np.float32)
    placed += (SIZE - 1) / 2 - placed.mean(axis=1, keepdims=True) + shift
    return placed, lengths[style] * np.sqrt(width * height) / _POINTS


def _warp(points: Floats, rng: np.random.Generator) -> Floats:
    """Bend the unit-size points (N, P, 2) by two slow waves, as an unsteady hand does."""
    count = len(points)
    bent = points.copy()
    for waves, size in ((0.6, 0.07), (1.3, 0.03)):
        direction = rng.normal(0.0, 2 * np.pi * waves, (count, 2, 2)).astype(np.float32)
        phase = _uniform(rng, 0.0, 2 * np.pi, (count, 1, 2))
        amount = rng.normal(0.0, size, (count, 1, 2)).astype(np.float32)
        bent += amount * np.sin(points @ direction + phase)
    return bent


def _render(points: Floats, spacing: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw points (N, P, 2), `spacing` (N,) pixels apart, as strokes: uint8 (N, 28, 28)."""
    count = len(points)
    sigma = _uniform(rng, 0.75, 1.35, count)
    ink = _splat(points) * (spacing / (np.sqrt(2 * np.pi) * sigma))[:, None, None]
    # A line of points seen through a Gaussian of the stroke's width peaks at 1 and falls to 1/2 at its edge.
    pixel = np.arange(SIZE, dtype=np.float32)
    blur = np.exp(-0.5 * ((pixel[:, None] - pixel)[None] / sigma[:, None, None]) ** 2)
    ink = blur @ (ink * sigma[:, None, None] / _column_weight(sigma)[:, None, None]) @ blur
    softness = _uniform(rng, 0.35, 0.75, count)[:, None, None]
    ink = np.clip((ink - 0.5) / softness + 0.5, 0.0, 1.0)

    brightness = _uniform(rng, 0.6, 1.0, count)[:, None, None]
    noise = rng.standard_normal(ink.shape, np.float32) * _uniform(rng, 0.0, 0.06, count)[:, None, None]
    return (np.clip(ink * brightness + noise, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
