"""How long work tells how far it is."""

from collections.abc import Callable

# Called with the units done, of how many.
Progress = Callable[[int, int], None]


def silent(done: int, total: int) -> None:
    """No progress."""
