"""The write scheduler: which due weights are written now, what waits, and how few of all weights a write looks at."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from cimc.addresses import largest_array
from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import Mapping
from cimc.options import Sync, Write, sync_of
from cimc.programming_counts import DeviceWork
from cimc.row_cost import RowCost, most_pulses, row_cost
from cimc.write_budget import parse_budget
from runtime.devices.traits import Traits
from runtime.training.policies.pair_writes import ACCUMULATOR
from runtime.training.policies.policy import LayerState, UpdateRule, Wish
from runtime.training.row_writes import FIGURES, PHASES, Lines, account, add_up, no_totals
from runtime.training.vectors import STRIP

SMALL = 4096  # weights: below, programming all of them is as quick as finding those that are due
STRIPS_A_ROUND = 64  # the part of all strips that a round programs; with a few due weights in a thousand one is enough


@dataclass(frozen=True)
class Scheduler:
    """What may be written in a step, and what it takes.

    cost: of row writes. first: of those of the first programming, which is closed loop. rows: at most so many, of each
    port where `per_port`; share: at most this part of those that are due, at least one; None: all. every: only in each
    n-th step.
    """

    cost: RowCost
    first: RowCost
    rows: int | None = None
    share: float | None = None
    per_port: bool = False
    every: int = 1

    @property
    def holds_back(self) -> bool:
        """Whether due weights may have to wait."""
        return self.rows is not None or self.share is not None or self.every > 1


def scheduler_of(rule: UpdateRule, chip: Chip, mapping: Mapping, budget: str | None, every: int) -> Scheduler:
    """The scheduler of a run.

    Args:
        rule: the update policy with its options.
        chip: the chip.
        mapping: of the network.
        budget: as `cimc.write_budget.parse_budget` takes it; None: none. Of time, that of the busiest port; times and
            energies of a row write are taken as the most that one can need.
        every: writes are made in each n-th step.

    Raises:
        CimcError: the policy loses what waits, or the budget is less than a row write takes.
    """
    work = device_work(rule, chip)
    blind, reads = work.blind, work.update_reads
    first = _cost_of_rows(chip, mapping, blind=False, row_reads=reads)
    cost = _cost_of_rows(chip, mapping, blind=True, row_reads=reads) if blind else first
    if (budget is not None or every > 1) and not rule.policy.waits:
        option = "--write-every" if budget is None else "--write-budget"
        raise CimcError(
            f"{option} lets due weights wait in the accumulator, and --update {rule.policy.name} keeps none there; "
            "leave it out"
        )
    if budget is None:
        return Scheduler(cost, first, every=every)
    stated, copies = parse_budget(budget), max(layer.copies for layer in mapping.layers)
    if stated.unit == "%":
        return Scheduler(cost, first, share=stated.amount / 100, every=every)
    if stated.unit == "rows":
        rows, row, per_port = int(stated.amount), "1", False
    elif blind:
        raise CimcError(
            f"--write-budget {budget} needs to know the most that a row write takes, which blind pulses do not tell; "
            f"give row writes or a share of them, as 40 or 10%, or --write verify"
        )
    else:
        pulses = PHASES * most_pulses(chip)
        # Copies stand at several ports: their rows are then counted as if at one.
        per_port = stated.unit == "us" and copies == 1
        all_pulses = pulses * largest_array(mapping, chip)[1]
        most = cost.time_us(1, PHASES, pulses) if stated.unit == "us" else cost.energy_nj(1, PHASES, pulses, all_pulses)
        rows, row = math.floor(stated.amount / most * (1 + 1e-9)) if most else 2**30, f"{most:.4g}{stated.unit}"
    if rows < copies:
        several = f", in each of {copies} copies," if copies > 1 else ""
        raise CimcError(f"--write-budget {budget} is less than a row write{several} can take, {row} each; give more")
    return Scheduler(cost, first, rows=min(rows, 2**30), per_port=per_port, every=every)


def _cost_of_rows(chip: Chip, mapping: Mapping, *, blind: bool, row_reads: int) -> RowCost:
    """The cost of row writes; of arrays of several kinds a read of a line is taken for that which takes most."""
    costs = [row_cost(chip.of_kind(kind), blind=blind, row_reads=row_reads) for kind in mapping.all_kinds]
    read_us, read_nj = max(cost.read_us for cost in costs), max(cost.read_nj for cost in costs)
    return replace(costs[0], read_us=read_us, read_nj=read_nj)


def strip_of(rule: UpdateRule, chip: Chip) -> int:
    """So many consecutive weights `write_due` looks at together: one where pulses are taken one by one.

    An MLP of 200,000 weights on one-sided PCM pairs, 4 % of them due, trains four times as fast with 1 as with 16.
    """
    pulse = chip.cell.pulse
    if _is_blind(rule):
        return STRIP if pulse is None or pulse.law_name in ("linear", "binary") else 1
    return STRIP if chip.cell.programming.train is None else 1


def device_work(rule: UpdateRule, chip: Chip) -> DeviceWork:
    """What the updates of a rule ask of single devices: of one without a digital copy the reads that it makes."""
    blind, reads = _is_blind(rule), 0
    sync, of_steps = getattr(rule.options, "sync", None), rule.policy.reads
    if sync is not None:
        sync = sync_of(Sync(sync), Write.pulse if blind else Write.verify, chip.cell)
        reads = (sync != Sync.target) + (sync == Sync.readback)
    return DeviceWork(blind, reads, 0.0 if of_steps is None else of_steps(rule.options))


def _is_blind(rule: UpdateRule) -> bool:
    """Whether devices are pulsed without reads; a policy without the choice pulses."""
    return bool(getattr(rule.options, "write", Write.pulse) == Write.pulse)


# By name: `Totals`; `first` [layers, FIGURES] and `first_us` [1] of the first programming; and where weights may wait
# `step` (steps done), `waits` [2, 2] (sum of the steps that written weights have waited, their number; each with what
# float32 left out), `longest_wait`, and `waiting_<n>`: how long each weight of vector n has waited.
Scheduled = dict[str, Array]


def no_schedule(scheduler: Scheduler, lines: Lines) -> Scheduled:
    """Before the first step."""
    schedule = {**no_totals(lines), "first": jnp.zeros((len(lines.layers), len(FIGURES))), "first_us": jnp.zeros(1)}
    if scheduler.holds_back:
        schedule |= {"step": jnp.int32(0), "waits": jnp.zeros((2, 2)), "longest_wait": jnp.int32(0)}
        schedule |= {f"waiting_{index}": jnp.zeros(line.shape, jnp.int32) for index, line in enumerate(lines.line)}
    return schedule


def first_programming(
    scheduler: Scheduler, lines: Lines, trials: dict[str, list[Array]], line: dict[str, Array]
) -> Scheduled:
    """What programming all devices takes, all of them SET from G_min: `first` and `first_us`.

    trials: of each layer, for each pair of a weight those of its longer device [..]. line: of the weights [..].
    """
    pairs = max(map(len, trials.values()))
    longest = jnp.zeros((pairs, PHASES, len(lines.layer)), jnp.int32)
    for name, of_pairs in trials.items():
        longest = longest.at[:, 0, line[name]].max(jnp.stack(of_pairs))
    totals = account(scheduler.first, lines, longest, no_totals(lines))
    return {"first": totals["layers"][0], "first_us": totals["steps"][0]}


def grant(
    wishes: Sequence[Wish], ranges: Sequence[Array], lines: Lines, scheduler: Scheduler, schedule: Scheduled
) -> list[Wish]:
    """Of wishes [..] what is written now; what is not stays in the accumulators, which the wishes hold.

    Lines are written whole, those first that hold the weight which has most of its range to go.

    Args:
        wishes: of all layers.
        ranges: their weight ranges, scalar or [..].
        lines: the word lines.
        scheduler: what may be written.
        schedule: with the number of steps done.
    """
    if not scheduler.holds_back:
        return list(wishes)
    score = jnp.full(len(lines.layer), -1.0)
    for wish, weight_range, line in zip(wishes, ranges, lines.line, strict=True):
        missing = jnp.abs(wish.memory[ACCUMULATOR]) / weight_range
        score = score.at[line.reshape(wish.due.shape)].max(jnp.where(wish.due, missing, -1.0))
    due = score >= 0
    granted = due
    if scheduler.rows is not None or scheduler.share is not None:
        pool = lines.port if scheduler.per_port else jnp.zeros_like(lines.port)
        order = jnp.lexsort((-score, pool))
        cost, pool = jnp.where(due, lines.copies, 0)[order], pool[order]
        spent = jnp.cumsum(cost)
        before = jax.ops.segment_min(spent - cost, pool, len(lines.ports), indices_are_sorted=True)
        most = jnp.int32(scheduler.rows or 0)
        if scheduler.share is not None:
            # At least one line, whatever it takes.
            most = jnp.maximum(jnp.ceil(jnp.float32(scheduler.share) * spent[-1]).astype(jnp.int32), cost[0])
        granted = jnp.zeros_like(due).at[order].set((spent - before[pool] <= most) & due[order])
    if scheduler.every > 1:
        granted &= (schedule["step"] + 1) % scheduler.every == 0
    return [
        wish._replace(due=wish.due & granted[line.reshape(wish.due.shape)])
        for wish, line in zip(wishes, lines.line, strict=True)
    ]


def settle_schedule(
    schedule: Scheduled,
    scheduler: Scheduler,
    lines: Lines,
    longest: Array,
    due: Sequence[Array],
    granted: Sequence[Array],
) -> Scheduled:
    """The totals after a step.

    Args:
        schedule: before.
        scheduler: of the run.
        lines: the word lines.
        longest: pulses of the longest device of each line, by pair of a weight, SET and RESET [pairs, 2, lines].
        due, granted: weights [..] of all layers.
    """
    totals = account(scheduler.cost, lines, longest, {name: schedule[name] for name in no_totals(lines)})
    new = {**schedule, **totals}
    if not scheduler.holds_back:
        return new
    new["step"] = schedule["step"] + 1
    waited_sum, count = jnp.float32(0), jnp.float32(0)
    for index, (wanted, got) in enumerate(zip(due, granted, strict=True)):
        name = f"waiting_{index}"
        before = schedule[name].reshape(wanted.shape)
        new[name] = jnp.where(wanted & ~got, before + 1, 0).reshape(schedule[name].shape)
        waited_sum += jnp.sum(jnp.where(got, before, 0)).astype(jnp.float32)
        count += jnp.sum(got).astype(jnp.float32)
        new["longest_wait"] = jnp.maximum(new["longest_wait"], jnp.max(jnp.maximum(new[name], schedule[name])))
    new["waits"] = add_up(schedule["waits"], jnp.stack([waited_sum, count]))
    return new


class Beside(NamedTuple):
    """What a write of weights [..] reads and does not change: their range, scalar or [..], traits, each [2, ..], and
    word lines [..].
    """

    weight_range: Array
    traits: Traits
    line: Array


# Writes weights [..] as wished: (layer, wish, what it reads beside, key) -> layer, and the SET and RESET pulses of the
# longer device of each weight [2, ..].
WriteWeights = Callable[[LayerState, Wish, Beside, Array], tuple[LayerState, Array]]


def write_due(
    write: WriteWeights,
    layer: LayerState,
    wish: Wish,
    beside: Beside,
    longest: Array,
    key: Array,
    strip: int = STRIP,
) -> tuple[LayerState, Array]:
    """Write the due weights of a layer, looking at their strips alone where the layer is large.

    Usually a few weights in ten thousand are due: errors are then drawn for their strips only, in as many rounds as
    these need.

    Args:
        write: what is done with weights, some of them due.
        layer: with the memory of the wish in it.
        wish: weights [..].
        beside: weight range, traits and word lines.
        longest: pulses of the longest device of each word line, SET and RESET [2, lines], so far.
        key: for all draws.
        strip: so many consecutive weights are looked at together: fewer where a write takes long.

    Returns:
        The layer, and `longest` with these writes in it.
    """
    if wish.due.size < SMALL or wish.due.size % strip:
        layer, pulses = write(layer, wish, beside, key)
        return layer, longest.at[:, beside.line.reshape(wish.due.shape)].max(pulses)
    strips, axes = wish.due.size // strip, wish.due.ndim
    a_round = max(strips // STRIPS_A_ROUND, 16)

    def in_strips(array: Array) -> Array:
        return array.reshape(*array.shape[: array.ndim - axes], strips, strip)

    shapes = jax.tree.map(jnp.shape, layer)
    # The memory is carried in the layer: what of it was settled in one round must not be lost in the next.
    layer, wish = jax.tree.map(in_strips, (layer, wish._replace(memory={})))
    per_weight, traits = beside.weight_range.ndim > 0, jax.tree.map(in_strips, dict(beside.traits))
    ranges = in_strips(beside.weight_range) if per_weight else beside.weight_range
    lines = beside.line.reshape(strips, strip)
    count = jnp.cumsum(jnp.any(wish.due, axis=1).astype(jnp.int32))

    def write_round(n: Array, carried: tuple[LayerState, Array]) -> tuple[LayerState, Array]:
        layer, longest = carried
        # The places of the next due strips; past the last one, a place that is none.
        nth = n * a_round + jnp.arange(1, a_round + 1, dtype=jnp.int32)
        places = jnp.searchsorted(count, nth, method="scan_unrolled")

        def take(array: Array) -> Array:
            return array.at[..., places, :].get(mode="clip")

        some, wish_here = jax.tree.map(take, (layer, wish))
        due = wish.due.at[places].get(mode="fill", fill_value=False)
        wish_here = wish_here._replace(due=due, memory=some.memory)
        here = Beside(take(ranges) if per_weight else ranges, jax.tree.map(take, traits), take(lines))
        done, pulses = write(some, wish_here, here, jax.random.fold_in(key, n))
        layer = jax.tree.map(
            lambda array, new: array.at[..., places, :].set(
                new, mode="drop", unique_indices=True, indices_are_sorted=True
            ),
            layer,
            done,
        )
        return layer, longest.at[:, here.line].max(pulses)

    rounds = (count[-1] + a_round - 1) // a_round
    layer, longest = jax.lax.fori_loop(0, rounds, write_round, (layer, longest))
    layer = jax.tree.map(
        lambda array, shape: array.reshape(shape), layer, shapes, is_leaf=lambda x: isinstance(x, Array)
    )
    return layer, longest
