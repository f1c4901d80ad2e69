"""Small drawings of curves in the terminal, in dots of Braille characters."""

import math
from collections.abc import Sequence

# Bits of a Braille character by column and row of its 2 x 4 dots.
DOTS = ((0x01, 0x02, 0x04, 0x40), (0x08, 0x10, 0x20, 0x80))
EMPTY = 0x2800


def text_plot(
    x: Sequence[float],
    curves: Sequence[Sequence[float]],
    *,
    width: int = 60,
    height: int = 8,
    logarithmic: bool = False,
) -> list[str]:
    """The lines of a drawing of curves over x, ascending, with the least and greatest values beside it.

    width, height: of the drawing, in characters. logarithmic: x is drawn by its logarithm.
    """
    across = [math.log(value) for value in x] if logarithmic else list(map(float, x))
    values = [value for curve in curves for value in curve]
    low, high = min(values), max(values)
    columns, rows = 2 * width, 4 * height
    cells = [[EMPTY] * width for _ in range(height)]
    for curve in curves:
        before: int | None = None
        for column, value in enumerate(_resampled(across, curve, columns)):
            share = 0.5 if high == low else (value - low) / (high - low)
            row = rows - 1 - round(share * (rows - 1))
            last = row if before is None else before
            for dot in range(min(row, last), max(row, last) + 1):  # steep parts have no gaps
                cells[dot // 4][column // 2] |= DOTS[column % 2][dot % 4]
            before = row
    ends = [f"{high:.3g}", *[""] * (height - 2), f"{low:.3g}"]
    margin = max(map(len, ends))
    lines = [f"{end:>{margin}} ┤{''.join(map(chr, cell_row))}" for end, cell_row in zip(ends, cells, strict=True)]
    left, right = f"{x[0]:.3g}", f"{x[-1]:.3g}"
    return [*lines, f"{'':{margin}} └{'─' * width}", f"{'':{margin + 2}}{left}{right:>{width - len(left)}}"]


def _resampled(x: Sequence[float], values: Sequence[float], count: int) -> list[float]:
    """The values at equidistant places from the first x to the last, linear between."""
    found, at = [], 0
    for index in range(count):
        place = x[0] + (x[-1] - x[0]) * index / (count - 1)
        while at < len(x) - 2 and x[at + 1] < place:
            at += 1
        width = x[at + 1] - x[at]
        share = min(max((place - x[at]) / width, 0.0), 1.0) if width else 0.0
        found.append(values[at] + share * (values[at + 1] - values[at]))
    return found
