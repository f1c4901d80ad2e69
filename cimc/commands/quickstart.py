"""`cimc quickstart`: the whole road on the embedded data, with a closing table and two pictures."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from cimc.commands.compile import show as show_compiled
from cimc.commands.options import Json, Seed, emit
from cimc.commands.train import epoch_note
from cimc.errors import CimcError

TRAINING_CHIP, INFERENCE_CHIP = "brram-soc", "brram-256x64"
EPOCHS = 8
BATCH_SIZE = 32
CHIPS = 20


def quickstart(
    output: Annotated[Path, typer.Option("-o", "--output", help="Folder for the files and pictures.")] = Path(
        "quickstart"
    ),
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Walk the whole road in half a minute: compile, train, export and deploy LeNet-1 on synthetic digits.

    Example: cimc quickstart
    """
    figures = walk(output, seed, quiet=as_json)
    emit(figures, lambda: show(figures), as_json=as_json)


def walk(folder: Path, seed: int, *, quiet: bool) -> dict[str, Any]:
    """Walk the road and write everything into `folder`; returns the closing figures (JSON values)."""
    import cimc
    from cimc.commands.console import progress_bar
    from cimc.report.pictures import arrays_picture, training_picture
    from runtime.deployment.result import summary

    began = time.perf_counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CimcError(f"cannot create folder {folder}: {error.strerror}; choose another with -o") from None
    data = cimc.load_data("digits")
    compiled = cimc.compile(cimc.example_model(), TRAINING_CHIP, output=folder / "lenet1.cim")
    if not quiet:
        show_compiled(compiled, None)
    runs, figures = {}, {}
    for label, method in (("on the arrays", "mixed-precision"), ("float32", "float")):
        policy = cimc.Policy(method=method)
        options = cimc.TrainingOptions(policy, epochs=EPOCHS, batch_size=BATCH_SIZE, seed=seed)
        with nullcontext(_silent) if quiet else progress_bar(f"train {label}") as bar:
            trained = cimc.train(
                folder / "lenet1.cim",
                data,
                options=options,
                output=folder / ("float.cim" if method == "float" else "trained.cim"),
                progress=lambda run, total, bar=bar: bar(run.step, total, epoch_note(run.history)),  # type: ignore[misc]
            )
        runs[label], figures[label] = trained.run.history, trained.figures
    deployed = {}
    for label, source in (("on the arrays", "trained"), ("float32", "float")):
        package = folder / ("package" if source == "trained" else "package-float")
        exported = cimc.export(folder / f"{source}.cim", INFERENCE_CHIP, output=package, seed=seed)
        if source == "trained":
            arrays_picture(folder / "arrays.png", exported)
        with nullcontext(_silent) if quiet else progress_bar(f"deploy, trained {label}") as bar:
            deployed[label] = cimc.deploy(
                package,
                data,
                chips=CHIPS,
                seed=seed,
                baseline=figures["float32"]["accuracy"],
                progress=lambda done, total, bar=bar: bar(done, total, ""),  # type: ignore[misc]
            )
    training_picture(
        folder / "training.png",
        runs,
        figures["on the arrays"]["weights"],
        f"LeNet-1 on {TRAINING_CHIP}, digits (synthetic), seed {seed}",
        len(data.train) // BATCH_SIZE,
    )
    return {
        "data": data.label,
        "chip": TRAINING_CHIP,
        "inference_chip": INFERENCE_CHIP,
        "folder": str(folder),
        "training": figures,
        "deployment": {label: summary(result) for label, result in deployed.items()},
        "seconds": time.perf_counter() - began,
    }


def show(figures: dict[str, Any]) -> None:
    """The closing table."""
    import numpy as np

    from cimc.commands.console import print_figures, say

    arrays, exact = figures["training"]["on the arrays"], figures["training"]["float32"]
    chips = figures["deployment"]

    def over_chips(label: str) -> str:
        values = np.array(chips[label]["accuracies"])
        return f"{np.median(values):.2%} (worst {values.min():.2%})"

    print_figures(
        f"quickstart: LeNet-1, {figures['data']}",
        {
            "trained in float32, run in float32": f"{exact['accuracy']:.2%}",
            f"trained and run on {figures['chip']}": f"{arrays['accuracy']:.2%}",
            "device updates per weight": f"{arrays['updates_per_weight_mean']:.1f}",
            "fewer than programming every step": f"{arrays['update_reduction']:.0f}x",
            f"trained on the arrays, {CHIPS} chips {figures['inference_chip']}": over_chips("on the arrays"),
            f"trained in float32, {CHIPS} chips {figures['inference_chip']}": over_chips("float32"),
            "time": f"{figures['seconds']:.0f} s",
        },
        "simulated; accuracies on the test set, for chips the median",
    )
    folder = figures["folder"]
    say(f"pictures: {folder}/training.png, {folder}/arrays.png; what to program: {folder}/package/program/")


def _silent(done: int, total: int, note: str) -> None:
    """No progress."""
