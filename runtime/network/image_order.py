"""Where the images lie. In ONNX they come first, [N, C, *spatial]; between the layers here they come last,
[C, *spatial, N], as the sums of the arrays come. Patches, pooling and their gradients then copy and compare whole runs
of images, which XLA's CPU compiler vectorises, and flattening for a matrix product moves nothing.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.window import Window
from runtime.network.operators.pooling import POOLS

# Operators that treat images and channels alike.
_ANY_LAYOUT = frozenset(
    [
        "Abs",
        "Add",
        "Clip",
        "Dropout",
        "Elu",
        "Erf",
        "Exp",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Mish",
        "Mul",
        "Neg",
        "Relu",
        "Selu",
        "Sigmoid",
        "Softplus",
        "Sub",
        "Swish",
        "Tanh",
        *POOLS,
    ]
)


def images_last(x: Any) -> Array:
    """[N, ...] -> [..., N]."""
    return jnp.moveaxis(jnp.asarray(x), 0, -1)


def images_first(x: Array) -> Array:
    """[..., N] -> [N, ...]."""
    return jnp.moveaxis(x, -1, 0)


def layer_input(x: Any, window: Window | None, last: bool) -> Array:
    """A crossbar layer's input as its product takes it: [C, *spatial, N] or [rows, ...].

    Args:
        x: [N, C, *spatial] or [..., rows], or that with images last.
        window: the convolution window, or None for a matrix product.
        last: whether images are last.
    """
    if window is not None:
        return x if last else images_last(x)
    if last and x.ndim == 2:
        return x
    return jnp.moveaxis(images_first(x) if last else jnp.asarray(x), -1, 0)


def layer_result(y: Array, window: Window | None) -> tuple[Array, bool]:
    """A product's [columns, ...] as the network's value, and whether images are last in it."""
    if window is not None or y.ndim == 2:
        return y, True
    return jnp.moveaxis(y, 0, -1), False


def keeps_images_last(operator: str, inputs: Sequence[str], values: Mapping[str, Any], last: set[str]) -> bool:
    """Whether a digital operator can be executed with images last: all its arrays lie so, and it does not mind."""
    if operator == "BatchNormalization":
        return inputs[0] in last
    if operator not in _ANY_LAYOUT:
        return False
    arrays = [name for name in inputs if name and np.ndim(values[name]) > 0]
    return last.issuperset(arrays) and len({np.ndim(values[name]) for name in arrays}) == 1


def flattens(
    operator: str, attributes: Mapping[str, Any], inputs: Sequence[str], values: Mapping[str, Any], last: set[str]
) -> bool:
    """Whether a node gives [N, all the rest] of a value that has images last."""
    if operator not in ("Flatten", "Reshape") or inputs[0] not in last:
        return False
    if operator == "Flatten":
        return int(attributes.get("axis", 1)) == 1
    *rest, images = values[inputs[0]].shape
    target = values[inputs[1]]
    if not isinstance(target, np.ndarray) or target.size != 2:
        return False
    first, second = (int(size) for size in target)
    return (first in (0, images) and second in (-1, int(np.prod(rest)))) or (first, second) == (-1, int(np.prod(rest)))
