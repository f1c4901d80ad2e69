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
    frozen = _matching(system, patterns)
    if not _left(system, frozen):
        raise CimcError("--freeze leaves nothing to train; name fewer layers")
    return frozen


def nothing_to_train(system: System, patterns: Sequence[str]) -> bool:
    """Whether these patterns leave no layer and no digital parameter. Raises CimcError where one matches nothing."""
    return not _left(system, _matching(system, patterns))


def _left(system: System, frozen: tuple[str, ...]) -> set[str]:
    return {*system.crossbars, *system.network.trainable} - {*frozen}


def _matching(system: System, patterns: Sequence[str]) -> tuple[str, ...]:
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
    return tuple(dict.fromkeys(frozen))
