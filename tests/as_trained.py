"""A `.cim` file as a training run leaves it, without one: every value that training changes is another."""

from dataclasses import replace

import numpy as np

from cimc.api.system_of import system_of
from cimc.artifact import Artifact
from runtime.system.state import flatten_state, initial_state


def as_trained(artifact: Artifact, seed: int = 0) -> Artifact:
    """The file with other weights, gains, digital parameters and statistics, as of a run in float32."""
    random = np.random.default_rng(seed)
    flat = dict(flatten_state(initial_state(system_of(artifact))))
    for name, array in flat.items():
        if name.partition("/")[0] in ("weight", "digital", "statistics"):
            moved = array * random.uniform(0.5, 1.5, array.shape) + random.uniform(0.01, 0.1, array.shape)
            flat[name] = np.asarray(moved, np.float32)
    return replace(artifact, state=flat, history={"options": {"policy": {"method": "float"}}})
