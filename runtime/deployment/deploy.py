"""Deployment: virtual chips programmed with a package's targets, their accuracy, and the yield."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.dataset import Dataset, Preprocess
from cimc.program import Program
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import jit
from runtime.devices.device import device_of
from runtime.system.evaluate import BATCH, accuracy, images_for, logits, outputs_of, pad_batch
from runtime.system.program import with_program
from runtime.system.state import State, System, initial_state

POPULATION_BYTES = 1 << 28  # of the devices of all chips that are programmed at once


@dataclass(frozen=True)
class Deployment:
    """Result over virtual chips.

    accuracies: of every chip, a fraction. baseline_accuracy: of the reference network (by default the package's own
    weights, computed exactly). normalized: accuracies / baseline. yield_fraction: chips whose normalised accuracy is at
    least `required`.
    """

    accuracies: np.ndarray
    baseline_accuracy: float
    required: float

    @property
    def normalized(self) -> np.ndarray:
        """Accuracy of every chip over the baseline's."""
        return self.accuracies / max(self.baseline_accuracy, 1e-9)

    @property
    def yield_fraction(self) -> float:
        """Fraction of chips that reach the required normalised accuracy."""
        return float(np.mean(self.normalized >= self.required))


def deploy(
    system: System,
    program: Program,
    data: Dataset,
    chips: int,
    seed: int,
    required: float,
    baseline: float | None = None,
    progress: Callable[[int], None] = lambda images: None,
) -> Deployment:
    """Program virtual chips, each with its own programming errors and noise, and evaluate the test set on each.

    Args:
        system: the exported network on its chip.
        program: the package's program.
        data: the test set is used.
        chips: how many.
        seed: of all draws.
        required: normalised accuracy that a good chip reaches.
        baseline: accuracy to normalise by; None: the exact network's on the same images.
        progress: called with the images done on all chips so far.
    """
    state = with_program(initial_state(system, weight_range=None), program)
    stated = data.test.labels_of()
    assert stated is not None
    images = images_for(system, data.test.inputs[""], data)
    name, (output,) = system.network.input, system.network.logits
    if baseline is None:
        baseline = accuracy(logits(system, state, {name: images}, data.preprocess, None, exact=True)[output], stated)
    program_key, read_key = jax.random.split(new_key(seed))
    program_keys, correct, done = jax.random.split(program_key, chips), np.zeros(chips), 0
    at_once = chips_at_once(state)
    for first in range(0, chips, at_once):
        some = slice(first, first + at_once)
        population = program_chips(system, state, program_keys[some])
        for start in range(0, len(images), BATCH):
            batch = images[start : start + BATCH]
            keys = jax.random.split(jax.random.fold_in(read_key, start), chips)[some]
            labels = jnp.asarray(stated[start : start + BATCH])
            padded = jnp.asarray(pad_batch(batch))
            correct[some] += np.asarray(_correct(system, state, population, padded, labels, data.preprocess, keys))
            done += len(batch) * len(keys)
            progress(done)
    return Deployment(correct / len(images), baseline, required)


def chips_at_once(state: State) -> int:
    """How many chips are programmed before they are evaluated: memory is bounded by the network, not by the chips."""
    of_one = sum(array.nbytes for array in state["conductance"].values())
    return max(POPULATION_BYTES // max(of_one, 1), 1)


@partial(jit, static_argnums=0)
def program_chips(system: System, state: State, keys: Array) -> dict[str, Array]:
    """Conductances [chips, 2, rows, columns] of every layer, each chip written by write-verify with its own key."""
    device = device_of(system.chip.cell)

    def one(key: Array) -> dict[str, Array]:
        return {
            name: device.write(targets, jax.random.fold_in(key, index)).conductance
            for index, (name, targets) in enumerate(state["conductance"].items())
        }

    return jax.vmap(one)(keys)


@partial(jit, static_argnums=(0, 5))
def _correct(
    system: System,
    state: State,
    population: dict[str, Array],
    images: Array,
    labels: Array,
    preprocess: Preprocess,
    keys: Array,
) -> Array:
    """Right answers of every chip on a padded batch of images. One chip after the other: a chip fills the machine."""

    def one(chip: tuple[dict[str, Array], Array]) -> Array:
        conductance, key = chip
        feeds = {system.network.input: images}
        (outputs,) = outputs_of(system, {**state, "conductance": conductance}, feeds, preprocess, key).values()
        return jnp.sum(jnp.argmax(outputs[: len(labels)], axis=1) == labels)

    return jax.lax.map(one, (population, keys))


def summary(result: Deployment) -> dict[str, Any]:
    """The figures of a deployment as JSON values."""
    a, n = result.accuracies, result.normalized
    return {
        "chips": len(a),
        "accuracy": _distribution(a),
        "yield": result.yield_fraction,
        "required_normalized_accuracy": result.required,
        "baseline_accuracy": result.baseline_accuracy,
        "normalized_accuracy": _distribution(n),
        "accuracies": a.tolist(),
    }


def _distribution(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "min": float(np.min(values)),
        "p5": float(np.percentile(values, 5)),
        "median": float(np.median(values)),
    }
