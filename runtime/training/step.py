"""The steps of training that run without Python between them: forward on the arrays, gradients, optimiser, writes."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import optax
from jax import Array

from cimc.dataset import Preprocess
from cimc.options import Augment, Gradient, Optimizer
from runtime.crossbar.xla import jit
from runtime.devices.device import device_of
from runtime.network.run import run_network
from runtime.network.scan import Product
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.state import State, System
from runtime.training import frank_wolfe
from runtime.training.augmentation import augment_images
from runtime.training.compute import Compute
from runtime.training.frank_wolfe import FrankWolfe
from runtime.training.gradients import ForwardPass, Parameters, find_gradients
from runtime.training.losses import OutputLoss, total_loss
from runtime.training.optimizers import optimizer_of
from runtime.training.policies.mixed_precision import ACCUMULATOR
from runtime.training.policies.policy import Change, LayerState, UpdateRule
from runtime.training.vectors import Packing, pack, packing, spread, unpack
from runtime.training.writes import word_lines

# Counts of a run, by weight and by device.
COUNTS = ("updates", "writes", "trials")
AUGMENTATION = 1  # below the key of a step, beside its halves
TANGENTS = 1 << 20  # number of their key below that of the forward pass, which numbers its operators


@dataclass(frozen=True)
class Recipe:
    """What a training step is compiled for: the network and chip, and how they are trained.

    frozen: layers and digital parameters that stay as they are.
    """

    system: System
    compute: Compute
    rule: UpdateRule
    weight_decay: float
    preprocess: Preprocess
    losses: tuple[OutputLoss, ...]
    optimizer: Optimizer = Optimizer.adam
    augment: tuple[Augment, ...] = ()
    frozen: tuple[str, ...] = ()
    gradient: Gradient = Gradient.backward
    tangents: int = 1
    frank_wolfe: FrankWolfe | None = None


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
    trained = trained_part(state, recipe.frozen)
    packings = packing(trained["weight"]), packing(trained["digital"])
    weights, digital = packings
    ranges = spread(weights, state["weight_range"])
    # The rate of each layer over --lr.
    units = spread(
        weights, {name: compute.unit(w, state["weight_range"][name]) for name, w in trained["weight"].items()}
    )
    traits = {name: pack(weights, state[name]) for name in device_of(system.chip.cell).trait_names if state.get(name)}
    beside = _Beside(state, ranges, units, pack(weights, word_lines(system, state["weight"])), traits)

    def one(n: Array, carried: _Carried) -> _Carried:
        step_key = jax.random.fold_in(key, first + n)
        feeds = network_inputs({name: array[batches[n]] for name, array in stored.items()}, shapes, recipe.preprocess)
        if recipe.augment:
            feeds = augment_images(recipe.augment, feeds, jax.random.fold_in(step_key, AUGMENTATION))
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
    start = _Carried(layers, pack(digital, trained["digital"]), state["statistics"], optimizer, loss_sum)
    end = jax.lax.fori_loop(0, count, one, start)
    new: State = {**state, "statistics": end.statistics, "digital": state["digital"] | unpack(digital, end.digital)}
    for group in ("weight", "conductance", *COUNTS, *seen):
        new[group] = state[group] | unpack(weights, [getattr(layer, group) for layer in end.layers])
    for group in rule.policy.memory:
        new[group] = state[group] | unpack(weights, [layer.memory[group] for layer in end.layers])
    return new, end.optimizer, end.loss_sum


class _Beside(NamedTuple):
    """What steps read and do not change: the state, and of the packed weights the range, the unit of their steps, the
    word line, and the traits of the devices by name.
    """

    fixed: State
    ranges: tuple[Array, ...]
    units: tuple[Array, ...]
    word_lines: tuple[Array, ...]
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
) -> _Carried:
    """One step; packings of the weights and of the digital parameters."""
    forward_key, update_key = jax.random.split(key)
    loss, statistics, gradients = _gradients(recipe, packings, beside, carried, feeds, targets, forward_key)
    gradient = packed(*packings, gradients)
    steps, optimizer = _steps(recipe, packings[0], beside, carried, gradient, lr)
    layers = _write(recipe, beside, carried.layers, steps["weight"], gradient["weight"], update_key)
    if recipe.compute.clip is not None:
        layers = _clipped(recipe.compute.clip, packings[0], layers)
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
) -> tuple[Array, dict[str, Array], Parameters]:
    """Loss, statistics, and gradients of weights and digital parameters by layer."""
    weights, digital = packings
    system, conductance = recipe.system, unpack(weights, [layer.conductance for layer in carried.layers])

    def product(parameters: Parameters) -> Product:
        changed = {"conductance": conductance, **parameters}
        trial = {**beside.fixed, **{group: beside.fixed[group] | new for group, new in changed.items()}}
        return recipe.compute.product(system, trial)

    def run(parameters: Parameters, product: Product) -> tuple[dict[str, Array], dict[str, Array]]:
        digital = beside.fixed["digital"] | parameters["digital"]
        return run_network(system.network, feeds, product, digital, carried.statistics, key, train=True)

    def loss(outputs: dict[str, Array]) -> Array:
        return total_loss(recipe.losses, outputs, targets)

    apart = {
        "weight": unpack(weights, [layer.weight for layer in carried.layers]),
        "digital": unpack(digital, carried.digital),
    }
    samples = len(next(iter(feeds.values())))
    forward = ForwardPass(system, product, run, loss, samples)
    return find_gradients(recipe.gradient, recipe.tangents, forward, apart, jax.random.fold_in(key, TANGENTS))


def new_optimizer(
    name: Optimizer, weight_decay: float, steps: FrankWolfe | None, parameters: dict[str, tuple[Array, ...]]
) -> Any:
    """What the optimiser remembers before the first step; parameters packed. steps: how Frank-Wolfe does them."""
    if steps is None:
        return optimizer_of(name, weight_decay).init(parameters)
    return optax.scale_by_adam().init(parameters["digital"]), frank_wolfe.init(parameters["weight"])


def _steps(
    recipe: Recipe,
    weights: Packing,
    beside: _Beside,
    carried: _Carried,
    gradient: dict[str, tuple[Array, ...]],
    lr: Array,
) -> tuple[dict[str, tuple[Array, ...]], Any]:
    """What weights and digital parameters should change by, and the optimiser's state.

    Frank-Wolfe is of the crossbar weights: Adam moves the others.
    """
    if recipe.frank_wolfe is not None:
        adam, memory = carried.optimizer
        directions, adam = optax.scale_by_adam().update(gradient["digital"], adam)
        theta = tuple(layer.weight + layer.memory.get(ACCUMULATOR, 0) for layer in carried.layers)
        ranges = beside.fixed["weight_range"]
        steps, memory = frank_wolfe.update(recipe.frank_wolfe, weights, gradient["weight"], memory, theta, ranges, lr)
        return {"weight": steps, "digital": tuple(-lr * direction for direction in directions)}, (adam, memory)
    parameters = {"weight": tuple(layer.weight for layer in carried.layers), "digital": carried.digital}
    rule = optimizer_of(recipe.optimizer, recipe.weight_decay)
    directions, optimizer = rule.update(gradient, carried.optimizer, parameters, units=beside.units)
    return jax.tree.map(lambda direction: -lr * direction, directions), optimizer


def _write(
    recipe: Recipe,
    beside: _Beside,
    layers: tuple[LayerState, ...],
    steps: tuple[Array, ...],
    gradients: tuple[Array, ...],
    key: Array,
) -> tuple[LayerState, ...]:
    """The layers after the update rule has taken the step."""
    return tuple(
        recipe.compute.apply(
            recipe.rule,
            recipe.system.chip,
            layer,
            Change(steps[index], gradients[index]),
            weight_range=beside.ranges[index],
            word_line=beside.word_lines[index],
            traits={name: vectors[index] for name, vectors in beside.traits.items()},
            key=jax.random.fold_in(key, index),
        )
        for index, layer in enumerate(layers)
    )


def _clipped(
    clip: Callable[[Array], Array], weights: Packing, layers: tuple[LayerState, ...]
) -> tuple[LayerState, ...]:
    """The layers with each one's weights clipped."""
    clipped = {name: clip(weight) for name, weight in unpack(weights, [layer.weight for layer in layers]).items()}
    return tuple(layer._replace(weight=vector) for layer, vector in zip(layers, pack(weights, clipped), strict=True))


def trained_part(state: State, frozen: Collection[str]) -> dict[str, dict[str, Array]]:
    """The weights and digital parameters of a state that are not frozen."""
    return {
        group: {name: array for name, array in state[group].items() if name not in frozen}
        for group in ("weight", "digital")
    }


def packed(weights: Packing, digital: Packing, parameters: Mapping[str, Any]) -> dict[str, tuple[Array, ...]]:
    """Weights and digital parameters in vectors."""
    return {"weight": pack(weights, parameters["weight"]), "digital": pack(digital, parameters["digital"])}
