"""Energy of reads by their data, judged bit by bit and cell by cell."""

from itertools import product

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
import pytest
from onnx import helper

from cimc import chip_energy
from cimc.chip import Chip, load_chip
from cimc.dataset import Preprocess, Samples
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from runtime.network.load import load_network
from runtime.system.inference import batches, outputs_on_arrays
from runtime.system.read_energy import ReadEnergy
from runtime.system.state import State, System, build_system, initial_state
from tests.networks import network, weights

PULSE_NS, TOGGLE_PJ, STEP_FJ = 10.0, 0.5, 2.0
RANGE = np.float32(1.5)
X = 1.6 * weights(3, 4, 4, 3, seed=1)
GROUPS, KERNEL, STRIDE = 2, (2, 2), 2


def chip_of(**sections: object) -> Chip:
    energy = {"pulse_ns": PULSE_NS, "dac_toggle_pj": TOGGLE_PJ, "adc_step_fj": STEP_FJ}
    array = {"rows": 6, "columns": 8}
    return load_chip("brram-soc", settings={"array": array, "energy": energy, **sections})


def system_of(chip: Chip) -> tuple[System, State]:
    """A grouped convolution of two channels a group, with padding, then a product with 3 columns."""
    model = network(
        [
            helper.make_node("Conv", ["x", "k"], ["c"], name="conv", group=GROUPS, strides=[2, 2], pads=[0, 0, 1, 1]),
            helper.make_node("Flatten", ["c"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["y"], name="fc"),
        ],
        {"x": ["N", 4, 4, 3]},
        {"y": ["N", 3]},
        {"k": weights(6, 2, *KERNEL), "w": weights(24, 3)},
    )
    lowered = lower(model)
    mapping = map_network(lowered, chip, options=MappingOptions(input_range=(-2.0, 2.0)))
    system = build_system(load_network(ir.to_proto(lowered).SerializeToString()), mapping, chip)
    state = initial_state(system)
    state["input_range"] = {name: jnp.asarray(RANGE) for name in state["input_range"]}
    return system, state


def windows(x: np.ndarray) -> list[list[tuple[int, np.ndarray]]]:
    """For each image the (group, input vector) of every MVM of the convolution."""
    padded = np.pad(x, [(0, 0), (0, 0), (0, 1), (0, 1)])
    sizes = [range(0, padded.shape[axis] - 1, STRIDE) for axis in (2, 3)]
    return [
        [
            (group, image[2 * group : 2 * group + 2, row : row + 2, column : column + 2].reshape(-1))
            for row, column, group in product(*sizes, range(GROUPS))
        ]
        for image in padded
    ]


def of_vector(chip: Chip, x: np.ndarray, cells: np.ndarray, lines: int) -> tuple[float, float]:
    """Cells and word lines of one MVM in mJ: each input, each bit of it, each cell of its row."""
    cell_fj = line_pj = 0.0
    for value, row in zip(x, cells.transpose(1, 0, 2), strict=True):
        code = min(abs(round(float(value) / float(RANGE) * 255)), 255)
        bits = [code >> bit & 1 for bit in range(8)]
        if chip.input.encoding == "pulse-width":
            on, changes = code / 255, 2 * (code > 0)
        else:
            on, changes = sum(bits), sum(a != b for a, b in zip([0, *bits], [*bits, 0], strict=True))
        cell_fj += sum(chip.cell.read_voltage_V**2 * float(g) * PULSE_NS * on for g in row.reshape(-1))
        line_pj += changes * TOGGLE_PJ * lines
    return cell_fj * 1e-12, line_pj * 1e-9


@pytest.mark.parametrize("encoding", ["bit-serial-accumulated", "pulse-width"])
def test_energy_bit_by_bit_and_cell_by_cell(encoding: str) -> None:
    chip = chip_of(input={"encoding": encoding})
    system, state = system_of(chip)
    meter, inputs = ReadEnergy(system, state), {}
    for batch in batches(system.network, Samples({"x": X}), Preprocess()):

        def seen(step: object, x: np.ndarray, batch: object = batch) -> None:
            inputs[step.layer] = x  # type: ignore[attr-defined]
            meter.see(step, x, batch)  # type: ignore[arg-type]

        outputs_on_arrays(system, state, batch, None, seen=seen)
    conv, fc = (np.asarray(state["conductance"][name], np.float64) for name in ("conv", "fc"))
    expected = []
    for image, vector in zip(windows(X), inputs["fc"], strict=True):
        # 3 columns a group and 4 weight columns an array: one array of a group, one of the product's columns.
        parts = [of_vector(chip, x, conv[..., 3 * group : 3 * group + 3], 1) for group, x in image]
        expected.append(np.sum([*parts, of_vector(chip, vector, fc, 1)], axis=0))
    found = meter.figures()
    cells, lines = np.array(expected).T
    assert cells.min() > 0
    assert cells.max() > 1.02 * cells.min()
    for key, wanted in (("cells", cells), ("word_lines", lines)):
        assert found[key] == pytest.approx({"min": wanted.min(), "mean": wanted.mean(), "max": wanted.max()}, rel=1e-5)
    # Two phases; 4 positions, 6 pairs, in one block of 8 rows cut at 6; 24 rows in 4 blocks, 3 pairs.
    conversions = sum(
        2 * layer.positions * len(layer.read_bounds) * 2 * layer.columns for layer in system.mapping.layers
    )
    assert found["conversions"] == pytest.approx(conversions * 256 * STEP_FJ * 1e-12)
    total = cells + lines + found["conversions"]
    assert found["total"]["mean"] == pytest.approx(total.mean(), rel=1e-5)
    assert found["table"] == system.mapping.cost.energy_mj


def test_what_a_chip_does_not_state_is_left_out() -> None:
    chip = chip_of(energy={}).model_copy(update={"energy": chip_energy.ReadEnergy()})
    system, state = system_of(chip)
    meter = ReadEnergy(system, state)
    for batch in batches(system.network, Samples({"x": X}), Preprocess()):
        outputs_on_arrays(system, state, batch, None, seen=meter.see)
    found = meter.figures()
    assert (found["word_lines"], found["conversions"]) == (None, None)
    assert found["total"] == found["cells"]
    assert chip.pulse_ns == pytest.approx(chip.cost.mvm_us * 1000 / 8)
