"""README.md of a package, for a tester who does not know this tool: files, addresses, from codes to values, errors."""

import math
from collections.abc import Mapping as Dictionary
from typing import Any

import numpy as np
import numpy.typing as npt

from cimc.addresses import size_of_array
from cimc.chip import Chip
from cimc.chip_kinds import FIRST
from cimc.fault_map import Die
from cimc.mapping import Mapping
from cimc.package_equation import LayerScale, equations, layer_scales, text_of, worked_example
from cimc.planes import planes_of
from cimc.program import Floats, Program
from cimc.program_files import ORDER, UNUSED, decimals_for, level_text, most_trials, weight_text
from cimc.units import reference_target
from cimc.version import __version__
from cimc.wiring import Wiring

FILES = {
    "program/array_0000.csv, ...": "target conductances, a file an array; lines that begin with `#` say what it holds",
    "program/targets.npy": "the same in one NumPy array [arrays, rows, columns], float32, uS; NaN: cell not used",
    "program/blocks.csv": "where every block (part of a layer's weight matrix) lies, one line a block",
    "program/addresses.npz": (
        "what every cell holds: `layer` (index into `layers`; -1: not used), `copy`, `weight_row`, `weight_column`, "
        "`sign` (+1: G+, -1: G-), `counts`, `reference` (of a reference column), each [arrays, rows, columns]"
    ),
    "digital.safetensors": (
        "of each layer `weight_range/NAME` and `gain/NAME`, one number or one a column, `input_range/NAME` and, where "
        "it has them, `bias/NAME` [columns] and `input_factor/NAME` [input channels]; `digital/NAME`: other constants "
        "of the network"
    ),
    "chip.toml": "the description of the chip, with units and sources",
    "mapping.json": "the mapping in full, as the tool reads it",
    "model.onnx": "the network as this chip computes it without noise, code by code; runs in any ONNX runtime",
    "network.onnx": "the network with the trained weights, before converters and without the layers' gains",
    "manifest.json": "origin, and the SHA-256 of every file but itself and the next",
    "manifest.sha256": "that of `manifest.json`: `sha256sum -c manifest.sha256`",
}


def package_readme(
    model: str,
    *,
    chip: Chip,
    mapping: Mapping,
    program: Program,
    notes: Dictionary[str, Any],
    digests: dict[str, str],
    die: Die | None = None,
    wiring: Wiring | None = None,
) -> str:
    """The text, in Markdown.

    Args:
        model: name of the network.
        chip: to be programmed.
        mapping: of the network on it.
        program: targets and digital values.
        notes: origin of the weights.
        digests: SHA-256 of the other files.
        die, wiring: as of `cimc.package.Package`.
    """
    scales = layer_scales(chip, mapping, program)
    origin = notes.get("trained_on")
    parts = [
        f"# {text_of(model)} on {text_of(chip.name)}: what to program, and how to read it",
        f"Written by cimc {__version__}"
        + (f"; weights trained on {text_of(str(origin))}" if origin else "")
        + f". Chip: {text_of(chip.description)}. Everything below is computed for this package. Indices count from 0.",
        "## Files",
        _table(["file", "holds"], [[name if "," in name else f"`{name}`", text] for name, text in FILES.items()]),
        "## Programming the arrays",
        _programming(chip, mapping),
        *_of_die(die, wiring),
        *_in_the_loop(notes),
        "## Finding a weight",
        _finding(mapping, chip),
        "## From codes to values",
        equations(chip, mapping),
        "## The numbers by layer",
        _numbers(scales),
        "## One weight, worked out",
        worked_example(mapping, scales[0]) if scales else "This network has no layer on arrays.",
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


def _of_die(die: Die | None, wiring: Wiring | None) -> list[str]:
    """What is other on the die that the package was made for."""
    if die is None:
        return []
    text = (
        f"This package is for die {text_of(die.name)} alone. `program/stuck.npz` has what its stuck cells hold, "
        "`stuck_uS` [arrays, rows, columns], NaN of all others. Their targets are what they hold, and the good devices "
        "of their weights may have other targets than on a die without faults: a weight is what its devices make "
        "together."
    )
    if wiring is not None:
        text += (
            " Its lines are not where the mapping has them. The digital side sends the input of word line r of array a "
            "of the mapping to word line `word_line[a, r]` of array `array[a]` of the die, and takes what bit line c "
            "gives from `bit_line[a, c]` (`program/wiring.npz`). The array files, `program/targets.npy` and "
            "`program/addresses.npz` are as the die is; `program/blocks.csv`, and the places below, as the mapping is."
        )
    return ["## This die", text]


def _in_the_loop(notes: Dictionary[str, Any]) -> list[str]:
    """What of the die is programmed already."""
    if not notes.get("programmed"):
        return []
    layers = ", ".join(text_of(name) for name in notes["programmed"])
    return [
        "## Programmed already",
        f"This package is for one die, {text_of(str(notes['in_the_loop']['die']))}, on which these layers are "
        f"programmed: {layers}. Their targets are what their devices hold: leave them as they are. The other layers "
        "were fine-tuned to them.",
    ]


def _programming(chip: Chip, mapping: Mapping) -> str:
    cell, programming = chip.cell, chip.cell.programming
    tolerance = "not stated" if programming.tolerance_uS is None else f"±{programming.tolerance_uS:g} uS"
    arrays = mapping.arrays * mapping.physical_per_array
    sizes = [size_of_array(mapping, chip, array) for array in range(arrays)]
    whole = sum(rows * columns for rows, columns in sizes)
    steps = dict.fromkeys(chip.of_kind(kind).target_step_uS for kind in mapping.kinds_in_use)
    grid = " or (by the kind of arrays) ".join(f"{step:.9g}" for step in steps)
    levels = level_text(chip, decimals_for(np.empty(0, np.float32), chip))
    held = "Any target on that grid can be asked for." if levels is None else f"Of these, {levels}."
    return f"""{_sizes(chip, mapping)} {mapping.cost.devices:,} of {whole:,} cells are used.

* Range of a device: G_min = {cell.conductance_min_uS:g} uS to G_max = {cell.conductance_max_uS:g} uS, window \
W = G_max - G_min = {cell.window_uS:g} uS. Targets lie on a grid of {grid} uS, the ends of the \
range too. {held}
* Tolerance: {tolerance}. Most trials a device: {most_trials(chip)}. Verify at {cell.read_voltage_V:g} V.
* Not used: {UNUSED}.
* Writing order, {ORDER}.
* Copies: every copy of a layer holds the same weights. Program all of them; each computes its share of the MVM \
positions of an image, in any order, and their results are not added."""


def _sizes(chip: Chip, mapping: Mapping) -> str:
    """The arrays in use, their size, and which of the chip each is."""
    slices, count = mapping.physical_per_array, mapping.arrays * mapping.physical_per_array
    if not mapping.kinds:
        a_chip = mapping.arrays_per_chip * slices
        return (
            f"{count} arrays of {chip.array.rows} word lines (rows, inputs) x {chip.array.columns} bit lines (columns, "
            f"outputs), {a_chip} to a chip, chips in all {mapping.chips}: array a is array a mod {a_chip} of chip a "
            f"div {a_chip}."
        )
    kinds, first = [], 0
    for kind, per_chip in mapping.all_kinds.items():
        size, used = chip.sizes[kind], mapping.kind_of_arrays.count(kind) * slices
        if used:
            kinds.append(
                f"{used} of kind {kind or FIRST}, {size.rows} word lines x {size.columns} bit lines, which are arrays "
                f"{first} to {first + per_chip * slices - 1} of a chip"
            )
        first += per_chip * slices
    return (
        f"{count} arrays (word lines are rows, inputs; bit lines are columns, outputs), chips in all {mapping.chips}: "
        f"{'; '.join(kinds)}. `program/blocks.csv` says which array of which chip each is, and the first lines of its "
        "file too. In `program/targets.npy` and `program/addresses.npz` all arrays have the largest size; in a smaller "
        "one the cells from its own rows and columns on are not there. Reads of different kinds may have other "
        "converters, with other codes and targets."
    )


def _finding(mapping: Mapping, chip: Chip) -> str:
    groups = [layer for layer in mapping.layers if layer.groups > 1]
    grouped = (
        " In a grouped convolution column c belongs to group c div (columns / groups) and its rows are the inputs of "
        "that group alone."
        if groups
        else ""
    )
    together = [
        f"{layer.groups_per_read} of {text_of(layer.name)}" for layer in groups if (layer.groups_per_read or 1) > 1
    ]
    if together:
        grouped += (
            f" Following groups are driven at once: {', '.join(together)}. In the columns of each the cells at the "
            "word lines of the others hold a weight of 0."
        )
    return f"""A layer is a matrix of weights, rows (inputs) x columns (outputs). Row r of a convolution is input \
channel r div K at kernel position r mod K, row by row over the kernel, K = kernel height x width; row r of a matrix \
product is element r of its input vector. Column c is output channel c.{grouped}

Weight (r, c) of a copy lies in the block of `program/blocks.csv` with that layer and copy and with \
row_start <= r < row_stop, column_start <= c < column_stop:

{_lines(chip)}"""


def _lines(chip: Chip) -> str:
    """Where the devices of a weight are in its block, and what they stand for."""
    if chip.scheme.has_pair and not chip.scheme.in_rows:
        return """    word line       array_row + (r - row_start)
    bit line of G+  array_column + 2 (c - column_start)
    bit line of G-  the next one

on array `array` (`array_on_chip` of `chip`). Back from a cell to its weight: `program/addresses.npz`. A pair stands for
the weight w = (G+ - G-) x weight range / W; the idle device of a pair is at G_min."""
    down, right = chip.rows_per_weight, chip.columns_per_weight
    return f"""    word lines  array_row + {down} (r - row_start), {down} of them
    bit lines   array_column + {right} (c - column_start), {right} of them

on array `array` (`array_on_chip` of `chip`); of bit slices in arrays of their own every array has a line, with its \
`slice`. Back from a cell to its weight: `program/addresses.npz`, whose `counts` say what each cell counts. In words: \
{weight_text(chip)}."""


def _numbers(scales: list[LayerScale]) -> str:
    rows = [
        [
            text_of(one.layer.name),
            f"{one.layer.rows} x {one.layer.columns}",
            str(len(one.layer.read_bounds)),
            str(one.layer.read_rows),
            str(one.layer.copies),
            str(_phases(one.chip, one.layer.signed_input)),
            _span(one.program.weight_range),
            _span(one.program.input_range * (1 if one.program.input_factor is None else one.program.input_factor)),
            _span(one.program.gain),
            _span(one.scale),
            _lsb(one.chip, one.layer.signed_input),
        ]
        for one in scales
    ]
    head = ["layer", "rows x columns", "reads", "rows at once", "copies", "phases"]
    return _table([*head, "weight range", "input range", "gain", "s", "LSB uA"], rows) + (
        "\n\nreads: parts of a column whose rows are driven one part after the other, or in arrays of their own; d "
        "is the sum of their codes. rows at once: weight rows of each, from row 0 on; the last may have fewer. phases: "
        "reads one after the other for all of an input: 2 of signed inputs, or one for each of their digits. s: the "
        "value of one count of d, in float32. `a to b`: one value a column, or of the input range one "
        "a channel (the layer's, times the channel's input factor). "
        "These, and the biases, one a column, are in `digital.safetensors`."
    )


def _lsb(chip: Chip, signed: bool) -> str:
    """One code of the ADC in uA, whose codes may lie on both sides of 0; of one without a stated range its rule."""
    if chip.adc.bits is None:
        return "ideal"
    return "by rule" if chip.adc.range_uA is None else f"{chip.adc.range_uA / chip.top_code(signed):.9g}"


def _phases(chip: Chip, signed: bool) -> int:
    """Reads for all of an input; of ideal converters, whose order does not matter, one for each sign."""
    return 1 + signed if chip.input.bits is None else len(planes_of(chip, signed).weights)


def _span(values: npt.ArrayLike, digits: int = 9) -> str:
    """A number to so many digits, or the least and the greatest of several."""
    low, high = float(np.min(values)), float(np.max(values))
    return f"{low:.{digits}g}" if low == high else f"{low:.3g} to {high:.3g}"


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
            "For the targets of this package the errors of its devices make a weight uncertain by (root mean square "
            "over the layer's weights; of a pair of sqrt(sd+^2 + sd-^2) x weight range / W)",
            _table(["layer", "sd of a weight", "of the weight range"], [_weight_error(chip, one) for one in scales]),
        ]
        lines += _reference_error(chip)
    read_sds = np.sqrt(cell.read_noise_variance(states))
    spread = f"{read_sds.min():.3g} to {read_sds.max():.3g}, by its state," if cell.reads_follow_state else ""
    noise = [
        f"a device's conductance fluctuates by {spread or f'{cell.read_noise_uS:g}'} uS (sd) from read to read"
        if cell.reads_are_noisy
        else "",
        _code_noise(chip, scales),
    ]
    read = ", ".join(part for part in noise if part)
    lines.append(f"Reading: {read}." if read else "Reading: `chip.toml` states no noise.")
    return "\n\n".join(lines)


def _reference_error(chip: Chip) -> list[str]:
    """What the errors of cells of reference columns do to weights."""
    column = chip.scheme.reference
    if column is None:
        return []
    _, sd = _stated_errors(chip, np.array([reference_target(chip)]))
    share = column.times * float(sd[0]) / chip.scheme.full_uS
    return [
        f"Not in that table: a cell of the reference column, which is taken off {column.times:g} times, is left off "
        f"its target by {sd[0]:.4g} uS (sd), and so shifts all weights of its word line alike, by {share:.2%} of their "
        "range."
    ]


def _code_noise(chip: Chip, scales: list[LayerScale]) -> str:
    """The noise of the ADC; of layers with others each, where they differ."""
    noise = {one.layer.name: one.chip.adc.noise_lsb for one in scales}
    if len(set(noise.values())) > 1:
        each = ", ".join(f"{text_of(name)} {lsb:g}" for name, lsb in noise.items())
        return f"a code by the converter's own noise in LSB (sd), by layer: {each}"
    lsb = next(iter(noise.values()), chip.adc.noise_lsb)
    return f"a code by {lsb:g} LSB (sd)" if lsb else ""


def _weight_error(chip: Chip, one: LayerScale) -> list[str]:
    _, sd = _stated_errors(chip, one.program.targets)
    counts = np.array(chip.scheme.counts).reshape(-1, 1, 1)
    share = math.sqrt(float(np.mean(np.sum((counts * sd) ** 2, axis=0)))) / chip.scheme.full_uS
    return [text_of(one.layer.name), _span(share * np.asarray(one.program.weight_range), 3), f"{share:.2%}"]


def _table(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
