"""The steps of training that run without Python between them: forward on the arrays, gradients, optimiser, writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from cimc.dataset import Preprocess
from runtime.crossbar.xla import jit
from runtime.devices.device import device_of
from runtime.network.run import run_network
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.state import State, System
from runtime.training.compute import Compute
from runtime.training.losses import OutputLoss, total_loss
from runtime.training.policies.policy import Change, LayerState, UpdateRule
from runtime.training.row_writes import Lines
from runtime.training.vectors import Packing, pack, packing, spread, unpack
from runtime.training.writes import Scheduled, Scheduler

# Counts of a run, by weight and by device.
COUNTS = ("updates", "writes", "trials")


@dataclass(frozen=True)
class Recipe:
    """What a training step is compiled for: the network and chip, and how they are trained."""

    system: System
    compute: Compute
    rule: UpdateRule
    weight_decay: float
    preprocess: Preprocess
    losses: tuple[OutputLoss, ...]
    scheduler: Scheduler


@partial(jit, static_argnums=(0,), donate_argnums=(1,))
def train_steps(
    recipe: Recipe,
    carried: tuple[State, Any, Array],
    stored: Mapping[str, Array],
    targets: Mapping[str, Array],
    lines: Lines,
    batches: Array,
    rates: Array,
    key: Array,
    first: Array,
    count: Array,
) -> tuple[State, Any, Array]:
    """`count` steps from step `first` on, one after the other, with batches [steps, batch size] and rates [steps].

    stored, targets: of all samples, by input and by output.
    """
    system, compute, rule = recipe.system, recipe.compute, recipe.rule
    shapes = input_shapes(system.network)
    state, optimizer, loss_sum = carried
    packings = packing(state["weight"]), packing(state["digital"])
    weights, digital = packings
    ranges = spread(weights, state["weight_range"])
    # The rate of each layer over --lr.
    units = spread(weights, {name: compute.unit(w, state["weight_range"][name]) for name, w in state["weight"].items()})
    traits = {name: pack(weights, state[name]) for name in device_of(system.chip.cell).trait_names if state.get(name)}
    beside = _Beside(state, ranges, units, lines, traits)

    def one(n: Array, carried: _Carried) -> _Carried:
        step_key = jax.random.fold_in(key, first + n)
        feeds = network_inputs({name: array[batches[n]] for name, array in stored.items()}, shapes, recipe.preprocess)
        return _train_step(
            recipe,
            packings,
            beside,
            carried,
            feeds,
            {name: array[batches[n]] for name, array in targets.items()},
            rates[n],
            step_key,
        )

    seen = ("seen",) if "seen" in state else ()
    groups = {
        group: pack(weights, state[group]) for group in ("weight", "conductance", *COUNTS, *rule.policy.memory, *seen)
    }
    layers = tuple(
        LayerState(
            groups["weight"][index],
            {name: groups[name][index] for name in rule.policy.memory},
            groups["conductance"][index],
            *(groups[name][index] for name in (*COUNTS, *seen)),
        )
        for index in range(len(weights))
    )
    start = _Carried(
        layers, pack(digital, state["digital"]), state["statistics"], optimizer, loss_sum, state["schedule"]
    )
    end = jax.lax.fori_loop(0, count, one, start)
    new: State = {**state, "statistics": end.statistics, "digital": unpack(digital, end.digital)}
    new["schedule"] = end.schedule
    for group in ("weight", "conductance", *COUNTS, *seen):
        new[group] = unpack(weights, [getattr(layer, group) for layer in end.layers])
    for group in rule.policy.memory:
        new[group] = unpack(weights, [layer.memory[group] for layer in end.layers])
    return new, end.optimizer, end.loss_sum


class _Beside(NamedTuple):
    """What steps read and do not change: the state, and of the packed weights the range, the unit of their steps, the
    word lines, and the traits of the devices by name.
    """

    fixed: State
    ranges: tuple[Array, ...]
    units: tuple[Array, ...]
    lines: Lines
    traits: dict[str, tuple[Array, ...]]


class _Carried(NamedTuple):
    """What a step hands to the next one, packed."""

    layers: tuple[LayerState, ...]
    digital: tuple[Array, ...]
    statistics: dict[str, Array]
    optimizer: Any
    loss_sum: Array
    schedule: Scheduled


def _train_step(
    recipe: Recipe,
    packings: tuple[Packing, Packing],
    beside: _Beside,
    carried: _Carried,
    feeds: Mapping[str, Array],
    targets: Mapping[str, Array],
    lr: Array,
    key: Array,
) -> _Carried:
    """One step; packings of the weights and of the digital parameters."""
    forward_key, update_key = jax.random.split(key)
    (loss, statistics), gradients = _gradients(recipe, packings, beside, carried, feeds, targets, forward_key)
    gradient = packed(*packings, gradients)
    steps, optimizer = _steps(recipe, beside, carried, gradient, lr)
    layers, schedule = _write(recipe, beside, carried, steps["weight"], gradient["weight"], update_key)
    digital = optax.apply_updates(carried.digital, steps["digital"])
    return _Carried(layers, digital, statistics, optimizer, carried.loss_sum + loss, schedule)


def _gradients(
    recipe: Recipe,
    packings: tuple[Packing, Packing],
    beside: _Beside,
    carried: _Carried,
    feeds: Mapping[str, Array],
    targets: Mapping[str, Array],
    key: Array,
) -> tuple[tuple[Array, dict[str, Array]], dict[str, dict[str, Array]]]:
    """((loss, statistics), gradients of weights and digital parameters by layer), forward and backward."""
    weights, digital = packings
    conductance = unpack(weights, [layer.conductance for layer in carried.layers])

    def loss_of(parameters: dict[str, dict[str, Array]]) -> tuple[Array, dict[str, Array]]:
        trial: State = {**beside.fixed, "conductance": conductance, **parameters}
        product = recipe.compute.product(recipe.system, trial)
        outputs, statistics = run_network(
            recipe.system.network, feeds, product, trial["digital"], carried.statistics, key, train=True
        )
        return total_loss(recipe.losses, outputs, targets), statistics

    apart = {
        "weight": unpack(weights, [layer.weight for layer in carried.layers]),
        "digital": unpack(digital, carried.digital),
    }
    return jax.value_and_grad(loss_of, has_aux=True)(apart)


def _steps(
    recipe: Recipe, beside: _Beside, carried: _Carried, gradient: dict[str, tuple[Array, ...]], lr: Array
) -> tuple[dict[str, tuple[Array, ...]], Any]:
    """What weights and digital parameters should change by, and the optimiser's state.

    Adam with decoupled weight decay on the crossbar weights.
    """
    directions, optimizer = optax.scale_by_adam().update(gradient, carried.optimizer)
    weights = tuple(
        -lr * (unit * direction + recipe.weight_decay * layer.weight)
        for unit, direction, layer in zip(beside.units, directions["weight"], carried.layers, strict=True)
    )
    return {"weight": weights, "digital": tuple(-lr * direction for direction in directions["digital"])}, optimizer


def _write(
    recipe: Recipe,
    beside: _Beside,
    carried: _Carried,
    steps: tuple[Array, ...],
    gradients: tuple[Array, ...],
    key: Array,
) -> tuple[tuple[LayerState, ...], Scheduled]:
    """The layers after the update rule has taken the step, and what was written."""
    return recipe.compute.apply(
        recipe.rule,
        recipe.system.chip,
        carried.layers,
        [Change(step, gradient) for step, gradient in zip(steps, gradients, strict=True)],
        ranges=beside.ranges,
        traits=[
            {name: vectors[index] for name, vectors in beside.traits.items()} for index in range(len(carried.layers))
        ],
        lines=beside.lines,
        scheduler=recipe.scheduler,
        schedule=carried.schedule,
        key=key,
    )


def packed(weights: Packing, digital: Packing, parameters: Mapping[str, Any]) -> dict[str, tuple[Array, ...]]:
    """Weights and digital parameters in vectors."""
    return {"weight": pack(weights, parameters["weight"]), "digital": pack(digital, parameters["digital"])}
