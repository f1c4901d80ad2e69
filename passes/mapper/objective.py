"""An objective of the mapper: what a mapping is to have little of, and how objectives are found by name."""

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules

from cimc.errors import CimcError
from cimc.mapping import MappedLayer, Mapping
from cimc.plugins import plugins
from passes.mapper.plan import Task

PACKAGE = "passes.mapper.objectives"  # a module each, loaded when it is asked for


@dataclass(frozen=True)
class Objective:
    """What a mapping is to have little of.

    Attributes:
        unit: of the value and its bounds.
        search: lays a task out on at most so many arrays, which one copy of each layer fits without packing.
        reached: the value of a mapping.
        bound: no mapping of the task on at most so many arrays has less, by the rules of `cimc.mapping.Result`.
        bound_in_segments: the same for a network that is larger than these arrays, beside its mapping in segments.
        packs: the search packs several layers in an array; else packing is for networks whose copies do not fit.
    """

    unit: str
    search: Callable[[Task, int], list[MappedLayer]]
    reached: Callable[[Mapping], float]
    bound: Callable[[Task, int], float]
    bound_in_segments: Callable[[Task, Mapping, int], float]
    packs: bool = False


def objective_names() -> tuple[str, ...]:
    """The names of all objectives: the modules here, and those of plug-ins (group `cimc.objectives`)."""
    return (*_built_in(), *plugins("cimc.objectives", built_in=frozenset(_built_in())))


def find_objective(name: str) -> Objective:
    """The objective of that name. Raises CimcError if there is none."""
    if name in _built_in():
        found = import_module(f"{PACKAGE}.{name}").OBJECTIVE
    elif name in objective_names():
        found = plugins("cimc.objectives", built_in=frozenset(_built_in()))[name]
    else:
        near = get_close_matches(str(name), objective_names(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise CimcError(f"--objective is {name!r}; choose {', '.join(objective_names())}{hint}")
    if not isinstance(found, Objective):
        raise CimcError(f"the objective {name!r} is {found!r:.60}, not an Objective; mend the plug-in")
    return found


def _built_in() -> tuple[str, ...]:
    return tuple(sorted(module.name for module in iter_modules(import_module(PACKAGE).__path__)))
