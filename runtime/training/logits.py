"""The logits of a network in training, where it is compiled as a whole anyway."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax import Array

from cimc.dataset import Preprocess
from runtime.crossbar.figures import jit_with_figures
from runtime.network.run import run_network
from runtime.network.scan import Product
from runtime.system.inference import MOST_BYTES, batch_size
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.products import array_product
from runtime.system.state import State, System

BATCH = 500  # at most; where the values of so many take too much memory, fewer, by a rule that is the same everywhere


def outputs_of(
    system: System,
    state: State,
    stored: Mapping[str, Array],
    preprocess: Preprocess,
    key: Array | None,
    product: Callable[[System, State], Product] = array_product,
) -> dict[str, Array]:
    """Logits [N, ...] by output for stored inputs [N, ...] by name, with layers computed by `product`."""
    feeds = network_inputs(stored, input_shapes(system.network), preprocess)
    return run_network(system.network, feeds, product(system, state), state["digital"], state["statistics"], key)[0]


predict = jit_with_figures(static_argnums=(0, 3, 5))(outputs_of)


def logits(
    system: System,
    state: State,
    stored: Mapping[str, np.ndarray],
    preprocess: Preprocess,
    key: Array | None,
    product: Callable[[System, State], Product] = array_product,
) -> dict[str, np.ndarray]:
    """Logits by output for any number of samples, batch by batch. key None: no noise. product: computes the layers."""
    size = min(batch_size(system.network, MOST_BYTES), BATCH)
    outputs: dict[str, list[np.ndarray]] = {name: [] for name in system.network.logits}
    samples = len(next(iter(stored.values())))
    for start in range(0, samples, size):
        padded = {name: jax.device_put(_pad(array[start : start + size], size)) for name, array in stored.items()}
        done = min(start + size, samples)
        batch_key = None if key is None else jax.random.fold_in(key, start)
        computed = predict(system, state, padded, preprocess, batch_key, product)
        for name, parts in outputs.items():
            parts.append(np.asarray(computed[name])[: done - start])
    return {name: np.concatenate(parts) for name, parts in outputs.items()}


def _pad(batch: np.ndarray, size: int) -> np.ndarray:
    """The samples [n, ...] and zeros up to a full batch, so that the last one needs no compilation of its own."""
    return np.concatenate([batch, np.zeros((size - len(batch), *batch.shape[1:]), batch.dtype)])
