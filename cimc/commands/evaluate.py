"""`cimc eval`."""

from pathlib import Path
from typing import Annotated

import typer

from cimc.commands.options import ChannelsLast, Data, DataDir, Json, Mean, Seed, Std, emit, load_data


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Compiled or trained .cim file.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    exact: Annotated[bool, typer.Option("--exact", help="Float32 products, no arrays.")] = False,
    noise: Annotated[bool, typer.Option(help="Read and ADC noise.")] = True,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure the accuracy of a network on its arrays, on the test set.

    Example: cimc eval trained.cim --data mnist
    """
    import cimc
    from cimc.commands.console import progress_bar, say

    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    with progress_bar("eval") as bar:
        figures = cimc.evaluate(
            artifact, dataset, exact=exact, noise=noise, seed=seed, progress=lambda done, total: bar(done, total, "")
        )
    line = (
        f"accuracy {figures['accuracy']:.2%} on {len(dataset.test)} test images of {dataset.label} "
        f"({figures['images_per_s']:.0f} images/s)"
    )
    emit(figures, lambda: say(line), as_json=as_json)
