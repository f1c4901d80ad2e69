"""Between a state and a program: what a state would write into a chip, and the state of a chip that holds a program."""

import jax
import numpy as np

from cimc.program import LayerProgram, Program
from cimc.units import pair_targets
from runtime.system.state import State, System, gain_name
from runtime.system.weight_range import best_weight_range, training_weight_range


def program_of(system: System, state: State, *, for_training: bool = False) -> Program:
    """Target conductances of the digital copy on the system's chip, and all digital values.

    Args:
        system: network and chip.
        state: the weights and digital values.
        for_training: give each layer the weight range that training starts from (`training_weight_range`), rather than
            the one that errs least (`best_weight_range`).
    """
    choose = training_weight_range if for_training else best_weight_range
    layers = {}
    for name, weight in state["weight"].items():
        weight_range = choose(np.asarray(weight), system.chip)
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
        new["conductance"][name] = jax.device_put(layer.targets)
        new["weight_range"][name] = jax.device_put(layer.weight_range)
        new["input_range"][name] = jax.device_put(layer.input_range)
        new["digital"][gain_name(name)] = jax.device_put(layer.gain)
    for group in ("digital", "statistics"):
        new[group] |= {name: jax.device_put(a) for name, a in program.digital.items() if name in new[group]}
    return new
