"""What a user sees in the terminal: tables on stdout, progress on stderr."""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cimc.errors import printable


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], caption: str | None = None) -> None:
    """A table on stdout; the first column is text, the others numbers. No text is taken for markup."""
    table = Table(
        title=_plain(title), caption=caption and _plain(caption), title_justify="left", caption_justify="left"
    )
    for index, column in enumerate(columns):
        table.add_column(_plain(column), justify="left" if index == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(_plain, row))
    _stdout().print(table)


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


def warn(text: str) -> None:
    """A line on stderr that begins with `warning:`."""
    print(f"warning: {_printable_lines(text)}", file=sys.stderr)


def inform(text: str) -> None:
    """A line on stderr, beside the progress."""
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
    # A pipe has no width: 120 columns keep tables whole there.
    return Console(width=None if sys.stdout.isatty() else 120)
