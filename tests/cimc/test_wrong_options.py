"""The Python API: a wrong value is refused when it is given, before any file is read."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cimc
from cimc.chip import chip_text
from cimc.data.digits import digits

CHIP = "brram-soc"
LENET1 = Path(__file__).parents[2] / "models" / "lenet1.onnx"


@pytest.fixture(scope="module")
def small() -> cimc.Dataset:
    """A few synthetic digits."""
    return cimc.Dataset.of_images("digits", *digits(300, 100), synthetic=True, classes=10)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "schedule",
            "cosin",
            r"schedule is 'cosin'; choose constant, cosine, plateau, step, linear, exponential; did you mean cosine\?",
        ),
        ("schedule", None, "schedule is None; choose constant"),
        ("policy", "naive", "policy is 'naive'; give a Policy"),
        ("epochs", 0, "epochs is 0; give a whole number from 1 to 1000000000"),
        ("epochs", 1.5, "epochs is 1.5"),
        ("epochs", True, "epochs is True"),
        ("steps_per_epoch", 0, "steps_per_epoch is 0"),
        ("batch_size", -1, "batch_size is -1"),
        ("lr", float("nan"), "lr is nan, not a finite number in its range; give one from 0 to "),
        ("lr", 1e39, "lr is 1e.39"),
        ("lr", "0.1", "lr is '0.1'"),
        ("lr", -0.1, "lr is -0.1"),
        ("weight_decay", float("inf"), "weight_decay is inf"),
        ("seed", -1, "seed is -1; give a whole number from 0 to 9223372036854775807"),
        ("seed", 2**63, "seed is 9223372036854775808"),
        ("batch_size", 10**9, "batch_size is 1000000000"),
        ("steps_per_epoch", 10**9, "an epoch of 1000000000 steps of 64 samples is more than"),
    ],
)
def test_a_wrong_training_option_is_refused_when_it_is_given(field: str, value: Any, message: str) -> None:
    with pytest.raises(cimc.CimcError, match=message) as error:
        cimc.TrainingOptions(**{field: value})
    assert "\n" not in str(error.value)
    with pytest.raises(cimc.CimcError, match=message):
        replace(cimc.TrainingOptions(), **{field: value})


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        (
            "method",
            "Naive",
            r"--update is 'Naive', no update policy; choose mixed-precision, naive, .*float, .*; did you mean naive\?",
        ),
        ("residual", "reset", "residual is 'reset'; choose keep, drop"),
        ("write", "pulses", r"did you mean pulse\?"),
        ("backward", "Analog", r"did you mean analog\?"),
        ("sync", 3, "sync is 3; choose auto, target, readback, none"),
        ("threshold", "0.1", "threshold is '0.1'"),
    ],
)
def test_a_wrong_policy_is_refused_when_it_is_given(field: str, value: Any, message: str) -> None:
    with pytest.raises(cimc.CimcError, match=message):
        cimc.Policy(**{field: value})


def test_right_names_become_the_choices_and_numbers_plain_ones() -> None:
    given: Any = {"method": "mixed-precision", "write": "pulse", "threshold": np.float32(0.5)}
    policy = cimc.Policy(**given)
    assert policy.write is cimc.Write.pulse
    assert type(policy.threshold) is float
    three: Any = np.int64(3)
    options = cimc.TrainingOptions(policy, epochs=three, lr=1, schedule=cimc.RateSchedule("plateau"))
    assert (type(options.epochs), type(options.lr)) == (int, float)
    assert options == cimc.TrainingOptions(policy, epochs=3, lr=1.0, schedule=cimc.RateSchedule.plateau)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row_split": "flatt"}, r"row_split is 'flatt'; choose channel, flat; did you mean flat\?"),
        ({"objective": "speed"}, "--objective is 'speed'; choose arrays, energy, interval, latency"),
        ({"input_range": (1.0, 0.0)}, r"input_range is \(1\.0, 0\.0\)"),
        ({"input_range": (0.0, float("inf"))}, "input_range is"),
        ({"input_range": 1.0}, "input_range is 1.0"),
        ({"max_chips": 0}, "max_chips is 0"),
        ({"arrays": 0, "objective": "arrays"}, "arrays is 0"),
        ({"mapper_seconds": -1.0, "objective": "arrays"}, "mapper_seconds is -1.0"),
        ({"mapper_seconds": 5.0}, "--mapper-seconds bounds the search for an objective; add --objective"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_a_wrong_option_of_compile_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(cimc.CimcError, match=message):
        cimc.compile(LENET1, CHIP, **options)


@pytest.mark.parametrize(
    ("command", "options", "message"),
    [
        ("train", {"resume": True}, "resume goes on from the checkpoint in output; give output"),
        ("train", {"checkpoint_seconds": -1}, "checkpoint_seconds is -1"),
        ("evaluate", {"seed": -1}, "seed is -1"),
        ("export", {"weights": "device"}, r"weights is 'device'; .* did you mean devices\?"),
        ("export", {"seed": 0.5}, "seed is 0.5"),
        ("deploy", {"chips": 0}, "chips is 0"),
        ("deploy", {"required": -1}, "required is -1"),
        ("deploy", {"required": 99}, "required is 99, not a finite number in its range; give one from 0 to 1"),
        ("deploy", {"baseline": 0}, "baseline is 0, not a finite number in its range; give one from 1e-12 on"),
    ],
)
def test_a_wrong_option_of_a_command_is_refused_before_any_file_is_read(
    command: str, options: dict[str, Any], message: str, small: cimc.Dataset
) -> None:
    given = ["missing"] if command == "export" else ["missing", small]
    with pytest.raises(cimc.CimcError, match=message):
        getattr(cimc, command)(*given, **options)


def test_a_chip_file_is_not_overwritten_by_what_is_compiled_for_it(tmp_path: Path) -> None:
    chip = tmp_path / "mine.toml"
    chip.write_text(chip_text("brram-256x64"), encoding="utf-8")
    with pytest.raises(cimc.CimcError, match=r"mine\.toml"):
        cimc.compile(LENET1, str(chip), output=chip, verify=False)
    assert chip.read_text(encoding="utf-8") == chip_text("brram-256x64")


def test_what_is_handed_in_is_checked_at_the_door(small: cimc.Dataset) -> None:
    wrong: Any = "digits"
    settings: Any = {"epochs": 1}
    number: Any = 5
    for call, message in (
        (lambda: cimc.train("missing", wrong), "a str was given for the data; give what cimc.load_data gives"),
        (lambda: cimc.evaluate("missing", wrong), "a str was given for the data"),
        (lambda: cimc.deploy("missing", wrong), "a str was given for the data"),
        (lambda: cimc.deploy("missing", small, calibrate=wrong), "a str was given for calibrate; give what cimc.load_"),
        (lambda: cimc.sweep("missing", [small], vary={}), "a list was given for the data"),  # type: ignore[arg-type]
        (lambda: cimc.sweep("missing", None, vary={}), "nothing was given for the data"),  # type: ignore[arg-type]
        (lambda: cimc.measure("missing", "missing", data=wrong), "a str was given for the data"),
        (lambda: cimc.export("missing", data=wrong), "a str was given for the data"),
        (lambda: cimc.compile("missing", "ideal", calibrate=wrong), "a str was given for calibrate"),
        (lambda: cimc.train("missing", small, options=settings), "options is a dict; give cimc.TrainingOptions"),
        (lambda: cimc.deploy(number, small), "a int was given for the package; give its folder"),
        (lambda: cimc.weights(number), "a int was given for a .cim file; give its path"),
        (lambda: cimc.plot_deployment(number), "there is no deployment to draw"),
        (lambda: cimc.plot_deployment({"a": number}), "there is no deployment to draw"),
        (lambda: cimc.plot_layers(number), "no layers were measured"),
        (lambda: cimc.plot_training(number), "a int was given for a .cim file"),
    ):
        with pytest.raises(cimc.CimcError, match=message):
            call()
