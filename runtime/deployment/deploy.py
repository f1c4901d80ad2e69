"""Deployment: what was measured of virtual chips, put together; and why the worst one is."""

from collections.abc import Sequence
from dataclasses import fields, replace
from functools import partial
from typing import Any

import numpy as np

from runtime.deployment.compensation import digital_numbers
from runtime.deployment.population import Part, Population
from runtime.deployment.result import Deployment, Details, WorstChip
from runtime.system.carry import carried
from runtime.system.inference import batches, outputs_on_arrays
from runtime.system.layer_errors import LayerError, layer_errors
from runtime.system.quality import require_baseline
from runtime.system.read_energy import ReadEnergy
from runtime.system.sensitivity import layers_apart, sensitivities

SENSITIVITY_SAMPLES = 64


def deployment_of(
    population: Population,
    parts: Sequence[Part],
    *,
    required: float,
    baseline: float | None = None,
    energy: bool = False,
    layers: bool = False,
) -> Deployment:
    """What was measured of all chips.

    Args:
        population: the chips.
        parts: what was measured of each of its parts, in their order.
        required: normalised accuracy that a good chip reaches.
        baseline: the figure to normalise by; None: the exact network's on the same samples.
        energy: find what the reads of each sample take on the first chip by their data.
        layers: find what each layer of the worst chip loses, and what it costs the outputs.

    Raises:
        CimcError: as `runtime.system.quality.require_baseline`.
    """
    measure, stated = parts[0].exact
    require_baseline(measure, stated if baseline is None else baseline, given=baseline is not None)
    values = {moment: np.concatenate([part.values[moment] for part in parts]) for moment in population.moments}
    result = Deployment(
        values.pop(None),
        stated if baseline is None else baseline,
        required,
        measure,
        parts[0].agreement,
        {moment: of_chips for moment, of_chips in values.items() if moment is not None},
        details={moment: _joined([part.details[moment] for part in parts]) for moment in population.moments},
        classes=parts[0].classes,
        compensation=digital_numbers(population.systems[None], population.request.compensate),
        stuck_shares=np.concatenate([part.stuck_shares for part in parts]),
    )
    taken = _energy_of_first_chip(population) if energy else {}
    return replace(result, worst=_worst(population, result, layers=layers), energy_mj=taken)


def _joined(details: Sequence[Details]) -> Details:
    """The details of all chips."""
    joined: dict[str, Any] = {}
    for field in fields(Details):
        parts = [getattr(one, field.name) for one in details]
        joined[field.name] = None if parts[0] is None else np.concatenate(parts)
    return Details(**joined)


def _energy_of_first_chip(population: Population) -> dict[str, Any]:
    """What the reads of each sample take, right after programming (`runtime.system.read_energy`)."""
    system, held = population.systems[None], population.make(np.array([0]))[None].state_of(0)
    request, data = population.request, population.data
    meter = ReadEnergy(system, held)
    on_arrays = partial(outputs_on_arrays, system, held, key=population.keys[1][0], seen=meter.see)
    run = carried(system.network, request.carry, on_arrays)
    for batch in batches(system.network, data.test, data.preprocess, request.memory, steps=bool(request.carry)):
        run(batch)
    return meter.figures()


def _worst(population: Population, result: Deployment, *, layers: bool) -> WorstChip:
    """The worst chip at the last time; layers: and what its layers lose."""
    moment, shares = population.moments[-1], result.stuck_shares
    values = result.accuracies if moment is None else result.aged[moment]
    chip = int(np.argmax(values) if result.lower_is_better else np.argmin(values))
    worst = WorstChip(chip, float(values[chip]), 0.0 if shares is None else float(shares[chip]))
    if not layers:
        return worst
    system, key = population.systems[moment], population.keys[1][chip]
    data, carry = population.data, population.request.carry
    held, some = population.make(np.array([chip]))[moment].state_of(0), data.test.take(slice(SENSITIVITY_SAMPLES))
    targets = population.state["conductance"]
    errors = layer_errors(system, held, data.test, data.preprocess, key, carry=carry, targets=targets)
    alone = [set(group) for group in layers_apart(system.network)]
    costs = [] if carry else sensitivities(system, held, some, data.preprocess, alone)
    return replace(worst, layers=tuple(errors), sensitivities=tuple(costs))


def errors_of_first_chip(population: Population) -> list[LayerError]:
    """What each layer of the first chip loses on some of the test set, and why."""
    data, key = population.data, population.keys[1][0]
    system, targets = population.systems[None], population.state["conductance"]
    chip = population.make(np.array([0]))[None].state_of(0)
    return layer_errors(system, chip, data.test, data.preprocess, key, carry=population.request.carry, targets=targets)
