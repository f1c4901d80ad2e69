"""Compensation of virtual chips: digital scales, shifts and input ranges that make up for what time took from them.

By reads of the devices alone (`global`, `column`), as mean magnitudes right after programming over those now; and by
samples without labels, layer after layer, each on what it gets on the chip from the layers before it as compensated:

    ranges   the input range, the one it has among others, with which the layer errs least from the product with the
             conductances as they are
    bn       scale sd(wanted) / sd(found), shift mean(wanted) - scale mean(found), of every channel
    affine   scale and shift of every column, least squares of wanted on found (`runtime.system.correction.fit_columns`)

`wanted` is what the exact network gives there on the same samples. Batch norms are folded into layers when a network is
compiled, so their statistics (Joshi et al. 2020, AdaBS) are those of the layers' outputs: `bn` gives these the mean and
the spread that they have in the exact network.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.addresses import reference_of_columns
from cimc.chip import Chip
from cimc.dataset import Preprocess, Samples
from cimc.options import BY_SAMPLES, Compensate
from cimc.units import reference_target, weight_of
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Floats
from runtime.crossbar.xla import jit
from runtime.deployment.chips import Chips, by_chip, read_step, start_on_chips
from runtime.devices.device import device_of
from runtime.network.network import Network, with_bodies
from runtime.network.stepwise import LayerStep, Run, ScanStep, run_node_exactly
from runtime.system.calibration import best_range
from runtime.system.carry import Carry, with_states
from runtime.system.correction import fit_columns
from runtime.system.inference import MOST_BYTES, Batch, batches, exact_parameters
from runtime.system.state import REFERENCES, State, System, bias_of, gain_of

LEAST = 1e-4  # of the mean magnitude that is divided by, as a fraction of the window: a layer of zeros stays as it is
# Samples by which layers are compensated, if the outputs of all layers take no more than that.
COMPENSATION_SAMPLES, LEAST_SAMPLES, WANTED_BYTES = 256, 16, 1 << 29
MOST_BATCHES = 8


@dataclass(frozen=True, eq=False)
class Calibration:
    """What layers are compensated by: batches of samples, and for each by the step's number what is wanted there."""

    batches: Sequence[Batch]
    wanted: Sequence[Mapping[int, Floats]]


def digital_numbers(system: System, kinds: Sequence[Compensate]) -> dict[str, int]:
    """By compensation the numbers that the digital side holds for it: one or two a layer or a column.

    A scale of each column is that of its layer too: of both together the layer holds none.
    """
    columns = sum(system.network.initializers[node.inputs[1]].shape[1] for node in system.network.layers())
    layers = len(system.crossbars)
    each = {
        Compensate.global_: layers,
        Compensate.column: columns,
        Compensate.ranges: layers,
        Compensate.bn: 2 * columns,
        Compensate.affine: 2 * columns,
    }
    if Compensate.column in kinds:
        each[Compensate.global_] = 0
    return {kind.value: each[kind] for kind in kinds}


def calibration_of(
    system: System, state: State, samples: Samples, preprocess: Preprocess, *, chips: int, carry: Carry
) -> Calibration:
    """The outputs of the exact network's layers on samples, of which there are few (`samples_for_compensation`).

    Args:
        system, state: the network and what its digital side holds.
        samples: inputs alone.
        preprocess: from stored values to inputs.
        chips: that run side by side.
        carry: the samples are the steps of a stream.
    """
    network, parameters = system.network, exact_parameters(system, state)
    every = batches(network, samples, preprocess, MOST_BYTES, steps=bool(carry), times=chips)
    if carry:  # steps with even spaces between, each with its states: the first alone are no fair part of a stream
        steps = list(with_states(network, carry, every, parameters))
        looked_at = steps[:: -(-len(steps) // MOST_BATCHES)]
    else:
        looked_at = list(islice(every, MOST_BATCHES * chips))
    found = []
    for batch in looked_at:
        wanted: dict[int, Floats] = {}
        run = Run(network, batch.feeds, parameters)
        while (step := run.step) is not None:
            values = run.inputs if isinstance(step, ScanStep) else {step.node.input[0]: run.input}
            made = run_node_exactly(network, step.node, {**network.initializers, **parameters, **values})
            if isinstance(step, LayerStep):
                wanted[step.number] = made[0]
            run.go_on(made)
        found.append(wanted)
    return Calibration(looked_at, found)


def samples_for_compensation(network: Network) -> int:
    """How many samples layers are compensated by."""
    shapes = [network.shapes.get(name, ()) for node in network.layers() for name in node.outputs]
    elements = sum(int(np.prod([size for size in shape if isinstance(size, int)])) for shape in shapes)
    return int(np.clip(WANTED_BYTES // (4 * max(elements, 1)), LEAST_SAMPLES, COMPENSATION_SAMPLES))


def compensate_chips(
    kinds: Sequence[Compensate], fresh: Chips, aged: Chips, calibration: Calibration | None, keys: Array
) -> Chips:
    """The aged chips with what their digital sides make up for.

    Args:
        kinds: what is done, in this order.
        fresh: the same chips right after programming.
        aged: as they are now.
        calibration: what layers are compensated by; needed by `ranges`, `bn` and `affine`.
        keys: of each chip's reads for it.
    """
    for kind in (Compensate.global_, Compensate.column):
        if kind in kinds:
            aged = _with_own(aged, "gain", compensated_gains(kind, fresh, aged, keys))
    by_samples = [kind for kind in kinds if kind in BY_SAMPLES]
    if by_samples and calibration is not None:
        # With noise of its own: a fit to that of the reads to come would make up for it.
        reads = replace(aged, keys=keys)
        aged = replace(_compensate_by_samples(by_samples, reads, calibration), keys=aged.keys)
    return aged


def compensated_gains(kind: Compensate, fresh: Chips, aged: Chips, keys: Array) -> dict[str, Array]:
    """The digital gain of every layer of aged chips, [chips] or [chips, columns].

    A layer's gain is multiplied by the mean magnitude of its weights as read right after programming over that as read
    now, of the layer (global: Le Gallo et al., Nature Electronics 2023; all one-hot inputs read the weights) or of each
    of its columns. Each read has the noise of its device. One-hot inputs read a weight less its reference column.
    """
    gains = {}
    per_column = kind is Compensate.column
    for index, name in enumerate(fresh.own["conductance"]):
        first, now = jnp.moveaxis(_two_keys(keys, np.int32(index)), 1, 0)
        column = jnp.asarray(reference_of_columns(fresh.system.mapping.layer(name)))
        then, after = (
            _magnitudes(
                *(chips.system.chip, per_column, chips.own["conductance"][name]),
                *(chips.own.get("reference_column", {}).get(name), column, read_keys),
            )
            for chips, read_keys in ((fresh, first), (aged, now))
        )
        ratio = then / after
        gain = gain_of(aged.state, name)
        gains[name] = jnp.asarray((ratio[:, None] if gain.ndim and not per_column else ratio) * gain, jnp.float32)
    return gains


@jit
def _two_keys(keys: Array, index: Array) -> Array:
    return jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, index)))(keys)


@partial(jit, static_argnums=(0, 1))
def _magnitudes(
    chip: Chip, per_column: bool, conductance: Array, references: Array | None, column: Array, keys: Array
) -> Array:
    """Mean magnitude of the weights of conductances [chips, devices, rows, columns], as read: [chips(, columns)].

    references: of the reference columns [chips, rows, reference columns] or None; column: by weight column, its own.
    """
    device = device_of(chip.cell)

    def one(conductance: Array, reference: Array | None, key: Array) -> Array:
        weight = weight_of(device.read(conductance, key), np.float32(1), chip)
        if reference is not None and chip.scheme.reference is not None:
            off = device.read(reference, jax.random.fold_in(key, REFERENCES)) - reference_target(chip)
            weight -= off[:, column] * np.float32(chip.scheme.reference.times / chip.scheme.full_uS)
        return jnp.maximum(jnp.mean(jnp.abs(weight), axis=0 if per_column else None), LEAST)

    return jax.vmap(one, in_axes=(0, None if references is None else 0, 0))(conductance, references, keys)


def _compensate_by_samples(kinds: Sequence[Compensate], chips: Chips, calibration: Calibration) -> Chips:
    """Layer after layer; those used several times, and those in a Scan, stay as they are."""
    uses = Counter(node.layer for node in with_bodies(chips.system.network.nodes))
    runs = [start_on_chips(chips, batch) for batch in calibration.batches]
    while (step := runs[0].step) is not None:
        layer = step if isinstance(step, LayerStep) and uses[step.layer] == 1 else None
        if layer is not None and Compensate.ranges in kinds:
            chips = _choose_ranges(chips, layer, [run.input for run in runs])
        made = [read_step(chips, step, run, batch) for run, batch in zip(runs, calibration.batches, strict=True)]
        if layer is not None and len(kinds) > (Compensate.ranges in kinds):
            wanted = [found[layer.number] for found in calibration.wanted]
            chips, made = _fit(kinds, chips, layer, wanted, [y for (y,) in made])
        for run, y in zip(runs, made, strict=True):
            run.go_on(y)
    return chips


def _choose_ranges(chips: Chips, step: LayerStep, inputs: Sequence[Floats]) -> Chips:
    """With the layer's input ranges for what it gets, by batch."""
    if chips.system.chip_of(step.layer).input.bits is None:
        return chips
    held = chips.held(step.layer)
    each = [by_chip(x, len(chips)) if len(chips) > 1 else x[None] for x in inputs]
    now = np.float32(chips.state["input_range"][step.layer])  # may lie far below the largest input over its factor
    chosen = [
        best_range(chips.system, step, [x[chip] for x in each], held.of(chip), chips.keys[chip], also=[now])
        for chip in range(len(chips))
    ]
    return _with_own(chips, "input_range", {step.layer: jnp.asarray(chosen, jnp.float32)})


def _fit(
    kinds: Sequence[Compensate], chips: Chips, step: LayerStep, wanted: Sequence[Floats], made: Sequence[Floats]
) -> tuple[Chips, list[Sequence[Floats]]]:
    """With the layer's scales and shifts; and its outputs by batch, scaled and shifted."""
    layer, state, count = chips.system.crossbars[step.layer], chips.state, len(chips)
    parts = [by_chip(y, count) if count > 1 else y[None] for y in made]
    rows = [np.concatenate([_rows(layer, part[chip]) for part in parts]) for chip in range(count)]
    goal = np.concatenate([_rows(layer, y) for y in wanted])
    scales, shifts = (np.stack(one) for one in zip(*(fit_scale_and_shift(kinds, goal, y) for y in rows), strict=True))
    own, bias = chips.own.get("gain", {}).get(step.layer), bias_of(chips.system, state, step.layer)
    gain = np.reshape(gain_of(state, step.layer), (1, -1)) if own is None else np.reshape(own, (count, -1))
    gains = gain * scales
    biases = shifts if bias is None else np.asarray(bias) * scales + shifts
    chips = _with_own(chips, "gain", {step.layer: jnp.asarray(gains, jnp.float32)})
    chips = _with_own(chips, "bias", {step.layer: jnp.asarray(biases, jnp.float32)})
    scaled: list[Sequence[Floats]] = [
        [_scaled(layer, part, scales, shifts).reshape(y.shape)] for part, y in zip(parts, made, strict=True)
    ]
    return chips, scaled


def fit_scale_and_shift(kinds: Sequence[Compensate], wanted: Floats, found: Floats) -> tuple[Floats, Floats]:
    """Scale and shift [columns] for outputs [outputs, columns] by `bn`, `affine`, or the one after the other."""
    scale, shift = np.ones(wanted.shape[1], np.float32), np.zeros(wanted.shape[1], np.float32)
    if Compensate.bn in kinds:
        scale, shift = match_moments(wanted, found)
    if Compensate.affine in kinds:
        more, added = fit_columns(wanted, found * scale + shift)
        scale, shift = scale * more, shift * more + added
    return scale, shift


def match_moments(wanted: Floats, found: Floats) -> tuple[Floats, Floats]:
    """Scale and shift [columns] that give outputs [outputs, columns] the mean and the sd of those wanted.

    A column that does not vary, or is not to, keeps its scale.
    """
    goal, goal_sd, mean, sd = (
        moment(y, axis=0, dtype=np.float64) for y in (wanted, found) for moment in (np.mean, np.std)
    )
    scale = np.divide(goal_sd, sd, out=np.ones_like(sd), where=(sd > 0) & (goal_sd > 0))
    return scale.astype(np.float32), (goal - scale * mean).astype(np.float32)


def _rows(layer: Crossbar, y: Floats) -> Floats:
    """Outputs as [outputs, columns]."""
    last = y if layer.window is None else np.moveaxis(y, 1, -1)
    return last.reshape(-1, last.shape[-1])


def _scaled(layer: Crossbar, y: Floats, scales: Floats, shifts: Floats) -> Floats:
    """Outputs [chips, ...] of a layer times scales plus shifts, both [chips, columns]."""
    axis = y.ndim - 1 if layer.window is None else 2
    shape = [len(y), *(y.shape[axis] if place == axis else 1 for place in range(1, y.ndim))]
    scaled: NDArray[np.float32] = y * scales.reshape(shape) + shifts.reshape(shape)
    return scaled


def _with_own(chips: Chips, group: str, arrays: Mapping[str, Array]) -> Chips:
    """The chips with these values of their own, arrays [chips, ...] by layer."""
    return replace(chips, own={**chips.own, group: {**chips.own.get(group, {}), **arrays}})
