"""The causes of a layer's loss: judged cell by cell, by chips that have one effect only, and by the layer's read."""

from collections.abc import Collection
from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import Chip, load_chip
from cimc.chip_sections import Weights
from cimc.units import device_targets, reference_target
from cimc.window import Window
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Held, read_in_pieces
from runtime.crossbar.product import clipped_conversions
from runtime.system.loss_causes import Losses, loss_causes
from runtime.system.read_effects import Cause, row_factors
from runtime.system.sample_vectors import sample_vectors
from tests import reference

ROWS, COLUMNS, MVMS = 13, 3, 7
READ_ROWS = 5
RANDOM = np.random.default_rng(3)
WEIGHT = RANDOM.normal(size=(ROWS, COLUMNS)).astype(np.float32)
X = RANDOM.normal(size=(ROWS, MVMS)).astype(np.float32)
BIAS = RANDOM.normal(size=COLUMNS).astype(np.float32)
WEIGHT_RANGE, INPUT_RANGE, GAIN = 2.0, 2.5, 0.7


def coarse(**cell: object) -> Chip:
    """A chip that has every effect: 3 bits in, 5 bits out, an ADC range that some columns leave, 9 levels."""
    chip = load_chip("brram-256x64")
    return chip.model_copy(
        update={
            "input": chip.input.model_copy(update={"bits": 3}),
            "adc": chip.adc.model_copy(update={"bits": 5, "range_uA": 5.0}),
            "cell": chip.cell.model_copy(update={"levels": 9, **cell}),
        }
    )


def written(chip: Chip, weight: np.ndarray, weight_range: float) -> SimpleNamespace:
    """Targets of the weights, and devices with errors, [2, rows, columns]."""
    targets = np.asarray(device_targets(weight, np.float32(weight_range), chip))
    errors = np.random.default_rng(5).normal(0, 2, targets.shape).astype(np.float32)
    return SimpleNamespace(targets=targets, conductance=np.maximum(targets + errors, 0))


def losses(chip: Chip, *, noise: bool = False, x: np.ndarray = X, programmed: bool = True) -> Losses:
    devices = written(chip, WEIGHT, WEIGHT_RANGE)
    held = Held(
        jnp.asarray(devices.conductance if programmed else devices.targets),
        jnp.float32(WEIGHT_RANGE),
        jnp.float32(INPUT_RANGE),
        jnp.float32(GAIN),
        jnp.asarray(BIAS),
    )
    layer = Crossbar(chip, READ_ROWS, COLUMNS, signed=True)
    exact, seed = (WEIGHT * np.float32(GAIN), BIAS), 0 if noise else None
    return loss_causes(layer, x, held, targets=devices.targets, weight=WEIGHT, exact=exact, seed=seed)


def cell_by_cell(chip: Chip, on: Collection[Cause]) -> float:
    """The power of the error with these effects on, cell by cell in float64."""
    cell, devices = chip.cell, written(chip, WEIGHT, WEIGHT_RANGE)
    assert chip.input.bits is not None
    assert chip.adc.bits is not None
    top_in, top, lsb = 2**chip.input.bits - 1, 2**chip.adc.bits - 1, chip.adc.lsb_uA
    share = WEIGHT.astype(np.float64) / WEIGHT_RANGE
    window = cell.conductance_max_uS - cell.conductance_min_uS
    g = cell.conductance_min_uS + window * np.stack([np.maximum(share, 0), np.maximum(-share, 0)])
    wanted = g.copy()
    if Cause.weights in on:
        g += devices.targets - wanted
    if Cause.programming in on:
        g += devices.conductance - devices.targets
    total = 0.0
    for mvm in range(MVMS):
        u = [float(value) / INPUT_RANGE * top_in for value in X[:, mvm]]
        u = [round(code) if Cause.input_rounding in on else code for code in u]
        u = [max(-top_in, min(top_in, code)) if Cause.input_clipping in on else code for code in u]
        for column in range(COLUMNS):
            d = 0.0
            for start in range(0, ROWS, READ_ROWS):
                rows = slice(start, min(start + READ_ROWS, ROWS))
                for plane in (1, -1):
                    driven = [max(plane * code, 0.0) for code in u[rows]]
                    idle = reference.column_current(driven, [cell.conductance_min_uS] * len(driven), chip, None)
                    for device, sign in ((0, 1), (1, -1)):
                        level = reference.column_current(driven, g[device, rows, column].tolist(), chip, None) / lsb
                        level = round(level) if Cause.adc_step in on else level
                        if Cause.adc_clipping in on:
                            most = top if Cause.idle_current in on else top + idle / lsb
                            level = max(0.0, min(most, level))
                        d += plane * sign * level
            found = d * reference.output_scale(WEIGHT_RANGE, INPUT_RANGE, chip) * GAIN
            total += (found - float(X[:, mvm].astype(np.float64) @ WEIGHT[:, column]) * GAIN) ** 2
    return total


EFFECTS = [
    Cause.input_clipping,
    Cause.input_rounding,
    Cause.weights,
    Cause.programming,
    Cause.idle_current,
    Cause.adc_clipping,
    Cause.adc_step,
]


def test_effects_alone_together_and_missing_are_those_of_the_layer_cell_by_cell() -> None:
    chip = coarse()
    found = losses(chip)
    assert list(found.alone) == EFFECTS
    assert found.error == pytest.approx(cell_by_cell(chip, EFFECTS), rel=1e-4)
    assert found.left < 1e-9 * found.signal
    for cause in EFFECTS:
        alone, others = cell_by_cell(chip, [cause]), [other for other in EFFECTS if other is not cause]
        assert found.alone[cause] == pytest.approx(alone, rel=1e-3, abs=1e-9 * found.signal), cause
        assert found.without[cause] == pytest.approx(cell_by_cell(chip, others), rel=1e-3), cause
    assert cell_by_cell(chip, EFFECTS) > 1.05 * found.without[Cause.idle_current]  # the layer is one that shows it


def test_shares_add_up_where_the_errors_do() -> None:
    chip = coarse()
    wide = chip.model_copy(update={"adc": chip.adc.model_copy(update={"range_uA": 40.0, "bits": 8})})
    figures = losses(wide, x=RANDOM.normal(size=(ROWS, 200)).astype(np.float32), noise=True).figures
    assert figures["rest"] == pytest.approx(0, abs=0.03)
    assert sum(cause["share"] for cause in figures["causes"].values()) == pytest.approx(1 - figures["rest"])
    assert all(cause["share"] > -0.03 for cause in figures["causes"].values())


def test_noise_has_the_power_of_its_cells_and_conversions() -> None:
    chip = coarse(read_noise_uS=4.0)
    x = RANDOM.normal(size=(ROWS, 250)).astype(np.float32)
    found = losses(chip, noise=True, x=x)
    scale = reference.output_scale(WEIGHT_RANGE, INPUT_RANGE, chip) * GAIN
    codes = x.astype(np.float64) / INPUT_RANGE * 7
    reads = 2 * COLUMNS * np.square(codes * 4.0 * chip.cell.read_voltage_V / 2**3 / chip.adc.lsb_uA).sum()
    conversions = 2 * 2 * 3 * COLUMNS * x.shape[1] * chip.adc.noise_lsb**2  # devices, planes, row blocks
    assert found.alone[Cause.read_noise] == pytest.approx(reads * scale**2, rel=0.1)
    assert found.alone[Cause.adc_noise] == pytest.approx(conversions * scale**2, rel=0.1)
    assert losses(chip, noise=True, x=x) == found  # the same noise in each read, and each time


def test_read_noise_that_follows_the_state_counts_at_the_state_of_each_device() -> None:
    """Alone, on devices that hold the weights exactly; beyond the window the sd is that of its end."""
    chip = coarse(read_noise_uS=0.0, read_noise_polynomial_uS=(0.0, 0.0, 8.0))
    cell, share = chip.cell, WEIGHT.astype(np.float64) / WEIGHT_RANGE
    held = cell.conductance_min_uS + cell.window_uS * np.clip(np.stack([share, -share]), 0, 1)
    x = RANDOM.normal(size=(ROWS, 250)).astype(np.float32)
    found = losses(chip, noise=True, x=x)
    scale = reference.output_scale(WEIGHT_RANGE, INPUT_RANGE, chip) * GAIN
    per_uS = cell.read_voltage_V / 2**3 / chip.adc.lsb_uA
    variance = np.square(8 * (held / cell.conductance_max_uS) ** 2)
    reads = np.einsum("rn,drc->", np.square(x.astype(np.float64) / INPUT_RANGE * 7 * per_uS), variance)
    assert found.alone[Cause.read_noise] == pytest.approx(reads * scale**2, rel=0.1)


def only(effect: Cause) -> tuple[Chip, bool]:
    """A chip that has one effect and hardly another, and whether its devices have errors."""
    chip = load_chip("brram-256x64")
    converter = {"bits": 16, "range_uA": 40.0, "noise_lsb": 50.0 if effect is Cause.adc_noise else 0.0}
    if effect is Cause.adc_step:
        converter["bits"] = 6
    if effect in (Cause.adc_clipping, Cause.idle_current):
        converter["range_uA"] = 4.0 if effect is Cause.idle_current else 1.5
    cell = {
        "levels": 5 if effect is Cause.weights else None,
        "read_noise_uS": 1.0 if effect is Cause.read_noise else 0.0,
        "conductance_min_uS": 0.0 if effect is Cause.adc_clipping else 10.0,
    }
    parts = {"input": {"bits": 3 if effect is Cause.input_rounding else 9}, "adc": converter, "cell": cell}
    changed = {name: getattr(chip, name).model_copy(update=update) for name, update in parts.items()}
    return chip.model_copy(update=changed), effect is Cause.programming


# IR drop needs a mapping: tests/runtime/system/test_wires.py.
@pytest.mark.parametrize("effect", [cause for cause in Cause if cause is not Cause.ir_drop])
def test_a_chip_with_one_effect_shows_that_cause(effect: Cause, monkeypatch: pytest.MonkeyPatch) -> None:
    """All inputs and weights are within their ranges, except where that is the effect.

    A twentieth is left to ADC noise below 0, which the converter clips.
    """
    monkeypatch.setattr(f"{__name__}.WEIGHT_RANGE", 4.0)
    monkeypatch.setattr(f"{__name__}.INPUT_RANGE", 1.0 if effect is Cause.input_clipping else 4.0)
    chip, programmed = only(effect)
    found = losses(chip, noise=True, programmed=programmed)
    assert found.main_cause is effect
    idle = {Cause.adc_clipping, Cause.idle_current} if effect is Cause.idle_current else {effect}
    assert sum(share for cause, share in found.shares.items() if cause in idle) == pytest.approx(1, abs=0.05)
    assert all(abs(share) < 0.05 for cause, share in found.shares.items() if cause not in idle)


def test_where_nothing_is_lost_there_is_no_cause() -> None:
    exact = Losses(
        signal=1.0, error=0.0, left=0.0, alone={Cause.weights: 0.0}, without={Cause.weights: 0.0}, clipped_codes=0.0
    )
    assert (exact.main_cause, exact.figures["rest"], exact.figures["remedy"]) == (None, 0.0, None)


WINDOWS = [
    Window((3,), (2,), (1, 0), (2,)),
    Window((3, 2), (2, 1), (1, 0, 0, 1), (1, 2)),
    Window((1, 1), (1, 1), (0,) * 4, (1, 1)),
]


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_inputs_are_drawn_from_those_of_all_mvms(window: Window) -> None:
    x = RANDOM.normal(size=(2, 3, *(7, 6)[: len(window.kernel)])).astype(np.float32)
    layer = Crossbar(load_chip("brram-256x64"), 8, 4, signed=True, window=window)
    conv = reference.ConvWindow(window.kernel, window.strides, window.pads, window.dilations)
    every = {vector.tobytes() for vector in reference.vectors(x, conv).reshape(3 * np.prod(window.kernel), -1).T}
    for most in (5, 1000):
        drawn = sample_vectors(layer, x, most, np.random.default_rng(0)).T.astype(np.float64)
        assert len(drawn) == min(most, len(every))
        assert {vector.tobytes() for vector in drawn} <= every
        assert len({vector.tobytes() for vector in drawn}) == len(drawn)


@pytest.mark.parametrize(("groups", "together"), [(1, 1), (4, 1), (4, 2)])
@pytest.mark.parametrize(("factors", "referenced"), [(False, False), (True, False), (True, True)])
def test_with_groups_column_ranges_and_input_factors_the_error_is_that_of_the_read(
    groups: int, together: int, factors: bool, referenced: bool
) -> None:
    """And with reference columns that hold something else than they should, which is the main cause then."""
    chip, window = coarse(), Window((3,), (1,), (1, 1), (1,))
    if referenced:
        chip = chip.model_copy(update={"weights": Weights(scheme="offset", offset_columns=1)})
    random = np.random.default_rng(7)
    weight = random.normal(size=(8 // groups * 3, 8)).astype(np.float32)
    x = random.normal(size=(3, 8, 9)).astype(np.float32)
    factor = (0.5 + random.random(8)).astype(np.float32) if factors else None
    ranges, gain = (1 + random.random(8)).astype(np.float32), (0.5 + random.random(8)).astype(np.float32)
    layer = Crossbar(chip, 5, 8, signed=True, window=window, groups=groups, groups_at_once=together)
    moved = weight * row_factors(layer, factor, weight)
    targets = np.asarray(device_targets(moved, ranges, chip))
    factors_held = None if factor is None else jnp.asarray(factor)
    blocks = groups * -(-8 // groups // layer.column_block)
    columns = reference_target(chip) + random.normal(3, 2, (len(weight), blocks)) if referenced else None
    held = Held(
        *(jnp.asarray(targets), jnp.asarray(ranges), jnp.float32(1.5), jnp.asarray(gain), None, factors_held),
        reference_column=None if columns is None else jnp.asarray(columns, jnp.float32),
    )
    exact = np.concatenate(
        [
            vectors.reshape(-1, 27).T @ part
            for vectors, part in zip(
                np.split(reference.vectors(x, reference.ConvWindow((3,), (1,), (1, 1), (1,))), groups),
                np.split(weight * gain, groups, axis=1),
                strict=True,
            )
        ],
        axis=1,
    )
    y = np.moveaxis(read_in_pieces(layer, x, held, None), 1, -1).reshape(27, 8)
    vectors = sample_vectors(layer, x, 1000, random)
    found = loss_causes(layer, vectors, held, targets=targets, weight=moved, exact=(weight * gain, None), seed=None)
    assert found.error == pytest.approx(float(np.square(y - exact).sum()), rel=1e-3)
    assert found.left < 1e-9 * found.signal
    images = jnp.moveaxis(jnp.asarray(x), 0, -1)
    clipped = clipped_conversions(layer.reading, images, held.conductance, held.input_range, None, held.input_factor)
    assert 0 < found.clipped_codes == pytest.approx(float(clipped), rel=1e-5)
    assert (Cause.programming in found.alone) == referenced
