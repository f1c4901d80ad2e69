"""Products of values with each other, such as those of attention, and the gathering of overlapping patches."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cimc.window import Window
from runtime.crossbar.unfold import unfold
from runtime.network.operators.kinds import Attributes, Operators, given, static_ints, text


def _matmul(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.matmul(jnp.asarray(inputs[0]), jnp.asarray(inputs[1]))


def _gemm(inputs: Sequence[Any], attributes: Attributes) -> Array:
    a, b, c = jnp.asarray(inputs[0]), jnp.asarray(inputs[1]), given(inputs, 2)
    a = a.T if attributes.get("transA", 0) else a
    b = b.T if attributes.get("transB", 0) else b
    y = float(attributes.get("alpha", 1.0)) * (a @ b)
    return y if c is None else y + float(attributes.get("beta", 1.0)) * jnp.asarray(c)


def _einsum(inputs: Sequence[Any], attributes: Attributes) -> Array:
    return jnp.einsum(text(attributes, "equation", "").replace(" ", ""), *[jnp.asarray(x) for x in inputs])


def _col2im(inputs: Sequence[Any], attributes: Attributes) -> Array:
    """Sums of overlapping patches: the transpose of `unfold`."""
    x = jnp.asarray(inputs[0])
    image, block = (tuple(static_ints(inputs[i], "a size of a Col2Im")) for i in (1, 2))
    axes = len(image)
    ones = (1,) * axes
    window = Window(
        block,
        tuple(int(s) for s in attributes.get("strides", ones)),
        tuple(int(p) for p in attributes.get("pads", (0, 0) * axes)),
        tuple(int(d) for d in attributes.get("dilations", ones)),
    )
    batch, rows, _ = x.shape
    channels = rows
    for size in block:
        channels //= size
    zero = jnp.zeros((channels, *image, batch), x.dtype)
    vectors = jnp.moveaxis(x, 0, -1).reshape(rows, -1)
    (summed,) = jax.linear_transpose(lambda images: unfold(images, window), zero)(vectors)
    return jnp.moveaxis(summed, -1, 0)


PRODUCTS: Operators = {"Col2Im": _col2im, "Einsum": _einsum, "Gemm": _gemm, "MatMul": _matmul}
