"""`cimc eval`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from cimc.commands.options import (
    MEASURING,
    Carry,
    ChannelsLast,
    Data,
    DataDir,
    Energy,
    Json,
    Mean,
    Memory,
    Metric,
    Seed,
    Std,
    complete_files,
    emit,
    load_data,
    parse_carry,
    parse_memory,
)
from cimc.commands.read_energy_table import show as show_energy
from cimc.shares import is_share

NO_MEASURES = ("images_per_s", "agreement", "layers", "energy_mj")


def evaluate(
    artifact: Annotated[
        Path, typer.Argument(help="Compiled or trained .cim file.", autocompletion=complete_files(".cim"))
    ],
    data: Data = "digits",
    data_dir: DataDir = None,
    mean: Mean = None,
    std: Std = None,
    channels_last: ChannelsLast = False,
    exact: Annotated[bool, typer.Option("--exact", help="Float32 products, no arrays.")] = False,
    noise: Annotated[bool, typer.Option(help="Read and ADC noise.")] = True,
    metric: Metric = None,
    layers: Annotated[
        bool,
        typer.Option(
            "--layers", help="What each layer loses against float32, and by which effects.", rich_help_panel=MEASURING
        ),
    ] = False,
    memory: Memory = None,
    carry: Carry = None,
    energy: Energy = False,
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
            energy=energy,
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
    from cimc.commands.console import say

    measured = {name: value for name, value in figures.items() if name not in NO_MEASURES}
    text = ", ".join(f"{name.replace('_', ' ')} {figure_text(name, value)}" for name, value in measured.items())
    say(f"{text or 'no labels:'} on {samples} ({figures['images_per_s']:.3g} a second)")
    if agreement := figures.get("agreement"):
        show_agreement("agreement with the same weights in float32", {"": agreement})
    if layers := figures.get("layers"):
        show_layers(layers)
    if energy := figures.get("energy_mj"):
        show_energy(energy)


def show_agreement(title: str, agreements: "dict[str, dict[str, dict[str, float]]]") -> None:
    """How each output agrees, under several conditions."""
    from cimc.commands.console import print_table

    columns = ("argmax_agreement", "snr_db", "relative_error", "largest_error")
    rows = [
        [
            f"{output}, {condition}" if condition else output,
            *(figure_text(name, found[name]) if name in found else "-" for name in columns),
        ]
        for condition, agreement in agreements.items()
        for output, found in agreement.items()
    ]
    print_table(
        title, ["output", "same largest entry", "SNR", "largest error, of the largest value", "largest error"], rows
    )


def show_layers(layers: "dict[str, dict[str, Any]]") -> None:
    """SNR and clipping of every layer, and the shares of its own error by cause."""
    from cimc.commands.console import print_table, say

    def text(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f} dB"

    clipped = ("clipped_inputs", "clipped_codes")
    rows = [
        [name, text(found["own_snr_db"]), text(found["snr_db"]), *(f"{found[key]:.2%}" for key in clipped),
         causes_text(found)]
        for name, found in layers.items()
    ]  # fmt: skip
    head = ["layer", "SNR alone", "up to here", "clipped inputs", "clipped codes", "causes of the error alone"]
    print_table(
        "layers against float32, each alone and all up to it",
        head,
        rows,
        "alone, and its causes: with the exact inputs; up to here, and what is clipped: with those that arrive",
    )
    mains = [found["main_cause"] for found in layers.values() if found.get("main_cause")]
    remedies = {found["main_cause"]: found["remedy"] for found in layers.values() if found.get("main_cause")}
    for cause in sorted(remedies, key=mains.count, reverse=True):
        say(f"{cause} (main cause in {mains.count(cause)} of {len(layers)} layers): {remedies[cause]}")


def causes_text(found: "dict[str, Any]") -> str:
    """The main cause of a layer's error first, then the others by their share, without those below a twentieth."""
    shares = {cause: figures["share"] for cause, figures in found.get("causes", {}).items()}
    main = found.get("main_cause")
    order = sorted(shares, key=lambda cause: (cause != main, -shares[cause]))
    return ", ".join(f"{cause} {shares[cause]:.0%}" for cause in order if cause == main or shares[cause] >= 0.05) or "-"


def figure_text(name: str, value: float) -> str:
    """A figure with its unit; shares in percent."""
    if name.endswith("_db"):
        return f"{value:.1f} dB"
    return f"{value:.2%}" if is_share(name) else f"{value:.4g}"
