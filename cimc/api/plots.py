"""Results as matplotlib figures, to be shown in a notebook or saved. No state of pyplot is used."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from cimc.api.sources import Source, artifact_of
from cimc.durations import time_text
from cimc.errors import CimcError
from cimc.package import Package
from cimc.report.drawing import BLUE, GREY, ORANGE
from runtime.deployment.result import Deployment

DPI = 110
BINS = 20


class NotebookFigure(Figure):
    """A figure that notebooks show by themselves, without pyplot."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", dpi=DPI)
        return buffer.getvalue()


def plot_training(source: Source) -> Figure:
    """Loss and test accuracy by epoch, and beside them the device updates per weight.

    Args:
        source: what `train` gave, or a trained `.cim` file.

    Raises:
        CimcError: it was not trained.
    """
    artifact, name = artifact_of(source)
    history = artifact.history.get("epochs", [])
    if not history:
        raise CimcError(f"{name} was not trained for an epoch, so there is nothing to draw; train it first")
    epochs = [record["epoch"] for record in history]
    figure = NotebookFigure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(epochs, [record["loss"] for record in history], "s-", color=GREY)
    left.set(xlabel="epoch", ylabel="training loss")
    if all(record["accuracy"] is not None for record in history):
        scores = left.twinx()
        scores.plot(epochs, [100 * record["accuracy"] for record in history], "o-", color=BLUE)
        scores.set_ylabel("test accuracy (%)", color=BLUE)
    right.plot(epochs, [record["updates"] / artifact.mapping.cost.weights for record in history], "o-", color=BLUE)
    right.set(xlabel="epoch", ylabel="updates per weight")
    for axis in (left, right):
        axis.set_xlim(0.5, epochs[-1] + 0.5)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    figure.suptitle(f"{artifact.model} on {artifact.chip.name}", fontsize=11)
    return figure


def plot_deployment(deployments: Deployment | Mapping[str, Deployment]) -> Figure:
    """The chips by accuracy; or over time, where times were asked for: the mean, and from the worst to the best chip.

    Args:
        deployments: what `deploy` gave, or several of them by their labels.
    """
    named: dict[str, Deployment] = {}
    if isinstance(deployments, Deployment | Mapping):
        named = {"": deployments} if isinstance(deployments, Deployment) else dict(deployments)
    if not named or not all(isinstance(one, Deployment) for one in named.values()):
        raise CimcError("there is no deployment to draw; give what deploy gave, or several by their labels")
    measure = next(iter(named.values())).measure.replace("_", " ")
    figure = NotebookFigure(figsize=(6, 3.4), layout="constrained")
    axis = figure.subplots()
    if any(one.aged for one in named.values()):
        every = sorted({at for one in named.values() for at in one.aged})
        start = every[0] / 3  # a logarithmic axis has no 0
        for label, one in named.items():
            seconds = [start, *sorted(one.aged)]
            values_at = [one.accuracies, *(one.aged[at] for at in seconds[1:])]
            means = np.array([np.mean(values) for values in values_at])
            ends = np.array([[np.min(values), np.max(values)] for values in values_at])
            axis.errorbar(
                seconds, means, np.abs(ends - means[:, None]).T, fmt="o-", capsize=3, label=label or "all chips"
            )
        axis.set(xscale="log", xlabel="after programming", ylabel=measure)
        axis.set_xticks([start, *every], ["as programmed", *map(time_text, every)], minor=False)
        axis.axhline(next(iter(named.values())).baseline_accuracy, color=ORANGE, linestyle="--", label="baseline")
        axis.minorticks_off()
    else:
        values = np.concatenate([one.accuracies for one in named.values()])
        bins = np.linspace(values.min(), max(values.max(), values.min() + 1e-3), BINS + 1).tolist()
        for label, one in named.items():
            axis.hist(one.accuracies, bins, alpha=0.7, label=label)
        first = next(iter(named.values()))
        axis.axvline(first.baseline_accuracy, color=ORANGE, linestyle="--", label="baseline")
        axis.set(xlabel=measure, ylabel="chips")
        axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.legend()
    return figure


def plot_layers(result: Mapping[str, Any] | Package) -> Figure:
    """The signal-to-noise ratio of every layer against float32: alone, and with all layers before it.

    Args:
        result: what `evaluate` gave with `layers=True`, or a package that `export` made so.

    Raises:
        CimcError: layers were not measured.
    """
    figures = result.notes if isinstance(result, Package) else result
    layers = figures.get("layers") if isinstance(figures, Mapping) else None
    if not layers:
        raise CimcError("no layers were measured; call evaluate or export with layers=True")
    figure = NotebookFigure(figsize=(7, 1.3 + 0.4 * len(layers)), layout="constrained")
    axis, places = figure.subplots(), np.arange(len(layers))
    for key, label, colour, shift in (("own_snr_db", "alone", BLUE, -0.2), ("snr_db", "up to here", GREY, 0.2)):
        values = [np.nan if found.get(key) is None else found[key] for found in layers.values()]
        axis.barh(places + shift, values, 0.4, color=colour, label=label)
    axis.set_yticks(places, list(layers))
    axis.invert_yaxis()
    axis.set_xlabel("signal to noise against float32 (dB)")
    figure.legend(loc="outside upper right", ncols=2, frameon=False)
    return figure
