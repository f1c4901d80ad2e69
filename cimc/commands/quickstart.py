"""The whole road on the embedded data: compile, train, export, deploy, with a closing table and two pictures."""

import time
from contextlib import nullcontext
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

import cimc
from cimc.api.compile import compile_model
from cimc.commands import views
from cimc.commands.console import print_figures, progress_bar, say
from cimc.data.load import load
from cimc.errors import CimcError
from cimc.report.pictures import arrays_picture, training_picture
from runtime.deployment.deploy import summary
from runtime.training.options import TrainingOptions
from runtime.training.update import Policy

MODEL = "lenet1.onnx"
TRAINING_CHIP, INFERENCE_CHIP = "brram-soc", "brram-256x64"
EPOCHS = 8
BATCH_SIZE = 32
CHIPS = 20


def quickstart(folder: Path, seed: int, quiet: bool) -> dict[str, Any]:
    """Walk the road and write everything into `folder`; returns the closing figures (JSON values)."""
    began = time.perf_counter()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CimcError(f"cannot create folder {folder}: {error.strerror}; choose another with -o") from None
    data = load("digits")
    compiled = compile_model(_model(), TRAINING_CHIP, folder / "lenet1.cim")
    if not quiet:
        views.show_compiled(compiled, None)
    runs = {}
    figures = {}
    for label, method in (("on the arrays", "mixed-precision"), ("float32", "float")):
        options = TrainingOptions(Policy(method=method), epochs=EPOCHS, batch_size=BATCH_SIZE, seed=seed)  # type: ignore[arg-type]
        output = folder / ("trained.cim" if method != "float" else "float.cim")
        with nullcontext(_silent) if quiet else progress_bar(f"train {label}") as bar:
            run, figures[label] = cimc.train(
                folder / "lenet1.cim",
                data,
                options,
                output,
                progress=lambda run, total, bar=bar: bar(run.step, total, views.epoch_note(run.history)),
            )
        runs[label] = run.history
    deployed = {}
    for label, source in (("on the arrays", "trained"), ("float32", "float")):
        package = folder / ("package" if source == "trained" else "package-float")
        exported = cimc.export(folder / f"{source}.cim", INFERENCE_CHIP, package)
        if source == "trained":
            arrays_picture(folder / "arrays.png", exported)
        with nullcontext(_silent) if quiet else progress_bar(f"deploy, trained {label}") as bar:
            deployed[label] = cimc.deploy(
                package,
                data,
                CHIPS,
                seed,
                baseline=figures["float32"]["accuracy"],
                progress=lambda done, total, bar=bar: bar(done, total, ""),
            )
    training_picture(
        folder / "training.png",
        runs,
        figures["on the arrays"]["weights"],
        f"LeNet-1 on {TRAINING_CHIP}, digits (synthetic), seed {seed}",
        len(data.x_train) // BATCH_SIZE,
    )
    return {
        "data": views.label(data),
        "chip": TRAINING_CHIP,
        "inference_chip": INFERENCE_CHIP,
        "folder": str(folder),
        "training": figures,
        "deployment": {label: summary(result) for label, result in deployed.items()},
        "seconds": time.perf_counter() - began,
    }


def show(figures: dict[str, Any]) -> None:
    """The closing table."""
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


def _model() -> Path:
    """The embedded network: inside an installed package, or in the source tree."""
    installed = Path(str(resources.files("cimc"))) / "models" / MODEL
    return installed if installed.exists() else Path(__file__).parents[2] / "models" / MODEL


def _silent(done: int, total: int, note: str) -> None:
    """No progress."""
