"""What follows from a chip description: errors of writes, steps of updates, converters, energy and time of an MVM.

All from the description alone; nothing is measured. Figures that do not apply to a chip are None.
"""

import math
from pathlib import Path
from typing import Any

import numpy as np

from cimc.api.sources import chip_of
from cimc.chip import Chip
from cimc.units import device_targets, level_targets, levels_per_product

STATES = (0.0, 0.25, 0.5, 0.75, 1.0)  # of the window; 0 is the idle device
TYPICAL = "inputs uniform up to the range, half of them 0; weights normal, sd 1/3 of the range; all rows of an array"
WEIGHT_SD = 1 / 3  # of the range
COLUMNS = 2000  # simulated ones, each with inputs of its own
CELLS_A_ROUND = 1 << 20  # simulated at once
LOOPS = 100_000  # simulated devices a state, where writes are a loop of pulses and reads


def explain(chip: str | Path | Chip) -> dict[str, Any]:
    """The figures of `cimc chips NAME --explain`, JSON values; units in the keys, shares as fractions. `kinds`: of each
    further kind of arrays, of a chip that has some.

    Args:
        chip: name, path, or a chip in memory.

    Raises:
        CimcError: no such chip, or no error of a single trial leaves the error that the chip states.
    """
    chip, _ = chip_of(chip)
    return {
        "chip": chip.name,
        "not_simulated": chip.not_simulated,
        "programming": _programming(chip),
        "write_loop": _write_loop(chip),
        "updates": _updates(chip),
        "converters": _converters(chip),
        "mvm": _mvm(chip),
    } | ({"kinds": {kind: _of_kind(chip.of_kind(kind)) for kind in chip.kinds}} if chip.kinds else {})


def _of_kind(chip: Chip) -> dict[str, Any]:
    """What differs of a further kind of arrays."""
    return {"rows": chip.array.rows, "columns": chip.array.columns, "converters": _converters(chip), "mvm": _mvm(chip)}


def _programming(chip: Chip) -> dict[str, Any]:
    """Writes: the error of a trial, the trials, and the error left at five states or, if fewer, all levels."""
    from runtime.devices.write_law import error_left, trial_error

    cell = chip.cell
    trial = None if cell.programming.follows_state else trial_error(cell.programming)
    states = []
    levels = [(g - cell.conductance_min_uS) / cell.window_uS for g in cell.programmable_uS or ()]
    for state in levels if 0 < len(levels) < len(STATES) else STATES:
        target = cell.conductance_min_uS + state * cell.window_uS
        left = error_left(cell, target)
        stated = (float(cell.error_mean_uS(target)), float(cell.error_sd_uS(target)))
        states.append(
            {"state": state, "target_uS": target, "stated_mean_uS": stated[0], "stated_sd_uS": stated[1]}
            | left._asdict()
            | {"read_sd_uS": math.sqrt(cell.read_noise_variance(np.float64(target)))}
        )
    return {
        "trial_error_mean_uS": None if trial is None else trial.mean_uS,
        "trial_error_sd_uS": None if trial is None else trial.sd_uS,
        "tolerance_uS": cell.programming.tolerance_uS,
        "trials_at_most": cell.programming.trials,
        "limits_uS": cell.limits_uS,
        "beyond_window": _beyond_window(chip),
        "states": states,
    }


def _write_loop(chip: Chip) -> list[dict[str, float]] | None:
    """What write-verify by pulses and reads leaves of idle devices at five states, and what it takes; simulated."""
    cell = chip.cell
    if cell.programming.train is None:
        return None
    import jax
    import jax.numpy as jnp

    from runtime.crossbar.keys import new_key
    from runtime.devices.device import device_of

    device, targets = device_of(cell), cell.conductance_min_uS + np.array(STATES) * cell.window_uS
    goal = jnp.broadcast_to(jnp.asarray(targets, jnp.float32)[:, None], (len(STATES), LOOPS))
    traits_key, write_key = jax.random.split(new_key(0))
    written = jax.jit(device.write)(goal, write_key, device.traits(traits_key, goal.shape))
    error = np.asarray(written.conductance, np.float64) - targets[:, None]
    pulses = np.asarray(written.trials).mean(axis=1)
    return [
        {
            "state": state,
            "target_uS": float(targets[n]),
            "mean_uS": float(error[n].mean()),
            "sd_uS": float(error[n].std()),
            "within_tolerance": float(np.mean(np.abs(error[n]) <= (cell.programming.tolerance_uS or 0))),
            "pulses": float(pulses[n]),
            "reads": float(pulses[n] + 1) * cell.programming.train.reads,
        }
        for n, state in enumerate(STATES)
    ]


def _beyond_window(chip: Chip) -> float:
    """Share of devices that a write leaves beyond the window: one of each pair is idle, the other holds |weight|."""
    from runtime.devices.write_law import error_left

    cell = chip.cell
    state = np.linspace(0, 1, 33)
    share = np.array([error_left(cell, cell.conductance_min_uS + x * cell.window_uS).beyond_window for x in state])
    density = np.exp(-np.square(state / WEIGHT_SD) / 2)
    return float((share[0] + np.average(share, weights=density)) / 2)


def _updates(chip: Chip) -> dict[str, Any]:
    """What can be programmed, and when an accumulated update is due."""
    cell = chip.cell
    levels = cell.programmable_uS if chip.scheme.steps is None else level_targets(chip)
    return {
        "levels": None if levels is None else len(levels),
        "levels_listed": cell.level_uS is not None,
        "granularity_uS": cell.granularity * cell.window_uS,
        "granularity_of_window": cell.granularity,
        "granularity_origin": cell.granularity_origin,
        "threshold_of_weight_range": chip.weight_granularity,
    }


def _converters(chip: Chip) -> dict[str, Any]:
    """Steps and ranges of the converters, and how an array fills the ADC."""
    cell, adc = chip.cell, chip.adc
    figures: dict[str, Any] = {
        "dac_step_of_input_range": None if chip.input.bits is None else 1 / chip.top_input(False),
        "adc_range_uA": None,
        "adc_range_origin": None,
        "adc_lsb_uA": None,
        "adc_lsb_uS": None,
        "fully_on_cells_in_adc_range": None,
        "idle_column_of_adc_range": None,
        "clipped_conversions": None,
    }
    if adc.bits is None or chip.input.bits is None or adc.sense == "voltage":
        return figures
    serial = chip.input.encoding == "bit-serial"
    # Of a range that is left out, what `lsb_uS` takes.
    per_drive_V = cell.read_voltage_V / (chip.top_drive(False) if serial else 2**chip.input.bits)
    range_uA = adc.range_uA or chip.lsb_uS(False) * chip.top_code(False) * per_drive_V
    has_states = (cell.levels if chip.weights.bits_per_cell is None else chip.weights.bits_per_cell) is not None
    by_rule = "one code for one state" if serial and has_states else "the largest current of a full array"
    # A row driven by the largest code applies (2^bits - 1) / 2^bits of the read voltage, by a digit all of it.
    on_V = cell.read_voltage_V * (1 if serial else 1 - 2.0**-chip.input.bits)
    lsb_uA = range_uA / chip.top_code(False)
    figures |= {
        "adc_range_uA": range_uA,
        "adc_range_origin": "stated" if adc.range_uA is not None else by_rule,
        "adc_lsb_uA": lsb_uA,
        "adc_lsb_uS": lsb_uA / cell.read_voltage_V,
        "fully_on_cells_in_adc_range": range_uA / (on_V * cell.conductance_max_uS),
        "idle_column_of_adc_range": chip.array.rows * on_V * cell.conductance_min_uS / range_uA,
    }
    if chip.scheme.has_pair and not chip.bipolar(False) and not serial:
        figures["clipped_conversions"] = _clipped(chip)
    return figures


def _clipped(chip: Chip) -> float:
    """Share of ADC conversions beyond the last code for typical inputs (`TYPICAL`), without errors and noise."""
    assert chip.input.bits is not None
    assert chip.adc.bits is not None
    rows = chip.array.rows
    random = np.random.default_rng(0)
    top = 2**chip.adc.bits - 1
    at_once = max(1, CELLS_A_ROUND // rows)
    clipped = 0
    for start in range(0, COLUMNS, at_once):
        shape = (rows, min(at_once, COLUMNS - start))
        x = random.uniform(0, 1, shape) * (random.uniform(0, 1, shape) < 0.5)
        weight = random.normal(0, WEIGHT_SD, shape).astype(np.float32)
        codes = np.round(x * (2**chip.input.bits - 1))
        products = np.einsum("rc,src->sc", codes, device_targets(weight, np.float32(1), chip))
        clipped += int(np.count_nonzero(np.round(products * levels_per_product(chip, False)) > top))
    return clipped / (2 * COLUMNS)


def _mvm(chip: Chip) -> dict[str, Any]:
    """Time and energy of one MVM of one full physical array, inputs of one sign; by part where parts are stated."""
    cost = chip.cost
    energy: dict[str, float | None] = dict.fromkeys(("adc_nj", "shift_add_nj", "dac_nj", "array_nj"))
    total = cost.mvm_nj
    if cost.by_component:
        conversions = (chip.array.columns - chip.array.spare_columns) * chip.input.conversions
        counts = {"adc": conversions, "shift_add": conversions, "dac": chip.array.rows, "array": 1}
        parts = {part: getattr(cost, f"{part}_pj") for part in counts}
        energy |= {f"{k}_nj": None if pj is None else counts[k] * pj * 1e-3 for k, pj in parts.items()}
        total = sum(part for part in energy.values() if part is not None)
    return {
        "time_us": cost.mvm_us,
        "energy_nj": total,
        **energy,
        "physical_arrays": chip.physical_per_array,
        "phases_of_signed_inputs": 2 if chip.input.signed == "two-phase" and chip.input.bits is not None else 1,
    }
