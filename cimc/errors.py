"""The one exception a user of the tool sees: a line that says what, where and what to do."""


class CimcError(Exception):
    """A problem with what the user gave. `str(error)` is one line: what is wrong, where, and the remedy."""
