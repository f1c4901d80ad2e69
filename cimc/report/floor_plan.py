"""The floor plan of the arrays: every array with the blocks of the layers in it."""

import math
from collections import defaultdict
from collections.abc import Mapping as Dictionary
from collections.abc import Sequence

from cimc.addresses import largest_array
from cimc.chip import Array, Chip
from cimc.mapping import Block, Mapping
from cimc.report.figure import Cell, Figure
from cimc.report.svg import GREY, INK, LINE, MUTED, ON_COLOUR, PAPER, UNUSED, drawing, layer_colour, rectangle, text

PAGE = 1120  # pixels
MOST_BLOCKS = 40_000  # of more, an array shows how much each layer takes, not where


def floor_plan(mapping: Mapping, chip: Chip) -> Figure:
    """Every array with its blocks at their places, by core where the chip has cores; what is not used is pale."""
    held: defaultdict[int, list[tuple[int, Block]]] = defaultdict(list)
    for index, layer in enumerate(mapping.layers):
        for block in layer.blocks:
            held[block.array].append((index, block))
    cores: dict[int, list[int]] = defaultdict(list)
    placed = mapping.placement.cores if mapping.placement is not None else ()
    for array in range(mapping.arrays):
        cores[placed[array] if array < len(placed) else 0].append(array)
    exact = sum(len(blocks) for blocks in held.values()) <= MOST_BLOCKS
    if len(cores) < 2:
        svg, title = _plan_of_arrays(mapping, chip, held, exact), "floor plan of the arrays"
    else:
        svg, title = _plan_of_cores(mapping, chip, held, cores, exact), "floor plan of the arrays by core"
    core_of = {array: core for core, arrays in cores.items() for array in arrays}
    rows = [
        row for array in range(mapping.arrays) for row in _rows(array, core_of[array], held.get(array, []), mapping)
    ]
    return Figure(title, svg, ["array", "core", "layer", "row", "column", "rows", "columns"], rows)


def _rows(array: int, core: int, blocks: Sequence[tuple[int, Block]], mapping: Mapping) -> list[Sequence[Cell]]:
    """A line a block: its array, core, layer, first row and column, and how many of them."""
    lines = [(mapping.layers[index].name, *mapping.lines_of(b)) for index, b in blocks]
    return [(array, core, name, rows.start, columns.start, len(rows), len(columns)) for name, rows, columns in lines]


def _array_size(arrays: int, rows: int, columns: int) -> tuple[float, float]:
    side = next(
        side for most, side in ((8, 130), (32, 84), (128, 50), (512, 30), (2048, 20), (10**9, 11)) if arrays <= most
    )
    aspect = math.sqrt(min(2.5, max(0.4, columns / rows)))
    return side * aspect, side / aspect


def _plan_of_arrays(mapping: Mapping, chip: Chip, held: Dictionary[int, list[tuple[int, Block]]], exact: bool) -> str:
    width, height = _array_size(mapping.arrays, *largest_array(mapping, chip))
    gap = 3 if width < 40 else 10
    label = 12 if width >= 40 else 0
    in_row = max(1, int((PAGE + gap) // (width + gap)))
    parts = []
    for array in range(mapping.arrays):
        x, y = array % in_row * (width + gap), array // in_row * (height + gap + label)
        parts += _array(x, y + label, width, height, array, held.get(array, []), mapping, chip, exact)
        if label:
            parts.append(text(x, y + label - 3, str(array), 10, "start", MUTED))
    rows = -(-mapping.arrays // in_row)
    wide = min(mapping.arrays, in_row) * (width + gap)
    return drawing(wide, rows * (height + gap + label), parts, "floor plan of the arrays")


def _plan_of_cores(
    mapping: Mapping,
    chip: Chip,
    held: Dictionary[int, list[tuple[int, Block]]],
    cores: Dictionary[int, list[int]],
    exact: bool,
) -> str:
    placement = mapping.placement
    wide = placement.mesh_columns if placement is not None else 1
    shown = range(max(cores) + 1) if max(cores) < 4 * len(cores) + 16 else sorted(cores)
    in_row = wide if 2 <= wide <= 16 else min(16, len(shown))
    most = max(len(arrays) for arrays in cores.values())
    array_rows, array_columns = largest_array(mapping, chip)
    across = math.ceil(math.sqrt(most * array_rows / array_columns)) if most > 1 else 1
    panel = PAGE / in_row
    width = (panel - 10) / across
    height = width * min(2.5, max(0.4, array_rows / array_columns))
    tall = -(-most // across) * height + 22
    parts = []
    for place, core in enumerate(shown):
        x, y = place % in_row * panel, place // in_row * tall
        arrays = cores.get(core, [])
        parts.append(rectangle(x, y, panel - 5, tall - 5, PAPER, LINE, f"core {core}: {len(arrays)} arrays in use", 3))
        parts.append(text(x + 4, y + 11, f"{core}" if panel < 60 else f"core {core}", 10, "start", MUTED))
        for index, array in enumerate(arrays):
            column, row = index % across, index // across
            left, top = x + 3 + column * width, y + 15 + row * height
            parts += _array(left, top, width - 1, height - 1, array, held.get(array, []), mapping, chip, exact)
    rows = -(-len(shown) // in_row)
    return drawing(PAGE, rows * tall, parts, "floor plan of the arrays by core")


def _array(
    x: float,
    y: float,
    width: float,
    height: float,
    array: int,
    blocks: Sequence[tuple[int, Block]],
    mapping: Mapping,
    chip: Chip,
    exact: bool,
) -> list[str]:
    """One array: its blocks coloured by layer, the rest pale; the layer's number in it where there is room.

    width, height: of the frame of an array of the largest size; others have their part of it.
    """
    own, (largest_rows, largest_columns) = chip.sizes[mapping.kind_of(array)], largest_array(mapping, chip)
    width, height = width * own.columns / largest_columns, height * own.rows / largest_rows
    cells = own.rows * own.columns
    taken: defaultdict[int, int] = defaultdict(int)
    for index, b in blocks:
        rows, columns = mapping.lines_of(b)
        taken[index] += len(rows) * len(columns)
    names = "; ".join(f"{mapping.layers[index].name} {count / cells:.0%}" for index, count in taken.items())
    note = f"array {array}: {names or 'free'}"
    if len(taken) == 1:
        parts = [rectangle(x, y, width, height, layer_colour(next(iter(taken))), GREY, note, opacity=0.2)]
    else:
        parts = [rectangle(x, y, width, height, PAPER if taken else UNUSED, GREY, note)]
    if exact:
        for index, b in blocks:
            rows, columns = mapping.lines_of(b)
            left, top = columns.start / own.columns, rows.start / own.rows
            wide, tall = len(columns) / own.columns, len(rows) / own.rows
            colour = layer_colour(index)
            parts.append(_inside(x + left * width, y + top * height, wide * width, tall * height, colour))
    else:
        top = 0.0
        for index, count in taken.items():
            parts.append(_inside(x, y + top * height, width, count / cells * height, layer_colour(index)))
            top += count / cells
    if len(taken) == 1 and min(width, height) >= 10:
        number = str(next(iter(taken)) + 1)
        size = min(12.0, 0.9 * width / max(2, len(number)) * 1.3, height * 0.7)
        colour = ON_COLOUR if _covers_middle(blocks, mapping, own) else INK
        parts.append(text(x + width / 2, y + height / 2 + size * 0.35, number, round(size, 1), "middle", colour))
    return parts


def _covers_middle(blocks: Sequence[tuple[int, Block]], mapping: Mapping, array: Array) -> bool:
    lines = (mapping.lines_of(b) for _, b in blocks)
    return any(array.rows // 2 in rows and array.columns // 2 in columns for rows, columns in lines)


def _inside(x: float, y: float, width: float, height: float, colour: str) -> str:
    # No pointer events: the title of the array below shows.
    return f'<rect x="{x:.2f}" y="{y:.2f}" width="{width:.2f}" height="{height:.2f}" fill="{colour}" class="b"/>'
