"""Between a state and a program: what a state would write into a chip, and the state of a chip that holds a program."""

import jax
import numpy as np

from cimc.program import LayerProgram, Program
from cimc.units import pair_targets
from runtime.system.state import RangeRule, State, System, gain_name
from runtime.system.weight_range import best_weight_range


def program_of(system: System, state: State, *, weight_range: RangeRule = best_weight_range) -> Program:
    """Target conductances of the digital copy on the system's chip, and all digital values.

    Args:
        system: network and chip.
        state: the weights and digital values.
        weight_range: the rule for each layer's; by default the one that errs least.
    """
    layers = {}
    for name, weight in state["weight"].items():
        chosen = weight_range(np.asarray(weight), system.chip)
        bias = system.bias_names.get(name)
        layers[name] = LayerProgram(
            targets=np.asarray(pair_targets(np.asarray(weight), chosen, system.chip)),
            weight_range=chosen,
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
