"""The read of a crossbar layer with some of its effects on, on some of its MVMs.

In NumPy: the read of `runtime.crossbar.product` would be compiled for each layer and each effect.
"""

from dataclasses import dataclass
from enum import StrEnum

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.planes import planes_of
from cimc.scheme import weighted_sum
from cimc.units import count_scale, dac_gain, idle_target, levels_per_product, reference_target
from runtime.crossbar.cell_wires import as_read
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.groups import Sets, as_sets
from runtime.crossbar.pieces import Floats, Held
from runtime.system.fit_scales import rows_of_channels

MOST_MVMS, LEAST_MVMS = 256, 16  # of a layer; between them as many as take MOST_PRODUCTS
MOST_PRODUCTS = 1 << 27  # of conductance and input in one read
MOST_COLUMNS = 256  # of a larger layer so many are looked at; of a grouped one whole groups


class Cause(StrEnum):
    """An effect of the read, in the order in which they apply."""

    input_clipping = "input clipping"
    input_rounding = "input rounding"
    weights = "weight range and grid"
    programming = "programming error"
    ir_drop = "IR drop"
    read_noise = "read noise"
    idle_current = "idle current"
    adc_noise = "ADC noise"
    adc_clipping = "ADC clipping"
    adc_step = "ADC step"


@dataclass(frozen=True, eq=False)
class LayerCopy:
    """A layer as NumPy arrays, the groups of a grouped one first.

    x: inputs [groups, rows, MVMs]. exact: what the exact layer gives [groups, columns, MVMs]. asked, targets,
    conductance, seen: [groups, devices, rows, columns] in uS: what would hold the weights without bounds and grid, as
    they were to be programmed, as they are, and as reads see them through the wires. input_range: [groups, rows, 1],
    with the factors of the inputs. scale: of the digital sums, and bias [groups, columns, 1]. reference:
    conductances of the reference columns [groups, reference columns, rows], where the chip has any; reference_of: that
    of each column.
    """

    chip: Chip
    signed: bool
    read_rows: int
    x: Floats
    exact: Floats
    asked: Floats
    targets: Floats
    conductance: Floats
    seen: Floats
    input_range: Floats
    scale: Floats
    bias: Floats
    reference: Floats | None
    reference_of: npt.NDArray[np.intp]


def row_factors(layer: Crossbar, input_factor: npt.ArrayLike | None, weight: Floats) -> Floats:
    """Input factors [channels] (None: 1) for the weights [rows, columns], as of `rows_of_channels`."""
    if input_factor is None:
        return np.ones((1, 1), np.float32)
    return rows_of_channels(np.asarray(input_factor, np.float32), layer, weight)


def copy_layer(
    layer: Crossbar,
    x: Floats,
    held: Held,
    *,
    targets: Floats,
    weight: Floats,
    exact: tuple[Floats, Floats | None],
) -> LayerCopy:
    """The layer, or of a large one some of its groups or columns."""
    rows, columns = weight.shape
    factors = np.broadcast_to(row_factors(layer, held.input_factor, weight), (rows, columns))
    of_rows = factors[:, :: columns // layer.groups].T.reshape(-1, 1)
    conductance, exact_weight = np.asarray(held.conductance), exact[0]
    seen = np.asarray(as_read(layer.wires, held.conductance))
    references = _references(layer, held, rows, columns)
    if layer.groups_at_once > 1:
        sets = Sets(layer.groups, layer.groups_at_once, rows, layer.read_rows)
        idle = idle_target(layer.chip)
        layer, x, of_rows = as_sets(layer), sets.join_vectors(x), sets.join_vectors(of_rows)
        targets, conductance, seen = (sets.join_cells(cells, idle) for cells in (targets, conductance, seen))
        weight, exact_weight = sets.join_cells(weight, 0), sets.join_cells(exact_weight, 0)
        references = None if references is None else np.asarray(sets.join_references(jnp.asarray(references)))
    chip, groups = layer.chip, layer.groups
    devices, rows, columns = conductance.shape
    each = columns // groups
    taken_groups = slice(None, None, -(-columns // MOST_COLUMNS) if groups > 1 else 1)  # views, as layers are large
    taken_columns = slice(None, None, -(-each // MOST_COLUMNS))

    def of(matrix: npt.ArrayLike) -> Floats:
        """[..., columns], as such [groups, ..., columns]."""
        array = np.asarray(matrix, np.float32)
        split = np.moveaxis(array.reshape(*array.shape[:-1], groups, each), -2, 0)
        return np.ascontiguousarray(split[taken_groups][..., taken_columns])

    def by_column(value: npt.ArrayLike | None) -> Floats:
        """A number or one a column, as [groups, columns, 1]."""
        return of(np.broadcast_to(np.float32(0) if value is None else np.asarray(value, np.float32), columns))[
            ..., None
        ]

    of_weight, planes = of(weight), len(planes_of(chip, layer.signed).weights)
    products = devices * of_weight.size * planes
    mvms = int(np.clip(MOST_PRODUCTS // max(products, 1), LEAST_MVMS, MOST_MVMS))
    inputs = np.asarray(x, np.float32).reshape(groups, rows, -1)[taken_groups][..., :mvms]
    ranges = by_column(held.weight_range).swapaxes(1, 2)
    scale = count_scale(np.asarray(held.weight_range), np.asarray(held.input_range), chip, layer.signed)
    shares = np.moveaxis(chip.scheme.shares(of_weight / ranges, False), 0, 1)
    if references is not None:
        references = np.moveaxis(references.reshape(rows, groups, -1), 0, 2)[taken_groups]
    return LayerCopy(
        chip=chip,
        signed=layer.signed,
        read_rows=layer.read_rows,
        x=inputs,
        exact=of(exact_weight).swapaxes(1, 2) @ inputs + by_column(exact[1]),
        asked=np.float32(chip.cell.conductance_min_uS) + shares * np.float32(chip.cell.window_uS),
        targets=of(targets),
        conductance=of(conductance),
        seen=of(seen),
        input_range=np.asarray(held.input_range, np.float32) * of_rows.reshape(groups, rows, 1)[taken_groups],
        scale=by_column(scale * np.asarray(held.gain)),
        bias=by_column(held.bias),
        reference=references,
        reference_of=np.arange(each)[taken_columns] // layer.column_block,
    )


def _references(layer: Crossbar, held: Held, rows: int, columns: int) -> Floats | None:
    """What the reference columns hold [rows, groups x reference columns]; None: there is none."""
    if layer.chip.scheme.reference is None:
        return None
    if held.reference_column is not None:
        return np.asarray(held.reference_column)
    count = layer.groups * -(-columns // layer.groups // layer.column_block)
    return np.full((rows, count), reference_target(layer.chip), np.float32)


def present_causes(copy: LayerCopy, *, noise: bool) -> list[Cause]:
    """The causes that the chip has."""
    chip = copy.chip
    has_dac, has_adc = chip.input.bits is not None, chip.adc.bits is not None
    known = {
        Cause.input_clipping: has_dac,
        Cause.input_rounding: has_dac,
        Cause.weights: True,
        Cause.programming: not np.array_equal(copy.targets, copy.conductance)
        or (copy.reference is not None and bool(np.any(copy.reference != reference_target(chip)))),
        Cause.ir_drop: not np.array_equal(copy.seen, copy.conductance),
        Cause.read_noise: noise and chip.cell.reads_are_noisy,
        Cause.idle_current: has_adc and chip.cell.conductance_min_uS > 0 and not chip.bipolar(copy.signed),
        Cause.adc_noise: noise and chip.adc.noise_lsb > 0,
        Cause.adc_clipping: has_adc,
        Cause.adc_step: has_adc,
    }
    return [cause for cause, there in known.items() if there]


def read(copy: LayerCopy, on: frozenset[Cause], random: np.random.Generator) -> Floats:
    """The output [groups, columns, MVMs] with some effects on: the read of `runtime.crossbar.product`."""
    planes = planes_of(copy.chip, copy.signed)
    conductance = copy.asked
    if Cause.weights in on:
        conductance = conductance + (copy.targets - copy.asked)
    if Cause.programming in on:
        conductance = conductance + (copy.conductance - copy.targets)
    if Cause.ir_drop in on:
        conductance = conductance + (copy.seen - copy.conductance)
    bit_lines, references = conductance.swapaxes(2, 3), _reference_lines(copy, on)
    sums = []
    for applied in planes.split(_apply(copy, on)):
        codes = [
            _convert(copy, applied[:, rows], bit_lines[..., rows], references[..., rows], on, random)
            for start in range(0, applied.shape[1], copy.read_rows)
            for rows in [slice(start, start + copy.read_rows)]
        ]
        sums.append(sum(codes))
    return weighted_sum(sums, planes.weights) * copy.scale + copy.bias


def clipped_share(copy: LayerCopy, on: frozenset[Cause], random: np.random.Generator) -> float:
    """Share of the conversions of the layer's own columns that end at the ADC's largest code; as `read`."""
    chip, planes = copy.chip, planes_of(copy.chip, copy.signed)
    if chip.adc.bits is None:
        return 0.0
    bit_lines, top = np.moveaxis(copy.seen.swapaxes(2, 3), 1, 0), chip.top_code(copy.signed)
    ends = [
        float(np.mean(np.abs(_codes(copy, applied[:, rows], bit_lines[..., rows], on, random)) >= top))
        for applied in planes.split(_apply(copy, on))
        for start in range(0, applied.shape[1], copy.read_rows)
        for rows in [slice(start, start + copy.read_rows)]
    ]
    return sum(ends) / len(ends)


def _apply(copy: LayerCopy, on: frozenset[Cause]) -> Floats:
    """What drives the rows, in DAC units."""
    u = copy.x * dac_gain(copy.input_range, copy.chip, copy.signed)
    if Cause.input_rounding in on:
        u = np.round(u)
    if Cause.input_clipping in on and copy.chip.input.bits is not None:
        top = np.float32(copy.chip.top_input(copy.signed))
        u = np.clip(u, -top, top)
    return u


def _reference_lines(copy: LayerCopy, on: frozenset[Cause]) -> Floats:
    """Conductances of the reference columns [groups, columns, rows] with some effects on; empty where there are none.

    As reads see them: no wires are between.
    """
    if copy.reference is None or copy.chip.scheme.reference is None:
        return np.empty((len(copy.x), 0, copy.x.shape[1]), np.float32)
    programmed = reference_target(copy.chip)
    lines = np.full_like(copy.reference, copy.chip.scheme.reference.target_uS)
    if Cause.weights in on:
        lines += programmed - lines
    if Cause.programming in on:
        lines += copy.reference - programmed
    return lines


def _convert(
    copy: LayerCopy,
    applied: Floats,
    bit_lines: Floats,
    references: Floats,
    on: frozenset[Cause],
    random: np.random.Generator,
) -> Floats:
    """What codes count [groups, columns, MVMs], of rows [groups, rows, MVMs] that are driven at once.

    As `runtime.crossbar.conversions`. references: conductances of the reference columns [groups, columns, rows].
    """
    scheme = copy.chip.scheme
    per_product = np.float32(levels_per_product(copy.chip, copy.signed))
    driven, offset_uS = applied.sum(axis=1)[:, None], scheme.offset_uS
    devices = np.moveaxis(bit_lines, 1, 0)
    codes = _codes(copy, applied, devices, on, random) * _whole(copy, devices)
    counted = weighted_sum(np.moveaxis(codes, 1, 0), scheme.signs)
    if scheme.reference is not None:
        own = _codes(copy, applied, references[None], on, random) * _whole(copy, references[None])
        own = own[:, 0, copy.reference_of]
        counted = counted - own * np.float32(scheme.reference.times)
        offset_uS -= scheme.reference.times * scheme.reference.target_uS
    return counted - np.float32(offset_uS) * per_product * driven if offset_uS else counted


def _codes(
    copy: LayerCopy,
    applied: Floats,
    devices: Floats,
    on: frozenset[Cause],
    random: np.random.Generator,
) -> Floats:
    """The codes [groups, conversions, columns, MVMs] of devices [devices, groups, columns, rows].

    Without idle current the ADC's range begins where the current of all driven cells at G_min ends.
    """
    chip, scheme = copy.chip, copy.chip.scheme
    per_product = np.float32(levels_per_product(chip, copy.signed)) / _whole(copy, devices)
    level = (np.moveaxis(scheme.net(devices), 0, 1) @ applied[:, None]) * per_product
    read_noise = chip.cell.reads_are_noisy and Cause.read_noise in on
    adc_noise = chip.adc.noise_lsb if Cause.adc_noise in on else 0.0
    if read_noise or adc_noise:
        variance = _read_variance(chip, applied, devices) if read_noise else np.float32(0)
        sigma = np.sqrt(variance * np.square(per_product) + np.float32(adc_noise) ** 2)
        level = level + sigma * random.standard_normal(level.shape, np.float32)
    if Cause.adc_step in on:
        level = np.round(level)
    if Cause.adc_clipping in on and chip.adc.bits is not None:
        top, bipolar = np.float32(chip.top_code(copy.signed)), chip.bipolar(copy.signed)
        if Cause.idle_current not in on and not bipolar:
            driven = applied.sum(axis=1)[:, None, None]
            top = top + driven * np.float32(chip.cell.conductance_min_uS) * per_product
        level = np.clip(level, -top if bipolar else 0, top)
    return level


def _whole(copy: LayerCopy, devices: Floats) -> Floats | np.float32:
    """What codes of voltages count: the conductance of columns [groups, conversions, columns, 1]; of currents: 1."""
    if copy.chip.adc.sense != "voltage":
        return np.float32(1)
    return np.moveaxis(copy.chip.scheme.together(devices), 0, 1).sum(axis=-1)[..., None]


def _read_variance(chip: Chip, applied: Floats, devices: Floats) -> Floats:
    """Variance [groups, conversions, columns, MVMs] of the read noise that columns sum up, in uS^2 times DAC units^2.

    devices: conductances [devices, groups, columns, rows].
    """
    power = np.square(applied)
    if not chip.cell.reads_follow_state:
        each = 2 if chip.scheme.in_rows else 1
        return each * power.sum(axis=1)[:, None, None] * np.float32(chip.cell.read_noise_uS) ** 2
    per_cell = chip.scheme.together(chip.cell.read_noise_variance(devices).astype(np.float32))
    return np.moveaxis(per_cell, 0, 1) @ power[:, None]
