"""The beginning of a run: devices are programmed for the first time, counters and memories at their beginning."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.options import Optimizer
from runtime.crossbar.figures import jit_with_figures
from runtime.system.state import State, System, draw_chip, program, read_back, trials_of_columns
from runtime.system.watch import new_watch
from runtime.training.frozen import frozen_names
from runtime.training.gradients import check_gradient
from runtime.training.layer_groups import add_tiles, begin_memory
from runtime.training.optimizers import Steps
from runtime.training.options import TrainingOptions
from runtime.training.policies.policy import UpdateRule
from runtime.training.row_writes import Lines, lines_of
from runtime.training.run import Purpose, Run, key_of
from runtime.training.step import packed, trained_part
from runtime.training.vectors import packing, unpack
from runtime.training.writes import Scheduler, first_programming, no_schedule, scheduler_of

TRAITS, TILES, MEMORY = 3, 4, 5  # beside the two keys of the first write


def start(system: System, state: State, options: TrainingOptions, programmed: bool = False) -> Run:
    """Begin a run, with its counters at zero.

    Unless the state is `programmed` (or the method `float`), its weights are first written into the devices and these
    are read once into the digital copy; the trials this takes are counted apart.

    Raises:
        CimcError: the options do not fit together or the chip.
    """
    options.policy.check(system.chip)
    check_gradient(options.gradient, options.policy.backward, system)
    write = options.policy.compute.on_arrays and not programmed
    frozen = frozen_names(system, options.freeze)
    setting = _Start(system, options.policy.rule, steps_for(options), scheduler_for(system, options), frozen, write)
    lines = lines_of_weights(system, state), lines_of_weights(system, state, frozen)
    state, optimizer, trials = _start(setting, state, lines, key_of(options, Purpose.start, 0))
    return Run(state, optimizer, 0, jax.device_put(np.float32(0)), (), new_watch(system), trials)


def steps_for(options: TrainingOptions) -> Steps:
    """How the options make steps of gradients."""
    frank_wolfe = options.frank_wolfe if options.optimizer is Optimizer.frank_wolfe else None
    return Steps(options.optimizer, options.weight_decay, frank_wolfe)


def lines_of_weights(system: System, state: State, frozen: tuple[str, ...] = ()) -> Lines:
    """The word lines of all weights that are not frozen."""
    return lines_of(system.mapping, system.chip, packing(trained_part(state, frozen)["weight"]))


def scheduler_for(system: System, options: TrainingOptions) -> Scheduler:
    """The scheduler of a run's writes."""
    return scheduler_of(options.policy.rule, system.chip, system.mapping, options.write_budget, options.write_every)


@dataclass(frozen=True)
class _Start:
    """What the beginning of a run is compiled for; write: whether devices are programmed first."""

    system: System
    rule: UpdateRule
    steps: Steps
    scheduler: Scheduler
    frozen: tuple[str, ...]
    write: bool


@jit_with_figures(static_argnums=(0,))
def _start(
    setting: _Start, state: State, lines: tuple[Lines, Lines], key: Array
) -> tuple[State, Any, dict[str, Array]]:
    system, rule, (every_line, trained_lines) = setting.system, setting.rule, lines
    weights, pairs = state["weight"], state["conductance"]
    state = {**state, "updates": {name: jnp.zeros(a.shape, jnp.int32) for name, a in weights.items()}}
    for group in ("writes", "trials"):
        state[group] = {name: jnp.zeros(a.shape, jnp.int32) for name, a in pairs.items()}
    pulse = system.chip.cell.pulse
    if pulse is not None and pulse.write_noise_uS and (setting.write or "seen" not in state):
        state["seen"] = {name: jnp.zeros_like(a) for name, a in pairs.items()}
    state |= begin_memory(rule, system.chip, state, jax.random.fold_in(key, MEMORY))
    trials = {name: jnp.zeros(a.shape[-1], jnp.int32) for name, a in weights.items()}
    of_weights: dict[str, list[Array]] = {name: [] for name in weights}

    def longest(name: str, of_devices: Array) -> Array:
        of_weights[name].append(jnp.max(of_devices, axis=0))
        return trials_of_columns(of_devices)

    state["schedule"] = no_schedule(setting.scheduler, trained_lines)
    if setting.write:
        program_key, read_key = jax.random.split(key)
        state |= draw_chip(system, pairs, jax.random.fold_in(key, TRAITS))
        state, trials = program(system, state, program_key, longest)
        state = read_back(system, state, read_key)
    state, trials = add_tiles(rule, system, state, trials, jax.random.fold_in(key, TILES), longest)
    if setting.write:
        line = unpack(packing(weights), every_line.line)
        state["schedule"] |= first_programming(setting.scheduler, every_line, of_weights, line)
    parameters = trained_part(state, setting.frozen)
    vectors = packed(packing(parameters["weight"]), packing(parameters["digital"]), parameters)
    return state, setting.steps.init(vectors), trials
