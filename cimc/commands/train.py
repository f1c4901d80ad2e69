"""`cimc train`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cimc.commands.options import ChannelsLast, Data, DataDir, Json, Mean, Seed, Std, emit, load_data, require_finite
from cimc.options import Backward, Loss, RateSchedule, Reset, Residual, Sync, Write

if TYPE_CHECKING:
    from cimc.api.train import Trained


def train(
    artifact: Annotated[Path, typer.Argument(help="Compiled .cim file.")],
    output: Annotated[Path, typer.Option("-o", "--output", help="Trained .cim file; holds checkpoints meanwhile.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    epochs: Annotated[int, typer.Option(min=1)] = 10,
    steps_per_epoch: Annotated[int | None, typer.Option(min=1, help="Default: the whole training set.")] = None,
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    lr: Annotated[
        float,
        typer.Option(
            min=0, callback=require_finite, help="For He's initial weights; other layers' steps follow their weights."
        ),
    ] = 0.005,
    schedule: Annotated[RateSchedule, typer.Option(help="Course of the learning rate.")] = RateSchedule.cosine,
    weight_decay: Annotated[
        float, typer.Option(min=0, callback=require_finite, help="Decoupled, on crossbar weights.")
    ] = 0.01,
    method: Annotated[
        str,
        typer.Option(
            "--update",
            "--method",
            metavar="NAME",
            help="Update policy: mixed-precision, naive (every step is programmed), sign, eapu, eapu-accumulator, "
            "pulsed-sgd, tiki-taka, tiki-taka-v2, chopped-tiki-taka-v2, agad, residual-learning, multi-tile, one of a "
            "plug-in; or float: the same network without arrays.",
        ),
    ] = "mixed-precision",
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="An option of the update policy; a wrong one lists them."),
    ] = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Fraction of the weight range. Default: the device's granularity."),
    ] = None,
    residual: Annotated[
        Residual, typer.Option(help="What a write left undone: keep it in the accumulator, or drop it.")
    ] = Residual.keep,
    reset: Annotated[Reset | None, typer.Option(hidden=True, help="Earlier name of --residual.")] = None,
    write: Annotated[Write, typer.Option(help="Closed-loop write-verify or blind pulses.")] = Write.verify,
    backward: Annotated[Backward, typer.Option(help="Input gradients: digital copy or transposed read.")] = (
        Backward.digital
    ),
    sync: Annotated[
        Sync,
        typer.Option(help="Digital copy after a write. auto: readback, or target where a read is noisier than a step."),
    ] = Sync.auto,
    loss: Annotated[
        Loss,
        typer.Option(
            help="auto: cross-entropy for classes, binary for labels of 0 and 1, mse for other targets; without labels "
            "distill: to say what the original network says."
        ),
    ] = Loss.auto,
    seed: Seed = 0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint in OUTPUT, if any.")] = False,
    checkpoint_seconds: Annotated[
        float, typer.Option(min=0, callback=require_finite, help="Between checkpoints within an epoch.")
    ] = 60.0,
    as_json: Json = False,
) -> None:
    """Train a compiled network on its arrays: analog forward pass, digital accumulation, devices written when due.

    Example: cimc train lenet1.cim --data mnist --epochs 13 --steps-per-epoch 400 --lr 0.004 -o trained.cim
    """
    import cimc
    from cimc.commands.console import noting, progress_bar

    kept = residual if reset is None else Residual.drop if reset is Reset.zero else Residual.keep
    policy = cimc.Policy(
        method=method,
        threshold=threshold,
        residual=kept,
        write=write,
        backward=backward,
        sync=sync,
        settings=tuple(_setting(text) for text in settings or ()),
    )
    options = cimc.TrainingOptions(
        policy=policy,
        epochs=epochs,
        steps_per_epoch=steps_per_epoch,
        batch_size=batch_size,
        lr=lr,
        schedule=schedule,
        weight_decay=weight_decay,
        seed=seed,
        loss=loss,
    )
    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    notes, note = noting("train")
    with progress_bar("train") as bar:
        trained = cimc.train(
            artifact,
            dataset,
            options=options,
            output=output,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            progress=lambda run, total: bar(run.step, total, epoch_note(run.history)),
            note=note,
        )
    emit({**trained.figures, "notes": notes}, lambda: show(trained, dataset.label, output), as_json=as_json)


def _setting(text: str) -> tuple[str, str]:
    """FIELD=VALUE as its two parts. Raises typer.BadParameter when it is not that."""
    name, equals, value = text.partition("=")
    if not (equals and name and value):
        raise typer.BadParameter(f"{text!r} is not FIELD=VALUE", param_hint="--set")
    return name, value


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
    from cimc.commands.console import say, warn

    figures = trained.figures
    training_table.show_epochs(trained.run.history, figures["weights"], data)
    training_table.show_figures(figures)
    training_table.show_layers(figures["layers"])
    for warning in figures["warnings"]:
        warn(warning)
    say(f"wrote {output}; next: cimc export {quote(str(output))} -o package/")
