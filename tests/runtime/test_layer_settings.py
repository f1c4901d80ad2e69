"""Layers with converters or arrays of their own: the exported network is the runtime; packages hold them."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
import pytest

import cimc
from cimc.chip import Adc, Chip, Input, load_chip
from cimc.dataset import Dataset, Samples
from cimc.errors import CimcError
from cimc.layer_settings import Settings, chip_of_layer, settings_of
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.verify import run
from runtime.crossbar.keys import new_key
from runtime.network.load import load_network
from runtime.system.inference import Batch, outputs_on_arrays
from runtime.system.program import program_of, programmed_state
from runtime.system.read_energy import conversions_pj
from runtime.system.state import State, System, build_system, initial_state
from runtime.training.layer_groups import add_tiles
from runtime.training.policies import make_rule
from tests.runtime.test_every_chip import MODEL, chip_of

X = np.random.default_rng(3).uniform(-1, 1, (4, 4, 5, 5)).astype(np.float32)


def built(chip: Chip, settings: dict[str, Settings]) -> tuple[System, np.ndarray]:
    """The system, and the network's outputs as exported, without noise."""
    lowered = lower(MODEL.clone())
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=(-1.0, 1.0), settings=settings))
    system = build_system(load_network(ir.to_proto(lowered).SerializeToString()), mapping, chip)
    (exported,) = run(chip_network(lowered, mapping, chip, program_of(system, state_of(system))), {"x": X})
    return system, np.asarray(exported, np.float32)


def state_of(system: System) -> State:
    return {**initial_state(system), "input_range": {"conv": jnp.float32(1), "dense": jnp.float32(4)}}


def on_arrays(system: System, state: State, x: np.ndarray) -> np.ndarray:
    """What the runtime computes without noise."""
    (found,) = outputs_on_arrays(system, state, Batch(0, Samples({"x": x}), {"x": x}), None).values()
    return np.asarray(found)


# Signed inputs in two phases, a stated range; bit by bit, exact; voltages; ideal converters beside a layer's with bits.
CASES: dict[str, dict[str, dict[str, float]]] = {
    "brram-256x64": {"conv": {"input.bits": 5, "adc.bits": 10}, "dense": {"adc.range_uA": 300.0, "adc.bits": 4}},
    "isaac": {"dense": {"input.bits": 7, "input.bits_per_cycle": 3, "adc.bits": 6}},
    "neurram": {"conv": {"input.bits": 5, "adc.range_mV": 90.0}},
    "ideal": {"conv": {"input.bits": 5, "adc.bits": 6}},
}


@pytest.mark.parametrize("name", CASES)
def test_the_exported_network_gives_what_the_arrays_give(name: str) -> None:
    chip = chip_of(name)
    system, exported = built(chip, {layer: settings_of(chip, of, layer) for layer, of in CASES[name].items()})
    arrays = on_arrays(system, state_of(system), X)
    np.testing.assert_allclose(exported, arrays, atol=2e-5 * np.abs(arrays).max())
    assert {layer for layer in ("conv", "dense") if system.chip_of(layer) != chip} == CASES[name].keys()
    # Other codes were used indeed.
    assert np.abs(exported - built(chip, {})[1]).max() > 1e-4 * np.abs(arrays).max()


def test_policies_that_read_tiles_by_the_adc_of_the_chip_refuse_another_one() -> None:
    chip = chip_of("brram-256x64")
    system, _ = built(chip, {"conv": settings_of(chip, {"adc.bits": 4}, "conv")})
    with pytest.raises(CimcError, match="tiki-taka reads its devices by the ADC of the chip, and layer conv has one"):
        add_tiles(make_rule("tiki-taka"), system, state_of(system), {}, new_key(0), lambda name, trials: trials.sum())


def test_of_all_layers_they_are_another_chip() -> None:
    chip = chip_of("brram-256x64")
    own = settings_of(chip, {"input.bits": 6, "adc.bits": 10}, "all")
    system, exported = built(chip, {"conv": own, "dense": own})
    other = chip.model_copy(
        update={
            "input": Input.model_validate({**chip.input.model_dump(), "bits": 6}),
            "adc": Adc.model_validate({**chip.adc.model_dump(), "bits": 10}),
        }
    )
    np.testing.assert_array_equal(exported, built(other, {})[1])
    assert all(system.chip_of(name) == other for name in ("conv", "dense"))


def test_conversions_by_law_take_the_bits_of_each_layer() -> None:
    chip = chip_of("brram-256x64")
    chip = chip.model_copy(update={"energy": chip.energy.model_copy(update={"adc_step_fj": 10.0})})
    before = conversions_pj(built(chip, {})[0])
    after = conversions_pj(built(chip, dict.fromkeys(("conv", "dense"), settings_of(chip, {"adc.bits": 10}, "all")))[0])
    assert before is not None
    assert after == pytest.approx(before * 4)


def test_training_and_the_package_have_them(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    split = Samples({"x": random.uniform(0, 1, (32, 4, 5, 5)).astype(np.float32)}, random.integers(0, 7, 32))
    data = Dataset("noise", split, split)
    small = {"rows": 40, "columns": 10, "per_chip": 6, "adc": {"bits": 9, "range_uA": 90.0}}
    chip = load_chip("brram-soc", settings={"kinds": {"small": small}})
    tables: dict[str, Any] = {
        "layer": {
            "conv": {"array": "first", "adc": {"bits": 11, "range_uA": 120.0}},
            "dense": {"array": "small", "input": {"bits": 6}},
        }
    }
    proto = ir.to_proto(MODEL)
    artifact = cimc.compile(proto, chip, options=tables, verify=True).artifact
    assert artifact.mapping.kind_of_arrays == ("", "small", "small", "small", "small")
    trained = cimc.train(artifact, data, options=cimc.TrainingOptions(epochs=1, batch_size=16))
    package = cimc.export(trained, output=tmp_path / "package", noise=False)
    assert package.mapping.by_settings == artifact.mapping.by_settings
    assert cimc.verify(tmp_path / "package")["model_onnx"] == 0.0
    readme = (tmp_path / "package" / "README.md").read_text()
    assert "Layers conv have converters of their own: adc.bits 11, adc.range_uA 120." in readme
    assert "clip(round(I / LSB), 0, 2047)" in readme
    assert f"{120.0 / 2047:.9g}" in readme
    assert "Layers dense lie on arrays of kind small and have converters of their own: input.bits 6." in readme
    assert f"{90.0 / 511:.9g}" in readme
    # The tester's files have each array's own cells.
    for array, (rows, columns) in enumerate([(64, 64), *[(40, 10)] * 4]):
        lines = (tmp_path / "package" / "program" / f"array_{array:04d}.csv").read_text().splitlines()
        cells = [line.split(",") for line in lines if not line.startswith("#")]
        assert (len(cells) - 1, len(cells[-1]) - 1) == (rows, columns)
        assert f"array {array + 3 if array else 0} on that chip" in lines[0]
    again = cimc.read_package(tmp_path / "package")
    system = build_system(load_network(again.network), again.mapping, again.chip)
    assert system.chip_of("conv") == chip_of_layer(load_chip("brram-soc"), artifact.mapping.layer("conv").settings)
    assert (system.chip_of("dense").array.rows, system.chip_of("dense").adc.bits) == (40, 9)
    x = split.inputs["x"]
    arrays = on_arrays(system, programmed_state(system, again.program), x)
    (exported,) = run(ir.from_proto(onnx.ModelProto.FromString(again.chip_network)), {"x": x})
    np.testing.assert_allclose(np.asarray(exported, np.float32), arrays, atol=1e-4 * np.abs(arrays).max())
    deployed = cimc.deploy(again, data, chips=2)
    assert len(deployed.accuracies) == 2
