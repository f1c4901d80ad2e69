"""Energy of reads by their data: what cells, word lines and conversions take for the inputs of each sample.

    cells        sum over cells of V^2 G t          t: how long the actual input drives the cell
    word lines   toggles x energy of one            a line's level changes with each bit, or up and down with a pulse;
                                                    each array that holds a row has a line for it
    conversions  2^bits x energy of a step          or a number of the chip file; the same for every sample

Conductances are those that the devices hold, at the whole read voltage, without noise and IR drop. Layers in loops
(Scan) and reference columns are not counted.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jax import Array

from cimc.chip import Chip
from cimc.mapping import MappedLayer
from cimc.planes import planes_of
from cimc.scheme import AnyArray
from cimc.units import idle_target
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Floats
from runtime.crossbar.product import apply_inputs
from runtime.crossbar.xla import jit
from runtime.network.stepwise import LayerStep
from runtime.system.inference import Batch, fixed_batch
from runtime.system.layers import held_of, samples_first
from runtime.system.state import State, System

FJ = 1e-12  # in mJ
SAMPLES_AT_ONCE = 64
Doubles = npt.NDArray[np.float64]


@dataclass
class ReadEnergy:
    """Adds up, sample by sample, what the reads of a network take; `see` is the `seen` of `outputs_on_arrays`.

    cells, word_lines: by number of the sample, mJ.
    """

    system: System
    state: State
    cells: dict[int, float] = field(default_factory=dict)
    word_lines: dict[int, float] = field(default_factory=dict)

    def see(self, step: LayerStep, x: Floats, batch: Batch) -> None:
        """Count the reads of a layer with these inputs, as in ONNX."""
        chip, (vectors, _) = self.system.chip_of(step.layer), samples_first(self.system, step, x)
        crossbar, held = self.system.crossbars[step.layer], held_of(self.system, self.state, step.layer)
        taken = [
            _driven(
                crossbar,
                vectors[start : start + SAMPLES_AT_ONCE],
                held.conductance,
                held.input_range,
                held.input_factor,
            )
            for start in range(0, len(vectors), SAMPLES_AT_ONCE)
        ]
        driven, toggles = (np.concatenate(part).astype(np.float64) for part in zip(*taken, strict=True))
        each_cell = chip.cell.read_voltage_V**2 * chip.pulse_ns * FJ  # uS V^2 ns is fJ
        self._add(self.cells, driven * each_cell, batch)
        each_toggle = word_lines_of_row(self.system, step.layer) * (chip.energy.dac_toggle_pj or 0.0) * 1e3 * FJ
        self._add(self.word_lines, toggles * each_toggle, batch)

    def _add(self, sums: dict[int, float], values: Doubles, batch: Batch) -> None:
        """Add values [images] to their samples, each of which may have several images, or share all."""
        samples = len(batch.samples)
        size = max(fixed_batch(self.system.network) or samples, samples)
        by_sample = (
            values.reshape(size, -1).sum(axis=1) if len(values) % size == 0 else np.full(size, values.sum() / size)
        )
        for number, value in enumerate(by_sample[:samples].tolist(), batch.first):
            sums[number] = sums.get(number, 0.0) + value

    def figures(self) -> dict[str, Any]:
        """JSON, mJ a sample: min, mean and max of what is counted and of its parts; beside it the table's figure.

        word_lines, conversions: None where the chip file states no constant. table: of the arrays, the same for every
        sample; None where the chip file states nothing.
        """
        chip, table = self.system.chip, self.system.mapping.cost.energy_mj
        conversions = conversions_pj(self.system)
        fixed = None if conversions is None else conversions * 1e3 * FJ
        cells = np.array(list(self.cells.values()))
        lines = None if chip.energy.dac_toggle_pj is None else np.array(list(self.word_lines.values()))
        total = cells + (0.0 if lines is None else lines) + (fixed or 0.0)
        return {
            "total": _spread(total),
            "cells": _spread(cells),
            "word_lines": None if lines is None else _spread(lines),
            "conversions": fixed,
            "table": table or None,
        }


def conversion_pj(chip: Chip) -> float | None:
    """Energy of one conversion, pJ; None: not stated."""
    if chip.energy.adc_step_fj is not None and chip.adc.bits is not None:
        return chip.energy.adc_step_fj * 2**chip.adc.bits * 1e-3
    return chip.cost.adc_pj


def word_lines_of_row(system: System, layer: str) -> float:
    """Word lines that a row of a layer drives, in the arrays of all its columns; the mean over groups."""
    mapped, chip = system.mapping.layer(layer), system.chip
    side_by_side = sum(block.copy == 0 and block.row_start == 0 for block in mapped.blocks) / mapped.groups
    return side_by_side * chip.rows_per_weight * chip.physical_per_array


def conversions_pj(system: System) -> float | None:
    """Energy of the output conversions of one sample, pJ; None: not stated."""
    counts: Counter[float | None] = Counter()
    for layer in system.mapping.layers:
        counts[conversion_pj(system.chip_of(layer.name))] += conversions_of(system, layer)
    return None if None in counts else sum(count * (each or 0.0) for each, count in counts.items())


def conversions_of(system: System, layer: MappedLayer) -> int:
    """Output conversions of a layer for one sample: every plane, read, position and bit line."""
    return (
        layer.positions
        * len(planes_of(system.chip_of(layer.name), layer.signed_input).weights)
        * len(layer.read_bounds)
        * layer.columns
        * system.chip.columns_per_weight
        * system.chip.physical_per_array
    )


def _spread(values: Doubles) -> dict[str, float]:
    return {"min": float(values.min()), "mean": float(values.mean()), "max": float(values.max())}


@partial(jit, static_argnums=0)
def _driven(
    layer: Crossbar, x: Array, conductance: Array, input_range: Array, input_factor: Array | None
) -> tuple[Array, Array]:
    """For each image of [images, C, *spatial] or [images, vectors, rows]: pulses times the conductance in uS that they
    drive, and toggles, summed over all MVMs.
    """
    by_axis = jnp.moveaxis(x, 0, -1) if layer.window is not None else jnp.moveaxis(x, -1, 0)
    u, _ = apply_inputs(layer.reading, by_axis, input_range, input_factor)
    parts = planes_of(layer.chip, layer.signed).split(u)
    of_rows = _conductance_of_rows(layer, conductance)
    pulses = _summed(layer, sum(pulses_of(part, layer.chip) for part in parts), of_rows)
    toggles = _summed(layer, sum(toggles_of(part, layer.chip) for part in parts), jnp.ones_like(of_rows))
    return pulses, toggles


def pulses_of(u: AnyArray, chip: Chip) -> AnyArray:
    """How long, in pulses of `Chip.pulse_ns`, an input of a plane drives its cells, by the square of the voltage."""
    if chip.input.bits is None:  # a voltage
        return u * u
    if chip.input.encoding == "bit-serial":  # a plane is one digit
        return (u / np.float32(chip.top_drive(False))) ** 2
    if chip.input.encoding == "bit-serial-accumulated":
        return sum(_bits(u, chip))
    return abs(u) / np.float32(2**chip.input.bits - 1)


def toggles_of(u: AnyArray, chip: Chip) -> AnyArray:
    """How often an input of a plane changes the level of its word line, from 0 and back to 0."""
    if chip.input.encoding != "bit-serial-accumulated" or chip.input.bits is None:
        return 2 * (u != 0).astype(np.float32)
    bits = [0, *_bits(u, chip), 0]
    return sum(abs(after - before) for before, after in pairwise(bits))


def _bits(u: AnyArray, chip: Chip) -> list[AnyArray]:
    """The bits of the magnitude, 0.0 or 1.0, the least significant first."""
    assert chip.input.bits is not None
    magnitude = abs(u)
    return [(magnitude // np.float32(2**bit)) % np.float32(2) for bit in range(chip.input.bits)]


def _conductance_of_rows(layer: Crossbar, conductance: Array) -> Array:
    """What a row drives, [groups, rows] in uS: its cells, and the idle ones of groups that are read with its own."""
    devices, rows, columns = conductance.shape
    of_groups = conductance.reshape(devices, rows, layer.groups, -1).sum(axis=(0, 3)).T
    idle = (layer.groups_at_once - 1) * (columns // layer.groups)
    return of_groups + jnp.float32(idle * float(idle_target(layer.chip).sum()))


def _summed(layer: Crossbar, values: Array, of_rows: Array) -> Array:
    """For each image, values of inputs times what their rows weigh [groups, rows], summed over all MVMs."""
    window = layer.window
    if window is None:
        return jnp.einsum("rnv,r->n", values, of_rows[0])
    axes = len(window.kernel)
    images = jnp.moveaxis(values, -1, 0)
    kernel = of_rows.reshape(layer.groups, -1, *window.kernel)
    pads = list(zip(window.pads[:axes], window.pads[axes:], strict=True))
    sums = jax.lax.conv_general_dilated(
        images, kernel, window.strides, pads, rhs_dilation=window.dilations, feature_group_count=layer.groups
    )
    return sums.sum(axis=tuple(range(1, axes + 2)))
