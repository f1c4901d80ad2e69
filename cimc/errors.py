"""The error for whatever is wrong with what the user gave."""

_LONGEST = 900  # characters


class CimcError(Exception):
    """A problem with what the user gave: one printable line that says what, where and what to do about it.

    Names come from files that anyone can write: control characters in them are escaped, and very long text is cut.
    """

    def __init__(self, message: str) -> None:
        line = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in message)
        super().__init__(line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}")
