"""How a table fits the width of a terminal: where its columns are cut, and how wide each is. No word is broken."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

from rich.cells import cell_len

LONGEST_NAME = 24  # of the first column: names may be folded to it
NARROWEST_TEXT = 20  # of a column of sentences
# Characters beside the cells: (between two columns, at both ends). With borders where there is room for them.
BORDERS, LIGHT, TIGHT = (3, 4), (2, 0), (1, 0)


class Part(NamedTuple):
    """Columns that stand side by side, by their places; the first column of the table is in every part."""

    columns: tuple[int, ...]
    widths: tuple[int, ...]
    frame: tuple[int, int]


def fit(columns: Sequence[str], rows: Sequence[Sequence[str]], width: int, texts: Collection[str] = ()) -> list[Part]:
    """The parts in which a table is shown, one below the other: one, where that fits.

    Args:
        columns: the head; cells of the first column are names.
        rows: of cells.
        width: of the terminal.
        texts: columns of sentences, which may be broken between any words.
    """
    cells = [[column, *(row[place] for row in rows)] for place, column in enumerate(columns)]
    sentences = [place > 0 and column in texts for place, column in enumerate(columns)]
    broken = [_broken(column, place == 0, sentences[place]) for place, column in enumerate(cells)]
    bodies = [max(1, *map(_longest_line, column[1:])) if rows else 1 for column in cells]
    wanted = [
        [max(pair) for pair in zip(broken, bodies, strict=True)],
        [max(1, *map(_longest_line, column)) for column in cells],
    ]
    whole = [
        narrow if sentences[place] else max(narrow, min(bodies[place], LONGEST_NAME) if place == 0 else bodies[place])
        for place, narrow in enumerate(broken)
    ]
    for widths, frame in ((whole, BORDERS), (whole, LIGHT), (broken, BORDERS), (broken, LIGHT), (broken, TIGHT)):
        if _framed(widths, frame) <= width:
            return [_part(range(len(columns)), widths, wanted, frame, width)]
    parts, held = [], [0]
    for place in range(1, len(columns)):
        if len(held) > 1 and _framed([broken[one] for one in (*held, place)], LIGHT) > width:
            parts.append(held)
            held = [0]
        held.append(place)
    return [_part(part, broken, wanted, LIGHT, width) for part in (*parts, held)]


def _framed(widths: Sequence[int], frame: tuple[int, int]) -> int:
    between, ends = frame
    return sum(widths) + between * (len(widths) - 1) + ends


def _part(
    held: Sequence[int], least: Sequence[int], wanted: Sequence[Sequence[int]], frame: tuple[int, int], width: int
) -> Part:
    """Columns as wide as each of the wanted widths in turn, as there is room: what needs least more gets it first."""
    widths = {place: least[place] for place in held}
    free = width - _framed(list(widths.values()), frame)
    for most in wanted:
        waiting = sorted(held, key=lambda place: most[place] - widths[place])
        for index, place in enumerate(waiting):
            more = max(min(most[place] - widths[place], free // (len(waiting) - index)), 0)
            widths[place] += more
            free -= more
    return Part(tuple(held), tuple(widths[place] for place in held), frame)


def _broken(cells: Sequence[str], names: bool, sentences: bool) -> int:
    """The least width of a column that is broken between words; names may be broken anywhere."""
    longest_word = max((cell_len(word) for cell in cells for word in cell.split()), default=1)
    if names:
        return min(longest_word, LONGEST_NAME)
    most = max(map(_longest_line, cells))
    return max(longest_word, min(NARROWEST_TEXT, most)) if sentences else longest_word


def _longest_line(cell: str) -> int:
    return max(map(cell_len, cell.split("\n")))
