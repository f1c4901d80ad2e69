"""Logits of a network on its arrays, or exactly, compiled as a whole: for training."""

from collections.abc import Callable, Mapping

import jax
import numpy as np
from jax import Array

from cimc.dataset import Preprocess
from runtime.crossbar.xla import jit
from runtime.network.run import run_network
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.products import array_product, exact_product
from runtime.system.state import State, System

BATCH = 500


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
