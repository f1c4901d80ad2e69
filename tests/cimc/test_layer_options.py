"""Options of single layers: whose table a layer gets, what a wrong one says, what the mapping keeps, what it costs."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

import cimc
from cimc.api.remap import dropped_settings, remap
from cimc.artifact import Artifact, read_artifact
from cimc.chip import Chip, load_chip
from cimc.errors import CimcError
from cimc.layer_options import layer_options
from cimc.layer_settings import Setting, chip_of_layer, settings_of
from cimc.mapping import Mapping
from cimc.mapping_cost import LayerCost
from cimc.mapping_file import parse_mapping
from passes.simulator.simulate import compare
from tests.networks import network_proto, weights

SOC, ISAAC = load_chip("brram-soc"), load_chip("isaac")
LAYERS = ("conv1", "conv2", "fc")


def model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["h"], "conv1", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["k"], "conv2", kernel_shape=[3, 3]),
        helper.make_node("Flatten", ["k"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"], "fc"),
    ]
    constants = {"w1": weights(4, 2, 3, 3), "w2": weights(3, 4, 3, 3, seed=1), "v": weights(48, 5, seed=2)}
    return network_proto(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 5]}, constants)


def compiled(tables: dict[str, Any] | None, chip: Chip = SOC, **options: Any) -> Artifact:
    given = None if tables is None else {"layer": tables}
    return cimc.compile(model(), chip, options=given, verify=False, **options).artifact


def costs(mapping: Mapping) -> dict[str, LayerCost]:
    return {layer.name: layer for layer in mapping.cost.layers}


def options(tables: dict[str, Any], chip: Chip = SOC, digital: dict[str, str] | None = None) -> Any:
    return layer_options({"layer": tables}, LAYERS, chip=chip, digital=digital or {})


def test_a_layer_takes_its_own_table_before_patterns_and_of_these_the_last() -> None:
    found = options(
        {
            "conv1": {"adc": {"bits": 10}, "rows_per_read": 3},
            "*": {"adc": {"bits": 7, "range_uA": 20}, "rows_per_read": 64},
            "conv?": {"adc": {"bits": 6}},
            "fc": {"digital": True},
            "f*": {"digital": False},
        }
    )
    ranged = Setting("adc", "range_uA", 20.0)
    assert found.settings == {
        "conv1": (Setting("adc", "bits", 10), ranged),
        "conv2": (Setting("adc", "bits", 6), ranged),
    }
    assert found.digital == ("fc",)
    assert found.numbers["rows_per_read"] == {"conv1": 3, "conv2": 64}


@pytest.mark.parametrize(
    ("tables", "message"),
    [
        (
            {"conv3": {}},
            r"options: layer.conv3: no layer of the network has that name, or fits it; did you mean conv2\?",
        ),
        ({"x*": {}}, r"layer.x\*: no layer of the network has that name, or fits it; there are conv1, conv2, fc"),
        ({"conv1": {"adc": {"bit": 3}}}, r"layer.conv1 has no key adc.bit; did you mean adc.bits\?"),
        ({"conv1": {"cell": {"levels": 4}}}, "has no key cell.levels; it takes digital, rows_per_read, .* adc.bits"),
        ({"conv1": {"input": {"encoding": "ideal"}}}, "has no key input.encoding"),
        ({"conv1": {"adc": {"bits": 99}}}, r"layer.conv1: adc.bits: .* less than or equal to 16 \(got 99\)"),
        ({"conv1": {"adc": {"bits": 7.5}}}, r"layer.conv1: adc.bits: .* \(got 7.5\)"),
        ({"conv1": {"adc": {"range_uA": True}}}, "layer.conv1: adc.range_uA is True; give a number"),
        ({"conv1": {"adc": {"range_uA": float("nan")}}}, "layer.conv1: adc.range_uA: "),
        ({"conv1": {"adc": {"range_mV": 5.0}}}, 'range_mV needs sense = "voltage"'),
        ({"conv1": {"cost": {"adc_pj": 1.0}}}, "exclude each other"),
        ({"conv1": {"digital": 1}}, "layer.conv1: digital is 1; give true or false"),
        ({"*": {"rows_per_read": 0}}, r"layer.\*: rows_per_read is 0; give a whole number of at least 1"),
        ({"*": {"rows_pr_read": 4}}, r"has no key rows_pr_read; did you mean rows_per_read\?"),
        ({"conv1": 8}, r"layer.conv1 is 8; write a table \[layer.NAME\]"),
        ({"conv1": {"adc": {"bits": 9}}, "*": {"digital": True}}, "left digital .its digital = true., where adc.bits"),
    ],
)
def test_a_wrong_table_is_one_line_with_what_exists(tables: dict[str, Any], message: str) -> None:
    with pytest.raises(CimcError, match=message) as error:
        options(tables)
    assert "\n" not in str(error.value)


def test_a_wrong_file_is_one_line(tmp_path: Path) -> None:
    for text, message in (("[layers.conv1]", "no key 'layers'"), ("layer = 3", "layer is 3"), ("[", "not valid TOML")):
        (tmp_path / "o.toml").write_text(text)
        with pytest.raises(CimcError, match=f"options file .*o.toml.*{message}"):
            layer_options(tmp_path / "o.toml", LAYERS, chip=SOC, digital={})
    with pytest.raises(CimcError, match="cannot read options file"):
        layer_options(tmp_path / "none.toml", LAYERS, chip=SOC, digital={})
    with pytest.raises(CimcError, match=r"layer.fc is left digital .--digital., where adc.bits means nothing"):
        options({"fc": {"adc": {"bits": 9}}}, digital={"fc": "--digital"})
    assert options({"*": {"adc": {"bits": 9}}}, digital={"fc": "--digital"}).settings.keys() == {"conv1", "conv2"}


def test_what_the_chip_has_anyway_changes_nothing(tmp_path: Path) -> None:
    same = {"*": {"input": {"bits": 8}, "adc": {"bits": 8, "range_uA": 30, "noise_lsb": 0.0}, "cost": {"mvm_nj": 2.66}}}
    for name, tables in (("plain", None), ("same", same)):
        compiled(tables, output=tmp_path / f"{name}.cim")
    assert (tmp_path / "same.cim").read_bytes() == (tmp_path / "plain.cim").read_bytes()


def test_the_file_keeps_them_and_one_of_before_has_none(tmp_path: Path) -> None:
    mapping = compiled({"conv2": {"adc": {"range_uA": 40}}}, output=tmp_path / "a.cim").mapping
    assert mapping.layer("conv2").settings == (Setting("adc", "range_uA", 40.0),)
    assert read_artifact(tmp_path / "a.cim").mapping == mapping
    text = json.loads(mapping.model_dump_json())
    for layer in text["layers"]:
        del layer["settings"]
    assert not parse_mapping(json.dumps(text), "a.cim").by_settings


@pytest.mark.parametrize(
    "setting", [["adc", "bits", -1], ["cell", "levels", 4], ["adc", "bits", 1e400], ["adc", "bits"]]
)
def test_a_file_with_settings_that_no_chip_has_is_refused(setting: list[Any], tmp_path: Path) -> None:
    from cimc.mapping_file import require_settings

    text = json.loads(compiled(None).mapping.model_dump_json())
    text["layers"][0]["settings"] = [setting]
    with pytest.raises(CimcError, match=r"bad\.cim"):
        require_settings(parse_mapping(json.dumps(text), "bad.cim"), SOC, "bad.cim")


def test_of_bit_serial_inputs_time_and_energy_go_with_the_cycles_and_conversions_with_the_adcs_bits() -> None:
    before, after = (costs(compiled(t, ISAAC).mapping) for t in (None, {"conv1": {"input": {"bits": 4}}}))
    assert after["conv1"].latency_ms == pytest.approx(before["conv1"].latency_ms * 4 / 16)
    # Conversions, rows and arrays: all of it is per cycle.
    assert after["conv1"].energy_mj == pytest.approx(before["conv1"].energy_mj * 4 / 16)
    assert {name: after[name] for name in ("conv2", "fc")} == {name: before[name] for name in ("conv2", "fc")}
    changed = chip_of_layer(ISAAC, settings_of(ISAAC, {"adc.bits": 10, "input.bits": 4}, "layer.conv1"))
    assert changed.cost.adc_pj == ISAAC.cost.adc_pj * 4  # type: ignore[operator]
    stated = chip_of_layer(ISAAC, settings_of(ISAAC, {"adc.bits": 10, "cost.adc_pj": ISAAC.cost.adc_pj}, "layer.conv1"))
    assert stated.cost == ISAAC.cost


def test_a_stated_time_and_energy_is_that_of_the_layer_alone_in_every_figure() -> None:
    own = {"conv1": {"adc": {"bits": 10}, "cost": {"mvm_us": 1.08, "mvm_nj": 5.0}}}
    before, after = compiled(None).mapping, compiled(own).mapping
    old, new = costs(before), costs(after)
    assert new["conv1"].latency_ms == pytest.approx(old["conv1"].latency_ms * 1.08 / 0.72)
    assert new["conv1"].energy_mj == pytest.approx(old["conv1"].energy_mj * 5.0 / 2.66)
    assert new["fc"] == old["fc"]
    assert after.cost.energy_mj == pytest.approx(sum(cost.energy_mj for cost in new.values()))
    assert before.schedule is not None
    assert after.schedule is not None
    first, second = (
        [stage.round_ns for stage in one.stages if stage.kind == "crossbar"]
        for one in (before.schedule, after.schedule)
    )
    assert second == pytest.approx([1.5 * first[0], *first[1:]])
    assert after.schedule.interval_ns == pytest.approx(new["conv1"].latency_ms * 1e6)


@pytest.mark.parametrize("objective", ["interval", "latency", "energy", "arrays"])
def test_an_objective_keeps_its_bound_where_layers_take_different_times(objective: str) -> None:
    own = {"conv1": {"cost": {"mvm_us": 0.36}}, "conv2": {"cost": {"mvm_us": 2.5}}}
    artifact = compiled(own, load_chip("brram-256x64"), objective=objective, arrays=12)
    result = artifact.mapping.result
    assert result is not None
    assert result.bound <= result.value * (1 + 1e-9)
    if objective == "interval":  # arrays alone limit it: exact, and conv2 has more copies than without its slow reads
        assert result.exact
        plain = compiled(None, load_chip("brram-256x64"), objective=objective, arrays=12).mapping
        assert artifact.mapping.layer("conv2").copies > plain.layer("conv2").copies
    _, compared = compare(artifact.network, artifact.mapping, artifact.chip)
    assert all(one.agrees for one in compared)


def test_a_digital_layer_of_the_file_is_digital() -> None:
    artifact = compiled({"conv*": {"digital": True}, "conv2": {"digital": False}})
    assert [layer.name for layer in artifact.mapping.layers] == ["conv2", "fc"]


def test_the_settings_of_the_file_hold_on_its_chip_and_another_is_told() -> None:
    file = compiled({"conv1": {"adc": {"bits": 10}}, "fc": {"input": {"bits": 4}}})
    kept = file.mapping.by_settings
    assert remap(file, file.network, chip=None) is file.mapping
    assert remap(file, file.network, chip=SOC).by_settings == kept
    assert remap(file, file.network, chip=None, rows_per_read={"": 7}).by_settings == kept
    moved = remap(file, file.network, chip=load_chip("hermes"))
    assert not moved.by_settings
    assert "conv1, fc had on brram-soc, are not taken over to hermes" in (dropped_settings(file.mapping, moved) or "")
    anew = layer_options({"layer": {"fc": {"input": {"bits": 8}}}}, LAYERS, chip=SOC, digital={})
    assert list(remap(file, file.network, chip=None, settings=anew.settings).by_settings.values()) == [["conv1"]]


@given(
    st.dictionaries(st.sampled_from(("input.bits", "adc.bits", "adc.range_uA", "adc.noise_lsb")), st.integers(2, 12))
)
@settings(max_examples=40, deadline=None)
def test_a_layers_chip_is_the_chip_file_with_these_values(values: dict[str, int]) -> None:
    found = chip_of_layer(SOC, settings_of(SOC, values, "layer.any"))
    tables: dict[str, Any] = {}
    for key, value in values.items():
        section, name = key.split(".")
        tables.setdefault(section, {})[name] = value
    wanted = load_chip("brram-soc", settings=tables)
    assert (found.input, found.adc) == (wanted.input, wanted.adc)
    assert np.isclose(found.target_step_uS, wanted.target_step_uS)
