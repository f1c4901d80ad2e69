"""`cimc eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cimc.commands.options import (
    Carry,
    ChannelsLast,
    Data,
    DataDir,
    Json,
    Mean,
    Memory,
    Metric,
    Seed,
    Std,
    emit,
    load_data,
    parse_carry,
    parse_memory,
)


def evaluate(
    artifact: Annotated[Path, typer.Argument(help="Compiled or trained .cim file.")],
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    exact: Annotated[bool, typer.Option("--exact", help="Float32 products, no arrays.")] = False,
    noise: Annotated[bool, typer.Option(help="Read and ADC noise.")] = True,
    metric: Metric = None,
    layers: Annotated[
        bool, typer.Option("--layers", help="What each layer loses against float32, and what it clips.")
    ] = False,
    memory: Memory = None,
    carry: Carry = None,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Measure a network on its arrays, on the test set: against labels, and against the same weights in float32.

    Example: cimc eval trained.cim --data mnist
    """
    import cimc
    from cimc.commands.console import noting, progress_bar

    size = parse_memory(memory)
    dataset = load_data(data, data_dir, mean=mean, std=std, channels_last=channels_last)
    notes, note = noting("eval")
    with progress_bar("eval") as bar:
        figures = cimc.evaluate(
            artifact,
            dataset,
            exact=exact,
            noise=noise,
            metric=metric,
            layers=layers,
            memory=size,
            carry=parse_carry(carry),
            seed=seed,
            progress=lambda done, total: bar(done, total, ""),
            note=note,
        )
    emit(
        {**figures, "notes": notes},
        lambda: show(figures, f"{len(dataset.test)} test samples of {dataset.label}"),
        as_json=as_json,
    )


def show(figures: "dict[str, Any]", samples: str) -> None:
    """The measures in one line, and below it the agreement of each output."""
    from cimc.commands.console import print_table, say

    measured = {name: value for name, value in figures.items() if name not in ("images_per_s", "agreement", "layers")}
    text = ", ".join(f"{name.replace('_', ' ')} {figure_text(name, value)}" for name, value in measured.items())
    say(f"{text or 'no labels:'} on {samples} ({figures['images_per_s']:.3g} a second)")
    if agreement := figures.get("agreement"):
        columns = ("argmax_agreement", "snr_db", "relative_error", "largest_error")
        rows = [
            [output, *(figure_text(name, found[name]) if name in found else "-" for name in columns)]
            for output, found in agreement.items()
        ]
        print_table(
            "agreement with the same weights in float32",
            ["output", "same largest entry", "SNR", "largest error, of the largest value", "largest error"],
            rows,
        )
    if layers := figures.get("layers"):
        show_layers(layers)


def show_layers(layers: "dict[str, dict[str, Any]]") -> None:
    """SNR and clipping of every layer."""
    from cimc.commands.console import print_table

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} dB"

    clipped = ("clipped_inputs", "clipped_codes")
    rows = [
        [name, text(found["own_snr_db"]), text(found["snr_db"]), *(f"{found[key]:.2%}" for key in clipped)]
        for name, found in layers.items()
    ]
    head = ["layer", "SNR of the layer alone", "SNR up to here", "clipped inputs", "clipped ADC codes"]
    print_table("layers against float32", head, rows)


def figure_text(name: str, value: float) -> str:
    """A figure with its unit; shares in percent."""
    if name.endswith("_db"):
        return f"{value:.1f} dB"
    shares = ("accuracy", "agreement", "relative_error", "f1_micro", "exact_match", "exact_sequences", "miou")
    return f"{value:.2%}" if name.endswith(shares) else f"{value:.4g}"
