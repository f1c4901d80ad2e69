"""The read beside CrossSim's of the same weights and converters: codes without noise, sds of columns with read noise.

Needs CrossSim (sandialabs/cross-sim, not on PyPI; NumPy and SciPy are all it asks for), whose folder holds its package
`simulator`. Its speed is a row of `python -m tests.benchmarks.peers`.

    python -m tests.benchmarks.crosssim --crosssim DIR
"""

import argparse
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.units import count_scale, device_targets, weight_of
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.product import apply_inputs, read, scale_sums
from runtime.crossbar.xla import jit
from tests.chips import chip_of

ROWS, COLUMNS, MVMS = 64, 16, 200
NOISY_COLUMNS, DRAWS, AT_ONCE = 4, 40_000, 2_000
CELL = {"conductance_min_uS": 5.75, "conductance_max_uS": 30.0}
NOISE_uS = 0.6  # a tenth of G_min: CrossSim clips noisy conductances at 0
Floats = npt.NDArray[np.float64]

SERIAL = {"bits": 8, "encoding": "bit-serial"}
PULSES = {"bits": 8, "encoding": "pulse-width"}
ONE_PHASE = {**PULSES, "signed": "one-phase"}
SLICED = {"bits": 8, "bits_per_cell": 2}
# (title, [weights], [input], [adc], signed inputs). Ranges: some of what columns carry is beyond, in most.
CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any], bool]] = [
    ("offset, 4 slices, bit by bit, exact codes", {"scheme": "offset", **SLICED}, SERIAL, {"bits": 8}, False),
    ("pairs, 4 slices, bit by bit, exact codes", {"scheme": "differential", **SLICED}, SERIAL, {"bits": 6}, False),
    (
        "pairs in rows, 4 slices, bit by bit, stated range",
        {"scheme": "differential-rows", **SLICED},
        SERIAL,
        {"bits": 6, "range_uA": 97.3},
        False,
    ),
    ("pairs, pulses", {"scheme": "differential"}, PULSES, {"bits": 8, "range_uA": 250.0}, False),
    ("pairs in rows, pulses", {"scheme": "differential-rows"}, PULSES, {"bits": 8, "range_uA": 90.0}, False),
    ("pairs, both signs in one phase", {"scheme": "differential"}, ONE_PHASE, {"bits": 8, "range_uA": 60.0}, True),
    ("whole offset, both signs", {"scheme": "offset"}, ONE_PHASE, {"bits": 9, "range_uA": 60.0}, True),
    ("whole offset, reference column", {"scheme": "offset", "offset_columns": 1}, PULSES, {"bits": 9}, False),
]


def peer(chip: Chip, signed: bool, noisy: bool) -> Any:
    """CrossSim's parameters for one array of the chip, with weights and inputs up to 1."""
    from simulator import CrossSimParameters

    p, scheme, top = CrossSimParameters(), chip.weights.scheme, chip.top_code(signed)
    p.core.rows_max = p.core.cols_max = 1024
    p.core.mapping.weights.percentile, p.core.mapping.weights.min, p.core.mapping.weights.max = None, -1.0, 1.0
    p.xbar.device.Rmin, p.xbar.device.Rmax = 1 / chip.cell.conductance_max_uS, 1 / chip.cell.conductance_min_uS
    style = "OFFSET" if scheme == "offset" else "BALANCED"
    p.core.style = style
    p.core.offset.style = "UNIT_COLUMN_SUBTRACTION" if chip.weights.offset_columns else "DIGITAL_OFFSET"
    p.core.balanced.subtract_current_in_xbar = scheme == "differential-rows"
    assert chip.input.bits is not None
    assert chip.adc.bits is not None
    dac, inputs = p.xbar.dac.mvm, p.core.mapping.inputs.mvm
    dac.model, dac.bits, dac.signed = "SignMagnitudeDAC" if signed else "QuantizerDAC", chip.input.bits, signed
    inputs.min, inputs.max = -1.0 if signed else 0.0, 1.0
    # The largest code, in currents of one fully-on cell at the largest input.
    serial = chip.input.encoding == "bit-serial"
    one_cell_uS = chip.cell.conductance_max_uS * (1 if serial else chip.top_input(signed))
    largest = float(chip.lsb_uS(signed) * top / one_cell_uS)
    low = -largest if chip.bipolar(signed) else 0.0
    p.xbar.adc.mvm.model = "SignMagnitudeADC" if chip.bipolar(signed) else "QuantizerADC"
    adc = p.xbar.adc.mvm
    adc.bits, adc.signed, adc.calibrated_range = chip.adc.bits, chip.bipolar(signed), [low, largest]
    if chip.weights.bits is not None:
        p.core.style, p.core.bit_sliced.style = "BITSLICED", style
        p.core.weight_bits, p.core.bit_sliced.num_slices = chip.weights.bits, chip.weights.slices
        adc.calibrated_range = [[low, largest]] * chip.weights.slices
    dac.input_bitslicing = adc.adc_per_ibit = serial
    if noisy:
        noise = p.xbar.device.read_noise
        noise.enable, noise.model = True, "NormalIndependentDevice"
        noise.magnitude = NOISE_uS / chip.cell.conductance_max_uS
    return p


def programmed(weight: Floats, chip: Chip) -> tuple[npt.NDArray[np.float32], Floats]:
    """Conductances of weights, and the weights that they stand for."""
    g = np.asarray(device_targets(weight.astype(np.float32), np.float32(1), chip))
    return g, np.asarray(weight_of(g.astype(np.float64), 1.0, chip))


def outputs(chip: Chip, signed: bool, weight: Floats, x: Floats, key: jax.Array | None) -> tuple[Floats, float]:
    """Ours, of inputs [rows, MVMs], and what one code counts."""
    layer = Crossbar(chip, len(weight), weight.shape[1], signed)
    one, g = jnp.float32(1), programmed(weight, chip)[0]
    _, vectors = apply_inputs(layer.reading, jnp.asarray(x, jnp.float32), one)
    y = scale_sums(layer.reading, jit(read)(layer.reading, vectors, g, key), one, None, one, one)
    return np.asarray(y, np.float64), float(count_scale(np.float32(1), np.float32(1), chip, signed))


def main() -> None:
    """Print both tables in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--crosssim", help="folder that holds CrossSim's package `simulator`; else that of PYTHONPATH")
    folder = parser.parse_args().crosssim
    sys.path[:0] = [folder] if folder else []
    try:
        from simulator import AnalogCore
    except ImportError:
        print("skipped: CrossSim is not installed; fetch sandialabs/cross-sim and name its folder with --crosssim")
        return
    random = np.random.default_rng(0)
    weight = random.uniform(-1, 1, (ROWS, COLUMNS)).astype(np.float32).astype(np.float64)
    print("| chip | outputs | not the same | largest difference, codes | sd / CrossSim's, by column: least, most |")
    print("|---|---|---|---|---|", flush=True)
    for title, weights, inputs, adc, signed in CASES:
        # The range of a chip that states none follows from the rows of its array.
        chip = chip_of(weights=weights, inputs=inputs, adc=adc, rows=ROWS, cell=CELL)
        noisy = chip_of(weights=weights, inputs=inputs, adc=adc, rows=ROWS, cell={**CELL, "read_noise_uS": NOISE_uS})
        top = chip.top_input(signed)
        codes = random.integers(-top if signed else 0, top, (ROWS, MVMS))
        x = (codes + random.uniform(0.1, 0.4, codes.shape)) / top  # not where rounding is a tie
        held = programmed(weight, chip)[1]
        theirs = AnalogCore(held.T, params=peer(chip, signed, noisy=False)) @ x
        ours, code = outputs(chip, signed, weight, x, None)
        difference = np.abs(ours - theirs) / code
        core = AnalogCore(held[:, :NOISY_COLUMNS].T, params=peer(chip, signed, noisy=True))
        many = np.repeat(x[:, :1], AT_ONCE, axis=1)
        np.random.seed(1)
        drawn = np.concatenate([core @ many for _ in range(DRAWS // AT_ONCE)], axis=1)
        ours, _ = outputs(
            noisy, signed, weight[:, :NOISY_COLUMNS], np.repeat(x[:, :1], DRAWS, axis=1), jax.random.key(2)
        )
        ratio = ours.std(axis=1) / drawn.std(axis=1)
        print(
            f"| {title} | {difference.size} | {np.count_nonzero(difference > 0.5)} | {difference.max():.2g} "
            f"| {ratio.min():.4f}, {ratio.max():.4f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
