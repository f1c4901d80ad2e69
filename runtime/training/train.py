"""In-situ training: forward on the arrays, optimiser in float32, devices programmed by the update policy."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from cimc.dataset import Dataset, Preprocess
from cimc.errors import CimcError
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import jit
from runtime.network.run import run_network
from runtime.system.calibration import Watch, calibration_index, follow, new_watch, steps_to_look
from runtime.system.evaluate import accuracy, images_for, logits, network_input
from runtime.system.state import State, System, program, read_back
from runtime.training.compute import Compute
from runtime.training.learning_rate import learning_rate
from runtime.training.options import TrainingOptions
from runtime.training.policies.policy import Change, LayerState, UpdateRule
from runtime.training.vectors import Packing, pack, packing, spread, unpack
from runtime.training.writes import word_lines

STEPS_PER_CALL = 20  # steps that run without Python between them
# Counts of a run, by weight and by device.
COUNTS = ("updates", "writes", "trials")


# One epoch: figures by name, and `layers`: figures by name of every layer.
Record = dict[str, Any]


class Clock(NamedTuple):
    """Wall time of training in this process.

    start_up_s: to the end of the first steps, compilation included. seconds, images: of all steps after these, without
    evaluation and checkpoints; images is 0 where there were none.
    """

    start_up_s: float = 0.0
    seconds: float = 0.0
    images: int = 0


@dataclass(frozen=True)
class Run:
    """A training run between two steps: what is needed to go on exactly as if it had not stopped.

    history: one record an epoch (epoch, loss, accuracy, lr, updates, writes, trials; layers: of each its ranges and
    clipping shares). loss_sum: of the current epoch. watch: the input ranges. first_trials: by layer, of the first
    programming before step 0, which the counters of the state leave out. clock: of this process.
    """

    state: State
    optimizer: Any
    step: int
    loss_sum: Array
    history: tuple[Record, ...]
    watch: Watch
    first_trials: dict[str, Array]
    clock: Clock = field(default_factory=Clock)


# Called with the run so far and the number of steps of the whole run.
Progress = Callable[[Run, int], None]


def start(system: System, state: State, options: TrainingOptions, programmed: bool = False) -> Run:
    """Begin a run, with its counters at zero.

    Unless the state is `programmed` (or the method `float`), its weights are first written into the devices and these
    are read once into the digital copy; the trials this takes are counted apart.

    Raises:
        CimcError: the options do not fit together or the chip.
    """
    options.policy.check(system.chip)
    write = options.policy.compute.on_arrays and not programmed
    state, optimizer, trials = _start(system, options.policy.rule, write, state, _key(options, 0, 0))
    return Run(state, optimizer, 0, jax.device_put(np.float32(0)), (), new_watch(system), trials)


@partial(jit, static_argnums=(0, 1, 2))
def _start(
    system: System, rule: UpdateRule, write: bool, state: State, key: Array
) -> tuple[State, Any, dict[str, Array]]:
    weights, pairs = state["weight"], state["conductance"]
    state = {**state, "updates": {name: jnp.zeros(a.shape, jnp.int32) for name, a in weights.items()}}
    for group in ("writes", "trials"):
        state[group] = {name: jnp.zeros(a.shape, jnp.int32) for name, a in pairs.items()}
    for group in rule.policy.memory:
        state[group] = {name: jnp.zeros_like(a) for name, a in weights.items()}
    trials = {name: jnp.int32(0) for name in state["weight"]}
    if write:
        program_key, read_key = jax.random.split(key)
        state, trials = program(system, state, program_key)
        state = read_back(system, state, read_key)
    packings = packing(state["weight"]), packing(state["digital"])
    return state, optax.scale_by_adam().init(_packed(*packings, state)), trials


def train(
    system: System,
    run: Run,
    options: TrainingOptions,
    data: Dataset,
    checkpoint: Progress = lambda run, total: None,
    checkpoint_seconds: float = 60.0,
    progress: Progress = lambda run, total: None,
) -> Run:
    """Train to the end of the last epoch.

    Args:
        system: network and chip.
        run: from `start`, or a run stored by `checkpoint`; the result has the same bits either way.
        options: the same as those the run started with.
        data: training and test images; the test set is evaluated on the arrays after every epoch.
        checkpoint: called after every epoch, and in between when `checkpoint_seconds` have passed.
        checkpoint_seconds: at most so much work is lost when the process dies.
        progress: called every few steps (`STEPS_PER_CALL` at most).

    Raises:
        CimcError: the data does not fit the network, or the loss is no longer a number.
    """
    stored = images_for(system, data.train.inputs[""], data)
    images = jax.device_put(stored)
    test_images = images_for(system, data.test.inputs[""], data)
    labels = jax.device_put(data.train.labels)
    calibration = jax.device_put(stored[calibration_index(options.seed, len(stored))])
    per_epoch = options.steps(len(images))
    total = per_epoch * options.epochs
    look_key, step_key = _key(options, 1), _key(options, 2)
    began = saved = time.monotonic()
    started, clock = False, Clock()
    compute, rule = options.policy.compute, options.policy.rule
    on_arrays = compute.on_arrays
    order_epoch, order = -1, np.empty(0, np.int64)
    while run.step < total:
        epoch, position = divmod(run.step, per_epoch)
        if epoch != order_epoch:
            order_epoch, order = epoch, _order(options, epoch, len(images), per_epoch)
        if on_arrays and steps_to_look(run.step) == 0:
            state, watch = follow(system, run.state, run.watch, calibration, data.preprocess, look_key)
            run = replace(run, state=state, watch=watch)
        count = min(STEPS_PER_CALL, per_epoch - position)
        if on_arrays:
            count = min(count, 1 + steps_to_look(run.step + 1))
        batches = np.zeros((STEPS_PER_CALL, options.batch_size), np.int32)
        batches[:count] = order[position * options.batch_size :][: count * options.batch_size].reshape(count, -1)
        rates = np.zeros(STEPS_PER_CALL, np.float32)
        rates[:count] = [learning_rate(options, run.history, run.step + n, total) for n in range(count)]
        state, optimizer, loss_sum = _train_steps(
            system,
            compute,
            rule,
            options.weight_decay,
            data.preprocess,
            (run.state, run.optimizer, run.loss_sum),
            images,
            labels,
            batches,
            rates,
            step_key,
            np.int32(run.step),
            np.int32(count),
        )
        run = replace(run, state=state, optimizer=optimizer, loss_sum=loss_sum, step=run.step + count)
        # Time is read where the steps are waited for anyway, and once after the first of them.
        if started:
            clock = clock._replace(images=clock.images + count * options.batch_size)
        else:
            jax.block_until_ready(loss_sum)
            started, now = True, time.monotonic()
            began, clock = now, clock._replace(start_up_s=now - began)
        if run.step % per_epoch == 0:
            jax.block_until_ready(loss_sum)
            clock = clock._replace(seconds=clock.seconds + time.monotonic() - began)
            run = _end_epoch(system, run, options, data, test_images, per_epoch, float(rates[count - 1]))
            checkpoint(run, total)
            began = saved = time.monotonic()
        elif time.monotonic() - saved > checkpoint_seconds:
            jax.block_until_ready(loss_sum)
            before = time.monotonic()
            checkpoint(run, total)
            saved = time.monotonic()
            began += saved - before
        progress(run, total)
    return replace(run, clock=clock)


@partial(jit, static_argnums=(0, 1, 2, 3, 4), donate_argnums=(5,))
def _train_steps(
    system: System,
    compute: Compute,
    rule: UpdateRule,
    weight_decay: float,
    preprocess: Preprocess,
    carried: tuple[State, Any, Array],
    images: Array,
    labels: Array,
    batches: Array,
    rates: Array,
    key: Array,
    first: Array,
    count: Array,
) -> tuple[State, Any, Array]:
    """`count` steps from step `first` on, one after the other, with batches [steps, batch size] and rates [steps]."""
    state, optimizer, loss_sum = carried
    packings = packing(state["weight"]), packing(state["digital"])
    weights, digital = packings
    ranges = spread(weights, state["weight_range"])
    # The rate of each layer over --lr.
    units = spread(weights, {name: compute.unit(w, state["weight_range"][name]) for name, w in state["weight"].items()})
    beside = _Beside(state, ranges, units, pack(weights, word_lines(system, state["weight"])))

    def one(n: Array, carried: _Carried) -> _Carried:
        step_key = jax.random.fold_in(key, first + n)
        x = network_input(system, images[batches[n]], preprocess)
        return _train_step(
            system,
            compute,
            rule,
            weight_decay,
            packings,
            beside,
            carried,
            x,
            labels[batches[n]],
            rates[n],
            step_key,
        )

    groups = {group: pack(weights, state[group]) for group in ("weight", "conductance", *COUNTS, *rule.policy.memory)}
    layers = tuple(
        LayerState(
            groups["weight"][index],
            {name: groups[name][index] for name in rule.policy.memory},
            groups["conductance"][index],
            *(groups[name][index] for name in COUNTS),
        )
        for index in range(len(weights))
    )
    start = _Carried(layers, pack(digital, state["digital"]), state["statistics"], optimizer, loss_sum)
    end = jax.lax.fori_loop(0, count, one, start)
    new: State = {**state, "statistics": end.statistics, "digital": unpack(digital, end.digital)}
    for group in ("weight", "conductance", *COUNTS):
        new[group] = unpack(weights, [getattr(layer, group) for layer in end.layers])
    for group in rule.policy.memory:
        new[group] = unpack(weights, [layer.memory[group] for layer in end.layers])
    return new, end.optimizer, end.loss_sum


class _Beside(NamedTuple):
    """What steps read and do not change: the state, and of the packed weights the range, the unit of their steps and
    the word line.
    """

    fixed: State
    ranges: tuple[Array, ...]
    units: tuple[Array, ...]
    word_lines: tuple[Array, ...]


class _Carried(NamedTuple):
    """What a step hands to the next one, packed."""

    layers: tuple[LayerState, ...]
    digital: tuple[Array, ...]
    statistics: dict[str, Array]
    optimizer: Any
    loss_sum: Array


def _train_step(
    system: System,
    compute: Compute,
    rule: UpdateRule,
    weight_decay: float,
    packings: tuple[Packing, Packing],
    beside: _Beside,
    carried: _Carried,
    x: Array,
    labels: Array,
    lr: Array,
    key: Array,
) -> _Carried:
    """One step; packings of the weights and of the digital parameters."""
    weights, digital = packings
    forward_key, update_key = jax.random.split(key)
    conductance = unpack(weights, [layer.conductance for layer in carried.layers])

    def loss_of(parameters: dict[str, dict[str, Array]]) -> tuple[Array, dict[str, Array]]:
        trial: State = {**beside.fixed, "conductance": conductance, **parameters}
        product = compute.product(system, trial)
        output, statistics = run_network(
            system.network, x, product, trial["digital"], carried.statistics, forward_key, train=True
        )
        return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(output, labels)), statistics

    parameters = {"weight": tuple(layer.weight for layer in carried.layers), "digital": carried.digital}
    apart = {"weight": unpack(weights, parameters["weight"]), "digital": unpack(digital, carried.digital)}
    (loss, statistics), gradients = jax.value_and_grad(loss_of, has_aux=True)(apart)
    packed = _packed(weights, digital, gradients)
    directions, optimizer = optax.scale_by_adam().update(packed, carried.optimizer)
    steps = {
        # Adam with decoupled weight decay on the crossbar weights.
        "weight": tuple(
            -lr * (u * direction + weight_decay * weight)
            for u, direction, weight in zip(beside.units, directions["weight"], parameters["weight"], strict=True)
        ),
        "digital": tuple(-lr * direction for direction in directions["digital"]),
    }
    layers = tuple(
        compute.apply(
            rule,
            system.chip,
            layer,
            Change(steps["weight"][index], packed["weight"][index]),
            weight_range=beside.ranges[index],
            word_line=beside.word_lines[index],
            key=jax.random.fold_in(update_key, index),
        )
        for index, layer in enumerate(carried.layers)
    )
    return _Carried(
        layers, optax.apply_updates(carried.digital, steps["digital"]), statistics, optimizer, carried.loss_sum + loss
    )


def _end_epoch(
    system: System,
    run: Run,
    options: TrainingOptions,
    data: Dataset,
    test_images: np.ndarray,
    per_epoch: int,
    lr: float,
) -> Run:
    loss = float(run.loss_sum) / per_epoch
    if not math.isfinite(loss):
        raise CimcError(f"the loss is {loss} after step {run.step}; lower --lr (now {lr:g})")
    exact = not options.policy.compute.on_arrays
    key = None if exact else _key(options, 3, run.step)
    outputs = logits(system, run.state, test_images, data.preprocess, key, exact)
    labels = data.test.labels_of()
    assert labels is not None
    record = {
        "epoch": len(run.history) + 1,
        "loss": loss,
        "accuracy": accuracy(outputs, labels),
        "lr": lr,
        **{
            group: float(sum(np.sum(np.asarray(a), dtype=np.int64) for a in run.state[group].values()))
            for group in COUNTS
        },
        "layers": {} if exact else _ranges(run),
    }
    return replace(run, loss_sum=jax.device_put(np.float32(0)), history=(*run.history, record))


def _ranges(run: Run) -> dict[str, dict[str, float]]:
    """Of every layer its ranges, and what its converters clipped when it was last looked."""
    seen = jax.device_get(run.watch.seen)
    return {
        name: {
            "input_range": float(input_range),
            "weight_range": float(run.state["weight_range"][name]),
            "clipped_inputs": float(seen[name].clipped_inputs),
            "clipped_codes": float(seen[name].clipped_codes),
        }
        for name, input_range in run.state["input_range"].items()
    }


def _packed(weights: Packing, digital: Packing, parameters: Mapping[str, Any]) -> dict[str, tuple[Array, ...]]:
    return {"weight": pack(weights, parameters["weight"]), "digital": pack(digital, parameters["digital"])}


def _order(options: TrainingOptions, epoch: int, images: int, steps: int) -> np.ndarray:
    """Image indices of an epoch's batches: random permutations of the training set, one after the other."""
    random = np.random.default_rng([options.seed, 2, epoch])
    needed = steps * options.batch_size
    return np.concatenate([random.permutation(images) for _ in range(-(-needed // images))])[:needed].astype(np.int32)


def _key(options: TrainingOptions, purpose: int, step: int | None = None) -> Array:
    key = jax.random.fold_in(new_key(options.seed), purpose)
    return key if step is None else jax.random.fold_in(key, step)
