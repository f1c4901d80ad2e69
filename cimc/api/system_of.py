"""The system and the state of a `.cim` file."""

from dataclasses import dataclass, field
from functools import lru_cache

import onnx_ir as ir

from cimc.artifact import Artifact, network_digest
from cimc.chip import Chip
from cimc.mapping import Mapping
from cimc.options import OFF_ARRAYS, Backward
from runtime.network.load import load_network
from runtime.system.program import retarget, without_targets
from runtime.system.state import RangeRule, State, System, build_system, initial_state, restore_state


@dataclass(frozen=True)
class _Network:
    """A network that equals any other with the same digest, such as itself read from a file again."""

    digest: bytes
    model: ir.Model = field(compare=False)


def system_of(artifact: Artifact, backward: Backward = Backward.digital) -> System:
    """The network of a `.cim` file on its chip; the same object for the same contents: it keeps what is compiled."""
    return _system_of(_digested(artifact.network), artifact.mapping, artifact.chip, backward)


@lru_cache(maxsize=2)
def _digested(network: ir.Model) -> _Network:
    return _Network(network_digest(network), network)


@lru_cache(maxsize=2)
def _system_of(network: _Network, mapping: Mapping, chip: Chip, backward: Backward) -> System:
    return build_system(load_network(network.model), mapping, chip, backward)


def state_of(artifact: Artifact, system: System, name: str, *, weight_range: RangeRule | None) -> tuple[State, bool]:
    """The state of a `.cim` file, and whether its devices hold the weights.

    Where they do not yet, the conductances are exact targets, with that rule for the weight range; None: there are none
    yet, scales and targets are fitted together (`calibrate`). Errors call the file `name`.
    """
    if not artifact.state:
        return initial_state(system, weight_range=weight_range), False
    state = restore_state(system, artifact.state, name)
    if artifact.history["options"]["policy"]["method"] not in OFF_ARRAYS:
        return state, True
    if weight_range is None:
        return without_targets(state), False
    return retarget(system, state, weight_range=weight_range), False
