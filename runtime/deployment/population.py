"""Virtual chips of one package: which there are, how they are made, and the measurement of some of them.

What is measured of a chip depends on its number and the request alone: not on the chips measured with it, nor on where.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.dataset import Dataset, Preprocess, Samples
from cimc.options import BY_SAMPLES, Compensate
from cimc.program import Program
from runtime.crossbar.keys import new_key
from runtime.deployment.chips import Chips, chips_side_by_side, outputs_on_chips
from runtime.deployment.compensation import Calibration, calibration_of, compensate_chips, samples_for_compensation
from runtime.deployment.programming import (
    age_chips,
    aged_system,
    chips_at_once,
    fold_in_each,
    program_chips,
    references_of,
    stuck_shares,
)
from runtime.deployment.reprogram import Reprogram, reprogram_chips
from runtime.deployment.result import Details
from runtime.system.calibration import calibration_index
from runtime.system.carry import Carry, carried
from runtime.system.confidence import calibration_error, class_accuracy, confidence_sums
from runtime.system.inference import Batch, Outputs, batches, exact_parameters, outputs_exactly
from runtime.system.measures import Sums, merge
from runtime.system.program import programmed_state
from runtime.system.quality import AGREEMENTS, Quality, new_quality
from runtime.system.state import REFERENCES, State, System

COMPENSATION = 1 << 22  # key of the reads for it
AT_ONE_WORKER = 8  # chips of a task

Moment = float | None  # seconds after programming; None: right after it
Doubles = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Request:
    """What is asked of virtual chips.

    chips: how many. seed: of all draws. metric: as `runtime.system.quality.new_quality`. memory: bytes for the values
    between layers; None: a share of what is free. carry, input_range: as `runtime.system.carry.carried`; each chip has
    its own states. at: seconds after programming; each chip is measured right after it, and as it is at each of these
    times. compensate: what the digital side makes up for at each of these times. calibrate: the samples for it, where
    it takes any. stuck: by layer what its stuck devices hold [devices, rows, columns] in uS, NaN of all others; of each
    chip in turn, in place of drawn faults; empty: as the chip's description says. stuck_references: as many, of the
    reference columns [rows, groups x column blocks]. programmed: layers whose devices hold
    their targets already, on every chip. reprogram: what is written again before a chip is measured.
    """

    chips: int
    seed: int
    metric: str | None = None
    memory: int | None = None
    carry: Carry = field(default_factory=dict)
    input_range: tuple[float, float] | None = None
    at: Sequence[float] = ()
    compensate: Sequence[Compensate] = ()
    calibrate: tuple[Samples, Preprocess] | None = None
    stuck: Sequence[Mapping[str, np.ndarray]] = ()
    stuck_references: Sequence[Mapping[str, np.ndarray]] = ()
    programmed: frozenset[str] = frozenset()
    reprogram: Reprogram | None = None


@dataclass(frozen=True, eq=False)
class Population:
    """The virtual chips of a request. systems: the chip as its reads are at each time. state: as programmed exactly.

    keys: of each chip's programming and of its reads. together: how many are read at once; at_once: how many are held.
    """

    request: Request
    data: Dataset
    systems: Mapping[Moment, System]
    state: State
    keys: tuple[Array, Array]
    together: int
    at_once: int

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The times at which chips are measured."""
        return tuple(self.systems)

    @cached_property
    def calibration(self) -> Calibration | None:
        """What the chips are compensated by."""
        system, carry = self.systems[None], self.request.carry
        if not any(kind in BY_SAMPLES for kind in self.request.compensate) or self.request.calibrate is None:
            return None
        samples, preprocess = self.request.calibrate
        most = samples_for_compensation(system.network)
        index = calibration_index(self.request.seed, len(samples), stream=bool(carry), most=most)
        return calibration_of(system, self.state, samples.take(index), preprocess, chips=self.together, carry=carry)

    def parts(self, most: int | None = None) -> list[tuple[int, int]]:
        """The chips in parts that are measured one by one: first number, and that after the last.

        most: chips of a part; None: as many as are held at once.
        """
        size = self.at_once if most is None else min(most, self.at_once)
        chips, size = self.request.chips, max(size - size % self.together, self.together)
        return [(first, min(first + size, chips)) for first in range(0, chips, size)]

    def make(self, numbers: NDArray[np.int64]) -> dict[Moment, Chips]:
        """The chips with these numbers at each time."""
        program_keys, read_keys = (keys[numbers] for keys in self.keys)
        new, stuck, compensate = self.systems[None], self._stuck(numbers), self.request.compensate
        written = program_chips(new, self.state, program_keys, stuck)
        for name in self.request.programmed:
            written[name] = jnp.broadcast_to(self.state["conductance"][name], written[name].shape)
        if self.request.reprogram is not None:
            written = reprogram_chips(new, self.state, written, program_keys, stuck, self.request.reprogram)
        columns, column_keys = references_of(new), fold_in_each(program_keys, np.int32(REFERENCES))
        stuck_columns = _by_chip(self.request.stuck_references, numbers)
        references = program_chips(new, columns, column_keys, stuck_columns)
        fresh = Chips(new, self.state, {"conductance": written, "reference_column": references}, read_keys)
        made = {}
        for moment, system in self.systems.items():
            own = {
                "conductance": age_chips(system, written, moment, program_keys, stuck),
                "reference_column": age_chips(system, references, moment, column_keys, stuck_columns),
            }
            made[moment] = Chips(system, self.state, own, read_keys)
            if moment is not None and compensate:
                keys = fold_in_each(read_keys, np.int32(COMPENSATION))
                made[moment] = compensate_chips(compensate, fresh, made[moment], self.calibration, keys)
        return made

    def stuck_shares(self, numbers: NDArray[np.int64]) -> Doubles:
        """The share of the devices of each of these chips that is stuck."""
        return stuck_shares(self.systems[None], self.state, self.keys[0][numbers], self._stuck(numbers))

    def _stuck(self, numbers: NDArray[np.int64]) -> dict[str, np.ndarray]:
        """By layer, the stuck devices of each chip [chips, ...]; of the others as the chip's description says.

        Of a programmed layer without a fault map none is known: those drawn would be other dies'.
        """
        if not self.request.stuck:
            held = {name: self.state["conductance"][name].shape for name in self.request.programmed}
            return {name: np.full((len(numbers), *shape), np.nan, np.float32) for name, shape in held.items()}
        return _by_chip(self.request.stuck, numbers)


def _by_chip(maps: Sequence[Mapping[str, np.ndarray]], numbers: NDArray[np.int64]) -> dict[str, np.ndarray]:
    """What the map of each of these chips, which have them in turn, says by layer [chips, ...]; {} without maps."""
    each = [maps[number % len(maps)] for number in numbers.tolist()] if maps else [{}]
    return {name: np.stack([one[name] for one in each]) for name in each[0]}


def population_of(system: System, program: Program, data: Dataset, request: Request) -> Population:
    """The chips of a request.

    Args:
        system: the exported network on its chip.
        program: the package's program.
        data: the test set is used (`runtime.system.inputs.match_data`).
        request: what is asked of them.
    """
    state = programmed_state(system, program)
    systems = {moment: aged_system(system, moment) for moment in (None, *request.at)}
    at_once = max(chips_at_once(state) // len(systems), 1)
    side_by_side = chips_side_by_side(system.network, request.memory, request.carry)
    together = min(side_by_side, at_once, 1 << (request.chips - 1).bit_length())
    keys = chip_keys(request.seed, request.chips)
    return Population(request, data, systems, state, keys, together, at_once - at_once % together)


def chip_keys(seed: int, chips: int) -> tuple[Array, Array]:
    """The keys of each chip: of its programming, and of its reads."""
    program_key, read_key = jax.random.split(new_key(seed))
    return jax.random.split(program_key, chips), jax.random.split(read_key, chips)


@dataclass(frozen=True, eq=False)
class Part:
    """What was measured of some chips, in the order of their numbers.

    exact: name and value of the figure of the exact network. values, details: of the chips at each time. agreement: of
    the first of them right after programming, by output. classes: of the labels, where these are classes.
    """

    exact: tuple[str, float]
    values: Mapping[Moment, Doubles]
    details: Mapping[Moment, Details]
    agreement: Mapping[str, Mapping[str, float]]
    classes: int | None
    stuck_shares: Doubles


@dataclass(eq=False)
class _Group:
    """Chips that run together at one time, and what is known of them so far. count: of those that count."""

    count: int
    moment: Moment
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


def measure_part(
    population: Population, part: tuple[int, int], *, progress: Callable[[int], None] = lambda samples: None
) -> Part:
    """Program the chips of a part and measure the test set on each.

    Args:
        population: all chips.
        part: one of `Population.parts`.
        progress: called with how many more samples are done, on all chips of the part and at all times.
    """
    request, data, network = population.request, population.data, population.systems[None].network
    carry, together = request.carry, population.together
    exact = new_quality(network, data.test, request.metric, name=data.name)
    groups: list[_Group] = []
    shares = []
    for start in range(*part, together):
        # The last ones are filled up, so that any number of chips runs in one compiled program.
        numbers = np.minimum(np.arange(start, start + together), request.chips - 1)
        count = min(together, part[1] - start)
        shares.append(population.stuck_shares(numbers)[:count])
        for moment, made in population.make(numbers).items():
            quality = [new_quality(network, data.test, request.metric) for _ in range(count)]
            groups.append(_Group(count, moment, _run_of(made, carry), quality))
    parameters = exact_parameters(population.systems[None], population.state)
    exactly = carried(network, carry, partial(outputs_exactly, network, parameters), request.input_range)
    for batch in batches(network, data.test, data.preprocess, request.memory, steps=bool(carry), times=together):
        reference = exactly(batch)
        exact.add(reference, batch.samples, reference)
        for group in groups:
            group.add(batch, reference)
            progress(group.count * len(batch.samples))
    figures = {moment: _figures_at(groups, moment) for moment in population.moments}
    return Part(
        exact=exact.main(),
        values={moment: values for moment, (values, _) in figures.items()},
        details={moment: details for moment, (_, details) in figures.items()},
        agreement=groups[0].quality[0].agreement(),
        classes=None if (sums := groups[0].confidence) is None else sums["in_class"].shape[-1],
        stuck_shares=np.concatenate(shares),
    )


def _run_of(chips: Chips, carry: Carry) -> Callable[[Batch], list[Outputs]]:
    if not carry:
        return partial(outputs_on_chips, chips)
    run = carried(chips.system.network, carry, lambda batch: outputs_on_chips(chips, batch)[0])
    return lambda batch: [run(batch)]


def _figures_at(groups: Sequence[_Group], moment: Moment) -> tuple[Doubles, Details]:
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
