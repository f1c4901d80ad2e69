"""The Python API beyond compiling (`cimc.compiler`): one function a command, files in and files out."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import onnx_ir as ir

from cimc.artifact import Artifact, read_artifact
from cimc.checkpoint import load_run, save_run
from cimc.chip import chip_text, parse_chip
from cimc.data import Dataset
from cimc.errors import CimcError
from cimc.files import require_different, require_writable
from cimc.package import Package, read_package, write_package
from cimc.training_figures import training_figures
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.set_constants import set_constants
from runtime.calibration import calibrate
from runtime.deploy import Deployment
from runtime.deploy import deploy as deploy_program
from runtime.evaluate import accuracy, check_data, images_for, logits
from runtime.keys import new_key
from runtime.network import load_network
from runtime.options import TrainingOptions
from runtime.program import program_of, with_program
from runtime.state import State, System, build_system, initial_state, program, read_back, restore_state
from runtime.train import Run, calibration_index, start
from runtime.train import train as train_run
from runtime.xla import use_compilation_cache

# Called with the units done, of how many.
Progress = Callable[[int, int], None]

# Reads of every device at export: their mean leaves a quarter of the read noise.
EXPORT_READS = 16


def train(
    source: Path,
    data: Dataset,
    options: TrainingOptions,
    output: Path,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    progress: Callable[[Run, int], None] = lambda run, total: None,
) -> tuple[Run, dict[str, Any]]:
    """Train a `.cim` file on its arrays and write the trained one; while training goes on, it holds the checkpoint.

    Args:
        source: compiled, or trained (training goes on from its devices with a new optimiser).
        data: training and test set.
        options: of the run.
        output: the trained `.cim`.
        resume: go on from the checkpoint in `output` if there is one; the end is the same to the bit.
        checkpoint_seconds: time between checkpoints within an epoch.
        progress: called every few steps with the run and its number of steps.

    Returns:
        The run and its closing figures (JSON values).
    """
    use_compilation_cache()
    artifact = read_artifact(source)
    require_different(source, output)
    require_writable(output)
    system, state, programmed = _load(artifact, source, options)
    if not programmed:
        state = with_program(state, program_of(system, state, for_training=True))
    check_data(system, state, data, artifact.mapping.input_range)
    run = start(system, state, options, programmed)
    if resume and Path(output).exists():
        run = load_run(read_artifact(output), run, artifact, options, data, output)

    def save(run: Run, total: int) -> None:
        closing = training_figures(artifact, run, options) if run.step == total else None
        save_run(output, artifact, run, total, options, data, system, figures=closing)

    run = train_run(system, run, options, data, save, checkpoint_seconds, progress)
    return run, training_figures(artifact, run, options)


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
    system, state, programmed = _load(artifact, source)
    check_data(system, state, data, artifact.mapping.input_range)
    images = images_for(system, data.x_test, data)
    program_key, calibration_key, read_key = jax.random.split(new_key(seed), 3)
    if not programmed:
        state, _ = program(system, with_program(state, program_of(system, state)), program_key)
        index = calibration_index(seed, len(data.x_train))
        samples = jnp.asarray(images_for(system, data.x_train[index], data))
        state = calibrate(system, state, samples, data.scale, calibration_key)
    began = time.perf_counter()
    key = read_key if noise and not exact else None
    outputs = logits(system, state, images, data.scale, key, exact, lambda done: progress(done, len(images)))
    seconds = time.perf_counter() - began
    return {"accuracy": accuracy(outputs, data.y_test), "images_per_s": len(images) / seconds}


def export(
    source: Path,
    chip: str | None,
    output: Path,
    data: Dataset | None = None,
    weights: Literal["devices", "digital"] = "devices",
    seed: int = 0,
) -> Package:
    """Remap a `.cim` file's weights to an inference chip and write the package to program it.

    Args:
        source: trained, or compiled (then `data` is needed to set the input ranges).
        chip: name or path; None: the chip it was compiled for.
        output: the package folder.
        data: set the input ranges on its training images rather than on those kept in the `.cim`.
        weights: of a network trained on arrays: those of its devices, read 16 times, or the digital copy. The network
            has learnt around the errors of its devices, which the digital copy does not hold.
        seed: of the noise of reads and calibration.
    """
    use_compilation_cache()
    artifact = read_artifact(source)
    text = artifact.chip_text if chip is None else chip_text(chip)
    target = parse_chip(text, chip or str(source))
    lowered = artifact.network
    mapping = artifact.mapping if chip is None else map_network(lowered, target, artifact.mapping.input_range)
    system = build_system(load_network(artifact.network), mapping, target)
    trained_on, state, programmed = _load(artifact, source)
    if programmed and weights == "devices":
        state = read_back(trained_on, state, jax.random.fold_in(new_key(seed), 1), EXPORT_READS)
    if data is not None:
        images = images_for(system, data.x_train[calibration_index(seed, len(data.x_train))], data)
        scale = data.scale
    elif "calibration/images" in artifact.state:
        images, scale = artifact.state["calibration/images"], float(artifact.history["scale"])
    else:
        raise CimcError(f"{source} was never trained, so its input ranges are not known; add --data to set them")
    state = with_program(state, program_of(system, state))
    state = calibrate(system, state, jnp.asarray(images), scale, new_key(seed))
    result = program_of(system, state)
    constants = {node.inputs[1]: state["weight"][node.name] for node in system.network.layers()}
    package = Package(
        model=artifact.model,
        chip=target,
        chip_text=text,
        mapping=mapping,
        program=result,
        network=ir.to_proto(set_constants(lowered, {**constants, **result.digital})).SerializeToString(),
        chip_network=ir.to_proto(chip_network(lowered, mapping, target, result)).SerializeToString(),
        notes={"trained_on": artifact.chip.name, "training": artifact.history.get("options", {})},
    )
    write_package(output, package)
    return package


def deploy(
    folder: Path,
    data: Dataset,
    chips: int = 20,
    seed: int = 0,
    required: float = 0.99,
    baseline: float | None = None,
    progress: Progress = lambda done, total: None,
) -> Deployment:
    """Program virtual chips with a package and measure their accuracy on the test set (see `runtime.deploy`)."""
    use_compilation_cache()
    package = read_package(folder)
    system = build_system(load_network(package.network), package.mapping, package.chip)
    check_data(system, initial_state(system), data, package.mapping.input_range)
    total = chips * len(data.x_test)
    return deploy_program(
        system, package.program, data, chips, seed, required, baseline, lambda done: progress(done, total)
    )


def _load(artifact: Artifact, source: Path, options: TrainingOptions | None = None) -> tuple[System, State, bool]:
    """System and state of a `.cim` file, and whether its devices hold the weights yet."""
    backward = "digital" if options is None else options.policy.backward
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip, backward)
    state = restore_state(system, artifact.state, str(source))
    programmed = bool(artifact.state) and artifact.history["options"]["policy"]["method"] != "float"
    return system, state, programmed
