"""A layer on arrays, and its reading: what decides the program of a read apart from the numbers that are values in it.

Chips that differ in numbers alone (a noise, a converter's bits, its range) so are read by one compiled program.
"""

from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import NamedTuple

import jax
import numpy as np

from cimc.chip import Cell, Chip, Wires
from cimc.options import Backward
from cimc.planes import Planes, planes_of
from cimc.scheme import AnyArray
from cimc.units import count_unit, idle_target, levels_per_product, reference_target
from cimc.window import Window
from runtime.crossbar.cell_wires import CellWires
from runtime.crossbar.digits import Digits, digits_of
from runtime.crossbar.figures import figure


@dataclass(frozen=True)
class Crossbar:
    """Static description of a layer on arrays.

    read_rows: rows that are driven at once (the last read may have fewer).
    column_block: weight columns of a full array.
    signed: inputs may be negative.
    window: of a convolution; None: a matrix product.
    backward: how the input gradient is computed: with the digital copy, or by a transposed read of the arrays.
    groups: of a grouped convolution, each with its own inputs; rows count those of one group. groups_at_once: groups
        that are driven together, with the idle current of each in the columns of the others.
    wires: of arrays whose wires change what reads see of the devices (`as_read`).
    """

    chip: Chip
    read_rows: int
    column_block: int
    signed: bool
    window: Window | None = None
    backward: Backward = Backward.digital
    groups: int = 1
    groups_at_once: int = 1
    wires: CellWires | None = None

    @cached_property
    def reading(self) -> "Reading":
        """How it is read."""
        chip, signed, scheme = self.chip, self.signed, self.chip.scheme
        one_way = chip.wires.ir_drop == "per-input" and not chip.bipolar(signed)
        return Reading(
            figures=_figures(chip, signed),
            planes=planes_of(chip, signed),
            signs=scheme.signs,
            in_rows=scheme.in_rows,
            has_offset=scheme.offset_uS != 0,
            reference_times=None if scheme.reference is None else scheme.reference.times,
            converts_inputs=chip.input.bits is not None,
            converts_sums=chip.adc.bits is not None,
            of_voltages=chip.adc.sense == "voltage",
            noisy=chip.cell.reads_are_noisy or chip.adc.noise_lsb > 0,
            noise_by_state=chip.cell.as_read if chip.cell.reads_follow_state else None,
            ir_drop=(chip.wires, chip.top_drive(signed)) if one_way else None,
            read_rows=self.read_rows,
            column_block=self.column_block,
            window=self.window,
            groups=self.groups,
            groups_at_once=self.groups_at_once,
            digits=digits_of(chip, signed),
        )

    @property
    def traced_reading(self) -> "Reading":
        """The same, with its figures as values of the program that is being traced (`figure`)."""
        return replace(self.reading, figures=jax.tree.map(figure, self.reading.figures))


class Figures(NamedTuple):
    """Numbers of a read, float32.

    top_input: the largest input code. per_product: ADC levels (LSB) that one unit of u G makes; of voltages, before
    they are divided by the column's total. least_code, top_code: of the ADC. exact_offset: levels that a unit of an
    input makes beside what it counts. reference_uS: what cells of the reference column hold; 0 without one.
    read_variance: of one read of the cells of a conversion in a row, of an input of 1, where it is the same in all
    states; adc_variance: of one conversion. unit: what one unit of d counts (`cimc.units.count_unit`). idle_uS: what
    devices of a weight of 0 hold [devices, 1, 1].
    """

    top_input: AnyArray
    per_product: AnyArray
    squared_per_product: AnyArray
    least_code: AnyArray
    top_code: AnyArray
    exact_offset: AnyArray
    reference_uS: AnyArray
    read_variance: AnyArray
    adc_variance: AnyArray
    unit: AnyArray
    idle_uS: AnyArray


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["figures"],
    meta_fields=[
        "planes",
        "signs",
        "in_rows",
        "has_offset",
        "reference_times",
        "converts_inputs",
        "converts_sums",
        "of_voltages",
        "noisy",
        "noise_by_state",
        "ir_drop",
        "read_rows",
        "column_block",
        "window",
        "groups",
        "groups_at_once",
        "digits",
    ],
)
@dataclass(frozen=True)
class Reading:
    """How a layer is read; an argument of compiled programs, whose figures are values and all else is static.

    signs, in_rows: of the scheme (`cimc.scheme`). has_offset: a weight of 0 makes a sum. reference_times: how often a
    reference column is subtracted; None: there is none. converts_inputs, converts_sums: by a DAC and an ADC with bits.
    noise_by_state: the cell where its read noise follows the state. ir_drop: wires and the input that is driven with
    the whole read voltage, where currents lose by their inputs. digits: of the integers whose product may take the
    place of all conversions (`runtime.crossbar.exact`). The others: as of `Crossbar`.
    """

    figures: Figures
    planes: Planes
    signs: tuple[float, ...]
    in_rows: bool
    has_offset: bool
    reference_times: float | None
    converts_inputs: bool
    converts_sums: bool
    of_voltages: bool
    noisy: bool
    noise_by_state: Cell | None
    ir_drop: tuple[Wires, float] | None
    read_rows: int
    column_block: int
    window: Window | None
    groups: int
    groups_at_once: int
    digits: Digits | None


def _figures(chip: Chip, signed: bool) -> Figures:
    per_product, scheme = levels_per_product(chip, signed), chip.scheme
    cells = 2 if scheme.in_rows else 1  # of a conversion in each row
    top_code = 0 if chip.adc.bits is None else chip.top_code(signed)
    exact_uS, reference_uS = scheme.offset_uS, np.float32(0)
    if scheme.reference is not None:
        exact_uS -= scheme.reference.times * scheme.reference.target_uS
        reference_uS = reference_target(chip)
    return Figures(
        top_input=np.float32(1 if chip.input.bits is None else chip.top_input(signed)),
        per_product=np.float32(per_product),
        squared_per_product=np.float32(per_product**2),
        least_code=np.float32(-top_code if chip.bipolar(signed) else 0),
        top_code=np.float32(top_code),
        exact_offset=np.float32(exact_uS * per_product),
        reference_uS=reference_uS,
        read_variance=np.float32(cells * (chip.cell.read_noise_uS * per_product) ** 2),
        adc_variance=np.float32(chip.adc.noise_lsb**2),
        unit=count_unit(chip, signed),
        idle_uS=np.asarray(idle_target(chip), np.float32),
    )
