"""Bad files of the tool, outputs, options: one line on stderr that says what, where, what to do; no partial file."""

import numpy as np
import pytest

from tests.cimc.errors.refusals import TRAIN, cimc, contents, data, refused

# --- the files of the tool ---


@pytest.mark.parametrize("command", ["train", "eval", "export", "inspect"])
def test_artifact_with_a_flipped_byte(place, command):
    content = bytearray((place / "trained.cim").read_bytes())
    content[len(content) // 2] ^= 1
    (place / "flipped.cim").write_bytes(content)
    options = {
        "train": ["--data", "data.npz", "-o", "new.cim"],
        "eval": ["--data", "data.npz"],
        "export": ["-o", "new"],
        "inspect": [],
    }[command]
    message = refused(command, "flipped.cim", *options)
    assert "flipped.cim is damaged" in message
    assert "compile or train it again" in message


def test_package_with_a_flipped_byte(place, made):
    for path in (made / "package").rglob("*"):
        if path.is_file():
            copy = place / path.relative_to(made)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(path.read_bytes())
    content = bytearray((place / "package/program/targets.npy").read_bytes())
    content[-1] ^= 1
    (place / "package/program/targets.npy").write_bytes(content)
    message = refused("deploy", "package", "--data", "data.npz")
    assert "package package is damaged: program/targets.npy" in message
    assert "remove it and export again" in message


# The folders above a package are made.
@pytest.mark.parametrize(
    ("command", "output"),
    [
        (["compile", "small.onnx"], "none/new"),
        (["compile", "small.onnx"], "data.npz/new"),
        (TRAIN, "none/new"),
        (["export", "trained.cim"], "data.npz/new"),
    ],
)
def test_output_that_cannot_be_written(command, output):
    message = refused(*command, "-o", output)
    assert f"cannot write {output}" in message
    assert "check the folder" in message


@pytest.mark.parametrize("command", [["compile", "small.onnx"], TRAIN], ids=lambda command: command[0])
def test_output_that_is_a_folder(place, command):
    (place / "folder").mkdir()
    assert "cannot write folder: it is a folder; give a file name" in refused(*command, "-o", "folder")


def test_export_over_a_file_of_the_user():
    message = refused("export", "trained.cim", "-o", "data.npz")
    assert "cannot write data.npz: it exists and is not a package of this tool; choose another name" in message


@pytest.mark.parametrize(
    ("options", "key"),
    [
        (["--lr", "0.01"], "lr"),
        (["--seed", "1"], "seed"),
        (["--epochs", "2"], "epochs"),
        (["--threshold", "0.2"], "threshold"),
    ],
    ids=str,
)
def test_resume_with_other_settings(options, key):
    message = refused(*TRAIN, *options, "--resume", "-o", "trained.cim")
    assert "trained.cim was started with other settings" in message
    assert f"({key})" in message
    assert "leave out --resume" in message


def test_resume_with_other_data(place):
    np.savez(place / "other.npz", **data())
    message = refused("train", "small.cim", "--data", "other.npz", "--epochs", "1", "--resume", "-o", "trained.cim")
    assert "other settings (data)" in message


def test_resume_of_a_file_that_was_only_compiled(place):
    (place / "compiled.cim").write_bytes((place / "small.cim").read_bytes())
    message = refused(*TRAIN, "--resume", "-o", "compiled.cim")
    assert "compiled.cim holds no training run to resume; leave out --resume" in message


def test_output_that_is_the_input(place):
    before = {name: (place / name).read_bytes() for name in ("small.onnx", "small.cim")}
    assert "it is the input" in refused("compile", "small.onnx", "-o", "small.onnx")
    assert "it is the input" in refused(*TRAIN, "-o", "./small.cim")
    assert {name: (place / name).read_bytes() for name in before} == before


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["deploy", "sealed", "--data", "data.npz", "--csv", "data.npz"], "data.npz: it is the input"),
        (["deploy", "sealed", "--data", "mnist", "--faults", "maps/a.csv", "--csv", "./maps/a.csv"], "it is the input"),
        (["deploy", "sealed", "--data", "mnist", "--dies", "maps", "--csv", "maps/b.csv"], "it lies among the dies"),
        (["deploy", "sealed", "--data", "mnist", "--csv", "sealed/new.csv"], "it lies in the package that is read"),
        (["report", "sealed", "--deployed", "found.json", "-o", "found.json"], "found.json: it is the input"),
        (["sweep", "small.cim", "--data", "data.npz", "-o", "new", "--csv", "data.npz"], "data.npz: it is the input"),
        (["tune", "sealed", "--measured", "maps/a.csv", "-o", "sealed"], "sealed: it is the input"),
        (["export", "trained.cim", "-o", "sealed"], "it holds maps/notes.txt, which is no file of the package; move"),
        (["devices", "fit", "maps/a.csv", "-o", "maps/a.csv"], "maps/a.csv: it is the input"),
    ],
)
def test_nothing_that_is_read_is_written_over(place, command, message):
    for path in ("maps/a.csv", "found.json", "sealed/maps/notes.txt"):
        (place / path).parent.mkdir(exist_ok=True, parents=True)
        (place / path).write_text("here")
    (place / "sealed/manifest.json").write_text('{"tool": "cimc 0", "sha256": {}}')
    assert message in refused(*command)


def test_a_package_may_have_the_name_of_its_chip(place):
    for _ in range(2):  # the second time the folder is there, and is no input
        assert cimc("export", "trained.cim", "--chip", "hermes", "-o", "hermes")[0] == 0


def test_export_of_an_untrained_file_without_data():
    message = refused("export", "small.cim", "-o", "new")
    assert "small.cim was never trained" in message
    assert "add --data" in message


# --- usage ---


@pytest.mark.parametrize(
    "arguments",
    [
        ["compile", "small.onnx", "--input-range", "x"],
        ["compile", "small.onnx", "--input-range", "1,0"],
        ["compile", "small.onnx", "--input-range", "0,inf"],
        ["compile", "small.onnx", "--input-range", "0,nan"],
        ["compile", "small.onnx", "--max-chips", "0"],
        ["compile", "small.onnx", "--row-split", "rows"],
        [*TRAIN, "-o", "new.cim", "--epochs", "0"],
        [*TRAIN, "-o", "new.cim", "--lr", "fast"],
        [*TRAIN, "-o", "new.cim", "--lr", "nan"],
        TRAIN,
        ["eval", "trained.cim", "--seed", "-1"],
        ["deploy", "package", "--chips", "0"],
        ["deploy", "package", "--baseline", "nan"],
        ["deploy", "package", "--required", "nan"],
        ["unknown"],
    ],
    ids=lambda arguments: " ".join([arguments[0], *arguments[-2:]]),
)
def test_usage_error_ends_with_status_2_and_writes_nothing(place, arguments):
    before = contents(place)
    status, out, err = cimc(*arguments)
    assert status == 2
    assert out == ""
    assert any("Error" in line for line in err)
    assert contents(place) == before


@pytest.mark.parametrize("option", ["--method", "--update"])
def test_unknown_update_policy(option):
    message = refused(*TRAIN, option, "magic", "-o", "new.cim")
    assert "'magic', no update policy; choose mixed-precision, naive" in message


@pytest.mark.parametrize(
    ("setting", "said"),
    [("threshold", "is not FIELD=VALUE"), ("speed=3", "no option 'speed'"), ("threshold=x", "threshold is 'x'")],
)
def test_wrong_option_of_an_update_policy(setting, said):
    status, _, message = cimc(*TRAIN, "--set", setting, "-o", "new.cim")
    assert status == (2 if said.startswith("is not") else 1)
    assert said in " ".join(" ".join(message).replace("│", " ").split())


@pytest.mark.parametrize("threshold", ["-1", "2", "nan"])
def test_threshold_that_is_no_fraction(threshold):
    message = refused(*TRAIN, "--threshold", threshold, "-o", "new.cim")
    assert "--threshold" in message
    assert "give one from 0" in message
