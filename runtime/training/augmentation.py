"""Data augmentation: images of a batch, changed at random each time that they are seen."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from cimc.errors import CimcError
from cimc.options import Augment
from runtime.network.network import Network
from runtime.training.losses import OutputLoss, Targets

PADDING = 4  # pixels that a crop moves an image by at most
CUTOUT_PART = 0.5  # of the height and of the width


def check_augmentation(
    wanted: Sequence[Augment], network: Network, losses: Sequence[OutputLoss], targets: Targets
) -> None:
    """Raise CimcError where the inputs are no images [N, C, height, width], or a label belongs to a place of one.

    Args:
        wanted: the augmentations.
        network: to train.
        losses: of its outputs.
        targets: of the training samples, by output.
    """
    if not wanted:
        return
    for name, sizes in network.inputs.items():
        if len(sizes) != 4 or None in sizes[1:] or network.input_types[name].kind != "f":
            raise CimcError(
                f"--augment changes images [N, C, height, width], and the network's input {name} is none; leave it out"
            )
    if len(network.inputs) > 1:
        raise CimcError("--augment is for networks of one image, and this one has several inputs; leave it out")
    for loss in losses:
        if targets[loss.output].ndim > 1 and targets[loss.output][0].size > 1:
            raise CimcError(
                f"--augment needs one label an image, and {loss.output} has more, which would not move with it; leave "
                "it out"
            )


def augment_images(wanted: Sequence[Augment], feeds: Mapping[str, Any], key: Array) -> dict[str, Any]:
    """The images [N, C, height, width], changed one after the other; what comes in from outside of them is 0."""
    changed = dict(feeds)
    for name, images in feeds.items():
        for number, augment in enumerate(Augment):  # a key for each, whichever others are wanted
            if augment in wanted:
                changed[name] = images = _AUGMENTATIONS[augment](images, jax.random.fold_in(key, number))
    return changed


def _crop(images: Array, key: Array) -> Array:
    """Moved by up to `PADDING` pixels in each direction."""
    count, _, height, width = images.shape
    padded = jnp.pad(images, ((0, 0), (0, 0), (PADDING, PADDING), (PADDING, PADDING)))
    offsets = jax.random.randint(key, (count, 2), 0, 2 * PADDING + 1)
    rows = offsets[:, 0, None] + jnp.arange(height)
    columns = offsets[:, 1, None] + jnp.arange(width)
    moved = jnp.take_along_axis(padded, rows[:, None, :, None], axis=2)
    return jnp.take_along_axis(moved, columns[:, None, None, :], axis=3)


def _flip(images: Array, key: Array) -> Array:
    """Left and right swapped in half of them."""
    return jnp.where(jax.random.bernoulli(key, 0.5, (len(images), 1, 1, 1)), images[..., ::-1], images)


def _cutout(images: Array, key: Array) -> Array:
    """0 in a rectangle around a random pixel, as far as it lies in the image (DeVries and Taylor, arXiv 1708.04552)."""
    count, _, *sizes = images.shape
    inside = []
    for axis, size in enumerate(sizes):
        side = int(size * CUTOUT_PART)
        centre = jax.random.randint(jax.random.fold_in(key, axis), (count, 1), 0, size)
        distance = jnp.arange(size) - (centre - side // 2)
        inside.append((distance >= 0) & (distance < side))
    return jnp.where((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0, images)


_AUGMENTATIONS: dict[Augment, Callable[[Array, Array], Array]] = {
    Augment.crop: _crop,
    Augment.flip: _flip,
    Augment.cutout: _cutout,
}
