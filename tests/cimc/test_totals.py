"""What `inspect` says of a mapping in all, and how it folds small layers."""

from pathlib import Path
from typing import Any

import pytest

import cimc
from cimc.api.sweep_point import costs
from cimc.chip import Area, load_chip
from cimc.commands import mapping_table, totals
from cimc.mapping import Block, MappedLayer

LENET5 = Path(__file__).parents[2] / "models" / "lenet5.onnx"
LAYERS = [(25, 6, 576), (150, 16, 64), (256, 120, 1), (120, 84, 1), (84, 10, 1)]  # rows, columns, MVMs of LeNet-5
ARRAYS = (1, 1, 4, 3, 1)  # of brram-256x64, 32 weight columns each


@pytest.fixture(scope="module")
def lenet5():
    return cimc.compile(LENET5, "brram-256x64", verify=False)


def test_totals_are_operations_over_time_and_energy(lenet5):
    operations = 2 * sum(rows * columns * mvms for rows, columns, mvms in LAYERS)
    cost = load_chip("brram-256x64").cost
    assert cost.mvm_nj is not None
    interval_s = 576 * cost.mvm_us * 1e-6
    energy_j = sum(count * mvms for count, (*_, mvms) in zip(ARRAYS, LAYERS, strict=True)) * cost.mvm_nj * 1e-9
    found = totals.figures(lenet5.artifact.mapping)
    assert found["operations"] == operations == 563_280
    assert found["tops"] == pytest.approx(operations / interval_s / 1e12)
    assert found["power_w"] == pytest.approx(energy_j / interval_s)
    assert found["tops_per_w"] == pytest.approx(operations / energy_j / 1e12)
    assert found["area_mm2"] is None


def test_energy_is_that_of_arrays_digital_work_and_data_movement(lenet5, capsys):
    stated = {"digital_op_pj": 0.5, "local_byte_pj": 2.0, "global_byte_pj": 30.0}
    chip = load_chip("brram-256x64", settings={"cost": stated})
    mapping = cimc.compile(LENET5, chip, verify=False).artifact.mapping
    found, arrays = totals.figures(mapping), lenet5.artifact.mapping.cost.energy_mj
    by_name = {part.name: part.energy_mj or 0.0 for part in mapping.cost.components}
    beside = sum(by_name[name] for name in ("digital operators", "local memory", "shared memory"))
    assert found["array_energy_mj"] == pytest.approx(arrays)
    assert found["energy_mj"] == pytest.approx(arrays + beside)
    assert beside > 0
    totals._show_energy(mapping)
    assert f"energy of one input: {found['energy_mj']:.2g} mJ (between cores: not stated)" in capsys.readouterr().out


def test_area_is_that_of_all_components(lenet5):
    mapping = cimc.compile(LENET5, "isaac", verify=False).artifact.mapping
    stated = [part.area_mm2 for part in mapping.cost.components if part.area_mm2 is not None]
    assert len(stated) > 1
    assert totals.figures(mapping)["area_mm2"] == pytest.approx(sum(stated))


def test_a_part_that_the_chip_file_leaves_out_is_not_stated_and_not_0(capsys):
    chip = load_chip("isaac")
    cost = chip.cost.model_copy(update={"shift_add_pj": None})
    chip = chip.model_copy(update={"cost": cost, "area": Area(adc_mm2=0.001)})
    artifact = cimc.compile(LENET5, chip, verify=False).artifact
    parts = {part.name: part for part in artifact.mapping.cost.components}
    assert parts["shift-add"].energy_mj is None
    assert [name for name, part in parts.items() if part.area_mm2 is not None] == ["ADC"]
    totals.show(artifact)
    said = capsys.readouterr().out
    assert "mm2 (DAC, array, shift-add, digital operators: not stated)" in said
    assert "mJ (shift-add, digital operators, local memory, between cores, shared memory: not stated)" in said


def test_over_several_chips_nothing_is_said_of_what_lies_between_cores():
    stated = {"array": {"per_chip": 4}, "cost": {"link_byte_pj": 3.0}, "area": {"core_mm2": 0.5}}
    parts = cimc.compile(LENET5, load_chip("brram-256x64", settings=stated), verify=False).artifact.mapping
    by_name = {part.name: part for part in parts.cost.components}
    assert parts.chips > 1
    assert (by_name["between cores"].energy_mj, by_name["digital operators"].area_mm2) == (None, None)


def test_a_chip_that_states_no_energy_takes_none_in_no_figure():
    """It is not the chip that takes least, in JSON, nor in a sweep for the least energy."""
    mapping = cimc.compile(LENET5, "packing-256", verify=False).artifact.mapping
    found = totals.figures(mapping)
    assert [found[key] for key in ("energy_mj", "array_energy_mj", "power_w", "tops_per_w")] == [None] * 4
    assert [part.energy_mj for part in mapping.cost.components if part.name == "MVM"] == [None]
    assert "energy_mj" not in costs(mapping)
    assert costs(cimc.compile(LENET5, "isaac", verify=False).artifact.mapping)["energy_mj"] > 0


def test_layers_add_up_to_their_total_where_the_network_runs_in_segments(monkeypatch, capsys):
    """Programming has a line of its own."""
    monkeypatch.setenv("COLUMNS", "160")
    written = {"array": {"per_chip": 4}, "cost": {"row_write_us": 1.0, "row_write_nj": 50.0}}
    chip = load_chip("brram-256x64", settings=written)
    artifact = cimc.compile(LENET5, chip, objective="interval", verify=False).artifact
    cost = artifact.mapping.cost
    assert cost.reprogramming_mj > 0.1 * cost.energy_mj
    mapping_table.show_layers(artifact)
    total = next(line for line in capsys.readouterr().out.splitlines() if "total" in line)
    assert f" {sum(layer.energy_mj for layer in cost.layers):.2g} " in total


def test_blocks_are_one_text_in_all_tables():
    """The report counted columns of all groups; packed layers have no grid, as row blocks are cut each on its own."""
    shape: dict[str, Any] = {"name": "a", "operator": "CrossbarMatMul", "rows": 8, "columns": 6, "kernel_size": 1}
    shape |= {"positions": 1, "signed_input": False, "row_split": "flat"}

    def block(first_row, first, last):
        return Block(row_start=first_row, row_stop=first_row + 4, column_start=first, column_stop=last, array=0)

    grid = MappedLayer(**shape, blocks=tuple(block(row, c, c + 3) for row in (0, 4) for c in (0, 3)))
    assert (grid.grid, grid.grid_text) == ((2, 2), "2 x 2")
    packed = MappedLayer(**shape, blocks=(block(0, 0, 6), block(4, 0, 2), block(4, 2, 6)))
    assert (packed.grid, packed.grid_text) == ((2, 2), "3 blocks")
    groups = MappedLayer(**shape, groups=2, blocks=(block(0, 0, 3), block(4, 0, 3), block(0, 3, 6), block(4, 3, 6)))
    assert (groups.grid, groups.grid_text) == ((2, 1), "2 x 2 x 1")


def test_inspect_begins_with_the_totals_and_says_one_latency(lenet5, capsys):
    mapping_table.show(lenet5.artifact)
    lines = capsys.readouterr().out.splitlines()
    table = next(index for index, line in enumerate(lines) if line.startswith("lenet5 on"))
    assert [line.split(":")[0] for line in lines[1:table]] == [
        "latency of one input",
        "energy of one input",
        "at full rate",
    ]
    assert sum("latency" in line for line in lines) == 1


def test_layers_of_0_percent_are_one_line_with_their_sums(lenet5, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "140")  # with borders
    mapping_table.show_layers(lenet5.artifact)
    out = capsys.readouterr().out
    (folded,) = [line for line in out.splitlines() if "layers of 0 %" in line]
    cells = [cell.strip() for cell in folded.strip("│").split("│")]
    # fc2 and fc3: fc1 has a hundredth of the energy.
    assert cells[0] == "2 layers of 0 %"
    assert cells[1] == str(120 * 84 + 84 * 10)
    assert [cells[column] for column in (4, 6, 7)] == ["4", "2", "4"]
    assert "fc1" in out
    assert "fc2" not in out
    assert len(mapping_table.figures(lenet5.artifact)["layers"]) == len(LAYERS)
