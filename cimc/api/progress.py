"""How long work tells how far it is, and what the user should know on the way."""

from collections.abc import Callable

# Called with the units done, of how many.
Progress = Callable[[int, int], None]
# Called with a line to be read.
Note = Callable[[str], None]


def silent(done: int, total: int) -> None:
    """No progress."""


def unsaid(line: str) -> None:
    """No notes."""
