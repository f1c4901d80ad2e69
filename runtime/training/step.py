"""The steps of training that run without Python between them: forward on the arrays, gradients, optimiser, writes."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cimc.dataset import Preprocess
from runtime.crossbar.xla import jit
from runtime.devices.device import device_of
from runtime.network.run import run_network
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.state import State, System
from runtime.training.compute import Compute
from runtime.training.layer_groups import packed_layers, unpacked_layers, what_is_read
from runtime.training.losses import OutputLoss, total_loss
from runtime.training.policies.policy import Change, LayerState, Place, UpdateRule
from runtime.training.vectors import Packing, pack, packing, spread, unpack
from runtime.training.writes import word_lines


@dataclass(frozen=True)
class Recipe:
    """What a training step is compiled for: the network and chip, and how they are trained."""

    system: System
    compute: Compute
    rule: UpdateRule
    weight_decay: float
    preprocess: Preprocess
    losses: tuple[OutputLoss, ...]


@partial(jit, static_argnums=(0,), donate_argnums=(1,))
def train_steps(
    recipe: Recipe,
    carried: tuple[State, Any, Array],
    stored: Mapping[str, Array],
    targets: Mapping[str, Array],
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
    places = _places(weights, system, state["weight"])
    traits = {name: pack(weights, state[name]) for name in device_of(system.chip.cell).trait_names if state.get(name)}
    beside = _Beside(state, ranges, units, places, traits)

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
            first + n,
        )

    layers = packed_layers(rule, system.chip, weights, state)
    start = _Carried(layers, pack(digital, state["digital"]), state["statistics"], optimizer, loss_sum)
    end = jax.lax.fori_loop(0, count, one, start)
    new: State = {**state, "statistics": end.statistics, "digital": unpack(digital, end.digital)}
    new |= unpacked_layers(rule, system.chip, weights, end.layers)
    return new, end.optimizer, end.loss_sum


class _Beside(NamedTuple):
    """What steps read and do not change: the state, and of the packed weights the range, the unit of their steps, the
    word line, and the traits of the devices by name.
    """

    fixed: State
    ranges: tuple[Array, ...]
    units: tuple[Array, ...]
    places: tuple[Place, ...]
    traits: dict[str, tuple[Array, ...]]


class _Carried(NamedTuple):
    """What a step hands to the next one, packed."""

    layers: tuple[LayerState, ...]
    digital: tuple[Array, ...]
    statistics: dict[str, Array]
    optimizer: Any
    loss_sum: Array


def _train_step(
    recipe: Recipe,
    packings: tuple[Packing, Packing],
    beside: _Beside,
    carried: _Carried,
    feeds: Mapping[str, Array],
    targets: Mapping[str, Array],
    lr: Array,
    key: Array,
    number: Array,
) -> _Carried:
    """The step of that number; packings of the weights and of the digital parameters."""
    forward_key, update_key = jax.random.split(key)
    (loss, statistics), gradients = _gradients(recipe, packings, beside, carried, feeds, targets, forward_key)
    gradient = packed(*packings, gradients)
    steps, optimizer = _steps(recipe, beside, carried, gradient, lr)
    changes = _changes(packings[0], beside, steps["weight"], gradient["weight"], lr, number)
    layers = _write(recipe, beside, carried.layers, changes, update_key)
    return _Carried(
        layers, optax.apply_updates(carried.digital, steps["digital"]), statistics, optimizer, carried.loss_sum + loss
    )


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
    conductance = unpack(weights, what_is_read(recipe.rule, recipe.system.chip, carried.layers))

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


def _changes(
    weights: Packing,
    beside: _Beside,
    steps: tuple[Array, ...],
    gradients: tuple[Array, ...],
    lr: Array,
    number: Array,
) -> tuple[Change, ...]:
    """What the step of that number asks of each vector of weights."""
    largest = [
        spread(weights, {name: jnp.max(jnp.abs(array)) for name, array in unpack(weights, vectors).items()})
        for vectors in (steps, gradients)
    ]
    return tuple(
        Change(step, gradient, largest_step, largest_gradient, lr, number, place)
        for step, gradient, largest_step, largest_gradient, place in zip(
            steps, gradients, *largest, beside.places, strict=True
        )
    )


def _write(
    recipe: Recipe,
    beside: _Beside,
    layers: tuple[LayerState, ...],
    changes: tuple[Change, ...],
    key: Array,
) -> tuple[LayerState, ...]:
    """The layers after the update rule has taken the step."""
    return tuple(
        recipe.compute.apply(
            recipe.rule,
            recipe.system.chip,
            layer,
            changes[index],
            weight_range=beside.ranges[index],
            word_line=beside.places[index].word_line,
            traits={name: vectors[index] for name, vectors in beside.traits.items()},
            key=jax.random.fold_in(key, index),
        )
        for index, layer in enumerate(layers)
    )


def _places(weights: Packing, system: System, arrays: Mapping[str, Array]) -> tuple[Place, ...]:
    """Where the packed weights lie."""
    rows = {name: jnp.broadcast_to(jnp.arange(len(a), dtype=jnp.int32)[:, None], a.shape) for name, a in arrays.items()}
    counts = spread(weights, {name: jnp.int32(len(a)) for name, a in arrays.items()})
    return tuple(
        Place(*given)
        for given in zip(pack(weights, rows), counts, pack(weights, word_lines(system, arrays)), strict=True)
    )


def packed(weights: Packing, digital: Packing, parameters: Mapping[str, Any]) -> dict[str, tuple[Array, ...]]:
    """Weights and digital parameters in vectors."""
    return {"weight": pack(weights, parameters["weight"]), "digital": pack(digital, parameters["digital"])}
