"""A target: the settings are measured in the order of their cost, the first that is enough is kept, export uses it."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import helper, save
from typer.testing import CliRunner

import cimc
from cimc.api.choose_layout import MEASURED
from cimc.chip import load_chip
from cimc.commands.main import app
from cimc.dataset import Dataset, Samples
from cimc.errors import CimcError
from cimc.report.page import report
from tests.networks import network_proto, weights

X = np.random.default_rng(0).random((100, 40), np.float32)
DATA = Dataset("mine", Samples({"x": X}), Samples({"x": X[:16]}))
CHIP = "brram-256x64"
WIDE = load_chip("isaac", settings={"input": {"bits": 32}})  # more than the runtime counts exactly


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="last"),
    ]
    constants = {"a": weights(40, 12), "b": weights(12, 3, seed=1)}
    place = tmp_path_factory.mktemp("layout")
    save(network_proto(nodes, {"x": ["N", 40]}, {"y": ["N", 3]}, constants), place / "net.onnx")
    np.savez(place / "mine.npz", x=X)
    return place


@pytest.fixture(scope="module")
def every(folder: Path) -> dict[str, Any]:
    """All settings of one read, for a target that none reaches; of digital layers those within half of the products."""
    options = ["--target-snr", "100", "--min-agreement", "50%", "--rows-per-read", "256", "--digital-budget", "50%"]
    data = ["--calibrate", str(folder / "mine.npz"), "-o", str(folder / "net.cim"), "--json"]
    result = CliRunner().invoke(app, ["compile", str(folder / "net.onnx"), *data, *options])
    assert result.exit_code == 0, f"{result.output}{result.exception}"
    figures: dict[str, Any] = json.loads(result.stdout)
    return figures


def test_all_settings_are_measured_in_the_order_of_their_cost_and_a_target_that_none_reaches_is_said(
    every: dict[str, Any],
) -> None:
    choice = every["layout_choice"]
    settings = choice["settings"]
    assert choice["samples"] <= MEASURED
    assert [one["fill_rows"].get("") for one in settings if not one["digital_budget"]] == [None, 64, 128, 256, 1024]
    assert all(one["noise_on"]["snr_db"] < 100 for one in settings)
    on_arrays = [(one["energy_mj"], one["arrays"]) for one in settings if not one["digital_budget"]]
    assert on_arrays == sorted(on_arrays)
    assert [one["digital_budget"] for one in settings if one["digital_budget"]] == [0.5]
    assert not choice["reached"]
    (chosen,) = [one for one in settings if one["chosen"]]
    best = max(settings, key=lambda one: (one["noise_on"]["agreement"], one["noise_on"]["snr_db"]))
    assert chosen is best
    (loud,) = [note for note in every["notes"] if "TARGET NOT REACHED" in note]
    assert "50.0% agreement and 100 dB is wanted" in loud
    assert "what would help most" in loud
    assert "\n" not in loud


def test_the_first_that_is_enough_is_taken_and_no_later_one_is_measured(folder: Path, every: dict[str, Any]) -> None:
    known = every["layout_choice"]["settings"]
    wanted = sorted(one["noise_on"]["snr_db"] for one in known if not one["digital_budget"])[-2] - 0.01
    first = next(place for place, one in enumerate(known) if one["noise_on"]["snr_db"] >= wanted)
    assert first > 0, "the plain setting is enough: nothing is tested"
    said: list[str] = []
    compiled = cimc.compile(
        folder / "net.onnx", CHIP, calibrate=DATA, target_snr=wanted, rows_per_read=256, note=said.append
    )
    assert compiled.layout_choice is not None
    found = compiled.layout_choice.figures["settings"]
    assert [one["noise_on"] is not None for one in found] == [place <= first for place in range(len(found))]
    assert [one["noise_on"] for one in found[: first + 1]] == [one["noise_on"] for one in known[: first + 1]]
    assert [one["chosen"] for one in found].index(True) == first
    assert len(said) == first + 1
    rows = found[first]["fill_rows"][""]
    assert [layer.rows for layer in compiled.artifact.mapping.layers] == [rows // 40 * 40, rows // 12 * 12]


def test_export_uses_the_setting_that_was_taken(folder: Path, every: dict[str, Any]) -> None:
    package = cimc.export(folder / "net.cim", data=DATA)
    (chosen,) = [one for one in every["layout_choice"]["settings"] if one["chosen"]]
    assert package.mapping == cimc.read_artifact(folder / "net.cim").mapping
    assert package.mapping.cost.crossbars == chosen["arrays"]
    chip, original = (
        onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"]).run(None, {"x": X})[0]
        for model in (package.chip_network, (folder / "net.onnx").read_bytes())
    )
    snr = 10 * np.log10(np.square(original).sum() / np.square(chip - original).sum())
    assert snr == pytest.approx(chosen["noise_off"]["snr_db"], abs=3)  # of other samples


def test_the_report_draws_every_setting_that_was_measured(folder: Path, every: dict[str, Any]) -> None:
    page = report(cimc.read_artifact(folder / "net.cim"))
    start = page.index(">Accuracy against cost</h2>")
    part = page[start : page.index("<h2", start + 4)]
    drawings = part.split("<svg")[1:]
    assert len(drawings) == 3
    settings = every["layout_choice"]["settings"]
    for drawing in drawings:
        tree = ElementTree.fromstring("<svg" + drawing.partition("</svg>")[0] + "</svg>")
        titles = [element.text or "" for element in tree.iter() if element.tag.endswith("title")]
        assert len(titles) == 2 * len(settings)
        assert {title.partition(":")[0] for title in titles} == {one["setting"] for one in settings}
    assert "MISSES the target" in part


def test_all_are_measured_for_the_curve_though_the_first_is_enough(folder: Path) -> None:
    compiled = cimc.compile(
        folder / "net.onnx", CHIP, calibrate=DATA, min_agreement=0.0, fill_rows=128, curve=True, digital_budget=0.0
    )
    choice = compiled.layout_choice
    assert choice is not None
    assert [str(one) for one in choice.settings] == ["128 rows filled", "128 rows filled, 64 rows a read"]
    assert all(one.noise_on is not None for one in choice.settings)
    assert choice.chosen is choice.settings[0]


def test_what_is_given_by_hand_is_all_that_is_tried(folder: Path) -> None:
    compiled = cimc.compile(
        folder / "net.onnx", CHIP, calibrate=DATA, min_agreement=0.0, fill_rows=100, rows_per_read=50, verify=False
    )
    choice = compiled.layout_choice
    assert choice is not None
    assert [str(setting) for setting in choice.settings] == ["100 rows filled, 50 rows a read"]
    assert choice.reached
    assert [layer.read_rows for layer in compiled.artifact.mapping.layers] == [50, 50]


def test_a_layer_that_is_left_digital_may_have_numbers_by_hand(folder: Path) -> None:
    compiled = cimc.compile(
        folder / "net.onnx", CHIP, calibrate=DATA, digital_budget=0.5, fill_rows={"last": 120}, verify=False
    )
    choice = compiled.digital_choice
    assert choice is not None
    assert [candidate.share for candidate in choice.candidates] == pytest.approx([480 / 516, 36 / 516])
    assert [layer.name for layer in compiled.artifact.mapping.layers] == ["first"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"target_snr": 20.0}, "give it with --calibrate"),
        ({"curve": True, "calibrate": DATA}, "add --target-snr or --min-agreement"),
        ({"min_agreement": 1.5, "calibrate": DATA}, "--min-agreement is 1.5"),
        ({"target_snr": -3.0, "calibrate": DATA}, "--target-snr is -3.0"),
        ({"target_snr": 20.0, "calibrate": DATA, "chip": WIDE}, "isaac is not simulated"),
        ({"target_snr": 20.0, "calibrate": Dataset("one", Samples({"x": X[:1]}), Samples({"x": X}))}, "one training"),
    ],
)
def test_what_cannot_be_is_told_in_one_line(folder: Path, options: dict[str, Any], said: str) -> None:
    chip = options.pop("chip", CHIP)
    with pytest.raises(CimcError, match=said) as caught:
        cimc.compile(folder / "net.onnx", chip, verify=False, **options)
    assert "\n" not in str(caught.value)


def test_agreement_needs_an_output_of_several_entries(tmp_path: Path) -> None:
    node = helper.make_node("MatMul", ["x", "a"], ["y"], name="only")
    save(network_proto([node], {"x": ["N", 40]}, {"y": ["N", 1]}, {"a": weights(40, 1)}), tmp_path / "one.onnx")
    with pytest.raises(CimcError, match="give --target-snr"):
        cimc.compile(tmp_path / "one.onnx", CHIP, calibrate=DATA, min_agreement=0.9, verify=False)
