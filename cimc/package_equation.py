"""From codes to values, in the README of a package: the equation of a read in the chip's numbers, and an example."""

import html
from dataclasses import dataclass

import numpy as np

from cimc.addresses import reference_column
from cimc.chip import Chip
from cimc.layer_settings import KIND, Settings, chip_of_layer, kind_of, settings_text
from cimc.mapping import MappedLayer, Mapping
from cimc.planes import planes_of
from cimc.program import Floats, LayerProgram, Program
from cimc.program_files import weight_text
from cimc.units import count_scale, levels_per_product, reference_target, weight_of


@dataclass(frozen=True)
class LayerScale:
    """The numbers that turn a layer's codes into values; s as in the README's equation, one or one a column.

    chip: as the layer is read on it.
    """

    chip: Chip
    layer: MappedLayer
    program: LayerProgram
    scale: Floats


def layer_scales(chip: Chip, mapping: Mapping, program: Program) -> list[LayerScale]:
    """The scale of every layer, in the order of the mapping."""
    found = []
    for layer in mapping.layers:
        values, of_layer = program.layers[layer.name], chip_of_layer(chip, layer.settings)
        per_count = count_scale(values.weight_range, values.input_range, of_layer, layer.signed_input)
        found.append(LayerScale(of_layer, layer, values, np.asarray(per_count * values.gain, np.float32)))
    return found


def equation(chip: Chip) -> str:
    """The equation of one MVM in the chip's numbers, in Markdown."""
    wires = (
        "\n\nThe wires of the arrays drop voltage (`[wires]` of `chip.toml`): `model.onnx` has G as reads see it "
        "through them, which is less than the targets."
        if chip.wires.in_conductances
        else ""
    )
    return (_pair_equation(chip) if _plain_pairs(chip) else _any_equation(chip)) + wires


def _plain_pairs(chip: Chip) -> bool:
    """Whether a weight is one pair in columns, inputs are converted once and each sign has a phase."""
    ranged = chip.adc.bits is None or chip.adc.range_uA is not None
    return ranged and chip.scheme.has_pair and not chip.bipolar(True) and not planes_of(chip, True).widths


def _pair_equation(chip: Chip) -> str:
    volt, product = chip.cell.read_voltage_V, np.float32(levels_per_product(chip, False))
    if chip.input.bits is None:
        dac = ("u = x", "ideal input converter: no rounding, no limit")
        drive, s = "u G", "weight range x gain / (W L)"
    else:
        top = 2**chip.input.bits - 1
        dac = (f"u = clip(round(x {top} / input range), -{top}, {top})", f"code of the {chip.input.bits}-bit DAC")
        drive, s = f"u G / {2**chip.input.bits}", f"weight range x input range x gain / (W L {top})"
    if chip.adc.bits is None:
        adc = ("D = L sum(u G)", "ideal output converter: no rounding, no limit")
        level = f"L = {product:g} for the ideal output converter"
    else:
        adc = (
            f"D = clip(round(I / LSB), 0, {2**chip.adc.bits - 1})",
            f"code of the {chip.adc.bits}-bit ADC; I / LSB = L sum(u G)",
        )
        level = (
            f"LSB = {chip.adc.lsb_uA:.9g} uA; L = {product:.9g} codes for one unit of u G (V over LSB and DAC codes)"
        )
    lines = [
        dac,
        (f"I = V sum({drive})", f"over word lines; uA of a bit line, V = {volt:g} V, G in uS"),
        adc,
        ("d = sum(D+ - D-)", "over the reads, which together drive all rows of a column; digital"),
        ("y = (d + bias / s) s", f"s = {s}"),
    ]
    width = max(len(left) for left, _ in lines) + 4
    equation = "\n".join(f"    {left:<{width}}{right}" for left, right in lines)
    return f"""For one MVM, with x the input vector of the layer:

{equation}

{level}. round goes to the nearest integer, a half to the even one. D+ and D- are the codes of the bit lines of G+ and
of G-. Word lines of other blocks and of cells that are not used get u = 0. In layers with signed inputs there are two
phases: max(u, 0) and max(-u, 0) are applied one after the other with the same polarity, each is converted as above, and
d = d(first) - d(second). Inputs of all other layers are never negative. The first layer's inputs are those of
`model.onnx`; between layers its digital operators apply. `model.onnx` computes these very codes in float32, without
noise: its constants of layer NAME are called NAME.pair (targets), NAME.gain (DAC codes for an input of 1), NAME.shift
(bias / s) and NAME.scale (s)."""


def equations(chip: Chip, mapping: Mapping) -> str:
    """The equation of the chip, and those of layers with other converters."""
    own = mapping.by_settings
    parts = [equation(chip)] if any(not layer.settings for layer in mapping.layers) or not own else []
    for settings, names in own.items():
        others = f"Layers {', '.join(map(text_of, names))} {_differ(settings)}."
        parts.append(f"{others} {equation(chip_of_layer(chip, settings))}")
    return "\n\n".join(parts)


def _differ(settings: Settings) -> str:
    """What layers with these settings have of their own."""
    kind, own = kind_of(settings), tuple(one for one in settings if one[:2] != KIND)
    parts = [f"lie on arrays of kind {kind}"] if kind else []
    parts += [f"have converters of their own: {settings_text(own)}"] if own else []
    return " and ".join(parts)


def worked_example(mapping: Mapping, one: LayerScale) -> str:
    """A weight of the upper quarter, its place, and what it gives when its word line alone is driven fully."""
    chip = one.chip
    return _pair_example(chip, mapping, one) if _plain_pairs(chip) else _any_example(chip, mapping, one)


def _pair_example(chip: Chip, mapping: Mapping, one: LayerScale) -> str:
    plus, minus = (targets.astype(np.float64) for targets in one.program.targets)
    order = np.argsort(np.abs(plus - minus), axis=None, kind="stable")
    row, column = (int(place) for place in np.unravel_index(order[order.size * 3 // 4], plus.shape))
    high, low = float(plus[row, column]), float(minus[row, column])
    address = mapping.address(one.layer.name, row, column)
    array = mapping.block_of(one.layer.name, row, column).array
    channel = row // one.layer.kernel_size
    if one.layer.groups > 1:  # each with its own channels
        channel += column * one.layer.groups // one.layer.columns * (one.layer.rows // one.layer.kernel_size)
    factor = 1.0 if one.program.input_factor is None else float(one.program.input_factor[channel])
    weight_range, gain, scale = (
        float(np.broadcast_to(value, one.layer.columns)[column])
        for value in (one.program.weight_range, one.program.gain, one.scale)
    )
    held = (high - low) * weight_range / chip.cell.window_uS / factor
    if chip.input.bits is None:
        code, x = 1.0, 1.0
        drive, part = "x = 1, so u = 1", code
    else:
        code, x = float(2**chip.input.bits - 1), float(one.program.input_range) * factor
        drive, part = f"x = input range = {x:.9g}, so u = {code:g}", code / 2**chip.input.bits
    currents = [chip.cell.read_voltage_V * g * part for g in (high, low)]
    counts = [levels_per_product(chip, False) * code * g for g in (high, low)]
    if chip.adc.bits is not None:
        counts = [float(np.clip(np.rint(count), 0, 2**chip.adc.bits - 1)) for count in counts]
    d = counts[0] - counts[1]
    value, exact = d * scale, held * x * gain
    divided = "" if factor == 1 else f" / {factor:.9g}, the input factor of channel {channel}"
    return f"""Weight ({row}, {column}) of layer {text_of(one.layer.name)}, copy 0:

| | |
|---|---|
| place | chip {address.chip}, array {address.array} on it (array {array}), word line {address.row}, G+ in bit line \
{address.column_plus}, G- in bit line {address.column_minus} |
| targets | G+ = {high:.9g} uS, G- = {low:.9g} uS |
| weight | ({high:.9g} - {low:.9g}) x {weight_range:.9g} / {chip.cell.window_uS:g}{divided} = {held:.6g} |
| drive | this word line alone, {drive} |
| currents | I+ = {currents[0]:.6g} uA, I- = {currents[1]:.6g} uA |
| codes | D+ = {counts[0]:.9g}, D- = {counts[1]:.9g}, d = {d:.9g} |
| value | d s = {value:.6g} without bias; x w gain without converters is {exact:.6g} |"""


def text_of(name: str) -> str:
    """A name as Markdown text on one line, in a table too."""
    return " ".join(html.escape(name, quote=False).replace("|", "&#124;").split())


def _any_equation(chip: Chip) -> str:
    """The equation for any scheme, planes and converter, signed inputs apart where they differ."""
    scheme, bits = chip.scheme, chip.input.bits
    planes = [f"{text}: {_planes_text(chip, signed)}" for text, signed in (("inputs >= 0", False), ("signed", True))]
    dac = "u = x" if bits is None else f"u = clip(round(x top / input range), -top, top); {_tops(chip)}"
    counts = ", ".join(f"{sign:g}" for sign in scheme.signs)
    seen = "N = G+ - G- of each pair, driven with opposite signs" if scheme.in_rows else "N = G of each device"
    sense = chip.adc.sense == "voltage"
    level = "sum(u_p N) / sum(G+ + G-)" if sense else "sum(u_p N)"
    code = "D = L " + level if chip.adc.bits is None else f"D = clip(round(L {level}))"
    counted = "sum over conversions s D" + (" sum(G+ + G-)" if sense else "")
    offset_uS, subtracted = scheme.offset_uS, ""
    if scheme.reference is not None:
        offset_uS -= scheme.reference.times * scheme.reference.target_uS
        subtracted += f" - {scheme.reference.times:g} D_ref"
    if offset_uS:
        subtracted += f" - {offset_uS:.9g} L sum(u_p)"
    lines = [dac, f"u_p: {'; '.join(planes)}", f"{seen}; {code}", f"d_p = sum over reads ({counted}{subtracted})"]
    lines += [
        "d = sum over planes a_p d_p",
        f"y = (d + bias / s) s,  s = weight range x input step x gain / ({_full(chip)} L)",
    ]
    codes = "" if chip.adc.bits is None else f" Codes: {_code_text(chip)}."
    reference = (
        f" D_ref is the code of the reference column, bit line {reference_column(chip)}, whose cells hold "
        f"{reference_target(chip):.9g} uS."
        if scheme.reference is not None
        else ""
    )
    return (
        "For one MVM, with x the input vector of the layer:\n\n"
        + "\n".join(f"    {line}" for line in lines)
        + (
            f"\n\nThe conversions of a weight have the s {counts}, in the order of its devices "
            f"({weight_text(chip)}). u_p is what drives the word lines in plane p, and a_p what that counts. "
            f"L: {_levels(chip)}.{codes}{reference} The input step is input range / top. round goes to the nearest "
            "integer, a half to the even one. Word lines of other blocks and of cells that are not used get u = 0. "
            "`model.onnx` computes these very codes in float32, without noise: its constants of layer NAME are called "
            "NAME.pair (N of the targets), NAME.gain (top / input range), NAME.shift (bias / s) and NAME.scale (s)."
        )
    )


def _planes_text(chip: Chip, signed: bool) -> str:
    planes = planes_of(chip, signed)
    each = f"digits of {', '.join(str(width) for width in planes.widths)} bits, lowest first" if planes.widths else "u"
    if planes.two_phase:
        each = f"{each} of max(u, 0), then of max(-u, 0)" if planes.widths else "max(u, 0), then max(-u, 0)"
    if planes.sign_bit:
        each += " of u in two's complement, then its sign bit"
    return f"{each}; a_p {', '.join(f'{weight:g}' for weight in planes.weights)}"


def _tops(chip: Chip) -> str:
    return f"top = {chip.top_input(False)}, of signed inputs {chip.top_input(True)}"


def _full(chip: Chip) -> str:
    return f"{chip.scheme.full_uS:.9g} uS"


def _levels(chip: Chip) -> str:
    """Codes for one unit of u N, for each sign of inputs where they differ."""
    found = [np.float32(levels_per_product(chip, signed)) for signed in (False, True)]
    return f"{found[0]:.9g}" if found[0] == found[1] else f"{found[0]:.9g}, of signed inputs {found[1]:.9g}"


def _code_text(chip: Chip) -> str:
    found = [f"{-chip.top_code(s) if chip.bipolar(s) else 0} to {chip.top_code(s)}" for s in (False, True)]
    return found[0] if found[0] == found[1] else f"{found[0]}, of signed inputs {found[1]}"


def _any_example(chip: Chip, mapping: Mapping, one: LayerScale) -> str:
    """The place of a weight, its targets, and what its word lines alone make of the largest input."""
    weights = weight_of(one.program.targets, one.program.weight_range, chip)
    order = np.argsort(np.abs(weights), axis=None, kind="stable")
    row, column = (int(place) for place in np.unravel_index(order[order.size * 3 // 4], weights.shape))
    address, slices = mapping.address(one.layer.name, row, column), mapping.physical_per_array
    arrays = ", ".join(str(address.array * slices + bit_slice) for bit_slice in range(slices))
    targets = one.program.targets[:, row, column]
    return f"""Weight ({row}, {column}) of layer {text_of(one.layer.name)}, copy 0:

| | |
|---|---|
| place | chip {address.chip}, arrays {arrays} on it, word lines {_listed(address.rows)}, bit lines \
{_listed(address.columns)} |
| targets | {", ".join(f"{target:.9g}" for target in targets)} uS |
| they count | {", ".join(f"{count:g}" for count in chip.scheme.counts)} |
| sum of counts x G, less the offset | {float(chip.scheme.value(targets.astype(np.float64))):.9g} uS |
| weight | that sum x {float(np.broadcast_to(one.program.weight_range, one.layer.columns)[column]):.9g} / \
{_full(chip)} = {float(weights[row, column]):.6g} |"""


def _listed(lines: tuple[int, ...]) -> str:
    return ", ".join(str(line) for line in lines)
