"""The report's sections on single devices and weights of a trained file: writes of devices, accumulators."""

import numpy as np
import numpy.typing as npt

from cimc.artifact import Artifact
from cimc.report.charts import Distribution, histogram
from cimc.report.figure import figures
from cimc.report.html import section
from cimc.report.svg import layer_colour
from cimc.training_record import Training

BINS = 40
MOST_WRITES = 40  # that have a bin each; of more, bins are wider
EXTENT = 1.25  # thresholds; what lies beyond is counted in the last bins


def counts_sections(artifact: Artifact, training: Training) -> str:
    """The sections as HTML; nothing of what the file does not hold."""
    return _writes(artifact) + _accumulators(artifact, training.figures.get("threshold"))


def _writes(artifact: Artifact) -> str:
    shown = []
    for index, layer in enumerate(artifact.mapping.layers):
        counts = artifact.state.get(f"writes/{layer.name}")
        if counts is not None:
            name = f"{index + 1} {layer.name}"
            found = writes_of(counts)
            shown.append(histogram(f"writes of devices, {name}", found, layer_colour(index), caption=name))
    if not shown:
        return ""
    note = (
        "Devices by how often they were written in training, without the first programming. A bar that would hide all "
        "others is cut; its share stands beside it."
    )
    return section("Writes of devices", note, figures(shown, "cells"))


def writes_of(counts: npt.NDArray[np.integer]) -> Distribution:
    """Devices by their number of writes, a bin a number as long as these are few."""
    most = int(counts.max(initial=0))
    width = -(-(most + 1) // MOST_WRITES)
    bins = max(4, -(-(most + 1) // width))
    found, _ = np.histogram(counts, bins, (0, bins * width))
    return Distribution(found, 0.0, float(bins * width), "writes")


def _accumulators(artifact: Artifact, threshold: float | None) -> str:
    shown = []
    for index, layer in enumerate(artifact.mapping.layers):
        held = artifact.state.get(f"accumulator/{layer.name}")
        weight_range = artifact.state.get(f"weight_range/{layer.name}")
        if held is not None and weight_range is not None and held.shape == (layer.rows, layer.columns):
            name = f"{index + 1} {layer.name}"
            found = accumulators_of(held, weight_range, threshold)
            shown.append(histogram(f"accumulators, {name}", found, layer_colour(index), caption=name))
    if not shown:
        return ""
    unit = "thresholds: beyond 1 a weight is due" if threshold else "shares of the weight range"
    note = f"What has gathered for each weight at the end and is not written yet, in {unit}."
    return section("Accumulators", note, figures(shown, "cells"))


def accumulators_of(
    held: npt.NDArray[np.floating], weight_range: npt.NDArray[np.floating], threshold: float | None
) -> Distribution:
    """Accumulators [rows, columns] in thresholds, or, where there is none, as shares of the weight range."""
    shares = held / np.where(weight_range > 0, weight_range, 1.0)
    if threshold:
        shares = shares / threshold
        extent, unit = EXTENT, "thresholds"
    else:
        extent, unit = float(np.max(np.abs(shares), initial=0.0)) or 1.0, ""
    counts, _ = np.histogram(np.clip(shares, -extent, extent), BINS, (-extent, extent))
    return Distribution(counts, -extent, extent, unit)
