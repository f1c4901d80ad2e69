"""Deployment: virtual chips programmed with a package's targets, aged, compensated, and measured."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.dataset import Dataset, Preprocess, Samples
from cimc.options import BY_SAMPLES, Compensate
from cimc.program import Program
from runtime.crossbar.keys import new_key
from runtime.deployment.chips import Chips, chips_side_by_side, outputs_on_chips
from runtime.deployment.compensation import (
    Calibration,
    calibration_of,
    compensate_chips,
    digital_numbers,
    samples_for_compensation,
)
from runtime.deployment.programming import (
    age_chips,
    aged_system,
    chips_at_once,
    fold_in_each,
    program_chip,
    program_chips,
    stuck_shares,
)
from runtime.deployment.result import Deployment, Details, WorstChip
from runtime.system.calibration import calibration_index
from runtime.system.carry import Carry, carried
from runtime.system.confidence import calibration_error, class_accuracy, confidence_sums
from runtime.system.inference import Batch, Outputs, batches, exact_parameters, outputs_exactly, outputs_on_arrays
from runtime.system.layer_errors import LayerError, layer_errors
from runtime.system.measures import LOWER_IS_BETTER, Sums, merge
from runtime.system.program import programmed_state
from runtime.system.quality import AGREEMENTS, Quality, new_quality
from runtime.system.read_energy import ReadEnergy
from runtime.system.sensitivity import layers_apart, sensitivities
from runtime.system.state import State, System

COMPENSATION = 1 << 22  # key of the reads for it
SENSITIVITY_SAMPLES = 64

Moments = Sequence[float | None]  # seconds after programming; None: right after it
Stuck = Sequence[Mapping[str, np.ndarray]]


@dataclass(frozen=True, eq=False)
class Order:
    """What is to be made of a package. systems, moments: the chip as its reads are at each time. stuck: as of `deploy`.
    keys: of each chip's programming and of its reads.
    """

    systems: Mapping[float | None, System]
    state: State
    stuck: Stuck
    keys: tuple[Array, Array]
    compensate: Sequence[Compensate]
    calibration: Calibration | None

    @property
    def moments(self) -> Moments:
        """The times at which chips are measured."""
        return tuple(self.systems)

    def make(self, numbers: NDArray[np.int64]) -> dict[float | None, Chips]:
        """The chips with these numbers at each time."""
        program_keys, read_keys = (keys[numbers] for keys in self.keys)
        new, stuck = self.systems[None], self._stuck(numbers)
        written = program_chips(new, self.state, program_keys, stuck)
        fresh = Chips(new, self.state, {"conductance": written}, read_keys)
        made = {}
        for moment, system in self.systems.items():
            held = age_chips(system, written, moment, program_keys, stuck)
            made[moment] = Chips(system, self.state, {"conductance": held}, read_keys)
            if moment is not None and self.compensate:
                keys = fold_in_each(read_keys, np.int32(COMPENSATION))
                made[moment] = compensate_chips(self.compensate, fresh, made[moment], self.calibration, keys)
        return made

    def stuck_shares(self, numbers: NDArray[np.int64]) -> NDArray[np.float64]:
        """The share of the devices of each of these chips that is stuck."""
        return stuck_shares(self.systems[None], self.state, self.keys[0][numbers], self._stuck(numbers))

    def _stuck(self, numbers: NDArray[np.int64]) -> dict[str, np.ndarray]:
        """By layer, the stuck devices of each chip [chips, ...]; {}: as the chip's description says."""
        if not self.stuck:
            return {}
        maps = [self.stuck[number % len(self.stuck)] for number in numbers.tolist()]
        return {name: np.stack([one[name] for one in maps]) for name in maps[0]}


@dataclass(eq=False)
class Group:
    """Chips at one time, and what is known of them so far. first: number of the first; count: of those that count."""

    first: int
    count: int
    moment: float | None
    run: Callable[[Batch], list[Outputs]]
    quality: list[Quality]
    confidence: Sums | None = None

    def add(self, batch: Batch, reference: Outputs) -> None:
        """Measure a batch."""
        made = self.run(batch)[: self.count]
        for quality, outputs in zip(self.quality, made, strict=True):
            quality.add(outputs, batch.samples, reference)
        one = self.quality[0].labelled[0] if self.quality[0].labelled else None
        if one is not None and one.name in ("top1", "accuracy"):
            labels, scores = batch.samples.labels_of(one.output), np.stack([part[one.output] for part in made])
            if labels is not None and scores.ndim == 3 and labels.ndim == 1:
                sums = confidence_sums(scores, labels, softmax=one.softmax)
                self.confidence = merge(self.confidence, sums)


def deploy(
    system: System,
    program: Program,
    data: Dataset,
    *,
    chips: int,
    seed: int,
    required: float,
    baseline: float | None = None,
    metric: str | None = None,
    memory: int | None = None,
    carry: Carry = MappingProxyType({}),
    input_range: tuple[float, float] | None = None,
    at: Sequence[float] = (),
    compensate: Sequence[Compensate] = (),
    calibrate: tuple[Samples, Preprocess] | None = None,
    stuck: Stuck = (),
    energy: bool = False,
    layers: bool = False,
    progress: Callable[[int], None] = lambda samples: None,
) -> Deployment:
    """Program virtual chips, each with its own programming errors and noise, and measure the test set on each.

    Args:
        system: the exported network on its chip.
        program: the package's program.
        data: the test set is used (`runtime.system.inputs.match_data`).
        chips: how many.
        seed: of all draws.
        required: normalised accuracy that a good chip reaches.
        baseline: the figure to normalise by; None: the exact network's on the same samples.
        metric: as `runtime.system.quality.new_quality`.
        memory: bytes for the values between layers; None: a share of what is free.
        carry, input_range: as `runtime.system.carry.carried`; each chip has its own states.
        at: seconds after programming; each chip is measured right after it, and as it is at each of these times.
        compensate: what the digital side makes up for at each of these times.
        calibrate: samples for it, inputs alone; None: the training samples of the data.
        stuck: by layer what its stuck devices hold [devices, rows, columns] in uS, NaN of all others; of each chip in
            turn, in place of drawn faults. Empty: as the chip's description says.
        energy: find what the reads of each sample take on the first chip by their data.
        layers: find what each layer of the worst chip loses, and what it costs the outputs.
        progress: called with the samples done on all chips and at all times so far.
    """
    state, network = programmed_state(system, program), system.network
    exact, parameters = new_quality(network, data.test, metric, name=data.name), exact_parameters(system, state)
    systems = {moment: aged_system(system, moment) for moment in (None, *at)}
    at_once = max(chips_at_once(state) // len(systems), 1)
    together = min(chips_side_by_side(network, memory, carry), at_once, 1 << (chips - 1).bit_length())
    at_once -= at_once % together
    calibration = None
    if any(kind in BY_SAMPLES for kind in compensate):
        samples, preprocess = calibrate or (data.train, data.preprocess)
        most = samples_for_compensation(network)
        some = samples.take(calibration_index(seed, len(samples), stream=bool(carry), most=most))
        calibration = calibration_of(system, state, some, preprocess, chips=together, carry=carry)
    order = Order(systems, state, stuck, _keys(seed, chips), compensate, calibration)
    found: list[Group] = []
    shares, done = np.zeros(chips), 0
    for first in range(0, chips, at_once):
        groups: list[Group] = []
        for start in range(first, min(first + at_once, chips), together):
            # The last ones are filled up, so that any number of chips runs in one compiled program.
            numbers = np.minimum(np.arange(start, start + together), chips - 1)
            count = min(together, chips - start)
            shares[start : start + count] = order.stuck_shares(numbers)[:count]
            for moment, made in order.make(numbers).items():
                quality = [new_quality(network, data.test, metric) for _ in range(count)]
                groups.append(Group(start, count, moment, _run_of(made, carry), quality))
        exactly = carried(network, carry, partial(outputs_exactly, network, parameters), input_range)
        for batch in batches(network, data.test, data.preprocess, memory, steps=bool(carry), times=together):
            reference = exactly(batch)
            if first == 0:
                exact.add(reference, batch.samples, reference)
            for group in groups:
                group.add(batch, reference)
                done += group.count * len(batch.samples)
                progress(done)
        found += [replace(group, run=_nothing) for group in groups]  # lets the chips go
    measure, stated = exact.main()
    figures = {moment: _figures_at(found, moment) for moment in order.moments}
    result = Deployment(
        figures[None][0],
        stated if baseline is None else baseline,
        required,
        measure,
        found[0].quality[0].agreement(),
        {moment: values for moment, (values, _) in figures.items() if moment is not None},
        details={moment: details for moment, (_, details) in figures.items()},
        classes=None if (sums := found[0].confidence) is None else sums["in_class"].shape[-1],
        compensation=digital_numbers(system, compensate),
        stuck_shares=shares,
    )
    taken = _energy_of_first_chip(order, data, memory, carry) if energy else {}
    return replace(result, worst=_worst(order, result, data, carry, layers=layers), energy_mj=taken)


def _run_of(chips: Chips, carry: Carry) -> Callable[[Batch], list[Outputs]]:
    if not carry:
        return partial(outputs_on_chips, chips)
    run = carried(chips.system.network, carry, lambda batch: outputs_on_chips(chips, batch)[0])
    return lambda batch: [run(batch)]


def _energy_of_first_chip(order: Order, data: Dataset, memory: int | None, carry: Carry) -> dict[str, Any]:
    """What the reads of each sample take, right after programming (`runtime.system.read_energy`)."""
    system, held = order.systems[None], order.make(np.array([0]))[None].state_of(0)
    meter = ReadEnergy(system, held)
    on_arrays = partial(outputs_on_arrays, system, held, key=order.keys[1][0], seen=meter.see)
    run = carried(system.network, carry, on_arrays)
    for batch in batches(system.network, data.test, data.preprocess, memory, steps=bool(carry)):
        run(batch)
    return meter.figures()


def _nothing(batch: Batch) -> list[Outputs]:
    return []


def _figures_at(groups: Sequence[Group], moment: float | None) -> tuple[NDArray[np.float64], Details]:
    """The figure of every chip at one time, and its details."""
    then = [group for group in groups if group.moment == moment]
    quality = [one for group in then for one in group.quality]
    values = np.array([one.main()[1] for one in quality])
    agreed = [next(iter(one.agreement().values()), {}) for one in quality]
    agreement = [next((one[name] for name in AGREEMENTS if name in one), np.nan) for one in agreed]
    sums = [group.confidence for group in then if group.confidence is not None]
    classes = np.concatenate([class_accuracy(part) for part in sums]) if sums else None
    error = np.concatenate([calibration_error(part) for part in sums]) if sums else None
    snr = np.array([one.get("snr_db", np.nan) for one in agreed])
    return values, Details(np.array(agreement), snr, error, classes)


def _worst(order: Order, result: Deployment, data: Dataset, carry: Carry, *, layers: bool) -> WorstChip:
    """The worst chip at the last time; layers: and what its layers lose."""
    moment, shares = order.moments[-1], result.stuck_shares
    values = result.accuracies if moment is None else result.aged[moment]
    chip = int(np.argmax(values) if result.measure in LOWER_IS_BETTER else np.argmin(values))
    worst = WorstChip(chip, float(values[chip]), 0.0 if shares is None else float(shares[chip]))
    if not layers:
        return worst
    system, key = order.systems[moment], order.keys[1][chip]
    held, some = order.make(np.array([chip]))[moment].state_of(0), data.test.take(slice(SENSITIVITY_SAMPLES))
    targets = order.state["conductance"]
    errors = layer_errors(system, held, data.test, data.preprocess, key, carry=carry, targets=targets)
    alone = [set(group) for group in layers_apart(system.network)]
    costs = [] if carry else sensitivities(system, held, some, data.preprocess, alone)
    return replace(worst, layers=tuple(errors), sensitivities=tuple(costs))


def errors_of_first_chip(
    system: System,
    program: Program,
    data: Dataset,
    *,
    chips: int,
    seed: int,
    carry: Carry,
    stuck: Sequence[Mapping[str, np.ndarray]] = (),
) -> list[LayerError]:
    """What each layer of the first chip loses on some of the test set, and why; arguments as `deploy`."""
    state = programmed_state(system, program)
    program_keys, read_keys = _keys(seed, chips)
    written = program_chip(system, state, program_keys[0], stuck[0] if stuck else {})
    chip, targets = {**state, "conductance": written}, state["conductance"]
    return layer_errors(system, chip, data.test, data.preprocess, read_keys[0], carry=carry, targets=targets)


def _keys(seed: int, chips: int) -> tuple[Array, Array]:
    """The keys of each chip: of its programming, and of its reads."""
    program_key, read_key = jax.random.split(new_key(seed))
    return jax.random.split(program_key, chips), jax.random.split(read_key, chips)
