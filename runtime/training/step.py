"""The steps of training that run without Python between them: forward on the arrays, gradients, optimiser, writes."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cimc.dataset import Preprocess
from cimc.options import Augment, Gradient
from runtime.crossbar.figures import jit_with_figures
from runtime.devices.device import device_of
from runtime.network.run import run_network
from runtime.network.scan import Product
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.state import State, System
from runtime.training.augmentation import augment_images
from runtime.training.compute import Compute
from runtime.training.gradients import ForwardPass, Parameters, find_gradients
from runtime.training.layer_groups import packed_layers, unpacked_layers, what_is_read
from runtime.training.losses import OutputLoss, total_loss
from runtime.training.micro_batches import gradients_in_parts
from runtime.training.optimizers import Scale, Steps
from runtime.training.policies.pair_writes import ACCUMULATOR
from runtime.training.policies.policy import Change, LayerState, Place, UpdateRule
from runtime.training.row_writes import Lines
from runtime.training.vectors import Packing, pack, packing, spread, unpack
from runtime.training.writes import Scheduled, Scheduler

TANGENTS = 1 << 20  # number of their key below that of the forward pass, which numbers its operators
AUGMENTATION = 1  # below the key of a step, beside its halves


@dataclass(frozen=True)
class Recipe:
    """What a training step is compiled for: the network and chip, and how they are trained.

    frozen: layers and digital parameters that stay as they are. parts: of a batch, computed one after the other.
    batch_statistics: batch normalisation by those of the batch, else by the running ones, which stay.
    """

    system: System
    compute: Compute
    rule: UpdateRule
    steps: Steps
    preprocess: Preprocess
    losses: tuple[OutputLoss, ...]
    scheduler: Scheduler
    gradient: Gradient = Gradient.backward
    tangents: int = 1
    augment: tuple[Augment, ...] = ()
    frozen: tuple[str, ...] = ()
    parts: int = 1
    batch_statistics: bool = True


@jit_with_figures(static_argnums=(0,), donate_argnums=(1,))
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
    trained = trained_part(state, recipe.frozen)
    packings = packing(trained["weight"]), packing(trained["digital"])
    weights, digital = packings
    ranges = spread(weights, state["weight_range"])
    # The rate of each layer over --lr.
    units = spread(
        weights, {name: compute.unit(w, state["weight_range"][name]) for name, w in trained["weight"].items()}
    )
    traits = {name: pack(weights, state[name]) for name in device_of(system.chip.cell).trait_names if state.get(name)}
    beside = _Beside(state, ranges, units, _places(weights, trained["weight"], lines), lines, traits)

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
            first + n,
        )

    start = _Carried(
        packed_layers(rule, system.chip, weights, state),
        pack(digital, trained["digital"]),
        state["statistics"],
        optimizer,
        loss_sum,
        state["schedule"],
    )
    end = jax.lax.fori_loop(0, count, one, start)
    new: State = {**state, "statistics": end.statistics, "digital": state["digital"] | unpack(digital, end.digital)}
    new["schedule"] = end.schedule
    for group, arrays in unpacked_layers(rule, system.chip, weights, end.layers).items():
        new[group] = state[group] | arrays
    return new, end.optimizer, end.loss_sum


class _Beside(NamedTuple):
    """What steps read and do not change: the state, and of the packed weights the range, the unit of their steps, the
    word lines, and the traits of the devices by name.
    """

    fixed: State
    ranges: tuple[Array, ...]
    units: tuple[Array, ...]
    places: tuple[Place, ...]
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
    number: Array,
) -> _Carried:
    """The step of that number; packings of the weights and of the digital parameters."""
    forward_key, update_key = jax.random.split(key)
    find = partial(_gradients, recipe, packings, beside, carried.layers, carried.digital)
    loss, statistics, gradients = gradients_in_parts(
        find, recipe.parts, carried.statistics, feeds, targets, forward_key
    )
    gradient = packed(*packings, gradients)
    steps, optimizer = _steps(recipe, packings[0], beside, carried, gradient, lr)
    changes = _changes(packings[0], beside, steps["weight"], gradient["weight"], lr, number)
    layers, schedule = _write(recipe, beside, carried, changes, update_key)
    if recipe.compute.clip is not None:
        layers = _clipped(recipe.compute.clip, packings[0], layers)
    new_digital = optax.apply_updates(carried.digital, steps["digital"])
    return _Carried(layers, new_digital, statistics, optimizer, carried.loss_sum + loss, schedule)


def _gradients(
    recipe: Recipe,
    packings: tuple[Packing, Packing],
    beside: _Beside,
    layers: tuple[LayerState, ...],
    digital_vectors: tuple[Array, ...],
    statistics: dict[str, Array],
    feeds: Mapping[str, Array],
    targets: Mapping[str, Array],
    key: Array,
) -> tuple[Array, dict[str, Array], Parameters]:
    """Loss, statistics, and gradients of weights and digital parameters by layer, of these samples."""
    weights, digital = packings
    system, conductance = recipe.system, unpack(weights, what_is_read(recipe.rule, recipe.system.chip, layers))

    def product(parameters: Parameters) -> Product:
        changed = {"conductance": conductance, **parameters}
        trial: State = {**beside.fixed, **{group: beside.fixed[group] | new for group, new in changed.items()}}
        return recipe.compute.product(system, trial)

    def run(parameters: Parameters, product: Product) -> tuple[dict[str, Array], dict[str, Array]]:
        digital = beside.fixed["digital"] | parameters["digital"]
        return run_network(
            system.network,
            feeds,
            product,
            digital,
            statistics,
            key,
            train=True,
            batch_statistics=recipe.batch_statistics,
        )

    def loss(outputs: dict[str, Array]) -> Array:
        return total_loss(recipe.losses, outputs, targets)

    apart = {
        "weight": unpack(weights, [layer.weight for layer in layers]),
        "digital": unpack(digital, digital_vectors),
    }
    samples = len(next(iter(feeds.values())))
    forward = ForwardPass(system, product, run, loss, samples)
    return find_gradients(recipe.gradient, recipe.tangents, forward, apart, jax.random.fold_in(key, TANGENTS))


def _steps(
    recipe: Recipe,
    weights: Packing,
    beside: _Beside,
    carried: _Carried,
    gradient: dict[str, tuple[Array, ...]],
    lr: Array,
) -> tuple[dict[str, tuple[Array, ...]], Any]:
    """What weights and digital parameters should change by, and the optimiser's state."""
    parameters = {"weight": tuple(layer.weight for layer in carried.layers), "digital": carried.digital}
    waiting = tuple(layer.memory.get(ACCUMULATOR, 0) for layer in carried.layers)
    scale = Scale(beside.units, weights, beside.fixed["weight_range"], waiting)
    return recipe.steps.update(gradient, carried.optimizer, parameters, scale, lr)


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
    carried: _Carried,
    changes: tuple[Change, ...],
    key: Array,
) -> tuple[tuple[LayerState, ...], Scheduled]:
    """The layers after the update rule has taken the step, and what was written."""
    return recipe.compute.apply(
        recipe.rule,
        recipe.system.chip,
        carried.layers,
        changes,
        ranges=beside.ranges,
        traits=[
            {name: vectors[index] for name, vectors in beside.traits.items()} for index in range(len(carried.layers))
        ],
        lines=beside.lines,
        scheduler=recipe.scheduler,
        schedule=carried.schedule,
        key=key,
    )


def _places(weights: Packing, arrays: Mapping[str, Array], lines: Lines) -> tuple[Place, ...]:
    """Where the packed weights lie."""
    rows = {name: jnp.broadcast_to(jnp.arange(len(a), dtype=jnp.int32)[:, None], a.shape) for name, a in arrays.items()}
    counts = spread(weights, {name: jnp.int32(len(a)) for name, a in arrays.items()})
    return tuple(Place(*given) for given in zip(pack(weights, rows), counts, lines.line, strict=True))


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
