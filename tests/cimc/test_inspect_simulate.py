"""`inspect --simulate`: the schedule beside the simulation, what explains the difference, and what is refused."""

import json
import sys
from pathlib import Path

import pytest

from cimc.api.simulate import simulate_mapping
from cimc.artifact import Artifact, read_artifact, write_artifact
from cimc.chip import chip_text, load_chip
from cimc.commands import main as cli
from cimc.options import RowSplit
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.read import read_network

LENET5 = Path(__file__).parents[2] / "models" / "lenet5.onnx"


def compiled(path: Path, chip: str, options: MappingOptions) -> Path:
    network, described = lower(read_network(LENET5)), load_chip(chip)
    mapping = map_network(network, described, options=options)
    write_artifact(path, Artifact("lenet5", network, described, chip_text(chip), mapping))
    return path


@pytest.fixture(scope="module")
def meshed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled(tmp_path_factory.mktemp("simulate") / "a.cim", "isaac", MappingOptions(objective="latency"))


def inspect(path: Path, *options: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["cimc", "inspect", str(path), "--simulate", *options])
        with pytest.raises(SystemExit) as caught:
            cli.main()
    return int(caught.value.code or 0)


def test_the_json_holds_the_schedule_beside_the_simulation_with_the_causes(meshed, capsys):
    assert inspect(meshed, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    latency = result["simulated"]["latency"]
    assert latency["schedule_ms"] == result["row_pipelined_latency_ms"]
    assert latency["difference"] == pytest.approx(latency["simulated_ms"] / latency["schedule_ms"] - 1)
    # Rows go over several links of the mesh at once, which the schedule counts one after the other.
    assert latency["difference"] < -0.05
    assert latency["agrees"]
    assert "parallel links" in latency["causes"]
    interval = result["simulated"]["interval"]
    assert interval["schedule_ms"] == result["interval_ms"]
    assert (interval["causes"], interval["agrees"]) == ([], True)
    assert result["simulated"]["buffer_bytes"]["schedule"] == result["buffer_bytes"]
    busy = [entry["busy_ns"] for entry in result["simulated"]["busy"]]
    assert busy == sorted(busy, reverse=True)


def test_the_table_names_the_causes(meshed, capsys):
    assert inspect(meshed) == 0
    (row,) = [line for line in capsys.readouterr().out.splitlines() if "latency, ms" in line]
    assert "parallel links" in row
    assert "%" in row


def test_waits_name_the_resource_and_the_layers_that_share_it(tmp_path):
    path = compiled(tmp_path / "packed.cim", "brram-256x64", MappingOptions(objective="arrays"))
    waits = simulate_mapping(path, images=4)["waits"]
    assert waits[0]["kind"] == "array"
    assert len(waits[0]["layers"]) > 1
    assert waits[0]["wait_ns"] > 0


def test_segments_are_refused_in_one_line(tmp_path, capsys):
    path = compiled(tmp_path / "segments.cim", "aimc-128", MappingOptions(objective="latency"))
    assert inspect(path, "--json") == 1
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "segments; choose a larger chip" in output.err


def test_a_row_split_in_place_of_the_chips_own_is_what_the_file_says_and_what_is_simulated(tmp_path):
    own, flat = (
        compiled(tmp_path / f"{split}.cim", "brram-256x64", MappingOptions(row_split=split))
        for split in (None, RowSplit.flat)
    )
    for path, split in ((own, "channel"), (flat, "flat")):
        artifact = read_artifact(path)
        assert artifact.chip.row_split == "channel"  # the chip's file is as it was given
        assert artifact.mapping.row_split == split
        assert simulate_mapping(artifact, images=4)["latency"]["agrees"]
