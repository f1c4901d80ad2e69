"""Accuracy of a `.cim` file."""

import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp

from cimc.api.system_of import state_of, system_of
from cimc.artifact import read_artifact
from cimc.dataset import Dataset
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.system.calibration import calibrate, calibration_index
from runtime.system.evaluate import accuracy, check_data, images_for, logits
from runtime.system.state import program
from runtime.system.weight_range import best_weight_range

# Called with the units done, of how many.
Progress = Callable[[int, int], None]


def evaluate(
    source: Path,
    data: Dataset,
    exact: bool = False,
    noise: bool = True,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> dict[str, float]:
    """Accuracy of a `.cim` file on the test set: on its arrays, without noise, or exactly (float32, no arrays).

    Weights that were never on the arrays are programmed first, and input ranges set on training images.
    """
    use_compilation_cache()
    artifact = read_artifact(source)
    system = system_of(artifact)
    state, programmed = state_of(artifact, system, source, best_weight_range)
    check_data(system, state, data, artifact.mapping.input_range)
    images = images_for(system, data.x_test, data)
    program_key, calibration_key, read_key = jax.random.split(new_key(seed), 3)
    if not programmed:
        state, _ = program(system, state, program_key)
        index = calibration_index(seed, len(data.x_train))
        samples = jnp.asarray(images_for(system, data.x_train[index], data))
        state = calibrate(system, state, samples, data.scale, calibration_key)
    began = time.perf_counter()
    key = read_key if noise and not exact else None
    outputs = logits(system, state, images, data.scale, key, exact, lambda done: progress(done, len(images)))
    seconds = time.perf_counter() - began
    return {"accuracy": accuracy(outputs, data.y_test), "images_per_s": len(images) / seconds}
