"""What third parties add without a fork: the entry points that installed distributions declare.

A distribution declares in its `pyproject.toml`, for a chip called `acme-64`:

    [project.entry-points."cimc.chips"]
    acme-64 = "acme_chips:ACME_64"

Nothing is imported before something asks for its group, and a name that is built in never asks.
"""

import logging
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from cimc.errors import CimcError


@cache
def plugins(group: str, *, built_in: frozenset[str] = frozenset()) -> dict[str, Any]:
    """The objects that installed distributions declare in an entry-point group, by name, in the order of the names.

    The first call imports them; later ones return the same dict.

    Args:
        group: `cimc.chips` (the path of a TOML file, or its text), `cimc.passes` (an `onnx_ir.passes.PassBase`),
            `cimc.policies` (an `UpdatePolicy`), `cimc.objectives` (an `Objective` of the mapper).
        built_in: names that stay what they are here. A plug-in with such a name is left out, and a line of
            the logger `cimc.plugins` says so.

    Raises:
        CimcError: a plug-in cannot be imported, or two distributions declare the same name; they are named.
    """
    found: dict[str, EntryPoint] = {}
    for entry in sorted(entry_points(group=group), key=lambda entry: (entry.name, _distribution(entry))):
        if entry.name in built_in:
            # Without a handler Python prints the bare line on stderr.
            logging.getLogger(__name__).warning(
                "warning: %s %r of %s is left out: that name is built in", group, entry.name, _distribution(entry)
            )
        elif entry.name in found:
            both = f"{_distribution(found[entry.name])} and {_distribution(entry)}"
            raise CimcError(f"{both} both declare {group} {entry.name!r}; uninstall one of them")
        else:
            found[entry.name] = entry
    return {name: _load(entry) for name, entry in found.items()}


def _load(entry: EntryPoint) -> Any:
    """What an entry point names."""
    try:
        return entry.load()
    except Exception as error:  # the code of others: it can raise anything
        raise CimcError(
            f"cannot load {entry.group} {entry.name!r} of {_distribution(entry)}: "
            f"{type(error).__name__}: {error} ({entry.value}); update or uninstall it"
        ) from error


def _distribution(entry: EntryPoint) -> str:
    return "an unknown distribution" if entry.dist is None else f"{entry.dist.name} {entry.dist.version}"
