"""Layers that training leaves as they are: neither their devices nor their digital parameters are touched."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from cimc.errors import CimcError
from runtime.system.state import System, gain_name

NAMES_SHOWN = 8


def all_frozen(layers: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether each of the layers matches a pattern: digital parameters alone are trained."""
    return all(any(fnmatchcase(name, pattern) for pattern in patterns) for name in layers)


def frozen_names(system: System, patterns: Sequence[str]) -> tuple[str, ...]:
    """The layers that match a pattern with their gain and bias, and the digital parameters that match one.

    Raises:
        CimcError: a pattern matches nothing, or nothing is left to train.
    """
    layers, parameters = list(system.crossbars), list(system.network.trainable)
    frozen: list[str] = []
    for pattern in patterns:
        found = [name for name in (*layers, *parameters) if fnmatchcase(name, pattern)]
        if not found:
            shown = ", ".join(layers[:NAMES_SHOWN]) + (", ..." if len(layers) > NAMES_SHOWN else "")
            raise CimcError(f"--freeze {pattern} matches no layer and no digital parameter; the layers are {shown}")
        frozen += found
    for layer in [name for name in frozen if name in system.crossbars]:
        frozen += [gain_name(layer), *([system.bias_names[layer]] if layer in system.bias_names else [])]
    if not {*layers, *parameters} - {*frozen}:
        raise CimcError("--freeze leaves nothing to train; name fewer layers")
    return tuple(dict.fromkeys(frozen))
