"""The report's sections on training: courses over the epochs, updates, ranges by layer, closing figures, options."""

from collections.abc import Mapping
from html import escape

import numpy as np

from cimc.artifact import Artifact
from cimc.report.charts import Line, line_chart, shades
from cimc.report.figure import figures
from cimc.report.html import section, short_name, table
from cimc.report.svg import BLUE, ORANGE
from cimc.report.update_counts import counts_sections
from cimc.report.writes import writes_section
from cimc.shares import is_share, percent
from cimc.training_record import (
    CLIPPING,
    RANGES,
    UPDATES,
    Training,
    figure_texts,
    layer_rows,
    main_measure,
    measure_name,
    option_texts,
    progress_line,
    read_training,
)

_COLOURS = (BLUE, ORANGE)


def training_section(artifact: Artifact) -> str:
    """The section as HTML; nothing for a file that was never trained."""
    training = read_training(artifact)
    if training is None:
        return ""
    tables = (_named(figure_texts(training.figures), "result"), _named(option_texts(training), "option"))
    note = progress_line(training)
    return (
        section("Training", f"{note[0].upper()}{note[1:]}.", _courses(training), _side(*tables))
        + _updates(artifact, training)
        + counts_sections(artifact, training)
        + _layers(training)
        + writes_section(training.figures)
    )


def _named(texts: Mapping[str, str], name: str) -> str:
    return table([name, "value"], [(escape(key), escape(value)) for key, value in texts.items()])


def _side(*parts: str) -> str:
    return f"<div class=side>{''.join(parts)}</div>"


def _courses(training: Training) -> str:
    """Test accuracy or another measure, training loss and updates per weight by epoch."""
    if not training.epochs:
        return "<p>No epoch is complete yet.</p>"
    weights = training.figures["weights"]

    def course(key: str, unit: float = 1.0) -> list[tuple[float, float]]:
        return [(float(record["epoch"]), float(record[key]) / unit) for record in training.epochs]

    named = f"test {measure_name(training.epochs)}"
    measured = [(float(record["epoch"]), main[1]) for record in training.epochs if (main := main_measure(record))]
    measure = Line(named, BLUE, measured)
    show = percent if is_share(named) else _short
    loss = Line("training loss", ORANGE, course("loss"))
    updates = Line("updates per weight", BLUE, course("updates", weights))
    return figures(
        [
            line_chart(named, [measure], show=show, from_zero=False),
            line_chart("training loss", [loss], show=_short),
            line_chart("updates per weight, from the start", [updates], show=_short),
        ]
    )


def _updates(artifact: Artifact, training: Training) -> str:
    """Updates per weight of every layer in every epoch, where they are recorded."""
    named = [layer for layer in artifact.mapping.layers if training.course(layer.name, UPDATES)]
    if not named:
        return ""
    epochs = [f"{record['epoch']:g}" for record in training.epochs]
    values = np.zeros((len(named), len(epochs)))
    for row, layer in enumerate(named):
        course = dict(training.course(layer.name, UPDATES))
        counts = [course.get(float(record["epoch"]), 0.0) for record in training.epochs]
        values[row] = np.diff(counts, prepend=0.0) / (layer.rows * layer.columns)
    shown = shades(
        "updates per weight, by layer and epoch",
        [layer.name for layer in named],
        epochs,
        values,
        show=lambda value: f"{value:.2g}",
        across="epoch",
    )
    note = "How often a weight was due in an epoch, mean over the weights of a layer."
    return section("Updates by layer", note, shown.html)


def _layers(training: Training) -> str:
    """Clipping shares and ranges of every layer by epoch, where they are recorded."""
    if not training.layers:
        return ""
    shares, ranges = [], []
    for layer in training.layers:
        clipped, spans = (
            [
                Line(name, colour, training.course(layer, key))
                for (key, name), colour in zip(keys, _COLOURS, strict=True)
            ]
            for keys in (CLIPPING.items(), RANGES.items())
        )
        shares.append(line_chart(f"{layer}: clipped", clipped, show=percent, small=True))
        ranges.append(line_chart(f"{layer}: ranges", spans, show=_short, small=True))
    head, rows = layer_rows(training.last_layers)
    return section(
        "Ranges and clipping by layer",
        "Inputs beyond the input range and column currents beyond the ADC's range are clipped: their shares of all "
        "inputs and of all ADC codes of the layer. Ranges are in the network's own units.",
        figures(shares, "cells"),
        figures(ranges, "cells"),
        table(head, [[short_name(cell) for cell in row] for row in rows]),
    )


def _short(value: float) -> str:
    return f"{value:.4g}"
