"""Accuracy of a network on its arrays, or exactly."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.dataset import Dataset, Preprocess
from cimc.errors import CimcError
from runtime.crossbar.xla import jit
from runtime.network.run import run_network
from runtime.system.inputs import check_tokens, input_bounds
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System

BATCH = 500


def images_for(system: System, images: np.ndarray, data: Dataset) -> np.ndarray:
    """The images in the shape of the network's input. Raises CimcError when they do not have as many values."""
    shape = system.network.image_shape
    # Axes of size 1 may differ, and a flat side takes any: no other reordering is guessed (such as channels last).
    flat = len(shape) == 1 or images.ndim == 2
    same = [n for n in shape if n != 1] == [n for n in images.shape[1:] if n != 1]
    if int(np.prod(shape)) != int(np.prod(images.shape[1:])) or not (flat or same):
        raise CimcError(
            f"{data.name} has images of {'x'.join(map(str, images.shape[1:]))} but the network takes "
            f"{'x'.join(map(str, shape))}; choose data of that shape"
        )
    return images.reshape(len(images), *shape)


def check_data(system: System, state: State, data: Dataset, input_range: tuple[float, float]) -> None:
    """Raises CimcError when the data does not fit the network: image size, negative values, labels."""
    sample = images_for(system, data.test.inputs[""][:1], data)
    least = min(input_bounds(part.inputs[""], data.preprocess)[0] for part in (data.train, data.test))
    if least < min(input_range[0], 0.0):
        raise CimcError(
            f"{data.name} has values down to {least:.3g} but the network was compiled for inputs from "
            f"{input_range[0]:g}; compile it with --input-range LOW,HIGH"
        )
    for part in (data.train, data.test):
        check_tokens({system.network.input: part.inputs[""]}, system.network.tokens)
    output = jax.eval_shape(lambda s: outputs_of(system, s, jnp.asarray(sample), data.preprocess, None, True), state)
    if len(output.shape) != 2:
        raise CimcError(f"the network's output has shape {output.shape}; classification needs [images, classes]")
    if (data.classes or 0) > output.shape[1]:
        raise CimcError(
            f"{data.name} has {data.classes} classes but the network has {output.shape[1]} outputs; "
            "choose data with fewer labels or a network with more outputs"
        )


def network_input(system: System, images: Array, preprocess: Preprocess) -> Array:
    """Stored images [N, ...] as the network takes them: by `preprocess`, or as they are where it takes integers."""
    if system.network.input_types[system.network.input].kind in "iu":
        return images.astype(jnp.int32)
    x: Array = preprocess.apply(images)
    return x


def outputs_of(
    system: System, state: State, images: Array, preprocess: Preprocess, key: Array | None, exact: bool = False
) -> Array:
    """Network outputs [N, classes] for stored images [N, ...] by `preprocess`; on the arrays unless `exact`."""
    x = network_input(system, images, preprocess)
    product = exact_product(system, state) if exact else array_product(system, state)
    return run_network(system.network, x, product, state["digital"], state["statistics"], key)[0]


predict = jit(outputs_of, static_argnums=(0, 3, 5))


def logits(
    system: System,
    state: State,
    images: np.ndarray,
    preprocess: Preprocess,
    key: Array | None,
    exact: bool = False,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Outputs for any number of images [N, ...], in batches of 500. key None: no noise. progress: images done."""
    outputs = []
    for start in range(0, len(images), BATCH):
        batch = images[start : start + BATCH]
        padded = jax.device_put(pad_batch(batch))
        batch_key = None if key is None else jax.random.fold_in(key, start)
        outputs.append(np.asarray(predict(system, state, padded, preprocess, batch_key, exact))[: len(batch)])
        if progress:
            progress(start + len(batch))
    return np.concatenate(outputs)


def pad_batch(batch: np.ndarray) -> np.ndarray:
    """The images [n, ...] and zeros up to 500, so that the last batch needs no compilation of its own."""
    return np.concatenate([batch, np.zeros((BATCH - len(batch), *batch.shape[1:]), batch.dtype)])


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Fraction of the outputs [N, classes] whose largest entry is at the label [N].

    Raises:
        CimcError: the outputs hold NaN.
    """
    if not np.isfinite(outputs).all():
        raise CimcError("the network's output holds NaN or infinity; lower the learning rate or check the weights")
    return float(np.mean(np.argmax(outputs, axis=1) == labels))
