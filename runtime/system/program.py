"""Between a state and a program: what a state would write into a chip, and the state of a chip that holds a program."""

from collections.abc import Collection

import jax
import numpy as np

from cimc.program import LayerProgram, Program
from cimc.units import device_targets
from runtime.system.state import RangeRule, State, System, bias_of, gain_name, gain_of, initial_state
from runtime.system.weight_range import best_column_ranges


def without_targets(state: State) -> State:
    """The state with the digital side alone: what the chip is to hold is chosen later."""
    return {**state, "conductance": {}, "reference_column": {}, "weight_range": {}, "input_factor": {}}


def retarget(
    system: System,
    state: State,
    *,
    weight_range: RangeRule = best_column_ranges,
    layers: Collection[str] | None = None,
    fixed: Collection[str] = (),
) -> State:
    """The state with the digital copy's weights of these layers (None: all) as exact targets, in ranges by that rule,
    and no input factors; without what the chip holds of others, but for the fixed ones, which stay as they are.
    """
    new = without_targets(state)
    for name, weight in state["weight"].items():
        if name in fixed:
            for group in ("conductance", "weight_range", "input_factor"):
                if name in state[group]:
                    new[group][name] = state[group][name]
        if name in fixed or (layers is not None and name not in layers):
            continue
        chip = system.chip_of(name)
        chosen = weight_range(np.asarray(weight), chip)
        new["conductance"][name] = jax.device_put(device_targets(np.asarray(weight), chosen, chip))
        new["weight_range"][name] = jax.device_put(chosen)
    return new


def program_of(system: System, state: State) -> Program:
    """The conductances that a state holds, as targets, and all digital values."""
    layers = {}
    for name in state["weight"]:
        bias, factor = bias_of(system, state, name), state["input_factor"].get(name)
        layers[name] = LayerProgram(
            targets=np.asarray(state["conductance"][name]),
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
        if layer.input_factor is not None:
            new["input_factor"][name] = jax.device_put(layer.input_factor)
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
