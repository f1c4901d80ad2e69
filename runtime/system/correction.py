"""Corrections of a network on a chip by samples without labels, layer after layer.

Each layer is fitted on what it gets on the chip, from the layers before it as corrected, so that it gives what it gives
in the exact network on the same samples: errors of layers before are made up for as far as the layer can. Samples held
out judge each layer and the whole network: what errs more there is not taken.
"""

import statistics
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.dataset import Preprocess, Samples
from cimc.options import Correct
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Floats, Held
from runtime.network.network import with_bodies
from runtime.network.stepwise import Arrays, LayerStep, Run, ScanStep, run_node_exactly
from runtime.system.carry import Carry, with_states
from runtime.system.inference import MOST_BYTES, Batch, batches, cut_outputs, digital_parameters, exact_parameters
from runtime.system.layers import held_of, read_layer
from runtime.system.loss_causes import decibels
from runtime.system.reconstruction import draw_vectors, reconstruct
from runtime.system.scans import read_scan
from runtime.system.state import State, System

CORRECTION_SAMPLES = 128
# The last of so many outputs judge; with fewer than so many, nothing is fitted.
HELD_OUT, LEAST_OUTPUTS = 4, 8
# In each batch the network runs three times side by side. At most so many batches, where the samples fit into no one.
RUNS, MOST_BATCHES = 3, 4
# How far the scale of a column is believed to lie from 1 before anything is seen, and how far it may come to lie.
SCALE_SD, MOST_SCALE = 0.25, 4.0
_FITTED = ("conductance", "gain", "bias")  # groups of the state

Outputs = list[NDArray[Any]]
Made = Sequence[Outputs]  # by a step, for each batch


@dataclass(frozen=True)
class Corrected:
    """What became of a layer; under the name "", of the network's outputs.

    taken: the correction; none where it erred more. signal, before, after: on what was held out, the power of the exact
    output, and that of the error on the chip without any correction and with all up to here. note: why it was left out.
    """

    name: str
    taken: Correct
    signal: float = 0.0
    before: float = 0.0
    after: float = 0.0
    note: str = ""

    @property
    def figures(self) -> dict[str, str | float | None]:
        """As JSON; the SNR is None where nothing was measured, or nothing differs."""
        snr = {"snr_db_before": decibels(self.signal, self.before), "snr_db": decibels(self.signal, self.after)}
        return {"correction": self.taken.value, **snr, **({"note": self.note} if self.note else {})}


def figures_of(corrected: Sequence[Corrected], method: Correct) -> dict[str, Any]:
    """What `correct_layers` has done, as JSON: of all layers the median SNR, of each layer and of the outputs."""
    *layers, outputs = corrected
    medians = {}
    for name in ("snr_db_before", "snr_db"):
        seen = [value for layer in layers if isinstance(value := layer.figures[name], float)]
        medians[name] = statistics.median(seen) if seen else None
    by_layer = {layer.name: layer.figures for layer in layers}
    return {"method": method.value, "median": medians, "outputs": outputs.figures, "layers": by_layer}


@dataclass(frozen=True, eq=False)
class Case:
    """A layer to be fitted. inputs: on the chip, by batch. read: its outputs for them, as rows [outputs, columns], with
    what it would hold. wanted, found: exact rows, and those with what it holds; the first `fitted` are for the fit.
    """

    layer: Crossbar
    inputs: Sequence[Floats]
    read: Callable[[Held], Floats]
    held: Held
    wanted: Floats
    found: Floats
    fitted: int
    free: NDArray[np.bool_]  # weights that may change
    key: Array


def correct_layers(
    system: System,
    state: State,
    samples: Samples,
    preprocess: Preprocess,
    key: Array,
    method: Correct,
    *,
    carry: Carry = MappingProxyType({}),
) -> tuple[State, list[Corrected]]:
    """Correct every layer that is used once; layers in a Scan and those of several nodes stay as they are.

    Args:
        system: network and chip.
        state: what the chip and the digital side hold; its weights, gains and biases are the exact network.
        samples: by the network's input names.
        preprocess: from stored values to inputs.
        key: for noise.
        method: what is fitted.
        carry: as of `runtime.system.calibration.calibrate`.

    Returns:
        The new state, and what became of each layer, of the outputs last.
    """
    if method is Correct.none:
        return state, []
    network, parameters, digital = system.network, exact_parameters(system, state), digital_parameters(state)
    looked_at = _batches(system, state, samples, preprocess, carry)
    exact, plain, chip = (
        [Run(network, batch.feeds, values) for batch in looked_at] for values in (parameters, digital, digital)
    )
    uses = Counter(node.layer for node in with_bodies(network.nodes))
    new: State = {**state, **{group: dict(state[group]) for group in _FITTED}}
    found: list[Corrected] = []
    while (step := exact[0].step) is not None:
        wanted = [_exactly(system, step, run, parameters) for run in exact]
        without = _read(system, state, step, plain, looked_at, key)
        outputs = _read(system, new, step, chip, looked_at, key)
        if isinstance(step, ScanStep):
            found.append(Corrected(step.node.name, Correct.none, note="a Scan"))
        elif uses[step.layer] > 1:
            found.append(Corrected(step.layer, Correct.none, note="used several times"))
        else:
            case = _case(system, state, new, step, chip, looked_at, wanted, outputs, key)
            taken, held = fit_layer(case, method)
            if taken is not Correct.none:
                _hold(new, step.layer, held)
                outputs = _read(system, new, step, chip, looked_at, key)
            judge = [_rows(case.layer, made)[case.fitted :] for made in (wanted, without, outputs)]
            found.append(Corrected(step.layer, taken, *_powers(*judge)))
        for runs, made in ((exact, wanted), (plain, without), (chip, outputs)):
            for run, y in zip(runs, made, strict=True):
                run.go_on(y)
    outputs_of = [
        [cut_outputs(network, dict(run.outputs), batch) for run, batch in zip(runs, looked_at, strict=True)]
        for runs in (exact, plain, chip)
    ]
    return _judged(state, new, found, method, outputs_of)


def _case(
    system: System,
    state: State,
    new: State,
    step: LayerStep,
    chip: Sequence[Run],
    looked_at: Sequence[Batch],
    wanted: Made,
    outputs: Made,
    key: Array,
) -> Case:
    layer = system.crossbars[step.layer]

    def read(held: Held) -> Floats:
        trial: State = {**new, **{group: dict(new[group]) for group in _FITTED}}
        _hold(trial, step.layer, held)
        return _rows(layer, _read(system, trial, step, chip, looked_at, key))

    rows = _rows(layer, wanted)
    return Case(
        layer=layer,
        inputs=[run.input for run in chip],
        read=read,
        held=held_of(system, new, step.layer),
        wanted=rows,
        found=_rows(layer, outputs),
        fitted=len(rows) - len(rows) // HELD_OUT,
        free=np.asarray(state["weight"][step.layer]) != 0,
        key=jax.random.fold_in(key, step.number),
    )


def _batches(system: System, state: State, samples: Samples, preprocess: Preprocess, carry: Carry) -> Sequence[Batch]:
    """The samples; of a stream steps with even spaces between, with the states that the exact network has there."""
    every = batches(system.network, samples, preprocess, MOST_BYTES // RUNS, steps=bool(carry))
    if not carry:
        return list(islice(every, MOST_BATCHES))
    steps = list(with_states(system.network, carry, every, exact_parameters(system, state)))
    return steps[:: -(-len(steps) // (2 * MOST_BATCHES))]


def _exactly(system: System, step: LayerStep | ScanStep, run: Run, parameters: Arrays) -> Outputs:
    if isinstance(step, ScanStep):
        return run_node_exactly(system.network, step.node, {**system.network.initializers, **parameters, **run.inputs})
    weights = {name: parameters[name] for name in step.node.input[1:] if name}
    return run_node_exactly(system.network, step.node, {step.node.input[0]: run.input, **weights})


def _read(
    system: System,
    state: State,
    step: LayerStep | ScanStep,
    runs: Sequence[Run],
    looked_at: Sequence[Batch],
    key: Array,
) -> Made:
    """The outputs of the step on the arrays, by batch."""
    made = []
    for run, batch in zip(runs, looked_at, strict=True):
        place = {"first": batch.first, "samples": len(batch.samples)}
        if isinstance(step, ScanStep):
            made.append(read_scan(system, state, step, run.inputs, key, **place))
        else:
            held = held_of(system, state, step.layer)
            made.append([read_layer(system, step, run.input, held, key, **place)])
    return made


def _rows(layer: Crossbar, made: Made) -> Floats:
    """Outputs of all batches as [outputs, columns]."""
    parts = [y if layer.window is None else np.moveaxis(y, 1, -1) for (y,) in made]
    return np.concatenate([part.reshape(-1, part.shape[-1]) for part in parts])


def _powers(wanted: Floats, before: Floats, after: Floats) -> tuple[float, float, float]:
    """Of the exact output, and of the errors."""
    return _power(wanted), _power(before - wanted), _power(after - wanted)


def _power(array: Floats) -> float:
    return float(np.square(array, dtype=np.float64).sum())


def fit_layer(case: Case, method: Correct) -> tuple[Correct, Held]:
    """What the layer holds with the correction, up to `method`, that errs least on what is held out."""
    if case.fitted < LEAST_OUTPUTS:
        return Correct.none, case.held
    tried = [
        (Correct.none, case.held, case.found),
        (Correct.bias, *_fit_columns(case, case.held, case.found, scales=False)),
    ]
    if method is not Correct.bias:
        tried.append((Correct.affine, *_fit_columns(case, case.held, case.found)))
    if method is Correct.reconstruct:
        held = _reconstruct(case, tried[-1][1])
        tried.append((Correct.reconstruct, *_fit_columns(case, held, case.read(held))))
    best = min(tried, key=lambda one: _power(one[2][case.fitted :] - case.wanted[case.fitted :]))
    return best[:2]


def _fit_columns(case: Case, held: Held, found: Floats, *, scales: bool = True) -> tuple[Held, Floats]:
    """With scales and shifts by column that bring these outputs near the exact ones: what is held, and the outputs."""
    scale, shift = fit_columns(case.wanted[: case.fitted], found[: case.fitted], scales=scales)
    return with_columns(held, scale, shift), found * scale + shift


def _reconstruct(case: Case, held: Held) -> Held:
    inputs = np.concatenate([x if case.layer.window else x.reshape(-1, x.shape[-1]) for x in case.inputs])
    # Of a convolution, samples all of whose outputs are for the fit.
    some = inputs[: case.fitted * len(inputs) // len(case.wanted)]
    vectors, chosen = draw_vectors(case.layer, some, np.random.default_rng(0))
    return reconstruct(case.layer, vectors, case.wanted[chosen], held, case.free, case.key)


def fit_columns(wanted: Floats, found: Floats, *, scales: bool = True) -> tuple[Floats, Floats]:
    """Scale and shift [columns] that bring outputs [outputs, columns] near those wanted, by least squares.

    A scale is drawn to 1 by what would be believed without the outputs, a normal law of sd `SCALE_SD`, so that a dead
    column, and one whose error hides its slope, keeps its own.

    Args:
        wanted, found: exact, and on the chip.
        scales: else only shifts are fitted.
    """
    means = [np.mean(part, axis=0, dtype=np.float64) for part in (wanted, found)]
    scale = np.ones(wanted.shape[1])
    if scales:
        y, t = found - means[1], wanted - means[0]
        error = y - t
        prior = np.mean(np.square(error), axis=0) / SCALE_SD**2
        spread = np.sum(np.square(y), axis=0) + prior
        scale = 1 - np.divide(np.sum(y * error, axis=0), spread, out=np.zeros_like(spread), where=spread > 0)
        scale = np.clip(scale, 1 / MOST_SCALE, MOST_SCALE)
    return scale.astype(np.float32), (means[0] - scale * means[1]).astype(np.float32)


def with_columns(held: Held, scale: Floats, shift: Floats) -> Held:
    """What the layer holds when its outputs are to be scaled and shifted by column."""
    gain, bias = np.asarray(held.gain), np.zeros(len(shift), np.float32) if held.bias is None else np.asarray(held.bias)
    changed = held._replace(bias=jax.device_put(bias * scale + shift))
    return changed if np.all(scale == 1) else changed._replace(gain=jax.device_put(gain * scale))


def _hold(state: State, layer: str, held: Held) -> None:
    """Put into the state what a layer holds."""
    assert held.bias is not None
    state["conductance"][layer], state["bias"][layer] = held.conductance, held.bias
    if held.gain.ndim:
        state["gain"][layer] = held.gain


def _judged(
    state: State, new: State, found: list[Corrected], method: Correct, outputs: Sequence[Sequence[Arrays]]
) -> tuple[State, list[Corrected]]:
    """The new state, or that of before where the network's outputs err more on the samples held out."""
    signal = before = after = 0.0
    for name in outputs[0][0]:
        rows = [np.concatenate([np.atleast_1d(made[name]) for made in side]) for side in outputs]
        if rows[0].dtype != np.float32:
            continue
        fitted = len(rows[0]) - len(rows[0]) // HELD_OUT
        powers = _powers(*(part[fitted:] for part in rows))
        if powers[0] > 0:  # each output counts as much
            signal, before, after = signal + 1, before + powers[1] / powers[0], after + powers[2] / powers[0]
    if signal and after <= before:
        return new, [*found, Corrected("", method, signal, before, after)]
    undone = [replace(one, taken=Correct.none, after=one.before) for one in found]
    why = "the network's outputs erred more" if signal else "too few samples, or no output of floats, to judge it by"
    return state, [*undone, Corrected("", Correct.none, signal, before, before, why)]
