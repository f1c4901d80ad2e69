"""In-situ training: forward on the arrays, optimiser in float32, devices programmed by the update policy."""

import time
from collections.abc import Callable
from dataclasses import replace

import jax
import numpy as np

from cimc.dataset import Dataset
from runtime.system.calibration import calibration_index
from runtime.system.inputs import match_data
from runtime.system.state import System
from runtime.system.watch import follow, steps_to_look
from runtime.training.augmentation import check_augmentation
from runtime.training.epoch import end_epoch, order_of, with_statistics
from runtime.training.frozen import frozen_names
from runtime.training.layer_groups import COUNTS, trial_groups
from runtime.training.learning_rate import course, plateau_factor, stops_early
from runtime.training.objective import Objective, objective_of
from runtime.training.options import TrainingOptions
from runtime.training.pace import STEPS_PER_CALL, first_pace
from runtime.training.parallel import in_parts, mesh_for, on_all, on_own
from runtime.training.run import Clock, Progress, Purpose, Run, key_of
from runtime.training.start import lines_of_weights, scheduler_for, steps_for
from runtime.training.statistics import check_statistics
from runtime.training.step import Recipe, train_steps
from runtime.training.validation import split_validation


def recipe_of(system: System, options: TrainingOptions, data: Dataset, objective: Objective) -> Recipe:
    """What the steps are compiled for."""
    return Recipe(
        system,
        options.policy.compute,
        options.policy.rule,
        steps_for(options),
        data.preprocess,
        tuple(objective.losses),
        scheduler_for(system, options),
        options.gradient,
        options.tangents,
        options.augment,
        frozen_names(system, options.freeze),
        options.parts,
    )


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
        check_statistics(system.network, "--reestimate-statistics")
    if options.keep_statistics:
        check_statistics(system.network, "--keep-statistics")
    check_augmentation(options.augment, system.network, objective.losses, objective.train)
    note(f"loss: {objective.text}")
    samples = len(data.train)
    mesh = mesh_for(options.batch_size)
    stored, targets = (on_all(mesh, dict(arrays)) for arrays in (data.train.inputs, objective.train))
    calibration = jax.device_put(dict(data.train.take(calibration_index(options.seed, samples)).inputs))
    per_epoch = options.steps(samples)
    total = per_epoch * options.epochs
    look_key, step_key = key_of(options, Purpose.look), key_of(options, Purpose.step)
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
            order_epoch, order = epoch, order_of(options, epoch, samples, per_epoch)
            by_batch = epoch < options.epochs - options.keep_statistics
            if by_batch != recipe.batch_statistics:  # the step is compiled anew
                recipe, started, began = replace(recipe, batch_statistics=by_batch), False, time.monotonic()
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
            began, clock = now, clock._replace(start_up_s=clock.start_up_s + now - began)
        if run.step % per_epoch == 0:
            jax.block_until_ready(loss_sum)
            clock = clock._replace(seconds=clock.seconds + time.monotonic() - began)
            if options.reestimate_statistics:
                run = with_statistics(system, run, options, data.preprocess, stored)
            run = end_epoch(system, run, options, data, objective, per_epoch, float(rates[count - 1]))
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
