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
    placed: Floats = np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
    shift = np.clip(rng.normal(0.0, 1.0, (count, 1, 2)), -2.5, 2.5).astype(np.float32)
    placed += (SIZE - 1) / 2 - placed.mean(axis=1, keepdims=True) + shift
    spacing: Floats = lengths[style] * np.sqrt(width * height) / np.float32(_POINTS)
    return placed, spacing


def _warp(points: Floats, rng: np.random.Generator) -> Floats:
    """Bend the unit-size points (N, P, 2) by two slow waves, as an unsteady hand does."""
    count = len(points)
    bent = points.copy()
    for waves, size in ((0.5, 0.05), (1.0, 0.012)):
        direction = rng.normal(0.0, 2 * np.pi * waves, (count, 2, 2)).astype(np.float32)
        phase = _uniform(rng, 0.0, 2 * np.pi, (count, 1, 2))
        amount = rng.normal(0.0, size, (count, 1, 2)).astype(np.float32)
        bent += amount * np.sin(points @ direction + phase)
    return bent


def _render(points: Floats, spacing: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Draw points (N, P, 2), `spacing` (N,) pixels apart, as strokes: uint8 (N, 28, 28)."""
    count = len(points)
    sigma = _uniform(rng, 0.7, 1.3, count)[:, None, None]
    # Points in a row seen through a Gaussian this high peak at 1 on the stroke and fall to 1/2 at 1.18 sigma beside it.
    gain = spacing[:, None, None] / (np.float32(np.sqrt(2 * np.pi)) * sigma)
    pixel = np.arange(SIZE, dtype=np.float32)
    blur = np.exp(-0.5 * ((pixel[:, None] - pixel) / sigma) ** 2)
    ink = blur @ (_splat(points) * gain) @ blur
    softness = _uniform(rng, 0.35, 0.75, count)[:, None, None]
    ink = np.clip((ink - 0.5) / softness + 0.5, 0.0, 1.0)

    brightness = _uniform(rng, 0.6, 1.0, count)[:, None, None]
    noise = rng.standard_normal(ink.shape, np.float32) * _uniform(rng, 0.0, 0.06, count)[:, None, None]
    image: NDArray[np.uint8] = (np.clip(ink * brightness + noise, 0.0, 1.0) * 255 + 0.5).astype(np.uint8)
    return image


def _splat(points: Floats) -> Floats:
    """Add a weight of 1 per point (N, P, 2), shared by its four neighbour pixels: (N, 28, 28), rows are y."""
    count = len(points)
    inside = np.clip(points, 0.0, SIZE - 1.001)
    corner = inside.astype(np.int64)
    x1, y1 = np.moveaxis(inside - corner, -1, 0)
    first = corner[..., 1] * SIZE + corner[..., 0] + np.arange(count)[:, None] * SIZE**2
    total = np.zeros(count * SIZE**2)
    for step, weight in ((0, (1 - x1) * (1 - y1)), (1, x1 * (1 - y1)), (SIZE, (1 - x1) * y1), (SIZE + 1, x1 * y1)):
        total += np.bincount((first + step).ravel(), weight.ravel(), len(total))
    return total.reshape(count, SIZE, SIZE).astype(np.float32)


@cache
def _templates() -> tuple[Floats, Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Sample every style: points (S, P, 2), stroke lengths (S,), and per digit its first style and number of styles."""
    sampled, lengths = [], []
    for strokes in (style() for styles in _STYLES for style in styles):
        points, length = _sample(strokes)
        sampled.append(points - points.mean(axis=0))
        lengths.append(length)
    styles = np.array([len(of_digit) for of_digit in _STYLES])
    return np.array(sampled, np.float32), np.array(lengths, np.float32), np.cumsum(styles) - styles, styles


def _sample(strokes: list[Stroke]) -> tuple[Stroke, float]:
    """Spread the points evenly over the strokes, none in the gaps between them; also return the strokes' length."""
    start = np.concatenate([stroke[:-1] for stroke in strokes])
    step = np.concatenate([np.diff(stroke, axis=0) for stroke in strokes])
    end_at = np.cumsum(np.hypot(*step.T))
    at = (np.arange(_POINTS) + 0.5) / _POINTS * end_at[-1]
    segment = np.searchsorted(end_at, at)
    length = np.diff(end_at, prepend=0.0)[segment]
    part = 1 - (end_at[segment] - at) / length
    return start[segment] + part[:, None] * step[segment], float(end_at[-1])


def _line(*points: tuple[float, float]) -> Stroke:
    """Straight pieces through points (x, y) of the unit square, y downwards."""
    return np.array(points)


def _curve(*points: tuple[float, float]) -> Stroke:
    """Run a smooth (Catmull-Rom) curve through points (x, y) of the unit square, y downwards."""
    knots = np.array(points)
    padded = np.concatenate([2 * knots[:1] - knots[1:2], knots, 2 * knots[-1:] - knots[-2:-1]])
    t = np.linspace(0, 1, 12, endpoint=False)[:, None]
    pieces = []
    for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False):
        pieces.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return np.concatenate([*pieces, knots[-1:]])


def _oval(x: float, y: float, width: float, height: float, start: float = 0.0, turn: float = 360.0) -> Stroke:
    """Draw an elliptic arc around (x, y) from `start` over `turn` degrees; 0 is to the right, positive is clockwise."""
    angle = np.radians(start + np.linspace(0, turn, 40))
    return np.stack([x + width / 2 * np.cos(angle), y + height / 2 * np.sin(angle)], axis=1)


# How each digit is written: its styles, each a list of strokes in the unit square (x to the right, y downwards).
_STYLES: list[list[Callable[[], list[Stroke]]]] = [
    [
        lambda: [_oval(0.5, 0.5, 0.74, 1.0)],
        lambda: [_oval(0.5, 0.5, 0.5, 1.0)],
        lambda: [
            _curve(
                (0.7, 0.1), (0.45, 0.0), (0.17, 0.4), (0.3, 0.93), (0.68, 0.9), (0.85, 0.45), (0.6, 0.08), (0.4, 0.1)
            )
        ],
    ],
    [
        lambda: [_line((0.5, 0.0), (0.5, 1.0))],
        lambda: [_line((0.28, 0.24), (0.54, 0.0), (0.54, 1.0))],
        lambda: [_line((0.3, 0.2), (0.52, 0.0), (0.52, 1.0)), _line((0.25, 1.0), (0.8, 1.0))],
    ],
    [
        lambda: [
            _curve((0.15, 0.25), (0.3, 0.04), (0.62, 0.02), (0.8, 0.25), (0.6, 0.6), (0.14, 1.0)),
            _line((0.14, 1.0), (0.9, 0.98)),
        ],
        lambda: [
            _curve(
                (0.15, 0.2),
                (0.4, 0.0),
                (0.72, 0.12),
                (0.68, 0.45),
                (0.38, 0.86),
                (0.14, 0.97),
                (0.14, 0.8),
                (0.45, 0.86),
                (0.92, 0.97),
            )
        ],
        lambda: [_line((0.15, 0.08), (0.8, 0.05), (0.15, 0.97), (0.88, 0.97))],
    ],
    [
        lambda: [
            _curve((0.15, 0.12), (0.48, 0.0), (0.78, 0.2), (0.65, 0.41), (0.38, 0.48)),
            _curve((0.38, 0.48), (0.74, 0.56), (0.84, 0.78), (0.52, 1.0), (0.12, 0.88)),
        ],
        lambda: [
            _line((0.16, 0.03), (0.8, 0.03), (0.44, 0.4)),
            _curve((0.44, 0.4), (0.8, 0.52), (0.82, 0.84), (0.48, 1.0), (0.12, 0.88)),
        ],
        lambda: [
            _curve(
                (0.2, 0.08),
                (0.6, 0.0),
                (0.74, 0.2),
                (0.45, 0.46),
                (0.4, 0.5),
                (0.74, 0.62),
                (0.68, 0.92),
                (0.3, 1.0),
                (0.1, 0.9),
            )
        ],
    ],
    [
        lambda: [_line((0.2, 0.0), (0.14, 0.55), (0.86, 0.52)), _line((0.74, 0.08), (0.68, 1.0))],
        lambda: [_line((0.7, 1.0), (0.7, 0.0), (0.1, 0.66), (0.94, 0.66))],
        lambda: [_curve((0.22, 0.02), (0.16, 0.42), (0.4, 0.55), (0.76, 0.44)), _line((0.82, 0.02), (0.72, 1.0))],
    ],
    [
        lambda: [
            _line((0.82, 0.02), (0.26, 0.02), (0.2, 0.45)),
            _curve((0.2, 0.45), (0.56, 0.36), (0.84, 0.64), (0.62, 0.96), (0.14, 0.92)),
        ],
        lambda: [
            _curve((0.34, 0.03), (0.24, 0.4), (0.6, 0.48), (0.76, 0.75), (0.5, 1.0), (0.15, 0.9)),
            _line((0.34, 0.03), (0.88, 0.0)),
        ],
        lambda: [
            _curve((0.85, 0.04), (0.45, 0.06), (0.25, 0.28), (0.62, 0.55), (0.68, 0.85), (0.35, 1.0), (0.12, 0.86))
        ],
    ],
    [
        lambda: [
            _curve(
                (0.72, 0.0),
                (0.36, 0.25),
                (0.17, 0.66),
                (0.36, 0.98),
                (0.72, 0.92),
                (0.8, 0.68),
                (0.54, 0.52),
                (0.22, 0.7),
            )
        ],
        lambda: [_line((0.4, 0.0), (0.2, 0.68)), _oval(0.48, 0.74, 0.58, 0.52)],
        lambda: [
            _curve((0.8, 0.1), (0.5, 0.02), (0.2, 0.4), (0.22, 0.85), (0.5, 1.0), (0.74, 0.8), (0.6, 0.56), (0.3, 0.62))
        ],
    ],
    [
        lambda: [_line((0.12, 0.03), (0.86, 0.03), (0.4, 1.0))],
        lambda: [_line((0.12, 0.03), (0.86, 0.03), (0.4, 1.0)), _line((0.36, 0.5), (0.82, 0.48))],
        lambda: [_curve((0.1, 0.2), (0.16, 0.05), (0.5, 0.08), (0.84, 0.04), (0.62, 0.45), (0.48, 1.0))],
    ],
    [
        lambda: [_oval(0.5, 0.24, 0.5, 0.48), _oval(0.5, 0.74, 0.62, 0.52)],
        lambda: [
            _curve(
                (0.76, 0.14),
                (0.5, 0.0),
                (0.25, 0.2),
                (0.5, 0.46),
                (0.78, 0.76),
                (0.5, 1.0),
                (0.2, 0.78),
                (0.5, 0.46),
                (0.74, 0.26),
                (0.76, 0.14),
            )
        ],
        lambda: [
            _curve(
                (0.82, 0.06),
                (0.4, 0.04),
                (0.3, 0.26),
                (0.66, 0.64),
                (0.6, 0.96),
                (0.3, 0.94),
                (0.32, 0.66),
                (0.6, 0.4),
                (0.84, 0.1),
            )
        ],
    ],
    [
        lambda: [_oval(0.48, 0.27, 0.58, 0.54), _line((0.77, 0.27), (0.7, 1.0))],
        lambda: [_oval(0.48, 0.27, 0.58, 0.54), _curve((0.77, 0.27), (0.78, 0.7), (0.52, 1.0), (0.18, 0.92))],
        lambda: [
            _curve((0.8, 0.1), (0.5, 0.0), (0.2, 0.25), (0.4, 0.5), (0.75, 0.3), (0.8, 0.1)),
            _line((0.8, 0.08), (0.58, 1.0)),
        ],
    ],
]
