"""Agreement with float32 without labels, and the loud line: where it is said, what it names, and where it is not."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import helper
from typer.testing import CliRunner

import cimc
from cimc.api.agreement import low_agreement, note_low_agreement, worst_layer
from cimc.artifact import Artifact
from cimc.chip import chip_text
from cimc.commands.main import app
from cimc.dataset import Dataset, Samples
from cimc.package import read_package
from cimc.report.package_page import package_report
from runtime.system.layer_errors import LayerError
from runtime.system.loss_causes import Losses
from runtime.system.read_effects import Cause
from tests.networks import network, weights

X = np.random.default_rng(2).random((30, 20), np.float32)
DATA = Dataset("made", Samples({"x": X}), Samples({"x": X[:24]}))  # all 30 set the input ranges
# An ADC range of a seventh of a fully-on device: what the network says does not survive that.
DEAF = chip_text("brram-256x64").replace("range_uA = 70.0", "range_uA = 1.0")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"], name="last"),
    ]
    place = tmp_path_factory.mktemp("agreement")
    made = network(nodes, {"x": ["N", 20]}, {"y": ["N", 5]}, {"a": weights(20, 30), "b": weights(30, 5, seed=1)})
    onnx.save(ir.to_proto(made), place / "model.onnx")
    (place / "deaf.toml").write_text(DEAF)
    np.savez(place / "data.npz", x=X)
    return place


def compiled(folder: Path, chip: str | Path) -> Artifact:
    return cimc.compile(folder / "model.onnx", chip, verify=False).artifact


def test_the_package_keeps_how_its_network_agrees_as_onnxruntime_finds_it(folder: Path) -> None:
    said: list[str] = []
    cimc.export(
        compiled(folder, folder / "deaf.toml"), output=folder / "deaf", data=DATA, layers=True, note=said.append
    )
    notes = read_package(folder / "deaf").notes
    chip, exact = (
        onnxruntime.InferenceSession(folder / "deaf" / name).run(None, {"x": X})[0]
        for name in ("model.onnx", "network.onnx")
    )
    found = notes["agreement"]["noise_off"]["y"]
    same = np.mean(np.argmax(chip, axis=1) == np.argmax(exact, axis=1))
    assert (notes["agreement"]["samples"], found["argmax_agreement"]) == (30, pytest.approx(same))
    assert found["snr_db"] == pytest.approx(10 * np.log10(np.square(exact).sum() / np.square(chip - exact).sum()))
    assert notes["agreement"]["noise_on"]["y"] != found
    assert list(notes["layers"]) == ["first", "last"]
    worst = min(notes["layers"], key=lambda name: notes["layers"][name]["own_snr_db"])
    assert len(said) == 1
    assert "\n" not in said[0]
    figures = notes["layers"][worst]
    assert f" with noise; without noise y {same:.1%}; worst layer" in said[0]
    for part in ("LOW AGREEMENT: y ", f"worst layer {worst}", figures["main_cause"], "fewer rows driven at once"):
        assert part in said[0]

    page = folder / "page.html"
    assert CliRunner().invoke(app, ["report", str(folder / "deaf"), "-o", str(page)]).exit_code == 0
    text = page.read_text(encoding="utf-8")
    assert f"{same:.1%}" in text
    picture = ElementTree.fromstring(text[text.index("<svg") : text.index("</svg>") + 6])
    parts = [title.text for title in picture.iter("{http://www.w3.org/2000/svg}title")]
    for name, layer in notes["layers"].items():
        assert f"{layer['own_snr_db']:.1f} dB" in text
        assert f"{name}: {layer['snr_db']:.1f} dB up to here" in parts
        shares = [f"{cause}: {found['share']:.0%}" for cause, found in layer["causes"].items() if found["share"] > 0]
        assert set(shares) <= set(parts)


def test_a_chip_that_loses_nothing_is_not_warned_of(folder: Path) -> None:
    said: list[str] = []
    artifact = compiled(folder, "ideal")
    package = cimc.export(artifact, data=DATA, note=said.append)
    assert package.notes["agreement"]["noise_on"]["y"]["argmax_agreement"] == 1
    assert "layers" not in package.notes
    assert "export with --layers" in package_report(package)
    cimc.evaluate(artifact, DATA, note=said.append)
    assert cimc.deploy(package, DATA, chips=1, note=said.append).agreement["y"]["argmax_agreement"] == 1
    assert said == []


def test_commands_say_it_on_stderr_and_end_well(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, [*arguments, "--data", "data.npz"])
        assert result.exit_code == 0, f"{result.output}{result.exception}"
        assert sum("LOW AGREEMENT" in line for line in result.stderr.splitlines()) == 1
        return result.stdout

    assert CliRunner().invoke(app, ["compile", "model.onnx", "--chip", "deaf.toml", "-o", "deaf.cim"]).exit_code == 0
    exported = run("export", "deaf.cim", "-o", "package", "--layers")
    assert all(text in exported for text in ("y, no noise", "y, programmed, with noise", "causes of the error"))
    assert "clipping" in run("eval", "deaf.cim", "--layers")
    run("deploy", "package", "--chips", "2")


def losses(signal: float, error: float, without: dict[Cause, float]) -> Losses:
    alone = dict.fromkeys(without, 0.0)
    return Losses(signal=signal, error=error, left=0.0, alone=alone, without=without, clipped_codes=0.0)


def test_the_line_names_the_worst_layer_and_the_cause_that_takes_most() -> None:
    errors = [
        LayerError("loop", 1.0, 0.9),
        LayerError("good", 1.0, 0.5, 0.01, losses=losses(1, 0.01, {Cause.weights: 0.0})),
        LayerError("bad", 1.0, 0.5, 0.1, losses=losses(1, 0.1, {Cause.adc_step: 0.02, Cause.read_noise: 0.09})),
    ]
    assert worst_layer(errors).startswith("; worst layer bad, 10.0 dB by itself, mostly by ADC step (40% of its error)")
    assert "more ADC bits" in worst_layer(errors)
    assert worst_layer(errors[:1]) == ""


def test_low_is_said_for_the_output_that_agrees_least_and_layers_are_looked_at_only_then() -> None:
    def looked_at() -> Sequence[LayerError]:
        raise AssertionError("the layers were looked at")

    def figures(snr_db: float, same: float | None = None) -> dict[str, float]:
        return {"snr_db": snr_db} | ({} if same is None else {"argmax_agreement": same})

    note_low_agreement({"a": figures(3, same=0.95), "b": figures(15.1)}, looked_at, pytest.fail)
    note_low_agreement({}, looked_at, pytest.fail)
    assert "a has its largest entry" in str(
        low_agreement({"b": figures(14), "a": figures(30, same=0.94), "c": figures(2)})
    )
    assert "b has an SNR of 14.0 dB" in str(low_agreement({"b": figures(14), "a": figures(30, same=0.99)}))
    with pytest.raises(AssertionError, match="looked at"):
        note_low_agreement({"b": figures(14)}, looked_at, pytest.fail)
