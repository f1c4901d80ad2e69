"""Compiling must not hold the weights in memory: it maps the files."""

import sys
from pathlib import Path

import pytest

from tests.benchmarks.size import SIZES, measure, write_transformer


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_weights_in_another_file_are_never_held_in_memory(tmp_path: Path) -> None:
    model, artifact = tmp_path / "model.onnx", tmp_path / "model.cim"
    parameters = write_transformer(model, *SIZES[40])
    _, _, peak = measure([sys.executable, "-m", "cimc", "compile", str(model), "--no-verify", "-o", str(artifact)])
    assert artifact.stat().st_size > 4 * parameters
    assert peak < 140, "MB of anonymous memory, for 170 MB of weights; the libraries alone take 85 MB"
