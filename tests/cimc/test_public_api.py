"""The Python API: what is exported, with which parameters; the documented example runs; chips in memory."""

import ast
import inspect
import re
import shutil
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, assert_type

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, save

import cimc
from cimc.api.compile import Compiled
from cimc.api.train import Trained
from cimc.chip import chip_names, chip_text, load_chip, parse_chip
from cimc.chip_to_toml import chip_to_toml
from cimc.data.digits import digits
from cimc.package import Package
from tests.networks import network_proto, weights

ROOT = Path(__file__).parents[2]


PACKAGES = ("cimc", "passes", "runtime")


CHIP = "brram-soc"


COMPILE = (
    "model chip | device output input_range calibrate max_chips row_split rows_per_read groups_per_read verify shapes"
)


COMPILE += " constants verify_passes passes_folder objective arrays seed mapper_seconds share_weights fill_rows digital"


COMPILE += " digital_budget target_snr min_agreement curve options note"


DEPLOY = (
    "package data | chips seed required baseline metric memory carry at temperature compensate calibrate faults dies"
)


DEPLOY += " reprogram energy layers workers cluster progress note"


EXPORT = "source chip | output data weights noise layers digital correct carry rows_per_read groups_per_read"


EXPORT += " die placement options seed note"


SWEEP = "source data | vary folder do seeds random search objective devices workers cluster progress note"


# Every public function: its parameters, those after the bar by keyword only.
SIGNATURES = {
    "compile": COMPILE,
    "compile_model": COMPILE,
    "deploy": DEPLOY,
    "evaluate": "source data | exact noise metric layers memory carry energy seed progress note",
    "example_model": "",
    "explain": "chip",
    "export": EXPORT,
    "fit_device": "data output | name read_voltage_V up_only picture seed",
    "from_torch": "module example | output",
    "load_chip": "name_or_path device | settings",
    "load_data": "name_or_path data_dir | mean std channels_last",
    "load_device": "name_or_path",
    "measure": "package measured | data metric memory carry reprogram output seed progress note",
    "plot_deployment": "deployments",
    "plot_device": "device output | devices cycles seed",
    "plot_layers": "result",
    "plot_sweep": "result output",
    "plot_training": "source",
    "read_artifact": "path",
    "read_package": "folder",
    "read_sweep": "folder objective",
    "sweep": SWEEP,
    "to_torch_state": "trained module | network",
    "train": "source data | options output resume checkpoint_seconds init_from progress note track",
    "tune": "package data | measured options output seed progress note",
    "verify": "path",
    "weights": "source original | output",
    "write_artifact": "path artifact",
    "write_package": "folder package",
}


CLASSES = {
    "Artifact": "model network chip chip_text mapping state history",
    "Compiled": "artifact verification notes digital_choice layout_choice",
    "Dataset": "name train test synthetic classes preprocess validation",
    "Deployment": "accuracies baseline_accuracy required measure agreement aged dies details classes compensation "
    "stuck_shares worst energy_mj reprogrammed temperature_C",
    "FittedDevice": "device text pulses drift",
    "FrankWolfe": "constraint radius density averaging",
    "Measured": "name chip deviation_uS beyond_tolerance reprogram",
    "Package": "model chip chip_text mapping program network chip_network notes die wiring",
    "Policy": "method threshold residual write backward sync settings",
    "Preprocess": "scale mean std channels_last",
    "Samples": "inputs labels",
    "SweepResult": "name varied rows objectives complete",
    "Trained": "artifact run figures",
    "TrainingOptions": "policy epochs steps_per_epoch batch_size lr schedule weight_decay seed loss optimizer "
    "warmup label_smoothing augment validation patience keep freeze reestimate_statistics keep_statistics "
    "gradient tangents frank_wolfe write_budget write_every micro_batch",
}


CHOICES = {
    "Augment": ["crop", "flip", "cutout"],
    "Backward": ["digital", "analog"],
    "Constraint": ["box", "l2-ball", "k-sparse"],
    "DiePlacement": ["none", "pairs", "full"],
    "Gradient": ["backward", "weights", "projected", "activities"],
    "Keep": ["last", "best"],
    "Loss": ["auto", "cross-entropy", "mse", "binary", "distill"],
    "Optimizer": ["adam", "adamw", "momentum", "sgd", "frank-wolfe"],
    "RateSchedule": ["constant", "cosine", "plateau", "step", "linear", "exponential"],
    "Residual": ["keep", "drop"],
    "RowSplit": ["channel", "flat"],
    "ShareWeights": ["auto", "always", "never"],
    "Sync": ["auto", "target", "readback", "none"],
    "Weights": ["devices", "digital"],
    "Write": ["verify", "pulse"],
}


OTHERS = {"Chip", "CimcError", "DeviceFile", "Evaluation", "Mapping", "__version__"}


def parameters_of(function: Any) -> str:
    """The names of a function's parameters, with a bar before those that go by keyword only."""
    given = inspect.signature(function).parameters.values()
    free = [p.name for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
    named = [p.name for p in given if p.kind is p.KEYWORD_ONLY]
    assert len(free) + len(named) == len(given)
    return " ".join([*free, *(["|"] if named else []), *named])


# --- What is exported ---


def test_the_public_names_are_these_and_all_can_be_had() -> None:
    assert set(cimc.__all__) == {*SIGNATURES, *CLASSES, *CHOICES, *OTHERS}
    assert len(set(cimc.__all__)) == len(cimc.__all__)
    for name in cimc.__all__:
        assert getattr(cimc, name) is not None
        assert name in dir(cimc)
    assert not hasattr(cimc, "nothing_of_that_name")


@pytest.mark.parametrize("name", SIGNATURES)
def test_parameters_of_a_public_function(name: str) -> None:
    assert parameters_of(getattr(cimc, name)) == SIGNATURES[name]


@pytest.mark.parametrize("name", [name for name in SIGNATURES if "|" in SIGNATURES[name]])
def test_a_command_takes_two_arguments_by_position_and_no_more(name: str) -> None:
    assert SIGNATURES[name].split().index("|") == 2


@pytest.mark.parametrize("name", CLASSES)
def test_fields_of_a_public_record(name: str) -> None:
    assert parameters_of(getattr(cimc, name)) == CLASSES[name]


@pytest.mark.parametrize("name", CHOICES)
def test_choices_of_an_option(name: str) -> None:
    choices = getattr(cimc, name)
    assert issubclass(choices, StrEnum)
    assert list(choices) == CHOICES[name]


def test_a_choice_has_no_second_type() -> None:
    """The values of an option stand nowhere in a Literal."""
    values = {frozenset(choices) for choices in CHOICES.values()}
    found, seen = [], 0
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal":
                    seen += 1
                    parts = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
                    if frozenset(part.value for part in parts if isinstance(part, ast.Constant)) in values:
                        found.append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert seen > 3, "no Literal was seen at all"
    assert found == []


def test_the_packages_say_that_they_are_typed() -> None:
    for package in PACKAGES:
        assert (ROOT / package / "py.typed").exists()


if TYPE_CHECKING:
    # What type checkers see of the exports: `mypy` reads these lines with all others, and nothing runs them. Of an
    # `ignore` that is not needed it complains: each stands for an error that must be found.
    _compiled = cimc.compile("m.onnx", cimc.load_chip("ideal"), output="m.cim")
    _trained = cimc.train("m.cim", cimc.load_data("digits"), options=cimc.TrainingOptions(epochs=2))
    assert_type(_compiled, Compiled)
    assert_type(_trained, Trained)
    assert_type(cimc.export(_trained.artifact), Package)
    cimc.train("m.cim", cimc.load_data("digits"), cimc.TrainingOptions())  # type: ignore[call-arg]
    cimc.TrainingOptions(epochs="many")  # type: ignore[arg-type]
    print(cimc.nothing_of_that_name)  # type: ignore[attr-defined]


def test_importing_loads_nothing_heavy() -> None:
    code = "import sys, cimc; dir(cimc); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert {"cimc"} <= set(done.stdout.split())
    assert set(done.stdout.split()).isdisjoint({"jax", "numpy", "onnx", "onnx_ir", "pydantic", "typer"})


# --- The documented example, and each step from memory ---


@pytest.fixture(scope="module")
def small() -> cimc.Dataset:
    """A few synthetic digits."""
    return cimc.Dataset.of_images("digits", *digits(300, 100), synthetic=True, classes=10)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a one-layer network, model.onnx."""
    folder = tmp_path_factory.mktemp("api")
    nodes = [helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "W", "b"], ["y"])]
    constants = {"W": 0.1 * weights(784, 10), "b": 0.1 * weights(10)}
    save(network_proto(nodes, {"x": ("N", 1, 28, 28)}, {"y": ("N", 10)}, constants), folder / "model.onnx")
    return folder


@pytest.fixture(autouse=True)
def here(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test in a folder of its own, with the network."""
    shutil.copy(place / "model.onnx", tmp_path)
    monkeypatch.chdir(tmp_path)


def test_the_documented_example_runs(
    small: cimc.Dataset, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("cimc.data.load.load", lambda name: {"digits": small}[name])
    (example,) = re.findall(r"(?:^    .*\n|^\n(?=    ))+", cimc.__doc__ or "", re.MULTILINE)
    example = inspect.cleandoc(example)
    assert {f"cimc.{name}(" for name in ("compile", "train", "export", "deploy")} <= set(
        re.findall(r"cimc\.\w+\(", example)
    )
    names: dict[str, Any] = {}
    exec(example, names)
    accuracy, mean, good = map(float, capsys.readouterr().out.split())
    assert accuracy == names["trained"].figures["accuracy"] > 0.3
    assert mean == names["chips"].accuracies.mean() > 0.3
    assert 0 <= good <= 1
    assert {path.name for path in Path().iterdir()} == {"model.onnx", "model.cim", "trained.cim", "package"}


def test_every_step_from_memory_gives_what_it_gives_from_files(small: cimc.Dataset) -> None:
    options = cimc.TrainingOptions(epochs=1, lr=0.02)
    compiled = cimc.compile("model.onnx", CHIP)
    trained = cimc.train(compiled.artifact, small, options=options)
    package = cimc.export(trained.artifact)
    chips = cimc.deploy(package, small, chips=3)
    score = cimc.evaluate(trained.artifact, small)["accuracy"]
    assert [path.name for path in Path().iterdir()] == ["model.onnx"], "no output was named, yet something was written"

    cimc.write_artifact("memory.cim", compiled.artifact)
    cimc.compile(Path("model.onnx"), CHIP, output="file.cim")
    assert Path("memory.cim").read_bytes() == Path("file.cim").read_bytes()
    cimc.write_artifact("memory-trained.cim", trained.artifact)
    cimc.train("file.cim", small, options=options, output="trained.cim")
    assert Path("memory-trained.cim").read_bytes() == Path("trained.cim").read_bytes()
    cimc.write_package("memory-package", package)
    cimc.export("trained.cim", output="package")
    for path in Path("package").rglob("*"):
        if path.is_file():
            assert (Path("memory-package") / path.relative_to("package")).read_bytes() == path.read_bytes(), path
    np.testing.assert_array_equal(cimc.deploy("package", small, chips=3).accuracies, chips.accuracies)
    assert cimc.evaluate("trained.cim", small)["accuracy"] == score


# --- Chips in memory ---


def changed(chip: cimc.Chip) -> cimc.Chip:
    array = chip.array.model_copy(update={"rows": 100})
    return chip.model_copy(update={"name": 'my "chip"\n\x7f µ', "array": array})


@pytest.mark.parametrize("name", chip_names())
def test_a_chip_written_as_toml_is_read_back_equal(name: str) -> None:
    for chip in (load_chip(name), changed(load_chip(name))):
        assert parse_chip(chip_to_toml(chip), "test") == chip


@settings(deadline=None)  # other work on the machine is no fault of the tool
@given(
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    voltage=st.floats(min_value=1e-12, max_value=1e12),
    law=st.lists(st.floats(min_value=-1e12, max_value=1e12), min_size=1, max_size=4),
)
def test_any_text_and_number_of_a_chip_survives_toml(name: str, voltage: float, law: list[float]) -> None:
    chip = load_chip("ideal").model_dump()
    cell = {**chip["cell"], "read_voltage_V": voltage, "programming": {"error_mean_uS": law}}
    described = cimc.Chip.model_validate({**chip, "name": name, "cell": cell})
    assert parse_chip(chip_to_toml(described), "test") == described


def test_a_chip_is_a_name_a_path_or_in_memory(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(chip_text(CHIP), encoding="utf-8")
    given: list[Any] = [CHIP, "mine.toml", tmp_path / "mine.toml", load_chip(CHIP)]
    name, text, path, memory = (cimc.compile("model.onnx", chip, verify=False).artifact for chip in given)
    assert name.chip_text == text.chip_text == path.chip_text
    assert name.mapping == text.mapping == path.mapping == memory.mapping
    assert cimc.explain(CHIP) == cimc.explain(tmp_path / "mine.toml") == cimc.explain(load_chip(CHIP))


def test_a_chip_in_memory_is_compiled_and_exported(small: cimc.Dataset) -> None:
    training, inference = changed(load_chip(CHIP)), changed(load_chip("hermes"))
    cimc.compile("model.onnx", training, output="model.cim")
    artifact = cimc.read_artifact("model.cim")
    assert artifact.chip == training
    assert max(block.row_stop - block.row_start for block in artifact.mapping.layers[0].blocks) == 100
    cimc.export("model.cim", inference, output="package", data=small)
    assert cimc.read_package("package").chip == inference


def test_a_chip_in_memory_is_checked_as_a_file_is() -> None:
    chip = load_chip(CHIP)
    wrong = chip.model_copy(update={"array": chip.array.model_copy(update={"rows": -1})})
    with pytest.raises(cimc.CimcError, match=r"chip file of brram-soc: array\.rows"):
        cimc.compile("model.onnx", wrong)
