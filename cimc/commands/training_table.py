"""The tables of a training run: epochs, closing figures, options, ranges by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

from cimc.artifact import Artifact
from cimc.commands.console import print_figures, print_table, say
from cimc.training_record import (
    data_label,
    figure_texts,
    layer_rows,
    measure_name,
    measure_text,
    option_texts,
    progress_line,
    read_training,
)


def show(artifact: Artifact) -> None:
    """What `inspect` prints of the training; nothing for a file that was never trained."""
    training = read_training(artifact)
    if training is None:
        return
    say(progress_line(training))
    if training.epochs:
        show_epochs(training.epochs, training.figures["weights"], data_label(training))
    show_figures(training.figures)
    show_writes(training.figures)
    print_figures("training options", option_texts(training))
    show_layers(training.last_layers)


def show_epochs(epochs: Sequence[Mapping[str, Any]], weights: int, label: str) -> None:
    """The table of epochs."""
    rows = [epoch_row(record, weights) for record in epochs]
    print_table(f"training on {label}", epoch_columns(f"test {measure_name(epochs)}", "validation" in epochs[0]), rows)


def epoch_columns(measure: str, validation: bool) -> list[str]:
    """The head of the table of epochs."""
    return ["epoch", "loss", *(["validation loss"] if validation else []), measure, "lr", "updates / weight"]


def epoch_row(record: Mapping[str, Any], weights: int) -> list[str]:
    """The row of an epoch."""
    return [
        f"{record['epoch']:.0f}",
        f"{record['loss']:.4f}",
        *([f"{record['validation']['loss']:.4f}"] if "validation" in record else []),
        measure_text(record),
        f"{record['lr']:.2g}",
        f"{record['updates'] / weights:.2f}",
    ]


def show_figures(closing: Mapping[str, Any]) -> None:
    """The table of closing figures."""
    print_figures("training", figure_texts(closing))


def show_layers(layers: Mapping[str, Mapping[str, float]]) -> None:
    """The table of ranges and clipping shares; nothing where none are recorded."""
    head, rows = layer_rows(layers)
    if rows:
        note = "as last seen on a few training images; the shares are of all inputs and of all ADC codes of the layer"
        print_table("ranges by layer", head, rows, note)


def show_writes(closing: Mapping[str, Any]) -> None:
    """The table of row writes by layer, and what they add to a step; nothing where none are recorded."""
    if not closing.get("write_layers"):
        return
    rows = [
        [name, f"{layer['rows']:,}", f"{layer['phases']:,}", f"{layer['pulses']:,}", f"{layer['us_per_step']:.4g}"]
        for name, layer in closing["write_layers"].items()
    ]
    stalls = closing["step"]["stall_us"]
    note = (
        f"writes add {stalls['apart']:.4g} us to a step of {closing['step']['forward_us']:.4g} us forward when nothing "
        f"else goes on, {stalls['overlapped']:.4g} us when layers are written while others compute, "
        f"{stalls['double_buffered']:.4g} us with every array twice"
    )
    if closing["write_assumed"]:
        note += f"; assumed, as the chip file does not state them: {', '.join(closing['write_assumed'])}"
    print_table("row writes by layer", ["layer", "row writes", "phases", "pulses in turn", "us a step"], rows, note)
