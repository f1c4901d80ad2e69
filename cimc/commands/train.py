"""`cimc train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import (
    DATA,
    ChannelsLast,
    Data,
    DataDir,
    Json,
    Mean,
    Seed,
    Std,
    complete_files,
    emit,
    load_data,
    parse_policy_settings,
    require_finite,
)
from cimc.options import (
    Augment,
    Backward,
    Constraint,
    Gradient,
    Keep,
    Loss,
    Optimizer,
    RateSchedule,
    Reset,
    Residual,
    Sync,
    Write,
    check_choice,
    listed,
)

if TYPE_CHECKING:
    from cimc.api.train import Trained
    from runtime.training.run import Run

UPDATES, OPTIMISER, GRADIENTS, TUNING = "Updates of the devices", "Loss and optimiser", "Gradients", "Fine-tuning"
RUN = "The run"


def train(
    artifact: Annotated[Path, typer.Argument(help="Compiled .cim file.", autocompletion=complete_files(".cim"))],
    output: Annotated[Path, typer.Option("-o", "--output", help="Trained .cim file; holds checkpoints meanwhile.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    epochs: Annotated[int, typer.Option(min=1, help="Passes over the training set.", rich_help_panel=RUN)] = 10,
    steps_per_epoch: Annotated[
        int | None, typer.Option(min=1, help="Default: the whole training set.", rich_help_panel=RUN)
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples of a step.", rich_help_panel=RUN)] = 64,
    micro_batch: Annotated[
        int | None,
        typer.Option(
            min=1, help="Samples computed at once, for less memory. Default: a whole step.", rich_help_panel=RUN
        ),
    ] = None,
    lr: Annotated[
        float,
        typer.Option(
            min=0,
            callback=require_finite,
            rich_help_panel=OPTIMISER,
            help="For He's initial weights; other layers' steps follow their weights.",
        ),
    ] = 0.005,
    schedule: Annotated[
        RateSchedule,
        typer.Option(
            rich_help_panel=OPTIMISER,
            help="Course of the learning rate: cosine and linear to 0, exponential to 1 %, step to a "
            "tenth at 50 and 75 %, plateau halves it after five epochs without a lower loss.",
        ),
    ] = RateSchedule.cosine,
    weight_decay: Annotated[
        float,
        typer.Option(min=0, callback=require_finite, help="Decoupled, on crossbar weights.", rich_help_panel=OPTIMISER),
    ] = 0.01,
    method: Annotated[
        str,
        typer.Option(
            "--update",
            "--method",
            metavar="NAME",
            rich_help_panel=UPDATES,
            help="Update policy: mixed-precision, naive (every step is programmed), sign, eapu, eapu-accumulator, "
            "pulsed-sgd, tiki-taka, tiki-taka-v2, chopped-tiki-taka-v2, agad, residual-learning, multi-tile, one of a "
            "plug-in; or what writes no device: float (no arrays), quantisation-aware, hardware-aware.",
        ),
    ] = "mixed-precision",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="FIELD=VALUE",
            help="An option of the update policy; a wrong one lists them.",
            rich_help_panel=UPDATES,
        ),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Fraction of the weight range. Default: the device's granularity.", rich_help_panel=UPDATES),
    ] = None,
    residual: Annotated[
        Residual,
        typer.Option(help="What a write left undone: keep it in the accumulator, or drop it.", rich_help_panel=UPDATES),
    ] = Residual.keep,
    reset: Annotated[Reset | None, typer.Option(hidden=True, help="Earlier name of --residual.")] = None,
    write: Annotated[
        Write, typer.Option(help="Closed-loop write-verify or blind pulses.", rich_help_panel=UPDATES)
    ] = Write.verify,
    backward: Annotated[
        Backward, typer.Option(help="Input gradients: digital copy or transposed read.", rich_help_panel=GRADIENTS)
    ] = Backward.digital,
    sync: Annotated[
        Sync,
        typer.Option(
            help="Digital copy after a write. auto: readback, or target where a read is noisier than a step.",
            rich_help_panel=UPDATES,
        ),
    ] = Sync.auto,
    loss: Annotated[
        Loss,
        typer.Option(
            rich_help_panel=OPTIMISER,
            help="auto: cross-entropy for classes, binary for labels of 0 and 1, mse for other targets; without labels "
            "distill: to say what the original network says.",
        ),
    ] = Loss.auto,
    gradient: Annotated[
        Gradient,
        typer.Option(
            rich_help_panel=GRADIENTS,
            help="backward; or forward only, along random tangents: on weights (their mean, or projected), or on what "
            "layers put out (activities).",
        ),
    ] = Gradient.backward,
    tangents: Annotated[
        int, typer.Option(min=1, rich_help_panel=GRADIENTS, help="Random tangents a step, of forward gradients.")
    ] = 1,
    constraint: Annotated[
        Constraint,
        typer.Option(rich_help_panel=OPTIMISER, help="Set within which Frank-Wolfe keeps a layer's weights."),
    ] = Constraint.box,
    radius: Annotated[
        float,
        typer.Option(
            min=0,
            callback=require_finite,
            rich_help_panel=OPTIMISER,
            help="Size of that set, of the weight range; of l2-ball also above 1.",
        ),
    ] = 1.0,
    density: Annotated[
        float,
        typer.Option(min=0, max=1, rich_help_panel=OPTIMISER, help="Of k-sparse: share of the weights in a step."),
    ] = 0.1,
    averaging: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel=OPTIMISER,
            help="Of Frank-Wolfe: weight of a new gradient in their average. Default: falls with the steps.",
        ),
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(callback=require_finite, help="Of cross-entropy.", rich_help_panel=OPTIMISER)
    ] = 0.0,
    optimizer: Annotated[
        Optimizer,
        typer.Option(
            help="adam: decoupled weight decay of crossbar weights; adamw: of all parameters; momentum (0.9), sgd: in "
            "the gradient; frank-wolfe: weights within --constraint.",
            rich_help_panel=OPTIMISER,
        ),
    ] = Optimizer.adam,
    warmup: Annotated[
        str,
        typer.Option(
            metavar="STEPS|EPOCHS",
            help="Steps in which the rate rises from 0, or '3 epochs'.",
            rich_help_panel=OPTIMISER,
        ),
    ] = "0",
    augment: Annotated[
        str,
        typer.Option(metavar="LIST", help="Of crop, flip, cutout: anew for every image.", rich_help_panel=DATA),
    ] = "",
    validation: Annotated[
        float,
        typer.Option(
            callback=require_finite,
            help="Share of the training set kept apart, for plateau, --patience and --keep.",
            rich_help_panel=DATA,
        ),
    ] = 0.0,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1, help="Stop after so many epochs without a lower validation loss.", rich_help_panel=OPTIMISER
        ),
    ] = None,
    keep: Annotated[
        Keep, typer.Option(help="The state to end with; best: by validation loss.", rich_help_panel=OPTIMISER)
    ] = Keep.last,
    init_from: Annotated[
        Path | None,
        typer.Option(help="Begin with the weights of this .cim or ONNX file.", rich_help_panel=TUNING),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            metavar="DIR",
            help="Write TensorBoard events (needs cimc\\[track]), or to MLflow: mlflow:URI (needs mlflow).",
            rich_help_panel=DATA,
        ),
    ] = None,
    freeze: Annotated[
        str,
        typer.Option(metavar="LAYER,..", help="Patterns of layers that stay as they are.", rich_help_panel=TUNING),
    ] = "",
    reestimate_statistics: Annotated[
        bool,
        typer.Option(
            "--reestimate-statistics",
            help="Of batch normalisation, on training samples after every epoch.",
            rich_help_panel=TUNING,
        ),
    ] = False,
    keep_statistics: Annotated[
        int,
        typer.Option(
            metavar="EPOCHS",
            min=0,
            help="Last epochs in which batch normalisation uses the statistics it has, as a chip does.",
            rich_help_panel=TUNING,
        ),
    ] = 0,
    write_budget: Annotated[
        str | None,
        typer.Option(
            metavar="AMOUNT",
            rich_help_panel=UPDATES,
            help="Most row writes a step: a number (40), a share of those that are due (10%), a time (20us) or an "
            "energy (5nJ). The rest waits in the accumulator. Default: all that is due.",
        ),
    ] = None,
    write_every: Annotated[int, typer.Option(min=1, rich_help_panel=UPDATES, help="Write in each n-th batch.")] = 1,
    seed: Seed = 0,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on from the checkpoint in OUTPUT, if any.", rich_help_panel=RUN),
    ] = False,
    checkpoint_seconds: Annotated[
        float,
        typer.Option(min=0, callback=require_finite, help="Between checkpoints within an epoch.", rich_help_panel=RUN),
    ] = 60.0,
    distributed: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT,PROCESSES,INDEX",
            help="Share each batch among processes on several hosts: the same command on each with its index from 0, "
            "at whose host the address is; or auto, under Slurm, Open MPI or Kubernetes. Process 0 writes and prints.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a compiled network on its arrays: analog forward pass, digital accumulation, devices written when due.

    Example: cimc train lenet1.cim --data mnist --epochs 13 --steps-per-epoch 400 --lr 0.004 -o trained.cim
    """
    index = 0
    if distributed is not None:
        from cimc.api.join import join

        index = join(distributed)  # before anything computes
    import cimc
    from cimc.commands.console import noting, progress_table
    from cimc.commands.training_table import epoch_columns, epoch_row

    kept = residual if reset is None else Residual.drop if reset is Reset.zero else Residual.keep
    policy = cimc.Policy(
        method=method,
        threshold=threshold,
        residual=kept,
        write=write,
        backward=backward,
        sync=sync,
        settings=parse_policy_settings(settings),
    )
    options = cimc.TrainingOptions(
        policy=policy,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        micro_batch=micro_batch,
        lr=lr,
        schedule=schedule,
        weight_decay=weight_decay,
        seed=seed,
        loss=loss,
        gradient=gradient,
        tangents=tangents,
        frank_wolfe=cimc.FrankWolfe(constraint=constraint, radius=radius, density=density, averaging=averaging),
        label_smoothing=label_smoothing,
        optimizer=optimizer,
        warmup=warmup,
        augment=tuple(check_choice(Augment, "--augment", name) for name in listed("--augment", augment)),
        validation=validation,
        patience=patience,
        keep=keep,
        freeze=listed("--freeze", freeze),
        reestimate_statistics=reestimate_statistics,
        keep_statistics=keep_statistics,
        write_budget=write_budget,
        write_every=write_every,
    )
    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    notes, note = noting("train")

    def rows(run: "Run") -> list[list[str]]:
        weights = sum(counts.size for counts in run.state["updates"].values())
        return [epoch_row(record, weights) for record in run.history]

    with progress_table("train", epoch_columns("test", bool(validation))) as advance:
        trained = cimc.train(
            artifact,
            dataset,
            options=options,
            output=output,
            resume=resume,
            init_from=init_from,
            checkpoint_seconds=checkpoint_seconds,
            progress=lambda run, total: advance(run.step, total, epoch_note(run.history), rows(run)),
            note=note,
            track=track if index == 0 else None,
        )
    if index == 0:
        emit({**trained.figures, "notes": notes}, lambda: show(trained, dataset.label, output), as_json=as_json)


def epoch_note(history: Sequence[Mapping[str, Any]]) -> str:
    """The last epoch in a few words."""
    if not history:
        return ""
    from cimc.training_record import measure_name, measure_text

    last = history[-1]
    return f"epoch {last['epoch']:.0f}: loss {last['loss']:.3f}, {measure_name(history)} {measure_text(last)}"


def show(trained: "Trained", data: str, output: Path) -> None:
    """Epoch table and closing figures of `train`."""
    from cimc.commands import training_table
    from cimc.commands.console import next_step, say, warn

    figures = trained.figures
    training_table.show_epochs(trained.run.history, figures["weights"], data)
    training_table.show_figures(figures)
    training_table.show_writes(figures)
    training_table.show_layers(figures["layers"])
    for warning in figures["warnings"]:
        warn(warning)
    say(f"wrote {output}{next_step(f'cimc export {quote(str(output))} -o package/')}")
