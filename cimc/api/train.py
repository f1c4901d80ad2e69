"""Train a `.cim` file on its arrays."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cimc.api.checkpoint import load_run, save_run
from cimc.api.system_of import state_of, system_of
from cimc.api.training_figures import training_figures
from cimc.artifact import read_artifact
from cimc.dataset import Dataset
from cimc.files import require_different, require_writable
from runtime.crossbar.xla import use_compilation_cache
from runtime.system.evaluate import check_data
from runtime.system.weight_range import training_weight_range
from runtime.training.options import TrainingOptions
from runtime.training.train import Run, start
from runtime.training.train import train as train_run


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
    system = system_of(artifact, options.policy.backward)
    state, programmed = state_of(artifact, system, source, training_weight_range)
    check_data(system, state, data, artifact.mapping.input_range)
    run = start(system, state, options, programmed)
    if resume and Path(output).exists():
        run = load_run(read_artifact(output), run, artifact, options, data, output)

    def save(run: Run, total: int) -> None:
        closing = training_figures(artifact, run, options) if run.step == total else None
        save_run(output, artifact, run, total, options, data, system, figures=closing)

    run = train_run(system, run, options, data, save, checkpoint_seconds, progress)
    return run, training_figures(artifact, run, options)
