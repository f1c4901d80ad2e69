"""Between a state and a program: what a state would write into a chip, and the state of a chip that holds a program."""

import jax
import numpy as np

from cimc.program import LayerProgram, Program
from cimc.units import pair_targets
from runtime.system.state import RangeRule, State, System, bias_of, gain_name, gain_of, initial_state
from runtime.system.weight_range import best_weight_range


def program_of(system: System, state: State, *, weight_range: RangeRule = best_weight_range) -> Program:
    """Target conductances of the digital copy on the system's chip, and all digital values.

    Args:
        system: network and chip.
        state: the weights and digital values.
        weight_range: the rule for each layer's; by default the one that errs least.
    """
    written: State = {**state, "conductance": {}, "weight_range": {}}
    for name, weight in state["weight"].items():
        chosen = weight_range(np.asarray(weight), system.chip)
        written["conductance"][name] = pair_targets(np.asarray(weight), chosen, system.chip)
        written["weight_range"][name] = jax.device_put(chosen)
    return program_held(system, written)


def program_held(system: System, state: State) -> Program:
    """The state as a program: its conductances are the targets."""
    layers = {}
    for name, conductance in state["conductance"].items():
        bias, factor = bias_of(system, state, name), state["input_factor"].get(name)
        layers[name] = LayerProgram(
            targets=np.asarray(conductance),
            weight_range=np.asarray(state["weight_range"][name]),
            input_range=np.float32(state["input_range"][name]),
            gain=np.asarray(gain_of(state, name)),
            bias=None if bias is None else np.asarray(bias),
            input_factor=None if factor is None else np.asarray(factor),
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


def programmed_state(system: System, program: Program) -> State:
    """The state of a chip that holds the program of a package, with the package's network as the exact one.

    A gain by column and every bias is what the chip needs; a gain of one number is the network's own.
    """
    new = with_program(initial_state(system, weight_range=None), program)
    for name, layer in program.layers.items():
        if layer.gain.ndim:
            new["gain"][name] = jax.device_put(layer.gain)
            new["digital"][gain_name(name)] = jax.device_put(np.float32(1))
        if layer.bias is not None:
            new["bias"][name] = jax.device_put(layer.bias)
        if layer.input_factor is not None:
            new["input_factor"][name] = jax.device_put(layer.input_factor)
    return new
