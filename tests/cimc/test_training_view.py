"""What inspect and report show of a training run, whatever version wrote it."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cimc import training_record
from cimc.api.compile import compile_model
from cimc.artifact import Artifact, read_artifact, write_artifact
from cimc.commands import mapping_table, training_table
from cimc.errors import CimcError
from cimc.report.page import report
from tests.cimc.test_report import Page, drawings, titles

MODELS = Path(__file__).parents[2] / "models"
LAYERS = ("conv1", "conv2", "fc1")


@cache
def compiled() -> Artifact:
    return compile_model(MODELS / "lenet1.onnx", "brram-soc", verify=False).artifact


def options(**policy: Any) -> dict[str, Any]:
    return {
        "policy": {"method": "mixed-precision", "threshold": None, "write": "verify", **policy},
        "epochs": 3,
        "batch_size": 32,
        "lr": 0.0125,
        "schedule": "plateau",
        "seed": 17,
        "data": "mnist",
        "images": 60000,
        "data_sha256": "0" * 64,
        "source_sha256": "1" * 64,
    }


def history(steps: int = 30, ranges: bool = False, **other: Any) -> dict[str, Any]:
    """Three epochs, made up; without figures and tool, as earlier versions wrote it."""
    epochs: list[dict[str, Any]] = [
        {"epoch": n, "loss": 2.0 / n, "accuracy": 0.5 + 0.1 * n, "lr": 0.0125, "updates": 161.0 * n} for n in (1, 2, 3)
    ]
    if ranges:
        # The first epoch is of a version that did not record them.
        for n, record in enumerate(epochs[1:], 2):
            record["layers"] = {
                name: {
                    "input_range": 1.5 * n + index,
                    "weight_range": 0.25,
                    "clipped_inputs": 0.01 * n + 0.001 * index,
                    "clipped_codes": 0.0002 * n,
                }
                for index, name in enumerate(LAYERS)
            }
    return {
        "options": options(),
        "step": 30,
        "steps": steps,
        "epochs": epochs,
        "scale": 1 / 255,
        "synthetic": False,
        **other,
    }


def state() -> dict[str, np.ndarray]:
    """Counters: of every layer one weight was updated five times, and one device written four times in seven trials."""
    found = {}
    for layer in compiled().mapping.layers:
        for group, shape, count in (
            ("updates", (layer.rows, layer.columns), 5),
            ("writes", (2, layer.rows, layer.columns), 4),
            ("trials", (2, layer.rows, layer.columns), 7),
        ):
            counts = np.zeros(shape, np.int32)
            counts.flat[3] = count
            found[f"{group}/{layer.name}"] = counts
    return found


def trained(**changes: Any) -> Artifact:
    return replace(compiled(), state=state(), history=history(**changes))


FIGURES = {
    "accuracy": 0.9741,
    "loss": 0.0912,
    "epochs": 3,
    "updates": 4321,
    "updates_per_weight_mean": 1.342,
    "updates_per_weight_max": 77,
    "update_reduction": 512.0,
    "device_writes": 5678,
    "programming_trials": 8765,
    "programming_energy_mj": 0.0123,
    "weights": 3220,
    "steps": 30,
    "first_programming_trials": 8600,
}


def test_figures_and_options_of_a_run_are_shown_on_both(capsys: pytest.CaptureFixture[str]) -> None:
    artifact = trained(figures=FIGURES, tool="cimc 9.8.7", synthetic=True)
    found = mapping_table.figures(artifact)["training"]
    assert found["figures"] == FIGURES
    assert found["options"] == options()
    assert (found["complete"], found["step"], found["steps"]) == (True, 30, 30)
    assert (found["data"], found["synthetic"], found["images"]) == ("mnist", True, 60000)
    assert found["tool"] == "cimc 9.8.7"
    assert found["epochs"] == artifact.history["epochs"]
    mapping_table.show(artifact)
    shown = capsys.readouterr().out
    page = " ".join(Page(report(artifact)).texts)
    for text in (shown, page):
        for figure in ("97.41%", "0.0912", "4,321", "1.342", "77", "512x", "5,678", "8,765", "0.0123 mJ"):
            assert figure in text
        for option in ("mixed-precision", "policy.write", "verify", "0.0125", "plateau", "17", "32"):
            assert option in text
        for origin in ("cimc 9.8.7", "mnist (synthetic)", "30 of 30 steps", "60,000 images"):
            assert origin in text
        assert "first programming trials" in text, "a figure of another version is shown under its key"
        assert "8,600" in text


def test_of_an_older_file_the_figures_are_what_its_counters_tell() -> None:
    found = training_record.figures(trained())
    assert found is not None
    weights = compiled().mapping.cost.weights
    assert found["figures"] == {
        "accuracy": pytest.approx(0.8),
        "loss": pytest.approx(2 / 3),
        "epochs": 3,
        "updates": 15,
        "updates_per_weight_mean": 15 / weights,
        "updates_per_weight_max": 5,
        "update_reduction": 30 * weights / 15,
        "device_writes": 12,
        "programming_trials": 21,
        "programming_energy_mj": None,
        "programming_time_ms": None,
        "weights": weights,
        "steps": 30,
    }
    assert found["tool"] is None


def test_a_pulse_with_a_stated_energy_gives_that_of_programming() -> None:
    programming = compiled().chip.cell.programming.model_copy(update={"pulse_nj": 2.0})
    cell = compiled().chip.cell.model_copy(update={"programming": programming})
    chip = compiled().chip.model_copy(update={"cell": cell})
    for method, energy in (("naive", 21 * 2e-6), ("float", None)):
        settings = options(method=method)
        found = training_record.figures(replace(trained(options=settings), chip=chip))
        assert found is not None
        assert found["figures"]["programming_energy_mj"] == (energy and pytest.approx(energy))


def test_a_checkpoint_says_that_it_is_one(capsys: pytest.CaptureFixture[str]) -> None:
    artifact = trained(steps=50)
    found = training_record.figures(artifact)
    assert found is not None
    assert not found["complete"]
    training_table.show(artifact)
    for text in (capsys.readouterr().out, " ".join(Page(report(artifact)).texts)):
        assert "heckpoint of an unfinished run" in text
        assert "30 of 50 steps" in text
    training_table.show(trained())
    assert "unfinished" not in capsys.readouterr().out


def test_a_checkpoint_before_the_first_epoch_has_no_accuracy_yet(capsys: pytest.CaptureFixture[str]) -> None:
    artifact = trained(steps=50, epochs=[])
    found = training_record.figures(artifact)
    assert found is not None
    assert (found["figures"]["accuracy"], found["figures"]["updates"]) == (None, 15)
    training_table.show(artifact)
    assert "test accuracy" in capsys.readouterr().out
    assert "No epoch is complete yet" in report(artifact)


def test_a_file_that_was_never_trained_shows_no_training(capsys: pytest.CaptureFixture[str]) -> None:
    assert mapping_table.figures(compiled())["training"] is None
    mapping_table.show(compiled())
    assert "training options" not in capsys.readouterr().out
    assert ">Training<" not in report(compiled())


def dots(element: Any) -> list[tuple[float, float]]:
    circles = element.iter("{http://www.w3.org/2000/svg}circle")
    return [(float(c.get("cx")), float(c.get("cy"))) for c in circles]


def test_lines_are_those_of_the_epochs() -> None:
    artifact = trained()
    found = drawings(report(artifact))
    assert titles(found["test accuracy"]) == [
        f"test accuracy, epoch {n}: {value} %" for n, value in ((1, 60), (2, 70), (3, 80))
    ]
    assert titles(found["training loss"])[1] == "training loss, epoch 2: 1"
    weights = artifact.mapping.cost.weights
    updates = titles(found["updates per weight, from the start"])
    assert updates[2] == f"updates per weight, epoch 3: {3 * 161 / weights:.4g}"
    (x1, y1), (x2, y2), (x3, y3) = dots(found["test accuracy"])
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y1 - y2 == pytest.approx(y2 - y3, abs=0.2)
    assert y1 > y2, "more is higher up"


def test_ranges_and_clipping_shares_are_drawn_by_layer_where_they_are_recorded(
    capsys: pytest.CaptureFixture[str],
) -> None:
    artifact = trained(ranges=True)
    page = report(artifact)
    found = drawings(page)
    for index, layer in enumerate(LAYERS):
        clipped, ranges = found[f"{layer}: clipped"], found[f"{layer}: ranges"]
        assert titles(clipped) == [
            f"clipped inputs, epoch 2: {2 + 0.1 * index:g} %",
            f"clipped inputs, epoch 3: {3 + 0.1 * index:g} %",
            "clipped ADC codes, epoch 2: 0.04 %",
            "clipped ADC codes, epoch 3: 0.06 %",
        ]
        assert titles(ranges)[:2] == [f"input range, epoch {n}: {1.5 * n + index:g}" for n in (2, 3)]
        text = {element.text for element in clipped.iter("{http://www.w3.org/2000/svg}text")}
        assert {"clipped inputs", "clipped ADC codes"} <= text, "the legend"
    training_table.show(artifact)
    shown = capsys.readouterr().out
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in shown.splitlines() if line.startswith("│")]
    for index, layer in enumerate(LAYERS):
        share = f"{3 + 0.1 * index:.3f}%"
        assert [layer, f"{4.5 + index:g}", "0.25", share, "0.060%"] in rows
        assert share in page


def test_without_recorded_ranges_there_is_no_such_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert "Ranges and clipping" not in report(trained())
    training_table.show(trained())
    assert "ranges by layer" not in capsys.readouterr().out


def test_names_are_shown_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "[bold]x[/bold]<b>&"
    made = history(ranges=True)
    for record in made["epochs"][1:]:
        record["layers"] = {evil: record["layers"]["conv1"]}
    made["options"]["data"] = evil
    artifact = replace(trained(), history=made)
    training_table.show(artifact)
    shown = capsys.readouterr().out
    assert shown.count(evil) == 3, "the line, the table of epochs, the table of ranges"
    page = report(artifact)
    assert "<b>&" not in page
    assert any(evil in text for text in Page(page).texts)


@pytest.mark.parametrize(
    "damage",
    [
        {"options": None},
        {"options": {"seed": 1}},
        {"step": "many"},
        {"epochs": [{"epoch": 1}]},
        {"epochs": 3},
        {"epochs": [{**history()["epochs"][0], "layers": {"conv1": 3}}]},
        {"epochs": [{**history()["epochs"][0], "layers": {"conv1": {"input_range": "wide"}}}]},
    ],
)
def test_damaged_history_is_one_clear_error(damage: dict[str, Any]) -> None:
    with pytest.raises(CimcError, match=r"training history of lenet1 is damaged .*train it again"):
        training_record.read_training(trained(**damage))


def test_many_epochs_are_thinned_and_the_last_is_kept() -> None:
    record = history()["epochs"][0]
    epochs = [{**record, "epoch": n, "accuracy": n / 2000} for n in range(1, 1502)]
    found = drawings(report(trained(epochs=epochs)))["test accuracy"]
    assert 100 < len(titles(found)) <= 201
    assert titles(found)[-1] == "test accuracy, epoch 1501: 75.05 %"


def test_the_history_survives_the_file(tmp_path: Path) -> None:
    write_artifact(tmp_path / "trained.cim", trained(figures=FIGURES, ranges=True))
    assert training_record.figures(read_artifact(tmp_path / "trained.cim")) == training_record.figures(
        trained(figures=FIGURES, ranges=True)
    )
