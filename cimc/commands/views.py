"""Results as JSON figures and as tables, one pair of functions a command."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cimc.api.explain import explain
from cimc.chip import Chip
from cimc.commands import mapping_table, training_table
from cimc.commands.console import print_figures, print_table, say, warn
from cimc.commands.explain_table import show_explanations
from cimc.dataset import Dataset
from cimc.operators import OPERATORS
from cimc.package import Package

if TYPE_CHECKING:
    from cimc.api.compile import Compiled
    from runtime.deployment.deploy import Deployment


def compiled_figures(compiled: "Compiled") -> dict[str, Any]:
    """JSON of `compile`."""
    artifact = compiled.artifact
    return {
        "model": artifact.model,
        "chip": artifact.chip.name,
        **mapping_table.figures(artifact),
        "row_split": sorted({layer.row_split for layer in artifact.mapping.layers}),
        "verify": {"ideal": compiled.verify_ideal, "chip": compiled.verify_chip},
    }


def show_compiled(compiled: "Compiled", output: Path | None) -> None:
    """Layer table, totals and verification of `compile`."""
    artifact = compiled.artifact
    mapping_table.show_layers(artifact)
    mapping_table.show_totals(artifact)
    if compiled.verify_ideal is not None and compiled.verify_chip is None:
        say(
            f"verified against onnxruntime: largest difference {compiled.verify_ideal:.1e} of the lowered network; "
            f"{artifact.chip.name} itself is not simulated ({artifact.chip.not_simulated})"
        )
    elif compiled.verify_ideal is not None:
        say(
            f"verified against onnxruntime: largest difference {compiled.verify_ideal:.1e} with ideal converters, "
            f"{compiled.verify_chip:.2g} with the chip's (no noise)"
        )
    else:
        say("not verified: give --verify to compare with onnxruntime, which needs several times the weights in memory")
    if output is not None:
        simulated = artifact.chip.not_simulated is None and not artifact.mapping.segments
        then = f"cimc train {output} --data mnist -o trained.cim" if simulated else f"cimc inspect {output}"
        say(f"wrote {output}; next: {then}")


def epoch_note(history: Sequence[Mapping[str, float]]) -> str:
    """The last epoch in a few words."""
    if not history:
        return ""
    last = history[-1]
    return f"epoch {last['epoch']:.0f}: loss {last['loss']:.3f}, accuracy {last['accuracy']:.2%}"


def show_training(
    history: Sequence[Mapping[str, float]], figures: Mapping[str, Any], data: Dataset, output: Path
) -> None:
    """Epoch table and closing figures of `train`."""
    training_table.show_epochs(history, figures["weights"], label(data))
    training_table.show_figures(figures)
    training_table.show_layers(figures["layers"])
    for warning in figures["warnings"]:
        warn(warning)
    say(f"wrote {output}; next: cimc export {output} -o package/")


def show_evaluation(figures: Mapping[str, float], data: Dataset) -> None:
    """Result of `eval`."""
    say(
        f"accuracy {figures['accuracy']:.2%} on {len(data.x_test)} test images of {label(data)} "
        f"({figures['images_per_s']:.0f} images/s)"
    )


def package_figures(package: Package, output: Path) -> dict[str, Any]:
    """JSON of `export`."""
    cost = package.mapping.cost
    return {
        "model": package.model,
        "chip": package.chip.name,
        "package": str(output),
        "crossbars": cost.crossbars,
        "chips": package.mapping.chips,
        "devices": cost.devices,
    }


def show_package(package: Package, output: Path) -> None:
    """Result of `export`."""
    cost = package.mapping.cost
    print_figures(
        f"{package.model} for {package.chip.name}",
        {
            "program/": f"{cost.devices} target conductances on {cost.crossbars} arrays, {package.mapping.chips} chips",
            "digital.safetensors": "scales, input ranges, biases",
            "model.onnx": "the chip-exact network, for any ONNX runtime",
        },
    )
    say(f"wrote {output}; next: cimc deploy {output} --data mnist --chips 20")


def show_deployment(result: "Deployment", data: Dataset) -> None:
    """Result of `deploy`."""
    accuracies, normalized = result.accuracies, result.normalized
    rows = []
    for name, values in (("accuracy", accuracies), ("normalised", normalized)):
        spread = float(values.std(ddof=1)) if len(values) > 1 else 0.0
        figures = [values.mean(), spread, values.min(), *np.percentile(values, [5, 50])]
        rows.append([name, *(f"{figure:.4f}" for figure in figures)])
    print_table(
        f"{len(accuracies)} virtual chips on {label(data)}",
        ["", "mean", "sd", "min", "5 %", "median"],
        rows,
        f"normalised by {result.baseline_accuracy:.4f}",
    )
    say(f"yield {result.yield_fraction:.0%} (chips with a normalised accuracy of at least {result.required:g})")


def chip_figures(described: Mapping[str, Chip], explained: bool) -> dict[str, Any]:
    """JSON of `chips`: the descriptions, or what follows from them."""
    return {name: explain(chip) if explained else chip.model_dump() for name, chip in described.items()}


def show_chips(described: Mapping[str, Chip], explained: bool) -> None:
    """The table of `chips`, or those of `chips --explain`."""
    if explained:
        show_explanations(chip_figures(described, explained))
        return
    rows = []
    for name, chip in described.items():
        adc = "ideal" if chip.adc.bits is None else f"{chip.adc.bits} bit"
        dac = "ideal" if chip.input.bits is None else f"{chip.input.bits} bit"
        programmable = chip.cell.programmable_uS
        levels = "any" if programmable is None else str(len(programmable))
        array = f"{chip.array.rows} x {chip.array.columns}"
        rows.append([name, chip.description, array, str(chip.array.per_chip), levels, f"{dac} / {adc}"])
    print_table("chips", ["name", "description", "array", "arrays", "levels", "DAC / ADC"], rows)


def label(data: Dataset) -> str:
    """The data set's name; synthetic ones say so."""
    return f"{data.name} (synthetic)" if data.synthetic else data.name


def show_operators() -> None:
    """The operators the runtime has, and the totals of the standard's cases."""
    rows = [
        [name, operator.place, "yes" if operator.trainable else "no", f"{operator.passed} of {operator.cases}"]
        for name, operator in OPERATORS.items()
    ]
    print_table("Operators", ["operator", "runs", "trainable", "standard cases passed"], rows)
    passed, total = (sum(getattr(operator, key) for operator in OPERATORS.values()) for key in ("passed", "cases"))
    say(f"{len(OPERATORS)} operators; {passed} of {total} standard cases pass; all others run in onnxruntime")
