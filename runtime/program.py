"""Between a state and a program: what a state would write into a chip, and the state of a chip that holds a program."""

import jax.numpy as jnp
import numpy as np

from cimc.program import LayerProgram, Program
from cimc.units import pair_targets
from runtime.state import State, System, gain_name


def program_of(system: System, state: State) -> Program:
    """Target conductances of the digital copy on the system's chip, and all digital values.

    Each layer's largest weight takes the whole conductance window, whatever the range it was trained in.
    """
    layers = {}
    for name, weight in state["weight"].items():
        weight_range = np.float32(np.max(np.abs(weight))) or np.float32(1)
        bias = system.bias_names.get(name)
        layers[name] = LayerProgram(
            targets=np.asarray(pair_targets(np.asarray(weight), weight_range, system.chip)),
            weight_range=weight_range,
            input_range=np.float32(state["input_range"][name]),
            gain=np.float32(state["digital"][gain_name(name)]),
            bias=None if bias is None else np.asarray(state["digital"][bias]),
        )
    trained = {**state["digital"], **state["statistics"]}
    names = (*system.network.trainable, *system.network.statistics)
    return Program(layers, {name: np.asarray(trained[name]) for name in names})


def with_program(state: State, program: Program) -> State:
    """The state with a program's targets as exact conductances, its scales, and its digital values."""
    new = {group: dict(arrays) for group, arrays in state.items()}
    for name, layer in program.layers.items():
        new["conductance"][name] = jnp.asarray(layer.targets)
        new["weight_range"][name] = jnp.asarray(layer.weight_range)
        new["input_range"][name] = jnp.asarray(layer.input_range)
        new["digital"][gain_name(name)] = jnp.asarray(layer.gain)
    for group in ("digital", "statistics"):
        new[group] |= {name: jnp.asarray(a) for name, a in program.digital.items() if name in new[group]}
    return new
