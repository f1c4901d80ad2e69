"""What a user sees in the terminal: tables on stdout, progress on stderr.

--quiet leaves results, warnings and errors; --verbose adds what is read and kept where. NO_COLOR and COLUMNS are
honoured by rich.
"""

import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cimc.commands.table_layout import BORDERS, LIGHT, Part, fit
from cimc.errors import printable


class Detail(IntEnum):
    """How much is said beside results."""

    quiet = 0
    usual = 1
    verbose = 2


_detail = Detail.usual


def set_detail(detail: Detail) -> None:
    """From now on so much is said."""
    global _detail
    _detail = detail


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    caption: str | None = None,
    *,
    texts: Collection[str] = (),
) -> None:
    """A table on stdout, in parts where the terminal is too narrow. No text is taken for markup.

    The first column holds names, the others numbers, but for `texts`, which hold sentences.
    """
    console = _stdout()
    cells = [[_printable_lines(cell) for cell in row] for row in (columns, *rows)]
    parts = fit(cells[0], cells[1:], console.width, texts)
    console.print(Text(_printable_lines(title), style="italic"))  # beside the table: it may be wider
    for part in parts:
        table = Table(**_frame(part))
        for place, width in zip(part.columns, part.widths, strict=True):
            left = place == 0 or columns[place] in texts
            table.add_column(Text(cells[0][place]), justify="left" if left else "right", overflow="fold", width=width)
        for row in cells[1:]:
            table.add_row(*(Text(row[place]) for place in part.columns))
        console.print(table)
    if caption:
        console.print(Text(_printable_lines(caption), style="italic dim"))


def _frame(part: Part) -> dict[str, Any]:
    if part.frame == BORDERS:
        return {}
    light = {"box": box.SIMPLE_HEAD, "show_edge": False, "pad_edge": False}
    return {**light, "padding": (0, 1, 0, 0) if part.frame == LIGHT else 0}


def print_figures(title: str, figures: Mapping[str, str], caption: str | None = None) -> None:
    """A two-column table of named figures on stdout. No text is taken for markup."""
    table = Table(
        title=_plain(title),
        caption=caption and _plain(caption),
        show_header=False,
        title_justify="left",
        caption_justify="left",
    )
    table.add_column()
    table.add_column(justify="right", overflow="fold")
    for name, value in figures.items():
        table.add_row(_plain(name), _plain(value))
    _stdout().print(table)


def say(text: str) -> None:
    """A line on stdout, without markup."""
    _stdout().print(_printable_lines(text), markup=False, highlight=False, soft_wrap=True)


def counted(number: int, noun: str) -> str:
    """The number with its noun: 1 chip, 2 chips."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def next_step(text: str) -> str:
    """The end of a line that tells what to do next; none where little is to be said."""
    return f"; next: {text}" if _detail >= Detail.usual else ""


def warn(text: str) -> None:
    """A line on stderr that begins with `warning:`."""
    print(f"warning: {_printable_lines(text)}", file=sys.stderr)


def inform(text: str, *, detail: Detail = Detail.usual) -> None:
    """A line on stderr, beside the progress, where as much or more is to be said."""
    if _detail >= detail:
        print(_printable_lines(text), file=sys.stderr, flush=True)


def noting(label: str) -> tuple[list[str], Callable[[str], None]]:
    """The notes of a command, and what adds one: it is also printed on stderr, after the label."""
    notes: list[str] = []

    def note(line: str) -> None:
        notes.append(line)
        inform(f"{label}: {line}")

    return notes, note


@contextmanager
def progress_bar(label: str) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar on stderr; yields a function of (done, total, note). Nothing is drawn when stderr is no terminal,
    but the notes are printed as lines when they change.
    """
    with progress_table(label, ()) as advance:
        yield lambda done, total, note: advance(done, total, note, ())


# (done, total, note, the rows of the table so far)
Advance = Callable[[int, int, str, Sequence[Sequence[str]]], None]


@contextmanager
def progress_table(label: str, columns: Sequence[str]) -> Iterator[Advance]:
    """As `progress_bar`, under a table that grows; without columns there is none."""
    console = Console(file=sys.stderr)
    if _detail is Detail.quiet:
        yield lambda done, total, note, rows: None
        return
    if not console.is_terminal:
        last = ""

        def log(done: int, total: int, note: str, rows: Sequence[Sequence[str]]) -> None:
            nonlocal last
            if note and note != last:
                last = note
                print(f"{label}: {_printable_lines(note)}", file=sys.stderr, flush=True)

        yield log
        return
    parts = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = Progress(*parts, TimeRemainingColumn(), TextColumn("{task.fields[note]}"), console=console)
    task = bars.add_task(label, total=None, note="")
    table = Table()
    for column in columns:
        table.add_column(_plain(column))
    with Live(Group(table, bars) if columns else bars, console=console, transient=bool(columns)):

        def update(done: int, total: int, note: str, rows: Sequence[Sequence[str]]) -> None:
            bars.update(task, completed=done, total=total, note=note)
            for row in rows[table.row_count :]:
                table.add_row(*map(_plain, row))

        yield update


def _plain(text: str) -> Text:
    """Where text of files meets rich: neither markup nor terminal controls."""
    return Text(_printable_lines(text))


def _printable_lines(text: str) -> str:
    return "\n".join(map(printable, text.split("\n")))


def _stdout() -> Console:
    # A pipe has no width: 120 columns keep tables whole there, where COLUMNS does not say otherwise.
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)
