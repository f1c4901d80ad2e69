"""A network, compiled and trained, and its data; the working folder of a test."""

import numpy as np
import pytest

from tests.cimc.errors.refusals import TRAIN, cimc, data, save


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A one-layer network, compiled and trained, its package, and data."""
    folder = tmp_path_factory.mktemp("made")
    save(folder / "small.onnx")
    np.savez(folder / "data.npz", **data())
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for command in (
            ["compile", "small.onnx", "--chip", "brram-soc", "-o", "small.cim"],
            [*TRAIN, "-o", "trained.cim"],
            ["export", "trained.cim", "-o", "package"],
        ):
            status, _, err = cimc(*command)
            assert status == 0, err
    return folder


@pytest.fixture(autouse=True)
def place(made, tmp_path, monkeypatch):
    """The working folder of a test, with copies of what it names; no data set is installed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("CIMC_DATA", raising=False)
    monkeypatch.delenv("CIMC_TRACEBACK", raising=False)
    for name in ("small.onnx", "small.cim", "trained.cim", "data.npz"):
        (tmp_path / name).write_bytes((made / name).read_bytes())
    return tmp_path
