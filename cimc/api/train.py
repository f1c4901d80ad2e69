"""Train a `.cim` file on its arrays."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from cimc.api.begin_from import begin_from
from cimc.api.checkpoint import checkpoint, load_run
from cimc.api.progress import Note, unsaid
from cimc.api.sources import Source, artifact_of, require_data
from cimc.api.system_of import state_of, system_of
from cimc.api.track import tracking
from cimc.api.training_figures import training_figures
from cimc.artifact import Artifact, read_artifact, write_artifact
from cimc.dataset import Dataset
from cimc.errors import CimcError
from cimc.files import require_different, require_writable
from cimc.html_table import html_table
from cimc.options import Backward, check_number
from cimc.report.conductances import programmed_counts
from runtime.crossbar.xla import use_compilation_cache
from runtime.system.inputs import check_range, match_data
from runtime.system.normalize import normalize_layers
from runtime.system.weight_range import best_column_ranges, training_weight_range
from runtime.training.objective import objective_of
from runtime.training.options import TrainingOptions
from runtime.training.run import Run
from runtime.training.start import start
from runtime.training.train import train as train_run
from runtime.training.validation import split_validation


@dataclass(frozen=True)
class Trained:
    """Result of `train`.

    artifact: what the trained `.cim` file holds. run: at its end. figures: the closing ones, JSON values.
    """

    artifact: Artifact
    run: Run
    figures: dict[str, Any]

    def _repr_html_(self) -> str:
        rows = [
            (record["epoch"], record["loss"], record["accuracy"], record["updates"] / self.figures["weights"])
            for record in self.run.history
        ]
        title = f"{self.artifact.model} trained on {self.artifact.chip.name}"
        return html_table(title, ("epoch", "loss", "test accuracy", "updates per weight"), rows)


def train(
    source: Source,
    data: Dataset,
    *,
    options: TrainingOptions | None = None,
    output: str | Path | None = None,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    init_from: Source | None = None,
    progress: Callable[[Run, int], None] = lambda run, total: None,
    note: Note = unsaid,
    track: str | Path | None = None,
) -> Trained:
    """Train a `.cim` file on its arrays.

    Args:
        source: a `.cim` file, its contents, or what `compile` or `train` gave; compiled, or trained (training goes on
            from its devices with a new optimiser).
        data: training and test set.
        options: of the run; None: `TrainingOptions()`.
        output: the trained `.cim` to write, which holds the checkpoint while training goes on; None: nothing is
            written.
        resume: go on from the checkpoint in `output` if there is one; the end is the same to the bit.
        init_from: a `.cim` or ONNX file, or the contents of the former, whose weights the run begins with.
        checkpoint_seconds: time between checkpoints within an epoch.
        progress: called every few steps with the run and its number of steps.
        note: called before training with a line for the loss and where it is taken, and for what the user should know
            of the data.
        track: a folder for TensorBoard events, one point an epoch (needs the extra `track`), or `mlflow:` and a
            tracking URI (needs mlflow).

    Raises:
        CimcError: the file, the data, the chip or the options do not fit together; the loss is no longer a number; or
            `output` cannot be written.
    """
    options = TrainingOptions() if options is None else options
    if not isinstance(options, TrainingOptions):
        raise CimcError(f"options is a {type(options).__name__}; give cimc.TrainingOptions(...)")
    require_data(data)
    checkpoint_seconds = check_number("checkpoint_seconds", checkpoint_seconds, least=0)
    if output is None and resume:
        raise CimcError("resume goes on from the checkpoint in output; give output")
    use_compilation_cache()
    artifact, name = artifact_of(source)
    if output is not None:
        if isinstance(source, str | Path):
            require_different(source, output)
        require_writable(output)
    if init_from is not None:
        artifact = begin_from(artifact, init_from, note)
    system = system_of(artifact, options.policy.backward)
    data = match_data(system.network, data)
    check_range(data, system.network, artifact.mapping.input_range, note)
    for name in options.policy.without_effect:
        note(f"--update {options.policy.method} has no option {name}: it changes nothing")
    data = split_validation(data, options)
    objective = objective_of(system, data, options.loss, options.label_smoothing)
    # Weights whose answers are to be kept lie as they do at export; others have room to grow.
    keeps = (objective.distills or init_from is not None) and options.policy.backward is Backward.digital
    rule = best_column_ranges if keeps else training_weight_range
    state, programmed = state_of(artifact, system, name, weight_range=rule)
    if options.policy.compute.on_arrays and not programmed and not keeps:
        state = normalize_layers(state)
    run = start(system, state, options, programmed)
    on_arrays = options.policy.compute.on_arrays
    begun = programmed_counts(run.state["conductance"], artifact.chip) if on_arrays else {}
    if resume and output is not None and Path(output).exists():
        run = load_run(read_artifact(output), run, source=artifact, options=options, data=data, path=Path(output))

    def contents(run: Run, total: int) -> Artifact:
        closing = training_figures(artifact, run, options, objective) if run.step == total else None
        return checkpoint(artifact, run, total=total, options=options, data=data, figures=closing, begun=begun)

    def save(run: Run, total: int) -> None:
        if output is not None and jax.process_index() == 0:  # of several processes (`cimc.api.join`) one writes
            write_artifact(output, contents(run, total))

    with tracking(track, len(run.history), str(output or artifact.model)) as tracked:

        def advance(run: Run, total: int) -> None:
            tracked(run)
            progress(run, total)

        run = train_run(system, run, options, data, save, checkpoint_seconds, advance, note, objective)
    return Trained(contents(run, run.step), run, training_figures(artifact, run, options, objective))
