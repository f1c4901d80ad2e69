"""Deployment: virtual chips programmed with a package's targets, their accuracy, and the yield."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax import Array

from cimc.dataset import Dataset
from cimc.program import Program
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import jit
from runtime.devices.device import Device, device_of
from runtime.system.carry import Carry, carried
from runtime.system.inference import batches, exact_parameters, outputs_exactly, outputs_on_arrays
from runtime.system.layer_errors import LayerError, layer_errors
from runtime.system.program import programmed_state
from runtime.system.quality import better, new_quality
from runtime.system.state import State, System

TRAITS = 1 << 20  # beside the draws of a write
POPULATION_BYTES = 1 << 28  # of the devices of all chips that are programmed at once


@dataclass(frozen=True)
class Deployment:
    """Result over virtual chips.

    measure: what is measured: of labelled data its usual measure (accuracy), else the agreement with the package's own
    weights in float32. accuracies: that figure of every chip. baseline_accuracy: of the reference network (by default
    the package's own weights, computed exactly). normalized: accuracies / baseline, the other way round for errors.
    yield_fraction: chips whose normalised accuracy is at least `required`. agreement: by output that of the first chip
    with the package's own weights in float32 (`runtime.system.measures.agreement_of`).
    """

    accuracies: np.ndarray
    baseline_accuracy: float
    required: float
    measure: str = "accuracy"
    agreement: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

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
        progress: called with the samples done on all chips so far.
    """
    state, network = programmed_state(system, program), system.network
    exact, parameters = new_quality(network, data.test, metric, name=data.name), exact_parameters(system, state)
    dies = [new_quality(network, data.test, metric) for _ in range(chips)]
    program_keys, read_keys = _keys(seed, chips)
    done, at_once = 0, chips_at_once(state)
    for first in range(0, chips, at_once):
        some = range(first, min(first + at_once, chips))
        runs = {}
        for die in some:
            held = {**state, "conductance": program_chip(system, state, program_keys[die])}
            runs[die] = carried(network, carry, partial(outputs_on_arrays, system, held, key=read_keys[die]))
        exactly = carried(network, carry, partial(outputs_exactly, network, parameters), input_range)
        for batch in batches(network, data.test, data.preprocess, memory, steps=bool(carry)):
            reference = exactly(batch)
            if first == 0:
                exact.add(reference, batch.samples, reference)
            for die, run in runs.items():
                dies[die].add(run(batch), batch.samples, reference)
                done += len(batch.samples)
                progress(done)
    measure, stated = exact.main()
    figures = np.array([die.main()[1] for die in dies])
    return Deployment(figures, stated if baseline is None else baseline, required, measure, dies[0].agreement())


def errors_of_first_chip(
    system: System, program: Program, data: Dataset, *, chips: int, seed: int, carry: Carry
) -> list[LayerError]:
    """What each layer of the first chip loses on some of the test set, and why; arguments as `deploy`."""
    state = programmed_state(system, program)
    program_keys, read_keys = _keys(seed, chips)
    chip, targets = {**state, "conductance": program_chip(system, state, program_keys[0])}, state["conductance"]
    return layer_errors(system, chip, data.test, data.preprocess, read_keys[0], carry=carry, targets=targets)


def _keys(seed: int, chips: int) -> tuple[Array, Array]:
    """The keys of each chip: of its programming, and of its reads."""
    program_key, read_key = jax.random.split(new_key(seed))
    return jax.random.split(program_key, chips), jax.random.split(read_key, chips)


def chips_at_once(state: State) -> int:
    """How many chips are programmed before they are evaluated: memory is bounded by the network, not by the chips."""
    of_one = sum(array.nbytes for array in state["conductance"].values())
    return max(POPULATION_BYTES // max(of_one, 1), 1)


def program_chip(system: System, state: State, key: Array) -> dict[str, Array]:
    """Conductances [2, rows, columns] of every layer of a chip, written by write-verify."""
    device = device_of(system.chip.cell)
    return {
        name: _write(device, targets, jax.random.fold_in(key, index))
        for index, (name, targets) in enumerate(state["conductance"].items())
    }


@partial(jit, static_argnums=0)
def _write(device: Device, targets: Array, key: Array) -> Array:
    traits = device.traits(jax.random.fold_in(key, TRAITS), targets.shape) if device.trait_names else {}
    return device.write(targets, key, traits).conductance


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
        "agreement": result.agreement,
    }


def _distribution(values: np.ndarray) -> dict[str, float]:
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "min": float(np.min(values)),
        "p5": float(np.percentile(values, 5)),
        "median": float(np.median(values)),
    }
