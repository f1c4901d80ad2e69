"""Pictures of a training run and of programmed arrays."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cimc.addresses import size_of_array
from cimc.package import Package
from cimc.program_files import array_targets
from cimc.report.drawing import BLUE, GREY, ORANGE, save_picture

UNUSED = "#ececec"


def training_picture(
    path: Path, runs: Mapping[str, Sequence[Mapping[str, float]]], weights: int, title: str, steps_per_epoch: int
) -> None:
    """Test accuracy by epoch of one or more runs, and the device updates of the first beside programming every step.

    Args:
        path: the picture to write.
        runs: histories by label; the first is the one on the arrays.
        weights: number of weights of the network.
        title: over the picture.
        steps_per_epoch: optimiser steps an epoch.
    """
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for (label, history), colour in zip(runs.items(), (BLUE, GREY, ORANGE), strict=False):
        left.plot(
            [r["epoch"] for r in history], [100 * r["accuracy"] for r in history], "o-", color=colour, label=label
        )
    left.set(xlabel="epoch", ylabel="test accuracy (%)")
    left.legend(frameon=False)
    first = next(iter(runs.values()))
    epochs = [record["epoch"] for record in first]
    right.plot(epochs, [record["updates"] / weights for record in first], "o-", color=BLUE, label="mixed precision")
    right.plot(epochs, [epoch * steps_per_epoch for epoch in epochs], "--", color=GREY, label="every step programmed")
    right.set(xlabel="epoch", ylabel="updates per weight", yscale="log")
    right.legend(frameon=False)
    figure.suptitle(title, fontsize=11)
    save_picture(figure, path)


def arrays_picture(path: Path, package: Package, most: int = 8) -> None:
    """Target conductances as the arrays hold them (grey: not used), the first `most` arrays.

    Args:
        path: the picture to write.
        package: what was exported.
        most: largest number of arrays drawn.
    """
    targets = array_targets(package.mapping, package.chip, package.program)
    owner = {block.array: layer.name for layer in package.mapping.layers for block in layer.blocks}
    shown = targets[:most]
    columns = min(len(shown), 4)
    rows = -(-len(shown) // columns)
    cell = package.chip.cell
    largest_rows, largest_columns = targets.shape[1:]
    height = 2.6 * rows * max(0.6, min(1.6, largest_rows / largest_columns))
    figure = Figure(figsize=(2.4 * columns + 1, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    image = None
    for index, axis in enumerate(axes.flat):
        if index >= len(shown):
            axis.axis("off")
            continue
        own_rows, own_columns = size_of_array(package.mapping, package.chip, index)
        image = axis.imshow(
            shown[index, :own_rows, :own_columns],
            cmap="viridis",
            vmin=cell.conductance_min_uS,
            vmax=cell.conductance_max_uS,
            interpolation="nearest",
            aspect="auto",
        )
        used = np.isfinite(shown[index, :own_rows, :own_columns]).mean()
        axis.set_title(f"array {index}: {owner.get(index, '')}, {used:.0%} used", fontsize=8)
        axis.tick_params(labelsize=6)
        axis.set_facecolor(UNUSED)
    if image is not None:
        figure.colorbar(image, ax=axes, label="target conductance (uS)", shrink=0.8)
    figure.supxlabel("column", fontsize=8)
    figure.supylabel("row", fontsize=8)
    save_picture(figure, path)
