"""Commands that must be refused, and what they are given."""

import io
import sys
import warnings
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from cimc.commands import main as cli
from tests.networks import network_proto, weights

LAYER = (helper.make_node("Flatten", ["x"], ["flat"]), helper.make_node("Gemm", ["flat", "W", "b"], ["y"], name="fc"))


CONSTANTS = {"W": 0.2 * weights(64, 4), "b": weights(4, seed=1)}


TRAIN = ["train", "small.cim", "--data", "data.npz", "--epochs", "1"]


def save(path: Path, nodes: Sequence[onnx.NodeProto] = LAYER, outputs: Sequence[str] = ("y",), **constants: Any):
    sizes = dict.fromkeys(outputs, ("N", 4))
    onnx.save(network_proto(nodes, {"x": ("N", 1, 8, 8)}, sizes, {**CONSTANTS, **constants}), path)


def data(**changes: np.ndarray) -> dict[str, Any]:
    """Random images (64, 1, 8, 8) of four classes, with some arrays changed."""
    random = np.random.default_rng(0)
    images = {key: random.integers(0, 256, (64, 1, 8, 8)).astype(np.uint8) for key in ("x_train", "x_test")}
    labels = {key: np.arange(64, dtype=np.int32) % 4 for key in ("y_train", "y_test")}
    return images | labels | changes


def cimc(*arguments: str) -> tuple[int, str, list[str]]:
    """Exit status, stdout, and what a user would see on stderr, warnings included."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        patch.setattr(sys, "argv", ["cimc", *arguments])
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as caught:
            cli.main()
    code = caught.value.code
    assert code is None or isinstance(code, int)
    return code or 0, out.getvalue(), err.getvalue().splitlines() + [str(warning.message) for warning in warned]


def contents(folder: Path) -> dict[Path, bytes | None]:
    return {path: path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def refused(*arguments: str) -> str:
    """Run a command that must be refused, and return its one line."""
    before = contents(Path())
    status, out, err = cimc(*arguments)
    lines = [line for line in err if not line.startswith("train: epoch")]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert "internal error" not in lines[0]
    assert "Traceback" not in lines[0]
    assert status == 1
    assert out == ""
    assert contents(Path()) == before, "it left something behind, or changed a file"
    return lines[0]
