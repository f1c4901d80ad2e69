"""The end of an epoch: its record, with test and validation samples measured, and statistics estimated anew."""

import math
from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.dataset import Dataset, Preprocess
from cimc.errors import CimcError
from cimc.options import Keep
from runtime.system.state import State, System
from runtime.training.layer_groups import COUNTS
from runtime.training.learning_rate import is_best
from runtime.training.logits import logits
from runtime.training.losses import total_loss
from runtime.training.objective import Objective, accuracy_of, measure_test
from runtime.training.options import TrainingOptions
from runtime.training.row_writes import total as sum_of
from runtime.training.run import Purpose, Run, key_of
from runtime.training.statistics import BATCHES, estimate_statistics


def order_of(options: TrainingOptions, epoch: int, images: int, steps: int) -> np.ndarray:
    """Image indices of an epoch's batches: random permutations of the training set, one after the other."""
    random = np.random.default_rng([options.seed, 2, epoch])
    needed = steps * options.batch_size
    return np.concatenate([random.permutation(images) for _ in range(-(-needed // images))])[:needed].astype(np.int32)


def with_statistics(
    system: System, run: Run, options: TrainingOptions, preprocess: Preprocess, stored: Mapping[str, Array]
) -> Run:
    """The run with its statistics estimated anew on some training samples."""
    batches = order_of(options, 0, len(next(iter(stored.values()))), BATCHES).reshape(BATCHES, -1)
    key = key_of(options, Purpose.statistics, run.step) if options.policy.compute.on_arrays else None
    product = options.policy.compute.product
    statistics = estimate_statistics(system, product, run.state, preprocess, stored, batches, key)
    return replace(run, state={**run.state, "statistics": statistics})


def end_epoch(
    system: System,
    run: Run,
    options: TrainingOptions,
    data: Dataset,
    objective: Objective,
    per_epoch: int,
    lr: float,
) -> Run:
    """The run with the record of the epoch that has ended, and its state where that is the best so far.

    Args:
        system: network and chip.
        run: after the last step of the epoch.
        options: of the run.
        data: training, validation and test samples.
        objective: what is measured.
        per_epoch: steps.
        lr: of the last step.

    Raises:
        CimcError: the loss is no longer a number.
    """
    loss = float(run.loss_sum) / per_epoch
    validation = _validation(system, run, options, data, objective)
    if not math.isfinite(loss):
        raise CimcError(f"the loss is {loss} after step {run.step}; lower --lr (now {lr:g})")
    compute = options.policy.compute
    key = key_of(options, Purpose.test, run.step) if compute.on_arrays else None
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
    key = key_of(options, Purpose.validation, run.step) if compute.on_arrays else None
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
