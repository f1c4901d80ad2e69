"""The report's section on conductances: a histogram a layer, of a trained file with those before its training."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from cimc.artifact import Artifact
from cimc.chip import Chip
from cimc.package import Package
from cimc.report.charts import Distribution, histogram
from cimc.report.figure import Figure, figures
from cimc.report.html import section
from cimc.report.svg import layer_colour
from cimc.units import device_targets
from runtime.system.weight_range import best_column_ranges

BINS = 64
MARGIN = 1 / 16  # of the range, on both sides: what is written misses its target
MOST_WEIGHTS = 1_000_000  # of a larger layer every n-th is counted
CUT = "A bar that would hide all others, such as the idle devices, is cut; its share stands beside it."


def conductance_section(artifact: Artifact) -> str:
    """The section of a `.cim` file, as HTML."""
    begun = artifact.history.get("begun") or {}
    if any(name.startswith("conductance/") for name in artifact.state):
        line = " (bars) and before training, as first programmed (line)" if begun else ""
        title, note = "Conductances", f"The trained devices{line}"
    elif artifact.chip.not_simulated is None:
        title, note = "Conductances", "The targets of the devices; the file holds no trained ones"
    else:
        how = artifact.chip.not_simulated
        title, note = "Weights", f"How this chip holds a weight ({how}) is not simulated: weights instead"
    shown = [
        _histogram(title.lower(), index, layer.name, found, _before(begun.get(layer.name), found))
        for index, layer in enumerate(artifact.mapping.layers)
        if (found := distribution(artifact, layer.name)) is not None
    ]
    return _section(title, note, shown)


def target_section(package: Package) -> str:
    """The section of a package, as HTML: targets of the devices in use, over all copies of a layer."""
    shown = [
        _histogram("targets", index, name, conductances_of(layer.targets, package.chip))
        for index, (name, layer) in enumerate(package.program.layers.items())
    ]
    return _section("Target conductances", "What is programmed, a layer each", shown)


def _histogram(what: str, index: int, layer: str, found: Distribution, before: Distribution | None = None) -> Figure:
    name = f"{index + 1} {layer}"
    return histogram(f"{what} of {name}", found, layer_colour(index), caption=name, before=before)


def _section(title: str, note: str, shown: list[Figure]) -> str:
    return section(title, f"{note}. {CUT}", figures(shown, "cells"))


def _before(begun: dict[str, Any] | None, found: Distribution) -> Distribution | None:
    """What `train` kept of the first programming; None where its bins are others."""
    if begun is None or (begun["low"], begun["high"], len(begun["counts"])) != (found.low, found.high, BINS):
        return None
    return Distribution(np.array(begun["counts"], np.int64), found.low, found.high, found.unit)


def programmed_counts(conductance: Mapping[str, Any], chip: Chip) -> dict[str, Any]:
    """By layer, conductances [devices, rows, columns] in the bins of trained ones, as JSON: low, high (uS), counts."""
    found = {name: conductances_of(np.asarray(held), chip, margin=MARGIN) for name, held in conductance.items()}
    return {name: {"low": f.low, "high": f.high, "counts": f.counts.tolist()} for name, f in found.items()}


def conductances_of(values: npt.NDArray[Any], chip: Chip, *, margin: float = 0.0) -> Distribution:
    """Conductances in uS over the chip's range; NaN is left out.

    margin: of the range, added on both sides; what is beyond that is counted in the last bins.
    """
    part = _part(values.ravel(), values.size)
    low, high = chip.cell.conductance_min_uS, chip.cell.conductance_max_uS
    low, high = low - margin * (high - low), high + margin * (high - low)
    counts, _ = np.histogram(np.clip(part[np.isfinite(part)], low, high), BINS, (low, high))
    return Distribution(counts, low, high, "µS")


def distribution(artifact: Artifact, layer: str) -> Distribution | None:
    """Conductances of a layer's devices over the chip's range; None when the file holds none of them.

    Trained ones, else targets as `eval` and `export` begin with, before they fit scales to data, else (for a chip whose
    weights the runtime does not simulate) the weights themselves.
    """
    chip = artifact.chip
    values = artifact.state.get(f"conductance/{layer}")
    if values is not None:
        return conductances_of(values, chip, margin=MARGIN)
    initializer = artifact.network.graph.initializers.get(f"{layer}.weight")
    if initializer is None or initializer.const_value is None:
        return None
    weight = initializer.const_value.numpy()
    part = np.asarray(_part(weight, weight.size), np.float32)
    if chip.not_simulated is not None:
        largest = float(np.max(np.abs(part), initial=0.0)) or 1.0
        counts, _ = np.histogram(part, BINS, (-largest, largest))
        return Distribution(counts, -largest, largest, "")
    return conductances_of(device_targets(part, best_column_ranges(part, chip), chip), chip)


def _part(values: npt.NDArray[Any], size: int) -> npt.NDArray[Any]:
    """Every n-th of values that are too many to count."""
    step = -(-size // MOST_WEIGHTS)
    return values[:: max(1, min(step, len(values)))]
