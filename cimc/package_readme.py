"""README.md of a package, for a tester who does not know this tool: files, addresses, from codes to values, errors."""

import html
import math
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from cimc.chip import Chip
from cimc.mapping import MappedLayer, Mapping
from cimc.program import Floats, LayerProgram, Program
from cimc.program_files import ORDER, UNUSED, decimals_for, level_text, most_trials
from cimc.units import count_scale, levels_per_product
from cimc.version import __version__

FILES = {
    "program/array_0000.csv, ...": "target conductances, a file an array; lines that begin with `#` say what it holds",
    "program/targets.npy": "the same in one NumPy array [arrays, rows, columns], float32, uS; NaN: cell not used",
    "program/blocks.csv": "where every block (part of a layer's weight matrix) lies, one line a block",
    "program/addresses.npz": (
        "what every cell holds: `layer` (index into `layers`; -1: not used), `copy`, `weight_row`, `weight_column`, "
        "`sign` (+1: G+, -1: G-), each [arrays, rows, columns]"
    ),
    "digital.safetensors": (
        "of each layer `weight_range/NAME` and `gain/NAME`, one number or one a column, `input_range/NAME` and, where "
        "it has them, `bias/NAME` [columns] and `input_factor/NAME` [input channels]; `digital/NAME`: other constants "
        "of the network"
    ),
    "chip.toml": "the description of the chip, with units and sources",
    "mapping.json": "the mapping in full, as the tool reads it",
    "model.onnx": "the network as this chip computes it without noise, code by code; runs in any ONNX runtime",
    "network.onnx": "the network with the trained weights, before converters",
    "manifest.json": "origin, and the SHA-256 of every file but itself and the next",
    "manifest.sha256": "that of `manifest.json`: `sha256sum -c manifest.sha256`",
}


@dataclass(frozen=True)
class LayerScale:
    """The numbers that turn a layer's codes into values; s as in the README's equation, one or one a column."""

    layer: MappedLayer
    program: LayerProgram
    scale: Floats


def layer_scales(chip: Chip, mapping: Mapping, program: Program) -> list[LayerScale]:
    """The scale of every layer, in the order of the mapping."""
    found = []
    for layer in mapping.layers:
        values = program.layers[layer.name]
        per_count = count_scale(values.weight_range, values.input_range, chip)
        found.append(LayerScale(layer, values, np.asarray(per_count * values.gain, np.float32)))
    return found


def package_readme(
    model: str, *, chip: Chip, mapping: Mapping, program: Program, notes: Dictionary[str, Any], digests: dict[str, str]
) -> str:
    """The text, in Markdown.

    Args:
        model: name of the network.
        chip: to be programmed.
        mapping: of the network on it.
        program: targets and digital values.
        notes: origin of the weights.
        digests: SHA-256 of the other files.
    """
    scales = layer_scales(chip, mapping, program)
    origin = notes.get("trained_on")
    parts = [
        f"# {_text(model)} on {_text(chip.name)}: what to program, and how to read it",
        f"Written by cimc {__version__}"
        + (f"; weights trained on {_text(str(origin))}" if origin else "")
        + f". Chip: {_text(chip.description)}. Everything below is computed for this package. Indices count from 0.",
        "## Files",
        _table(["file", "holds"], [[name if "," in name else f"`{name}`", text] for name, text in FILES.items()]),
        "## Programming the arrays",
        _programming(chip, mapping),
        "## Finding a weight",
        _finding(mapping),
        "## From codes to values",
        _equation(chip),
        "## The numbers by layer",
        _numbers(chip, scales),
        "## One weight, worked out",
        _example(chip, mapping, scales[0]) if scales else "This network has no layer on arrays.",
        "## Expected errors",
        _errors(chip, scales),
        "## Digests",
        "SHA-256; `manifest.json` has those of all files, this one included. A file that differs must not be "
        "programmed: export the package again.",
        _table(
            ["file", "SHA-256"],
            [[f"`{name}`", f"`{digest}`"] for name, digest in digests.items() if not name.endswith(".csv")]
            + [[f"`{name}`", f"`{digest}`"] for name, digest in digests.items() if name.endswith("blocks.csv")],
        ),
    ]
    return "\n\n".join(parts) + "\n"


def _programming(chip: Chip, mapping: Mapping) -> str:
    cell, programming = chip.cell, chip.cell.programming
    tolerance = "not stated" if programming.tolerance_uS is None else f"±{programming.tolerance_uS:g} uS"
    cells = sum(2 * layer.rows * layer.columns * layer.copies for layer in mapping.layers)
    whole = mapping.arrays * chip.array.rows * chip.array.columns
    levels = level_text(chip, decimals_for(np.empty(0, np.float32), chip))
    held = "Any target on that grid can be asked for." if levels is None else f"Of these, {levels}."
    return f"""{mapping.arrays} arrays of {chip.array.rows} word lines (rows, inputs) x {chip.array.columns} bit lines \
(columns, outputs), {mapping.arrays_per_chip} to a chip, {mapping.chips} chips: array a is array \
a mod {mapping.arrays_per_chip} of chip a div {mapping.arrays_per_chip}. {cells:,} of {whole:,} cells are used.

* Range of a device: G_min = {cell.conductance_min_uS:g} uS to G_max = {cell.conductance_max_uS:g} uS, window \
W = G_max - G_min = {cell.window_uS:g} uS. Targets lie on a grid of {chip.target_step_uS:.9g} uS, the ends of the \
range too. {held}
* Tolerance: {tolerance}. Most trials a device: {most_trials(chip)}. Verify at {cell.read_voltage_V:g} V.
* Not used: {UNUSED}.
* Writing order, {ORDER}.
* Copies: every copy of a layer holds the same weights. Program all of them; each computes its share of the MVM \
positions of an image, in any order, and their results are not added."""


def _finding(mapping: Mapping) -> str:
    groups = [layer for layer in mapping.layers if layer.groups > 1]
    grouped = (
        " In a grouped convolution column c belongs to group c div (columns / groups) and its rows are the inputs of "
        "that group alone."
        if groups
        else ""
    )
    together = [
        f"{layer.groups_per_read} of {_text(layer.name)}" for layer in groups if (layer.groups_per_read or 1) > 1
    ]
    if together:
        grouped += (
            f" Following groups are driven at once: {', '.join(together)}. In the columns of each the cells at the "
            "word lines of the others stand at G_min."
        )
    return f"""A layer is a matrix of weights, rows (inputs) x columns (outputs). Row r of a convolution is input \
channel r div K at kernel position r mod K, row by row over the kernel, K = kernel height x width; row r of a matrix \
product is element r of its input vector. Column c is output channel c.{grouped}

Weight (r, c) of a copy lies in the block of `program/blocks.csv` with that layer and copy and with \
row_start <= r < row_stop, column_start <= c < column_stop:

    word line       array_row + (r - row_start)
    bit line of G+  array_column + 2 (c - column_start)
    bit line of G-  the next one

on array `array` (`array_on_chip` of `chip`). Back from a cell to its weight: `program/addresses.npz`. A pair stands for
the weight w = (G+ - G-) x weight range / W; the idle device of a pair is at G_min."""


def _equation(chip: Chip) -> str:
    volt, product = chip.cell.read_voltage_V, np.float32(levels_per_product(chip))
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


def _numbers(chip: Chip, scales: list[LayerScale]) -> str:
    lsb = "ideal" if chip.adc.bits is None else f"{chip.adc.lsb_uA:.9g}"
    rows = [
        [
            _text(one.layer.name),
            f"{one.layer.rows} x {one.layer.columns}",
            str(len(one.layer.read_bounds)),
            str(one.layer.read_rows),
            str(one.layer.copies),
            "2" if one.layer.signed_input else "1",
            _span(one.program.weight_range),
            _span(one.program.input_range * (1 if one.program.input_factor is None else one.program.input_factor)),
            _span(one.program.gain),
            _span(one.scale),
            lsb,
        ]
        for one in scales
    ]
    head = ["layer", "rows x columns", "reads", "rows at once", "copies", "phases"]
    return _table([*head, "weight range", "input range", "gain", "s", "LSB uA"], rows) + (
        "\n\nreads: parts of a column whose rows are driven one part after the other, or in arrays of their own; d "
        "is the sum of their codes. rows at once: weight rows of each, from row 0 on; the last may have fewer. phases: "
        "2 for signed inputs. s: the value of one count of d, in float32. `a to b`: one value a column, or of the "
        "input range one a channel (the layer's, times the channel's input factor). "
        "These, and the biases, one a column, are in `digital.safetensors`."
    )


def _span(values: npt.ArrayLike, digits: int = 9) -> str:
    """A number to so many digits, or the least and the greatest of several."""
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.{digits}g}" if low == high else f"{low:.3g} to {high:.3g}"


def _example(chip: Chip, mapping: Mapping, one: LayerScale) -> str:
    """A weight of the upper quarter, its place, and what it gives when its word line alone is driven fully."""
    plus, minus = (targets.astype(np.float64) for targets in one.program.targets)
    order = np.argsort(np.abs(plus - minus), axis=None, kind="stable")
    row, column = (int(place) for place in np.unravel_index(order[order.size * 3 // 4], plus.shape))
    high, low = float(plus[row, column]), float(minus[row, column])
    address = mapping.address(one.layer.name, row, column)
    array = address.chip * mapping.arrays_per_chip + address.array
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
    counts = [levels_per_product(chip) * code * g for g in (high, low)]
    if chip.adc.bits is not None:
        counts = [float(np.clip(np.rint(count), 0, 2**chip.adc.bits - 1)) for count in counts]
    d = counts[0] - counts[1]
    value, exact = d * scale, held * x * gain
    divided = "" if factor == 1 else f" / {factor:.9g}, the input factor of channel {channel}"
    return f"""Weight ({row}, {column}) of layer {_text(one.layer.name)}, copy 0:

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


def _stated_errors(chip: Chip, targets: Floats) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Mean and sd in uS of the error that programming leaves at each target in uS, as the chip file states them."""
    exact = targets.astype(np.float64)
    laws = chip.cell.error_mean_uS(exact), chip.cell.error_sd_uS(exact)
    mean, sd = (np.broadcast_to(np.asarray(law, np.float64), targets.shape) for law in laws)
    return mean, sd


def _errors(chip: Chip, scales: list[LayerScale]) -> str:
    cell, trials = chip.cell, most_trials(chip)
    states = np.linspace(cell.conductance_min_uS, cell.conductance_max_uS, 5).astype(np.float32)
    means, sds = _stated_errors(chip, states)
    if not means.any() and not sds.any():
        lines = ["Programming: `chip.toml` states no error, devices are taken to be at their targets."]
    else:
        lines = [
            f"Programming, as `chip.toml` states it (most trials: {trials}): a device is left off its target by",
            _table(
                ["target uS", "mean error uS", "sd uS"],
                [[f"{part:.4g}" for part in row] for row in zip(states, means, sds, strict=True)],
            ),
            "For the targets of this package the errors of the two devices of a pair make a weight uncertain by (root "
            "mean square over the layer's weights of sqrt(sd+^2 + sd-^2) x weight range / W)",
            _table(["layer", "sd of a weight", "of the weight range"], [_weight_error(chip, one) for one in scales]),
        ]
    read_sds = np.sqrt(cell.read_noise_variance(states))
    spread = f"{read_sds.min():.3g} to {read_sds.max():.3g}, by its state," if cell.reads_follow_state else ""
    noise = [
        f"a device's conductance fluctuates by {spread or f'{cell.read_noise_uS:g}'} uS (sd) from read to read"
        if cell.reads_are_noisy
        else "",
        f"a code by {chip.adc.noise_lsb:g} LSB (sd)" if chip.adc.noise_lsb else "",
    ]
    read = ", ".join(part for part in noise if part)
    lines.append(f"Reading: {read}." if read else "Reading: `chip.toml` states no noise.")
    return "\n\n".join(lines)


def _weight_error(chip: Chip, one: LayerScale) -> list[str]:
    _, sd = _stated_errors(chip, one.program.targets)
    share = math.sqrt(float(np.mean(np.sum(sd**2, axis=0)))) / chip.cell.window_uS
    return [_text(one.layer.name), _span(share * np.asarray(one.program.weight_range), 3), f"{share:.2%}"]


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])


def _text(name: str) -> str:
    """A name as Markdown text on one line, in a table too."""
    return " ".join(html.escape(name, quote=False).replace("|", "&#124;").split())
