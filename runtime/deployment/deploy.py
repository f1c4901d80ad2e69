"""Deployment: virtual chips programmed with a package's targets, their accuracy, and the yield."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax import Array

from cimc.dataset import Dataset
from cimc.options import Compensate
from cimc.program import Program
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import jit
from runtime.deployment.compensation import compensated_gains
from runtime.devices.device import Device, device_of
from runtime.system.carry import Carry, carried
from runtime.system.inference import batches, exact_parameters, outputs_exactly, outputs_on_arrays
from runtime.system.layer_errors import LayerError, layer_errors
from runtime.system.program import programmed_state
from runtime.system.quality import better, new_quality
from runtime.system.state import State, System

# Keys beside those of the writes, which count the layers.
TRAITS = 1 << 20
AGEING = 1 << 21
COMPENSATION = 1 << 22
POPULATION_BYTES = 1 << 28  # of the devices of all chips that are programmed at once


@dataclass(frozen=True)
class Deployment:
    """Result over virtual chips.

    measure: what is measured: of labelled data its usual measure (accuracy), else the agreement with the package's own
    weights in float32. accuracies: that figure of every chip. baseline_accuracy: of the reference network (by default
    the package's own weights, computed exactly). normalized: accuracies / baseline, the other way round for errors.
    yield_fraction: chips whose normalised accuracy is at least `required`. agreement: by output that of the first chip
    with the package's own weights in float32 (`runtime.system.measures.agreement_of`). aged: the figure of every chip
    so many seconds after programming, of the times that were asked for. dies: the real die that each chip is, if any.
    """

    accuracies: np.ndarray
    baseline_accuracy: float
    required: float
    measure: str = "accuracy"
    agreement: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    aged: Mapping[float, np.ndarray] = field(default_factory=dict)
    dies: tuple[str, ...] = ()

    def at(self, seconds: float) -> "Deployment":
        """The result so long after programming, one of the times that were asked for."""
        return replace(self, accuracies=self.aged[seconds], agreement={}, aged={})

    @property
    def normalized(self) -> np.ndarray:
        """The figure of every chip over the baseline's."""
        return np.array([better(self.measure, value, self.baseline_accuracy) for value in self.accuracies.tolist()])

    @property
    def yield_fraction(self) -> float:
        """Fraction of chips that reach the required normalised accuracy."""
        return float(np.mean(self.normalized >= self.required))


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
    compensate: Compensate = Compensate.none,
    stuck: Sequence[Mapping[str, np.ndarray]] = (),
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
        stuck: by layer what its stuck devices hold [2, rows, columns] in uS, NaN of all others; of each chip in turn,
            in place of drawn faults. Empty: as the chip's description says.
        progress: called with the samples done on all chips and at all times so far.
    """
    state, network = programmed_state(system, program), system.network
    exact, parameters = new_quality(network, data.test, metric, name=data.name), exact_parameters(system, state)
    moments = (None, *at)
    found = {(die, moment): new_quality(network, data.test, metric) for die in range(chips) for moment in moments}
    systems = {moment: aged_system(system, moment) for moment in moments}
    program_keys, read_keys = _keys(seed, chips)
    done, at_once = 0, max(chips_at_once(state) // len(moments), 1)
    for first in range(0, chips, at_once):
        runs = {}
        for die in range(first, min(first + at_once, chips)):
            held_fast = stuck[die % len(stuck)] if stuck else {}
            written = program_chip(system, state, program_keys[die], held_fast)
            new = {**state, "conductance": written}
            for moment in moments:
                held = {**state, "conductance": age_chip(system, written, moment, program_keys[die], held_fast)}
                if moment is not None and compensate is not Compensate.none:
                    reads = jax.random.fold_in(read_keys[die], COMPENSATION)
                    chips_then = systems[None].chip, systems[moment].chip
                    held["gain"] = compensated_gains(compensate, chips_then, new, held, reads)
                on_arrays = partial(outputs_on_arrays, systems[moment], held, key=read_keys[die])
                runs[die, moment] = carried(network, carry, on_arrays)
        exactly = carried(network, carry, partial(outputs_exactly, network, parameters), input_range)
        for batch in batches(network, data.test, data.preprocess, memory, steps=bool(carry)):
            reference = exactly(batch)
            if first == 0:
                exact.add(reference, batch.samples, reference)
            for name, run in runs.items():
                found[name].add(run(batch), batch.samples, reference)
                done += len(batch.samples)
                progress(done)
    measure, stated = exact.main()
    figures = {moment: np.array([found[die, moment].main()[1] for die in range(chips)]) for moment in moments}
    return Deployment(
        figures[None],
        stated if baseline is None else baseline,
        required,
        measure,
        found[0, None].agreement(),
        {moment: figures[moment] for moment in moments if moment is not None},
    )


def aged_system(system: System, seconds: float | None) -> System:
    """The system with the 1/f noise of that time after programming; None: as the chip's description says."""
    cell = system.chip.cell
    if seconds is None or cell.flicker is None:
        return system
    flicker = cell.flicker.model_copy(update={"after_s": seconds})
    chip = system.chip.model_copy(update={"cell": cell.model_copy(update={"flicker": flicker})})
    crossbars = {name: replace(crossbar, chip=chip) for name, crossbar in system.crossbars.items()}
    return replace(system, chip=chip, crossbars=crossbars)


def age_chip(
    system: System,
    written: Mapping[str, Array],
    seconds: float | None,
    key: Array,
    stuck: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> dict[str, Array]:
    """Conductances [2, rows, columns] of every layer of a chip so long after programming; None: right after it.

    key, stuck: of `program_chip`; the same key is the same chip at every time.
    """
    if seconds is None:
        return dict(written)
    device, after = device_of(system.chip.cell), np.float32(seconds)
    return {
        name: _age(device, conductance, after, jax.random.fold_in(key, index), stuck.get(name))
        for index, (name, conductance) in enumerate(written.items())
    }


@partial(jit, static_argnums=0)
def _age(device: Device, conductance: Array, seconds: Array, key: Array, stuck: Array | None) -> Array:
    traits = _traits(device, conductance.shape, key, stuck)
    return device.age(conductance, seconds, jax.random.fold_in(key, AGEING), traits)


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


def chips_at_once(state: State) -> int:
    """How many chips are programmed before they are evaluated: memory is bounded by the network, not by the chips."""
    of_one = sum(array.nbytes for array in state["conductance"].values())
    return max(POPULATION_BYTES // max(of_one, 1), 1)


def program_chip(
    system: System, state: State, key: Array, stuck: Mapping[str, np.ndarray] = MappingProxyType({})
) -> dict[str, Array]:
    """Conductances [2, rows, columns] of every layer of a chip, written closed-loop; stuck: its, as of `deploy`."""
    device = device_of(system.chip.cell)
    return {
        name: _write(device, targets, jax.random.fold_in(key, index), stuck.get(name))
        for index, (name, targets) in enumerate(state["conductance"].items())
    }


@partial(jit, static_argnums=0)
def _write(device: Device, targets: Array, key: Array, stuck: Array | None) -> Array:
    return device.write(targets, key, _traits(device, targets.shape, key, stuck)).conductance


def _traits(device: Device, shape: tuple[int, ...], key: Array, stuck: Array | None) -> dict[str, Array]:
    """The traits of a layer's devices on the chip with that key; stuck: those of a fault map."""
    traits = device.traits(jax.random.fold_in(key, TRAITS), shape) if device.trait_names else {}
    return traits if stuck is None else {**traits, "stuck": stuck}


def summary(result: Deployment) -> dict[str, Any]:
    """The figures of a deployment as JSON values."""
    a, n = result.accuracies, result.normalized
    return {
        "chips": len(a),
        "measure": result.measure,
        "accuracy": _distribution(a),
        "yield": result.yield_fraction,
        "required_normalized_accuracy": result.required,
        "baseline_accuracy": result.baseline_accuracy,
        "normalized_accuracy": _distribution(n),
        "accuracies": a.tolist(),
        **({"dies": list(result.dies)} if result.dies else {}),
        "agreement": result.agreement,
        **({"aged": [_at(result, seconds) for seconds in result.aged]} if result.aged else {}),
    }


def _at(result: Deployment, seconds: float) -> dict[str, Any]:
    """The figures so long after programming."""
    aged = result.at(seconds)
    return {
        "seconds": seconds,
        "accuracy": _distribution(aged.accuracies),
        "yield": aged.yield_fraction,
        "normalized_accuracy": _distribution(aged.normalized),
        "accuracies": aged.accuracies.tolist(),
    }


def _distribution(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "min": float(np.min(values)),
        "p5": float(np.percentile(values, 5)),
        "median": float(np.median(values)),
    }
