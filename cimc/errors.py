"""The error for whatever is wrong with what the user gave."""

_LONGEST = 900  # characters


def printable(text: str) -> str:
    """The text with control characters escaped: names come from files that anyone can write."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class CimcError(Exception):
    """A problem with what the user gave: one printable line that says what, where and what to do about it.

    It is `printable`, and very long text is cut.
    """

    def __init__(self, message: str) -> None:
        line = printable(message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}")
