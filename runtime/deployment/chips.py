"""Virtual chips side by side: each with its own devices, scales and noise, all on the same samples at once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from jax import Array

from cimc.operators import CROSSBAR_DOMAIN
from runtime.crossbar.chips import HeldByChips, read_on_chips
from runtime.crossbar.pieces import Floats
from runtime.deployment.one_program import outputs_in_one_program, samples_in_one_program
from runtime.network.network import Network
from runtime.network.stepwise import LayerStep, Run, ScanStep
from runtime.system.carry import Carry
from runtime.system.inference import (
    Batch,
    Outputs,
    batch_axis,
    batch_size,
    cut_outputs,
    digital_parameters,
    fixed_batch,
    outputs_on_arrays,
)
from runtime.system.layers import held_of, read_layer, samples_first
from runtime.system.scans import read_scan
from runtime.system.state import State, System

# Chips that are read together, where at least so many samples of each fit into the memory beside one another.
AT_ONCE, LEAST_SAMPLES = 8, 16
OWN = (
    "conductance",
    "reference_column",
    "input_range",
    "gain",
    "bias",
)  # groups of the state that may be each chip's own


@dataclass(frozen=True, eq=False)
class Chips:
    """Chips that hold one program.

    system: network and chip. state: what all of them share. own: groups of the state that are each chip's own, arrays
    [chips, ...] by layer; the conductances at least. keys: of their reads [chips].
    """

    system: System
    state: State
    own: Mapping[str, Mapping[str, Array]]
    keys: Array
    states: dict[int, State] = field(default_factory=dict, init=False, repr=False)  # of single chips, once asked for

    def __len__(self) -> int:
        return len(self.keys)

    def state_of(self, chip: int) -> State:
        """What one chip and its digital side hold."""
        if chip not in self.states:
            of_chip = {group: {name: a[chip] for name, a in arrays.items()} for group, arrays in self.own.items()}
            own = {group: {**self.state[group], **arrays} for group, arrays in of_chip.items()}
            self.states[chip] = {**self.state, **own}
        return self.states[chip]

    def held(self, layer: str) -> HeldByChips:
        """What they hold of a layer."""
        own = [group for group in OWN if layer in self.own.get(group, {})]
        joined = {**self.state, **{group: {**self.state[group], layer: self.own[group][layer]} for group in own}}
        return HeldByChips(held_of(self.system, joined, layer), frozenset(own))


def chips_side_by_side(network: Network, memory: int | None, carry: Carry) -> int:
    """How many chips run at once: 1 where a network's samples cannot be told apart along one axis of every value."""
    taken = {*network.inputs, *network.outputs, *(node.input[0] for node in network.protos if _is_layer(node))}
    apart = all(sum(_is_batch(size) for size in network.shapes.get(name, ())) == 1 for name in taken)
    alone = bool(carry) or any(node.body is not None for node in network.nodes) or fixed_batch(network) is not None
    enough = not alone and apart and batch_size(network, memory) >= AT_ONCE * LEAST_SAMPLES
    return AT_ONCE if enough else 1


def _is_batch(size: Any) -> bool:
    """Whether a size is that of the batch alone, and no multiple of it (`4*N`), where samples may be interleaved."""
    return isinstance(size, str) and size.isidentifier()


def outputs_on_chips(chips: Chips, batch: Batch) -> list[Outputs]:
    """The network's outputs by name on each of the chips."""
    if len(chips) == 1:
        return [outputs_on_arrays(chips.system, chips.state_of(0), batch, chips.keys[0])]
    network, crossbars = chips.system.network, chips.system.crossbars
    if samples := samples_in_one_program(network, crossbars, len(chips), LEAST_SAMPLES // 2):
        held = {name: chips.held(name) for name in crossbars}
        seen = {name: of_layer.as_read(crossbars[name]) for name, of_layer in held.items()}
        whole = outputs_in_one_program(
            network, crossbars, batch.feeds, seen, chips.keys, samples=samples, first=batch.first
        )
        return [{name: output[chip] for name, output in whole.items()} for chip in range(len(chips))]
    run = start_on_chips(chips, batch)
    while (step := run.step) is not None:
        run.go_on(read_step(chips, step, run, batch))
    return _by_chip(chips, run.outputs, batch)


def start_on_chips(chips: Chips, batch: Batch) -> Run:
    """A run of the network on the batch once for every chip: the samples of the first chip, then those of the next."""
    network = chips.system.network
    feeds = {
        name: np.concatenate([x] * len(chips), axis=batch_axis(network, name)) if len(chips) > 1 else x
        for name, x in batch.feeds.items()
    }
    return Run(network, feeds, digital_parameters(chips.state))


def read_step(chips: Chips, step: LayerStep | ScanStep, run: Run, batch: Batch) -> Sequence[np.ndarray]:
    """What a step gives on the arrays of all chips, for what it takes in the run (`start_on_chips`)."""
    place = {"first": batch.first, "samples": len(batch.samples)}
    if isinstance(step, ScanStep):
        return read_scan(chips.system, chips.state_of(0), step, run.inputs, chips.keys[0], **place)
    if len(chips) == 1:
        held = chips.held(step.layer).of(0)
        return [read_layer(chips.system, step, run.input, held, chips.keys[0], **place)]
    vectors, restore = samples_first(chips.system, step, run.input)
    each = by_chip(vectors, len(chips))
    if step.node.input[0] in _same_on_all(chips.system.network):
        each = each[:1]
    layer, held_by = chips.system.crossbars[step.layer], chips.held(step.layer)
    y = read_on_chips(layer, each, held_by, chips.keys, number=step.number, first=batch.first)
    return [restore(y.reshape(-1, *y.shape[2:]))]


def by_chip(values: Floats, chips: int) -> Floats:
    """Values [chips * samples, ...] as [chips, samples, ...]."""
    return values.reshape(chips, len(values) // chips, *values.shape[1:])


def _same_on_all(network: Network) -> set[str]:
    """Names of what layers take that is the same on every chip: what no other layer comes before."""
    differ: set[str] = set()
    taken: set[str] = set()
    for node in network.protos:
        if _is_layer(node) and node.input[0] not in differ:
            taken.add(node.input[0])
        if _is_layer(node) or not differ.isdisjoint(node.input):
            differ.update(node.output)
    return taken


def _is_layer(node: onnx.NodeProto) -> bool:
    return bool(node.domain == CROSSBAR_DOMAIN)


def _by_chip(chips: Chips, outputs: Outputs, batch: Batch) -> list[Outputs]:
    """The outputs of each chip, samples first."""
    whole = cut_outputs(chips.system.network, outputs, batch)
    count = len(batch.samples)
    parts = [slice(chip * count, (chip + 1) * count) for chip in range(len(chips))]
    return [{name: array[part] for name, array in whole.items()} for part in parts]
