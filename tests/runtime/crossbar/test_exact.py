"""Products of integers in place of conversions: the codes of the plain model, and only where no conversion can err."""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest

from cimc.chip import Chip, load_chip
from cimc.units import device_targets
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.digits import Digits, digits_of
from runtime.crossbar.exact import codes_are_exact, decided
from runtime.crossbar.layer import layer_output
from runtime.crossbar.product import apply_inputs, read_vectors
from runtime.crossbar.xla import jit
from tests import reference
from tests import reference_schemes as schemes
from tests.chips import ROWS, case_of, chip_of

SERIAL = {"bits": 5, "encoding": "bit-serial"}
ONE_PHASE = {**SERIAL, "signed": "one-phase"}
SLICED = {"bits": 5, "bits_per_cell": 2}
# Of a scheme, an encoding and a converter each: codes are exact, of 15 at most where five cells of 3 make 15.
CHIPS: dict[str, tuple[Chip, bool]] = {
    "offset, reference column": (
        chip_of(weights={"scheme": "offset", "offset_columns": 1, **SLICED}, inputs=ONE_PHASE, adc={"bits": 4}),
        True,
    ),
    "offset": (chip_of(weights={"scheme": "offset", **SLICED}, inputs=SERIAL, adc={"bits": 4}), False),
    "pairs, two phases": (
        chip_of(weights={"scheme": "differential", **SLICED}, inputs=SERIAL, adc={"bits": 4}),
        True,
    ),
    "pairs in rows": (
        chip_of(
            weights={"scheme": "differential-rows", **SLICED},
            inputs={**ONE_PHASE, "bits_per_cycle": 2},
            adc={"bits": 7},
        ),
        True,
    ),
    "stored bits": (
        chip_of(
            weights={"scheme": "single", "bits": 5, "bits_per_cell": 1},
            inputs={**ONE_PHASE, "bits_per_cycle": 2},
            adc={"bits": 4},
        ),
        True,
    ),
    "offset above G_min, no converter": (
        chip_of(weights={"scheme": "offset", **SLICED}, cell={"conductance_min_uS": 2.5}, inputs=ONE_PHASE),
        True,
    ),
}
ISAAC = load_chip("isaac")
jitted = jit(read_vectors)


def states(chip: Chip, written: npt.NDArray[np.float32]) -> dict[str, tuple[npt.NDArray[np.float32], bool]]:
    """What devices may hold, and whether no code of theirs can err."""
    random, cell, bits = np.random.default_rng(3), chip.cell, chip.weights.bits_per_cell
    step = cell.window_uS / (2 ** (bits or 1) - 1)
    stuck, full, moved = written.copy(), written.copy(), written.copy()
    stuck[:, 1], stuck[0, 2, 1] = cell.conductance_min_uS, cell.conductance_max_uS
    full[0, :ROWS, 0] = cell.conductance_max_uS + 2 * step  # a column beyond the range of the codes
    moved[0, :2, 0] += 0.29 * step  # together more than half a code
    shift = random.uniform(-0.4, 0.4, written.shape) * step / ROWS / (2**chip.input.bits_per_cycle - 1)
    near = written + shift.astype(np.float32)
    return {
        "as written": (written, True),
        "stuck": (stuck, True),
        "near": (near, True),
        "moved": (moved, False),
        "full": (full, False),
    }


@pytest.mark.parametrize("name", CHIPS)
def test_sums_are_those_of_cells_read_one_by_one_whatever_the_devices_hold(name: str) -> None:
    chip, signed = CHIPS[name]
    case = case_of(chip, signed, 5)
    case.x[1] = case.input_range  # all rows are driven in full
    layer = Crossbar(chip, ROWS, 3, signed)
    _, vectors = apply_inputs(layer.reading, jnp.asarray(case.x.T), jnp.float32(case.input_range))
    codes = reference.vectors(reference.dac_codes(case.x, case.input_range, chip, signed), None)
    column = np.full(len(codes), schemes.reference_target(chip))
    written = np.asarray(device_targets(case.weight, np.float32(case.weight_range), chip))
    for state, (g, exact) in states(chip, written).items():
        bounds = [(0, ROWS), (ROWS, 7)]
        expected = reference.sums(chip, codes, g, bounds, signed, None, reference_column=column).d[..., 0]
        d = np.asarray(jitted(layer.reading, vectors, jnp.asarray(g), None))
        if chip.adc.bits is None:
            np.testing.assert_allclose(d, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
            continue
        assert bool(codes_are_exact(layer.reading, jnp.asarray(g))) == exact, state
        np.testing.assert_array_equal(d, expected, state)


@pytest.mark.parametrize(("state", "exact"), [("stuck", True), ("near", True), ("moved", False)])
def test_reference_columns_count_as_what_their_cells_hold(state: str, exact: bool) -> None:
    """Three columns in arrays of two, each with a reference column of its own."""
    chip, signed = CHIPS["offset, reference column"]
    case = case_of(chip, signed, 5)
    layer, step = Crossbar(chip, ROWS, 2, signed), chip.cell.window_uS / 3
    column = np.full((len(case.weight), 2), schemes.reference_target(chip), np.float32)
    column[2:4, 0] = {"stuck": (0, 2 * step), "near": (1.05 * step, 0.9 * step), "moved": (1.29 * step,) * 2}[state]
    _, vectors = apply_inputs(layer.reading, jnp.asarray(case.x.T), jnp.float32(case.input_range))
    codes = reference.vectors(reference.dac_codes(case.x, case.input_range, chip, signed), None)
    g = np.asarray(device_targets(case.weight * 0.3, np.float32(case.weight_range), chip))
    bounds = [(0, ROWS), (ROWS, 7)]
    parts = [
        reference.sums(chip, codes, part, bounds, signed, None, reference_column=column[:, number]).d[..., 0]
        for number, part in enumerate((g[..., :2], g[..., 2:]))
    ]
    held = jnp.asarray(g), jnp.asarray(column)
    assert bool(codes_are_exact(layer.reading, *held)) == exact
    d = jitted(layer.reading, vectors, held[0], None, held[1])
    np.testing.assert_array_equal(d, np.concatenate(parts))
    reading, stands = decided(layer.reading, *held)
    assert (reading.digits is None, reading.reference_times is None) == (True, exact)
    np.testing.assert_array_equal(d, jitted(reading, vectors, stands, None, held[1]))


@pytest.mark.parametrize("together", [1, 2])
def test_groups_see_the_reference_cells_of_all_rows_that_are_driven(together: int) -> None:
    """Two groups in one array: each by its own rows, or both at once, with the idle cells of the other."""
    chip, random = CHIPS["offset, reference column"][0], np.random.default_rng(4)
    reading = Crossbar(chip, ROWS, 2, True, groups=2, groups_at_once=together).reading
    u = random.integers(-15, 16, (2 * ROWS, 6)).astype(np.float32)
    g = np.asarray(device_targets(random.uniform(-0.2, 0.2, (ROWS, 4)).astype(np.float32), np.float32(1), chip))
    column = np.full((ROWS, 2), schemes.reference_target(chip), np.float32)
    column[1, 0] = 0
    d = jitted(reading, jnp.asarray(u), jnp.asarray(g), None, jnp.asarray(column))
    rows = [slice(0, ROWS), slice(ROWS, 2 * ROWS)]
    for group, own in enumerate(rows):
        if together == 1:
            cells, held, driven = g[..., 2 * group : 2 * group + 2], column[:, group], u[own]
        else:
            idle = device_targets(np.zeros((1, 1), np.float32), np.float32(1), chip)
            cells = np.broadcast_to(idle, (len(g), 2 * ROWS, 2)).copy()
            cells[:, own] = g[..., 2 * group : 2 * group + 2]
            held, driven = column.T.reshape(-1), u
        expected = reference.sums(
            chip, driven[..., None].astype(np.float64), cells, [(0, len(driven))], True, None, reference_column=held
        )
        np.testing.assert_array_equal(d[2 * group : 2 * group + 2], expected.d[..., 0])


def sixteen_bits(
    rows: int, columns: int, chip: Chip = ISAAC
) -> tuple[Crossbar, jax.Array, jax.Array, npt.NDArray[np.int64]]:
    """A layer of a chip, its inputs, its conductances, and the sums in integers."""
    random = np.random.default_rng(1)
    stored = random.integers(-20000, 20001, (rows, columns))
    u = random.integers(-32767, 32768, (rows, 5))
    g = device_targets((stored / 32767).astype(np.float32), np.float32(1), chip)
    return Crossbar(chip, 128, columns, True), jnp.asarray(u, jnp.float32), jnp.asarray(g), stored.T @ u


def test_sums_of_16_bit_integers_are_right_to_float32_converted_and_multiplied() -> None:
    layer, u, g, exact = sixteen_bits(400, 6)
    for reading in (layer.reading, replace(layer.reading, digits=None)):
        # Single products reach 2^30: float32 rounds what is added up, not what is multiplied.
        assert np.abs(np.asarray(jitted(reading, u, g, None), np.float64) - exact).max() <= 2**-22 * np.abs(exact).max()


def test_sums_of_16_bit_integers_without_a_converter_are_right_to_float32() -> None:
    wide = {"input": {"bits": 16}, "weights": {"bits": 16}}
    layer, u, g, exact = sixteen_bits(300, 3, load_chip("cimaq-256", settings=wide))
    d = np.asarray(jitted(layer.reading, u, g, None), np.float64)
    assert np.abs(d - exact).max() <= 2e-6 * np.abs(exact).max()


def test_known_devices_decide_before_the_read_and_one_chip_of_many_that_errs_has_all_converted() -> None:
    layer, u, g, _ = sixteen_bits(30, 3)
    reading, stands = decided(layer.reading, g)
    assert (reading.digits, reading.converts_sums, stands.shape) == (None, False, (2, 30, 3))
    np.testing.assert_array_equal(jitted(reading, u, stands, None), jitted(layer.reading, u, g, None))
    assert decided(layer.reading, jnp.stack([g, g]))[1].shape == (2, 2, 30, 3)
    other = g.at[3, 4, 1].add(0.16)  # of a step of 1/3: nearly half a code
    for held in (other, jnp.stack([g, other])):
        reading, stands = decided(layer.reading, held)
        assert (reading, stands is held) == (replace(layer.reading, digits=None), True)


def test_groups_that_are_driven_together_leave_the_range_together() -> None:
    """Four cells of the highest digit, and four idle ones of the other group, count 8: one more than three bits do."""
    random, digits = np.random.default_rng(2), {"scheme": "offset", **SLICED}
    u = jnp.asarray(random.integers(0, 32, (8, 40)), jnp.float32).at[:, 0].set(31)
    weight = random.integers(0, 2, (4, 6)).astype(np.float32) / 15
    for together, bits, exact in ((1, 3, True), (2, 3, False), (2, 4, True)):
        chip = chip_of(weights=digits, inputs=SERIAL, adc={"bits": bits})
        reading = Crossbar(chip, 4, 6, False, groups=2, groups_at_once=together).reading
        g = jnp.asarray(device_targets(weight, np.float32(1), chip))
        assert bool(codes_are_exact(reading, g)) == exact
        np.testing.assert_array_equal(jitted(reading, u, g, None), jitted(replace(reading, digits=None), u, g, None))


def test_gradients_are_those_of_converted_sums() -> None:
    layer, u, g, _ = sixteen_bits(20, 3)
    x, weight, ones = u / 32767, jnp.linspace(-1, 1, 60, dtype=jnp.float32).reshape(20, 3), jnp.float32(1)

    def loss(layer: Crossbar, x: jax.Array, weight: jax.Array) -> jax.Array:
        return jnp.sum(jnp.square(layer_output(layer, x, weight, ones, None, g, ones, ones, None)))

    converted = replace(layer)
    vars(converted)["reading"] = replace(layer.reading, digits=None)
    found, expected = (jit(jax.grad(partial(loss, one), (0, 1)))(x, weight) for one in (layer, converted))
    for mine, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "settings",
    [
        {"cell": {"read_noise_uS": 0.01}},
        {"cell": {"read_noise_polynomial_uS": [0.01]}},
        {"cell": {"programming": {"error_sd_uS": 0.01}}},
        {"adc": {"noise_lsb": 0.1}},
        {"input": {"encoding": "pulse-width"}},
    ],
)
def test_chips_that_err_or_read_otherwise_are_converted(settings: dict[str, Any]) -> None:
    assert digits_of(ISAAC, False) == Digits((8, 8), (7, 8), 1)
    assert digits_of(load_chip("isaac", settings=settings), False) is None
