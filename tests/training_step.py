"""The compiled steps of training, to look at what they cost without running them."""

from typing import Any

import jax
import numpy as np

from cimc.dataset import Dataset
from runtime.crossbar.keys import new_key
from runtime.system.inputs import match_data
from runtime.system.state import System, initial_state
from runtime.training.objective import objective_of
from runtime.training.options import TrainingOptions
from runtime.training.pace import STEPS_PER_CALL
from runtime.training.start import lines_of_weights, start
from runtime.training.step import train_steps
from runtime.training.train import recipe_of


def trace_steps(system: System, data: Dataset, options: TrainingOptions) -> Any:
    """The traced program of `STEPS_PER_CALL` steps (`lower().compile()` for its analyses)."""
    data = match_data(system.network, data)
    objective = objective_of(system, data, options.loss)
    run = start(system, initial_state(system), options)
    program, arguments = train_steps.program(
        recipe_of(system, options, data, objective),
        (run.state, run.optimizer, run.loss_sum),
        dict(jax.device_put(data.train.inputs)),
        dict(jax.device_put(objective.train)),
        lines_of_weights(system, run.state),
        np.zeros((STEPS_PER_CALL, options.batch_size), np.int32),
        np.zeros(STEPS_PER_CALL, np.float32),
        new_key(0),
        np.int32(0),
        np.int32(STEPS_PER_CALL),
    )
    return program.compiled.trace(program.numbers(*arguments), *arguments)
