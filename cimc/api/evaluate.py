"""Accuracy of a `.cim` file."""

import time
from pathlib import Path

import jax
import jax.numpy as jnp

from cimc.api.progress import Progress, silent
from cimc.api.sources import artifact_of
from cimc.api.system_of import state_of, system_of
from cimc.artifact import Artifact
from cimc.dataset import Dataset
from cimc.options import check_whole
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.system.calibration import calibrate, calibration_index
from runtime.system.evaluate import accuracy, check_data, images_for, logits
from runtime.system.state import program
from runtime.system.weight_range import best_weight_range


def evaluate(
    source: str | Path | Artifact,
    data: Dataset,
    *,
    exact: bool = False,
    noise: bool = True,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, float]:
    """Accuracy of a `.cim` file on the test set: on its arrays, without noise, or exactly (float32, no arrays).

    Weights that were never on the arrays are programmed first, and input ranges set on training images.

    Args:
        source: a compiled or trained `.cim` file, or its contents.
        data: the test set is used, and the training set of a network whose input ranges are not known yet.
        exact: float32 products, no arrays.
        noise: that of reads and converters.
        seed: of programming, calibration and noise.
        progress: called with the images done, of how many.

    Returns:
        accuracy, a fraction, and images_per_s.

    Raises:
        CimcError: the file or the data do not fit, or the chip is not simulated.
    """
    seed = check_whole("seed", seed, 0)
    use_compilation_cache()
    artifact, name = artifact_of(source)
    system = system_of(artifact)
    state, programmed = state_of(artifact, system, name, weight_range=best_weight_range)
    check_data(system, state, data, artifact.mapping.input_range)
    labels = data.test.labels_of()
    assert labels is not None
    images = images_for(system, data.test.inputs[""], data)
    program_key, calibration_key, read_key = jax.random.split(new_key(seed), 3)
    if not programmed:
        state, _ = program(system, state, program_key)
        index = calibration_index(seed, len(data.train))
        samples = jnp.asarray(images_for(system, data.train.inputs[""][index], data))
        state = calibrate(system, state, {system.network.input: samples}, data.preprocess, calibration_key)
    began = time.perf_counter()
    key = read_key if noise and not exact else None
    feeds = {system.network.input: images}
    (outputs,) = logits(
        system, state, feeds, data.preprocess, key, exact, lambda done: progress(done, len(images))
    ).values()
    seconds = time.perf_counter() - began
    return {"accuracy": accuracy(outputs, labels), "images_per_s": len(images) / seconds}
