"""Accuracy of a network on its arrays, or exactly."""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.dataset import Dataset, Preprocess
from cimc.errors import CimcError
from runtime.crossbar.xla import jit
from runtime.network.run import run_network
from runtime.system.inputs import check_tokens, input_bounds, input_shapes, network_inputs
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
    feeds = {system.network.input: jnp.asarray(sample)}
    outputs = jax.eval_shape(lambda s: outputs_of(system, s, feeds, data.preprocess, None, True), state)
    (output,) = outputs.values()
    if len(output.shape) != 2:
        raise CimcError(f"the network's output has shape {output.shape}; classification needs [images, classes]")
    if (data.classes or 0) > output.shape[1]:
        raise CimcError(
            f"{data.name} has {data.classes} classes but the network has {output.shape[1]} outputs; "
            "choose data with fewer labels or a network with more outputs"
        )


def outputs_of(
    system: System,
    state: State,
    stored: Mapping[str, Array],
    preprocess: Preprocess,
    key: Array | None,
    exact: bool = False,
) -> dict[str, Array]:
    """Logits [N, ...] by output for stored inputs [N, ...] by name; on the arrays unless `exact`."""
    feeds = network_inputs(stored, input_shapes(system.network), preprocess)
    product = exact_product(system, state) if exact else array_product(system, state)
    return run_network(system.network, feeds, product, state["digital"], state["statistics"], key)[0]


predict = jit(outputs_of, static_argnums=(0, 3, 5))


def logits(
    system: System,
    state: State,
    stored: Mapping[str, np.ndarray],
    preprocess: Preprocess,
    key: Array | None,
    exact: bool = False,
    progress: Callable[[int], None] | None = None,
) -> dict[str, np.ndarray]:
    """Logits by output for any number of samples, in batches of 500. key None: no noise. progress: samples done."""
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in system.network.logits}
    samples = len(next(iter(stored.values())))
    for start in range(0, samples, BATCH):
        padded = {name: jax.device_put(pad_batch(array[start : start + BATCH])) for name, array in stored.items()}
        done = min(start + BATCH, samples)
        batch_key = None if key is None else jax.random.fold_in(key, start)
        computed = predict(system, state, padded, preprocess, batch_key, exact)
        for name, parts in outputs.items():
            parts.append(np.asarray(computed[name])[: done - start])
        if progress:
            progress(done)
    return {name: np.concatenate(parts) for name, parts in outputs.items()}


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
