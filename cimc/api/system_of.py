"""The system of a `.cim` file."""

from cimc.artifact import Artifact
from cimc.options import Backward
from runtime.network.load import load_network
from runtime.system.state import State, System, build_system, restore_state
from runtime.training.options import TrainingOptions


def system_of(artifact: Artifact, name: str, *, options: TrainingOptions | None = None) -> tuple[System, State, bool]:
    """System and state of a `.cim` file, and whether its devices hold the weights yet; errors call it `name`."""
    backward = Backward.digital if options is None else options.policy.backward
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip, backward)
    state = restore_state(system, artifact.state, name)
    programmed = bool(artifact.state) and artifact.history["options"]["policy"]["method"] != "float"
    return system, state, programmed
