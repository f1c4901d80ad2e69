"""In-situ training: forward on the arrays, optimiser in float32, devices programmed by the update policy."""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.dataset import Dataset, Preprocess
from cimc.errors import CimcError
from cimc.options import Keep, Optimizer
from runtime.crossbar.figures import jit_with_figures
from runtime.crossbar.keys import new_key
from runtime.system.calibration import calibration_index
from runtime.system.inputs import match_data
from runtime.system.state import State, System, draw_chip, program, read_back, trials_of_columns
from runtime.system.watch import Watch, follow, new_watch, steps_to_look
from runtime.training.augmentation import check_augmentation
from runtime.training.frozen import frozen_names
from runtime.training.gradients import check_gradient
from runtime.training.layer_groups import COUNTS, add_tiles, begin_memory, trial_groups
from runtime.training.learning_rate import course, is_best, plateau_factor, stops_early
from runtime.training.logits import logits
from runtime.training.losses import total_loss
from runtime.training.objective import Objective, accuracy_of, measure_test, objective_of
from runtime.training.optimizers import Steps
from runtime.training.options import TrainingOptions
from runtime.training.pace import STEPS_PER_CALL, first_pace
from runtime.training.parallel import in_parts, mesh_for, on_all, on_own
from runtime.training.policies.policy import UpdateRule
from runtime.training.row_writes import Lines, lines_of
from runtime.training.row_writes import total as sum_of
from runtime.training.statistics import BATCHES, check_statistics, estimate_statistics
from runtime.training.step import Recipe, packed, train_steps, trained_part
from runtime.training.validation import split_validation
from runtime.training.vectors import packing, unpack
from runtime.training.writes import Scheduler, first_programming, no_schedule, scheduler_of

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

    history: one record an epoch (epoch, loss, accuracy, lr, updates, writes, trials; row_writes and write_us where
    devices are written; layers: of each its ranges, clipping shares and updates;
    measures: where the test set is not measured by an accuracy alone; accuracy: then None or one of
    them). loss_sum: of the current epoch. watch: the input ranges. first_trials: by layer and column, of the first
    programming before step 0, which the counters of the state leave out. clock: of this process. best: the state of the
    best epoch so far, where the run is to end with it.
    """

    state: State
    optimizer: Any
    step: int
    loss_sum: Array
    history: tuple[Record, ...]
    watch: Watch
    first_trials: dict[str, Array]
    clock: Clock = field(default_factory=Clock)
    best: State | None = None


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
    check_gradient(options.gradient, options.policy.backward, system)
    write = options.policy.compute.on_arrays and not programmed
    frozen = frozen_names(system, options.freeze)
    setting = _Start(system, options.policy.rule, _steps(options), _scheduler(system, options), frozen, write)
    lines = lines_of_weights(system, state), lines_of_weights(system, state, frozen)
    state, optimizer, trials = _start(setting, state, lines, _key(options, 0, 0))
    return Run(state, optimizer, 0, jax.device_put(np.float32(0)), (), new_watch(system), trials)


TRAITS, TILES, MEMORY = 3, 4, 5  # beside the two keys of the first write


def recipe_of(system: System, options: TrainingOptions, data: Dataset, objective: Objective) -> Recipe:
    """What the steps are compiled for."""
    return Recipe(
        system,
        options.policy.compute,
        options.policy.rule,
        _steps(options),
        data.preprocess,
        tuple(objective.losses),
        _scheduler(system, options),
        options.gradient,
        options.tangents,
        options.augment,
        frozen_names(system, options.freeze),
        options.parts,
    )


def _steps(options: TrainingOptions) -> Steps:
    """How the options make steps of gradients."""
    frank_wolfe = options.frank_wolfe if options.optimizer is Optimizer.frank_wolfe else None
    return Steps(options.optimizer, options.weight_decay, frank_wolfe)


def lines_of_weights(system: System, state: State, frozen: tuple[str, ...] = ()) -> Lines:
    """The word lines of all weights that are not frozen."""
    return lines_of(system.mapping, system.chip, packing(trained_part(state, frozen)["weight"]))


def _scheduler(system: System, options: TrainingOptions) -> Scheduler:
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


def train(
    system: System,
    run: Run,
    options: TrainingOptions,
    data: Dataset,
    checkpoint: Progress = lambda run, total: None,
    checkpoint_seconds: float = 60.0,
    progress: Progress = lambda run, total: None,
    note: Callable[[str], None] = lambda line: None,
    objective: Objective | None = None,
) -> Run:
    """Train to the end of the last epoch.

    Args:
        system: network and chip.
        run: from `start`, or a run stored by `checkpoint`; the result has the same bits either way.
        options: the same as those the run started with.
        data: training and test set; the latter is evaluated on the arrays after every epoch.
        checkpoint: called after every epoch, and in between when `checkpoint_seconds` have passed.
        checkpoint_seconds: at most so much work is lost when the process dies.
        progress: called after each call of some steps (`runtime.training.pace`).
        note: called once, with what the loss is in one line.
        objective: of data that name the network's inputs; None: by the labels and the options.

    Raises:
        CimcError: the data does not fit the network, or the loss is no longer a number.
    """
    if objective is None:
        data = match_data(system.network, data)
        data = split_validation(data, options)
        objective = objective_of(system, data, options.loss, options.label_smoothing)
    if options.reestimate_statistics:
        check_statistics(system.network)
    check_augmentation(options.augment, system.network, objective.losses, objective.train)
    note(f"loss: {objective.text}")
    samples = len(data.train)
    mesh = mesh_for(options.batch_size)
    stored, targets = (on_all(mesh, dict(arrays)) for arrays in (data.train.inputs, objective.train))
    calibration = jax.device_put(dict(data.train.take(calibration_index(options.seed, samples)).inputs))
    per_epoch = options.steps(samples)
    total = per_epoch * options.epochs
    look_key, step_key = _key(options, 1), _key(options, 2)
    began = saved = time.monotonic()
    started, clock, pace = False, Clock(), first_pace()
    policy = options.policy
    recipe = recipe_of(system, options, data, objective)
    lines = lines_of_weights(system, run.state, recipe.frozen)
    lr = course(options, total, per_epoch)
    compute = policy.compute
    order_epoch, order = -1, np.empty(0, np.int64)
    while run.step < total and not stops_early(options, run.history):
        epoch, position = divmod(run.step, per_epoch)
        if epoch != order_epoch:
            order_epoch, order = epoch, _order(options, epoch, samples, per_epoch)
        if compute.converts and steps_to_look(run.step) == 0:
            held = run.state if compute.held is None else compute.held(system, run.state)
            state, watch = follow(system, held, run.watch, calibration, data.preprocess, look_key)
            run = replace(run, state={**run.state, "input_range": state["input_range"]}, watch=watch)
        count = min(pace.steps, per_epoch - position)
        if compute.converts:
            count = min(count, 1 + steps_to_look(run.step + 1))
        batches = np.zeros((STEPS_PER_CALL, options.batch_size), np.int32)
        batches[:count] = order[position * options.batch_size :][: count * options.batch_size].reshape(count, -1)
        rates = np.zeros(STEPS_PER_CALL, np.float32)
        rates[:count] = lr[run.step :][:count] * plateau_factor(options, run.history)
        carried, called = (run.state, run.optimizer, run.loss_sum), time.monotonic()
        state, optimizer, loss_sum = train_steps(
            recipe,
            carried if mesh is None else on_all(mesh, carried),
            stored,
            targets,
            lines,
            in_parts(mesh, batches),
            rates,
            step_key,
            np.int32(run.step),
            np.int32(count),
        )
        state, optimizer, loss_sum = on_own((state, optimizer, loss_sum))
        run = replace(run, state=state, optimizer=optimizer, loss_sum=loss_sum, step=run.step + count)
        if pace.waits:
            jax.block_until_ready(loss_sum)
            pace = pace.after(count, time.monotonic() - called)
        if started:
            clock = clock._replace(images=clock.images + count * options.batch_size)
        else:
            jax.block_until_ready(loss_sum)
            started, now = True, time.monotonic()
            began, clock = now, clock._replace(start_up_s=now - began)
        if run.step % per_epoch == 0:
            jax.block_until_ready(loss_sum)
            clock = clock._replace(seconds=clock.seconds + time.monotonic() - began)
            if options.reestimate_statistics:
                run = _with_statistics(system, run, options, data.preprocess, stored)
            run = _end_epoch(system, run, options, data, objective, per_epoch, float(rates[count - 1]))
            if stops_early(options, run.history):
                note(f"no lower validation loss for {options.patience} epochs: ends after epoch {len(run.history)}")
                total = run.step
            if run.step == total and run.best is not None:
                counts = (*COUNTS, *trial_groups(policy.rule), "schedule")
                run = replace(run, state={**run.best, **{name: run.state[name] for name in counts}}, best=None)
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


def _with_statistics(
    system: System, run: Run, options: TrainingOptions, preprocess: Preprocess, stored: Mapping[str, Array]
) -> Run:
    """The run with its statistics estimated anew on some training samples."""
    batches = _order(options, 0, len(next(iter(stored.values()))), BATCHES).reshape(BATCHES, -1)
    key = _key(options, 5, run.step) if options.policy.compute.on_arrays else None
    product = options.policy.compute.product
    statistics = estimate_statistics(system, product, run.state, preprocess, stored, batches, key)
    return replace(run, state={**run.state, "statistics": statistics})


def _end_epoch(
    system: System,
    run: Run,
    options: TrainingOptions,
    data: Dataset,
    objective: Objective,
    per_epoch: int,
    lr: float,
) -> Run:
    loss = float(run.loss_sum) / per_epoch
    validation = _validation(system, run, options, data, objective)
    if not math.isfinite(loss):
        raise CimcError(f"the loss is {loss} after step {run.step}; lower --lr (now {lr:g})")
    compute = options.policy.compute
    key = _key(options, 3, run.step) if compute.on_arrays else None
    computed = logits(system, run.state, data.test.inputs, data.preprocess, key, compute.product)
    figures = measure_test(objective, computed)
    record = {
        "epoch": len(run.history) + 1,
        "loss": loss,
        "accuracy": accuracy_of(figures),
        **({} if list(figures) == ["accuracy"] else {"measures": figures}),
        **({} if validation is None else {"validation": validation}),
        "lr": lr,
        **{
            group: float(sum(np.sum(np.asarray(a), dtype=np.int64) for a in run.state[group].values()))
            for group in COUNTS
        },
        "layers": _ranges(run, run.state if compute.held is None else compute.held(system, run.state))
        if compute.converts
        else {},
        **(_written(run) if compute.on_arrays else {}),
    }
    run = replace(run, loss_sum=jax.device_put(np.float32(0)), history=(*run.history, record))
    if options.keep is Keep.best and is_best(run.history):
        run = replace(run, best=jax.tree.map(jnp.copy, run.state))  # training goes on in the buffers of the state
    return run


def _validation(
    system: System, run: Run, options: TrainingOptions, data: Dataset, objective: Objective
) -> dict[str, float | None] | None:
    """Loss and accuracy of the validation samples; None where there are none."""
    if data.validation is None:
        return None
    compute = options.policy.compute
    key = _key(options, 4, run.step) if compute.on_arrays else None
    computed = logits(system, run.state, data.validation.inputs, data.preprocess, key, compute.product)
    figures = measure_test(replace(objective, test=objective.validation), computed)
    loss = float(total_loss(objective.losses, computed, objective.validation))
    return {"loss": loss, "accuracy": accuracy_of(figures)}


def _written(run: Run) -> dict[str, float]:
    """Row writes since the start, of all copies, and the time of the busiest port of every step."""
    schedule = run.state["schedule"]
    return {
        "row_writes": float(sum_of(schedule["layers"])[:, 0].sum()),
        "write_us": float(sum_of(schedule["steps"])[0]),
    }


def _ranges(run: Run, held: State) -> dict[str, dict[str, float]]:
    """Of every layer its ranges, what its converters clipped when it was last looked, and its updates so far."""
    seen = jax.device_get(run.watch.seen)
    return {
        name: {
            "input_range": float(input_range),
            "weight_range": float(jnp.max(held["weight_range"][name])),
            "clipped_inputs": float(seen[name].clipped_inputs),
            "clipped_codes": float(seen[name].clipped_codes),
            "updates": float(np.sum(np.asarray(run.state["updates"][name]), dtype=np.int64)),
        }
        for name, input_range in run.state["input_range"].items()
    }


def _order(options: TrainingOptions, epoch: int, images: int, steps: int) -> np.ndarray:
    """Image indices of an epoch's batches: random permutations of the training set, one after the other."""
    random = np.random.default_rng([options.seed, 2, epoch])
    needed = steps * options.batch_size
    return np.concatenate([random.permutation(images) for _ in range(-(-needed // images))])[:needed].astype(np.int32)


def _key(options: TrainingOptions, purpose: int, step: int | None = None) -> Array:
    key = jax.random.fold_in(new_key(options.seed), purpose)
    return key if step is None else jax.random.fold_in(key, step)
