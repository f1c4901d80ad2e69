"""What deployment says of dies and times, and which options it refuses before anything is read."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from cimc.api.deploy import _where
from cimc.cell_file import CellFile, read_cells
from cimc.commands.console import counted
from cimc.commands.deploy import lines_of
from cimc.commands.main import app
from cimc.commands.read_energy_table import show as show_energy
from cimc.errors import CimcError
from cimc.fault_map import Die, note_without_faults
from runtime.deployment.result import Deployment, Details, WorstChip, summary

RESULT = Deployment(
    np.array([0.9, 0.5, 0.7]),
    baseline_accuracy=0.9,
    required=0.99,
    aged={3600.0: np.array([0.9, 0.4, 0.7])},
    dies=("d1", "d2", "d3"),
    details={None: Details(np.array([0.96, 0.5, 0.94]), np.array([20.0, 3.0, 12.0]))},
    worst=WorstChip(1, 0.4, 0.125),
)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--at", "1h,3x"], "'3x' is no span of time"),
        (["--at", ""], "'' is no span of time"),
        (["--compensate", "global+all", "--at", "1h"], "choose none, global, column"),
    ],
)
def test_wrong_times_and_compensations_are_wrong_options(options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["deploy", "no-such-package", *options], env={"COLUMNS": "200"})
    assert result.exit_code == 2
    assert said in result.stderr
    assert options[0] in result.stderr


def test_the_worst_die_is_named_with_its_time() -> None:
    assert "worst die: d2, 0.4000 1h after programming, 12.50% of its devices stuck" in lines_of(RESULT)
    assert summary(RESULT)["worst"]["die"] == "d2"


def test_a_low_agreement_says_of_which_die_it_is_and_how_many_are_as_low() -> None:
    assert _where(RESULT, "d1") == " on the first die, d1; below 95% on 2 of 3"
    assert _where(RESULT, None) == " on the first chip; below 95% on 2 of 3"


def test_an_empty_fault_map_is_told_of() -> None:
    said: list[str] = []
    good, stuck = np.full((1, 2, 2), np.nan, np.float32), np.zeros((1, 2, 2), np.float32)
    for name, cells in (("empty", good), ("full", stuck)):
        note_without_faults(Die(name, cells), said.append)
    assert said == ["the fault map of die empty lists no stuck cell: its devices are all taken for good"]


def test_an_npy_is_an_array_of_all_cells_and_other_files_are_told_which_are_due(tmp_path: Path) -> None:
    form = CellFile("measurement", "conductance_uS", {}, 2, 3, 4, 2, -1.0, (1.0, 100.0))
    cells = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    np.save(tmp_path / "targets.npy", cells)
    np.testing.assert_array_equal(read_cells(tmp_path / "targets.npy", form), cells)
    np.save(tmp_path / "other.npy", cells[0])
    with pytest.raises(CimcError, match="is 3 x 4; the package has arrays of 3 x 4, 2 in use"):
        read_cells(tmp_path / "other.npy", form)
    (tmp_path / "cells.bin").write_bytes(bytes(range(128, 256)))
    with pytest.raises(CimcError, match="it is no text in UTF-8; give CSV, NPZ or NPY"):
        read_cells(tmp_path / "cells.bin", form)


def test_what_a_chip_file_does_not_state_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    spread = {"min": 1.0, "mean": 2.0, "max": 3.0}
    energy = {"cells": spread, "word_lines": spread, "conversions": spread, "total": spread, "table": 2.5}
    show_energy(energy)
    assert "not state" not in capsys.readouterr().out
    show_energy({**energy, "conversions": None})
    assert "-: the chip file does not state it" in " ".join(capsys.readouterr().out.split())


def test_one_is_no_plural() -> None:
    assert [counted(number, "chip") for number in (0, 1, 1200)] == ["0 chips", "1 chip", "1,200 chips"]
