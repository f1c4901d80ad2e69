"""Chips with arrays of several kinds: sizes, costs and converters, and which one a layer takes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cimc
from cimc.addresses import cell_addresses, cell_owners, lay_on_arrays, take_from_arrays, word_lines
from cimc.api.remap import dropped_settings, remap
from cimc.artifact import Artifact
from cimc.chip import Chip, chip_text, load_chip, parse_chip
from cimc.chip_to_toml import chip_to_toml
from cimc.errors import CimcError
from cimc.layer_settings import Setting, chip_of_layer, kind_of, settings_of
from cimc.mapping_file import parse_mapping
from passes.mapper.place import Unit, assign_cores
from passes.simulator.simulate import compare
from passes.verify_mapping import verify_mapping
from tests.cimc.kinds import CHIP, LAYERS, LOWERED, SMALL, all_on, chips_of_kinds, kinds_of, mapped, model, two_kinds
from tests.networks import weights


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"rows": 64, "columns": 64}, "kinds.small.per_chip is missing; add it"),
        ({**SMALL, "row": 3}, "unknown key kinds.small.row; did you mean rows?"),
        ({**SMALL, "adc": {"bitz": 3}}, "unknown key kinds.small.adc.bitz; did you mean bits?"),
        ({**SMALL, "cost": {"mvm_ns": 3.0}}, "kinds.small.cost.mvm_ns: wrong unit; the key is mvm_us"),
        ({**SMALL, "columns": 1}, "kinds.small: array.columns and array.rows hold no weight"),
        ({**SMALL, "area": {"adc_mm2": 1.0}}, "kinds.small: it has areas, and the chip has none; add"),
        ({**SMALL, "adc": {"range_mV": 3.0}}, 'kinds.small: adc: range_mV needs sense = "voltage"'),
        ({**SMALL, "cost": {"adc_pj": 3.0}}, "kinds.small: cost: mvm_nj and its split"),
    ],
)
def test_a_wrong_kind_is_named_in_one_line(table: dict[str, Any], said: str) -> None:
    with pytest.raises(CimcError) as error:
        two_kinds(small=table)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", ["first", "a b", "ä"])
def test_a_kind_has_a_plain_name_that_is_not_the_first(name: str) -> None:
    with pytest.raises(CimcError, match="is no name of a kind; write letters"):
        load_chip("brram-256x64", settings={"kinds": {name: SMALL}})


def test_a_chip_in_memory_comes_back_from_its_file_and_one_of_one_kind_says_nothing_of_kinds() -> None:
    chip = two_kinds(small={**SMALL, "adc": {"bits": 6}}, tall={"rows": 512, "columns": 16, "per_chip": 2})
    again = parse_chip(chip_to_toml(chip), "in memory")
    assert again == chip
    assert hash(again) == hash(chip)
    assert list(again.sizes) == ["", "small", "tall"]
    one = load_chip("isaac")
    assert "kinds" not in chip_to_toml(one)
    assert "kinds" not in json.loads(mapped(one).model_dump_json())


def test_costs_and_areas_of_a_kind_follow_its_size_and_its_converters_unless_it_states_them() -> None:
    isaac = two_kinds("isaac", half={"rows": 32, "columns": 32, "per_chip": 4})
    half = isaac.of_kind("half")
    assert isaac.cost.array_pj is not None
    assert isaac.cost.adc_pj is not None
    assert isaac.area is not None
    assert half.area is not None
    assert half.cost.array_pj == pytest.approx(isaac.cost.array_pj / 4)
    assert half.area.array_mm2 == pytest.approx(isaac.area.model_dump()["array_mm2"] / 4)
    assert (half.cost.adc_pj, half.area.adc_mm2) == (isaac.cost.adc_pj, isaac.area.adc_mm2)
    assert isaac.adc.bits is not None
    fewer = {"rows": 32, "columns": 32, "per_chip": 4, "adc": {"bits": isaac.adc.bits - 2}, "cost": {"array_pj": 7.0}}
    other = two_kinds("isaac", half=fewer).of_kind("half")
    assert other.cost.adc_pj == pytest.approx(isaac.cost.adc_pj / 4)
    assert other.cost.array_pj == 7.0
    whole = CHIP.of_kind("small").cost
    assert whole.mvm_nj == pytest.approx((CHIP.cost.mvm_nj or 0.0) * 12 / 64)
    assert whole.mvm_us == CHIP.cost.mvm_us


def test_settings_of_a_layer_lie_on_top_of_its_kind() -> None:
    chip = two_kinds(small={**SMALL, "adc": {"bits": 6}})
    own = settings_of(chip, {"array": "small", "adc.bits": 6, "input.bits": 4}, "layer.a")
    assert own == (Setting("array", "kind", "small"), Setting("input", "bits", 4))
    seen = chip_of_layer(chip, own)
    assert (seen.array.rows, seen.adc.bits, seen.input.bits) == (20, 6, 4)
    # The same bits as the first kind's are others than the kind's.
    assert chip.adc.bits is not None
    back = settings_of(chip, {"array": "small", "adc.bits": chip.adc.bits}, "layer.a")
    assert chip_of_layer(chip, back).adc.bits == chip.adc.bits
    assert settings_of(chip, {"array": "first"}, "layer.a") == ()
    with pytest.raises(CimcError, match=r"layer\.a: array is 'large'; brram-256x64 has arrays first, small"):
        settings_of(chip, {"array": "large"}, "layer.a")
    with pytest.raises(CimcError, match="brram-256x64 has no arrays of kind small, it has first"):
        chip_of_layer(load_chip("brram-256x64"), own)


def test_a_layer_takes_the_kind_with_the_fewest_cells_that_has_arrays_left() -> None:
    # 64 x 64 is 4096 cells, small 240: of that, conv1 and conv2 take 1 and 2, fc1 3, fc2 5.
    assert set(kinds_of(mapped(two_kinds(small={**SMALL, "per_chip": 11}))).values()) == {"small"}
    nine = kinds_of(mapped(two_kinds(small={**SMALL, "per_chip": 9})))
    assert nine == {"conv1": "small", "conv2": "small", "fc1": "small", "fc2": ""}
    # Pinned layers take theirs first; one with converters of its own that names no arrays lies on the first kind.
    pinned = mapped(two_kinds(small={**SMALL, "per_chip": 6}), {"fc2": {"array": "small"}, "conv1": {"adc.bits": 5}})
    assert kinds_of(pinned) == {"conv1": "", "conv2": "", "fc1": "", "fc2": "small"}
    # Of equal kinds it is the first.
    twin = {"rows": 64, "columns": 64, "per_chip": 16}
    assert set(kinds_of(mapped(two_kinds(twin=twin))).values()) == {""}
    # Where no kind has enough on one chip, several chips have.
    few = mapped(load_chip("brram-256x64", settings={"array": {"rows": 16, "columns": 12, "per_chip": 1},
                                                     "kinds": {"small": {**SMALL, "per_chip": 2}}}))  # fmt: skip
    assert few.chips == max(-(-few.kind_of_arrays.count("small") // 2), few.kind_of_arrays.count(""))
    assert few.chips > 1


@pytest.mark.parametrize("name", ["brram-256x64", "isaac", "hermes", "puma"])
def test_one_kind_written_as_a_further_one_costs_the_same(name: str) -> None:
    """Time, energy, area, cores and traffic, whichever table of the chip file the arrays come from."""
    plain = load_chip(name)
    size = plain.array.model_dump(include={"rows", "columns", "per_chip"})
    first, further = (
        mapped(load_chip(name, settings={"kinds": {"twin": size}}), all_on(kind)) for kind in ("first", "twin")
    )
    assert first == mapped(plain)
    assert set(further.kind_of_arrays) == {"twin"}
    for part in ("cost", "schedule", "placement", "chips"):
        assert getattr(further, part) == getattr(first, part)
    moved = [further.place_of(array)[1] - first.place_of(array)[1] for array in range(first.arrays)]
    assert set(moved) == {first.arrays_per_chip}


@settings(deadline=None, max_examples=25)
@given(chips_of_kinds(), st.sampled_from([None, "arrays"]), st.data())
def test_layers_share_arrays_of_their_own_kind_only_and_every_cell_is_found(
    chip: Chip, objective: str | None, data: st.DataObject
) -> None:
    kinds = ["first", *chip.kinds]
    tables = {
        layer: {"array": data.draw(st.sampled_from(kinds))} for layer in data.draw(st.sets(st.sampled_from(LAYERS)))
    }
    try:
        mapping = mapped(chip, tables, objective=objective)
    except CimcError as error:
        assert objective == "arrays" and ("missing" in str(error) or "row_write_us" in str(error))  # noqa: PT017, PT018
        return
    assert parse_mapping(mapping.model_dump_json(), "again") == mapping
    held: dict[int, set[str]] = {}
    for layer in mapping.layers:
        array = chip.kinds[layer.kind] if layer.kind else chip.array
        assert layer.kind == (
            kind_of(settings_of(chip, tables[layer.name], "")) if layer.name in tables else layer.kind
        )
        for block in layer.blocks:
            held.setdefault(block.array, set()).add(layer.kind)
            rows, columns = mapping.lines_of(block)
            assert rows.stop <= array.rows
            assert columns.stop <= array.columns
    assert all(len(of_array) == 1 for of_array in held.values())
    assert sorted(held) == list(range(mapping.arrays))
    # Every array has a place of its own, among those of its kind, on as few chips as its kind needs.
    places = [mapping.place_of(array) for array in range(mapping.arrays)]
    assert len(set(places)) == mapping.arrays
    first, spans = 0, {}
    for kind in ("", *chip.kinds):
        spans[kind] = range(first, first := first + chip.of_kind(kind).arrays_per_chip)
    assert all(place in spans[next(iter(held[array]))] for array, (_, place) in enumerate(places))
    assert 1 + max(number for number, _ in places) == mapping.chips == mapping.cost.chips
    if mapping.placement is not None:
        for kind in ("", *chip.kinds):
            on_core = [core for array, core in enumerate(mapping.placement.cores) if held[array] == {kind}]
            assert max((on_core.count(core) for core in on_core), default=0) <= chip.of_kind(kind).arrays_per_core
    # Addresses: values come back, and a cell tells what it holds.
    values = {
        layer.name: weights(chip.devices_per_weight, layer.rows, layer.columns, seed=n)
        for n, layer in enumerate(mapping.layers)
    }
    arrays = lay_on_arrays(mapping, values, chip=chip, fill=np.nan)
    owners = np.stack(list(cell_owners(mapping, chip, "layer")))
    np.testing.assert_array_equal(owners >= 0, np.isfinite(arrays))
    used = np.isfinite(arrays[:: mapping.physical_per_array]).any(axis=2)
    references = np.count_nonzero(used) if chip.scheme.reference is not None else 0
    assert mapping.cost.devices == np.isfinite(arrays).sum() + references
    seen = set[int]()
    for index, layer in enumerate(mapping.layers):
        np.testing.assert_array_equal(take_from_arrays(mapping, layer.name, arrays), values[layer.name])
        assert (owners[tuple(cell_addresses(mapping, layer.name))] == index).all()
        lines = set(word_lines(mapping, layer.name, chip=chip)[:, :, 0].ravel().tolist())
        assert objective or not seen & lines
        seen |= lines
    # Half of the cells or all: of the arrays' own sizes.
    cells = sum(
        chip.of_kind(kind).array.rows * chip.of_kind(kind).array.columns * chip.physical_per_array
        for (kind,) in held.values()
    )
    assert mapping.cost.utilization == pytest.approx(mapping.cost.devices / cells)


def test_a_core_has_room_for_its_share_of_each_kind() -> None:
    cores = {"count": 2, "mesh_rows": 1, "mesh_columns": 2, "mvm_start_ns": 1.0}
    chip = load_chip("brram-256x64", settings={"cores": cores, "kinds": {"small": {**SMALL, "per_chip": 2}}})
    units = [Unit((0,), 100), Unit((1,), 10, kind="small"), Unit((2,), 5, kind="small")]
    found, busy_ns = assign_cores(units, chip, moved=0)
    # The last is on the busier core: the other one has its one small array.
    assert found == {0: 0, 1: 1, 2: 0}
    assert busy_ns == 105


def test_area_and_energy_are_the_sum_over_kinds() -> None:
    chip = two_kinds("isaac", small={"rows": 32, "columns": 40, "per_chip": 400})
    tables = {layer: {"array": kind} for layer, kind in zip(LAYERS, ("small", "first", "small", "first"), strict=True)}
    both = mapped(chip, tables)
    assert chip.area is not None
    area, mm2 = {part.name: part.area_mm2 for part in both.cost.components}, chip.area.model_dump()
    counts = {kind: both.kind_of_arrays.count(kind) * chip.physical_per_array for kind in ("", "small")}
    assert area["DAC"] == pytest.approx((counts[""] * 64 + counts["small"] * 32) * mm2["dac_mm2"])
    assert area["ADC"] == pytest.approx((counts[""] * 64 + counts["small"] * 40) * mm2["adc_mm2"])
    share = 32 * 40 / 64**2
    assert area["array"] == pytest.approx((counts[""] + counts["small"] * share) * mm2["array_mm2"])
    # A layer costs what it does on a chip that has its kind alone.
    alone = {kind: mapped(chip, all_on(kind)) for kind in ("first", "small")}
    for index, layer in enumerate(LAYERS):
        assert both.cost.layers[index] == alone[str(tables[layer]["array"])].cost.layers[index]
    simulated, _ = compare(LOWERED, both, chip, images=4)
    assert simulated is not None


def test_what_counts_one_kind_of_arrays_is_refused() -> None:
    for options in ({"objective": "interval"}, {"objective": "arrays", "arrays": 4}):
        with pytest.raises(
            CimcError, match="counts arrays of the first kind, and layers lie on others of brram-256x64"
        ):
            mapped(**options)
    with pytest.raises(CimcError, match=r"needs 11 arrays small but 1 x brram-256x64 has 8: 3 missing; raise --max-ch"):
        mapped(tables=all_on("small"), max_chips=1)
    assert mapped(tables=all_on("first"), objective="interval").result is not None


def test_a_packed_network_takes_as_many_chips_as_it_may() -> None:
    chip = two_kinds(small={**SMALL, "per_chip": 2})
    tables, packed = all_on("small"), {"objective": "arrays"}
    with pytest.raises(CimcError, match=r"raise --max-chips to [0-9]+ or"):
        mapped(chip, tables, **packed)
    found = mapped(chip, tables, **packed, max_chips=9)
    assert 1 < found.chips <= 9
    assert verify_mapping(ir.from_proto(model()), LOWERED, found, chip).ideal_relative < 1e-5


def test_a_changed_mapping_knows_its_new_kinds() -> None:
    mapping = mapped(tables=all_on("small"))
    assert mapping.kinds_in_use == ["small"]
    assert set(mapping.kind_of_arrays) == {"small"}
    plain = [layer.model_copy(update={"settings": ()}) for layer in mapping.layers]
    changed = mapping.model_copy(update={"layers": tuple(plain)})
    assert (changed.kinds_in_use, set(changed.kind_of_arrays)) == ([""], {""})


def test_a_block_beyond_its_own_array_is_refused() -> None:
    mapping, chip = mapped(), CHIP
    index, layer = next((n, layer) for n, layer in enumerate(mapping.layers) if layer.kind)
    block = layer.blocks[0]._replace(array_row=3)  # within the first kind's arrays
    moved = layer.model_copy(update={"blocks": (block, *layer.blocks[1:])})
    layers = (*mapping.layers[:index], moved, *mapping.layers[index + 1 :])
    with pytest.raises(CimcError, match=rf"a block of layer {layer.name} takes word lines to \d+ .* has 20 x 12"):
        verify_mapping(ir.from_proto(model()), LOWERED, mapping.model_copy(update={"layers": layers}), chip)


def test_a_mapping_whose_kinds_do_not_fit_together_is_refused() -> None:
    mapping = mapped(objective=None)
    good = json.loads(mapping.model_dump_json())
    parse_mapping(json.dumps(good), "a file")
    kinds = kinds_of(mapping)
    first, other = (
        next(n for n, layer in enumerate(LAYERS) if (kinds[layer] == "") == is_first) for is_first in (True, False)
    )
    shared = json.loads(json.dumps(good))
    shared["layers"][first]["blocks"][0][4] = shared["layers"][other]["blocks"][0][4]
    unknown = json.loads(json.dumps(good))
    unknown["layers"][other]["settings"][0][2] = "large"
    number = json.loads(json.dumps(good))
    number["layers"][other]["settings"][0][2] = 3
    for bad in (shared, unknown, number, {**good, "kinds": [["small", 0]]}):
        with pytest.raises(CimcError, match="holds no valid mapping"):
            parse_mapping(json.dumps(bad), "a file")


def test_a_mapping_keeps_its_kinds_on_its_chip_and_drops_them_on_another() -> None:
    own = mapped(tables={"conv1": {"array": "first"}})
    artifact = Artifact("m", LOWERED, CHIP, chip_to_toml(CHIP), own)
    again = remap(artifact, LOWERED, chip=CHIP, rows_per_read={"": 16})
    assert kinds_of(again) == kinds_of(own)
    assert kinds_of(own)["conv1"] == ""
    other = remap(artifact, LOWERED, chip=load_chip("brram-soc"))
    assert set(kinds_of(other).values()) == {""}
    assert dropped_settings(own, other) is None  # no converters of their own


def test_a_network_on_two_kinds_is_verified_and_options_pin_layers(tmp_path: Path) -> None:
    text = chip_text("brram-soc") + "\n[kinds.small]\nrows = 20\ncolumns = 12\nper_chip = 4\nadc.bits = 6\n"
    (tmp_path / "two.toml").write_text(text)
    options = {"layer": {"fc*": {"array": "small"}, "fc2": {"array": "first"}, "conv1": {"array": "first"}}}
    done = cimc.compile(model(), tmp_path / "two.toml", options=options, output=tmp_path / "m.cim", verify=True)
    found = cimc.read_artifact(tmp_path / "m.cim").mapping
    assert kinds_of(found) == {"conv1": "", "conv2": "", "fc1": "small", "fc2": ""}
    assert found == done.artifact.mapping
    assert done.verification is not None
    assert done.verification.ideal_relative < 1e-5
