"""The system of a `.cim` file."""

from pathlib import Path

from cimc.artifact import Artifact
from cimc.options import Backward
from runtime.network.load import load_network
from runtime.system.state import State, System, build_system, restore_state
from runtime.training.options import TrainingOptions


def system_of(artifact: Artifact, source: Path, options: TrainingOptions | None = None) -> tuple[System, State, bool]:
    """System and state of a `.cim` file, and whether its devices hold the weights yet."""
    backward = Backward.digital if options is None else options.policy.backward
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip, backward)
    state = restore_state(system, artifact.state, str(source))
    programmed = bool(artifact.state) and artifact.history["options"]["policy"]["method"] != "float"
    return system, state, programmed
