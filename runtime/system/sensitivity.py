"""How much each layer costs the outputs: their error with that layer exact and all others on the arrays, noise off."""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from cimc.dataset import Preprocess, Samples
from cimc.errors import CimcError
from runtime.crossbar.pieces import Floats
from runtime.network.network import Network, Node, with_bodies
from runtime.network.stepwise import Arrays, LayerStep, ScanStep, run_node_exactly, run_steps
from runtime.system.inference import (
    Batch,
    Outputs,
    batches,
    cut_outputs,
    digital_parameters,
    exact_parameters,
    outputs_exactly,
)
from runtime.system.layer_errors import samples_side_by_side
from runtime.system.layers import held_of, read_layer
from runtime.system.quality import Quality
from runtime.system.scans import read_scan
from runtime.system.state import State, System

Results = dict[int, list[np.ndarray]]  # of steps by number


@dataclass(frozen=True)
class Sensitivity:
    """The outputs with some layers exact and the others on the arrays, against those of the exact network.

    layers: the exact ones. error: power of the error over that of the output, the mean over the outputs of floats.
    agreement: share of samples or positions with the same largest entry, of the first output; without one its fidelity.
    """

    layers: tuple[str, ...]
    error: float
    agreement: float

    @property
    def snr_db(self) -> float | None:
        """The error in decibels; None where there is none."""
        return -10 * math.log10(self.error) if self.error > 0 else None


def layers_apart(network: Network) -> list[tuple[str, ...]]:
    """The layers that can be exact on their own, in network order; those in the body of a Scan together."""
    groups = [_layers_in(node) for node in network.nodes]
    return list(dict.fromkeys(group for group in groups if group))


def sensitivities(
    system: System, state: State, samples: Samples, preprocess: Preprocess, groups: Sequence[AbstractSet[str]]
) -> list[Sensitivity]:
    """One for each set of layers that are to be exact together; an empty set: all on the arrays.

    Args:
        system: network and chip.
        state: what the chip and the digital side hold.
        samples: by the network's input names; some tens are enough.
        preprocess: from stored values to inputs.
        groups: sets of layers.

    Raises:
        CimcError: the network has no output of floats.
    """
    network, parameters = system.network, exact_parameters(system, state)
    found = [Quality(()) for _ in groups]
    size = samples_side_by_side(network)
    for first in range(0, len(samples), size):
        for batch in batches(network, samples.take(slice(first, first + size)), preprocess):
            reference, known = outputs_exactly(network, parameters, batch), Results()
            for quality, exact in zip(found, groups, strict=True):
                quality.add(_outputs(system, state, batch, exact, parameters, known), batch.samples, reference)
    return [_summed(quality, exact) for quality, exact in zip(found, groups, strict=True)]


def _summed(quality: Quality, exact: AbstractSet[str]) -> Sensitivity:
    shares = [sums["noise"] / sums["signal"] for sums in quality.agreed.values() if sums["signal"]]
    if not shares:
        raise CimcError("the network gives no output of floats other than 0, so no layer can be judged by it")
    return Sensitivity(tuple(sorted(exact)), float(np.mean(shares)), quality.main()[1])


def _outputs(
    system: System, state: State, batch: Batch, exact: AbstractSet[str], parameters: Arrays, known: Results
) -> Outputs:
    """The outputs without noise, with those layers exact, with `exact_parameters`.

    known: results of steps with all before them on the arrays, which are taken from there; more are added.
    """
    network, place = system.network, {"first": batch.first, "samples": len(batch.samples)}
    differs = False

    def layer(step: LayerStep, x: Floats) -> Floats:
        nonlocal differs
        differs |= step.layer in exact
        if not differs and step.number in known:
            return known[step.number][0]
        if step.layer in exact:
            weights = {name: parameters[name] for name in step.node.input[1:]}
            return run_node_exactly(network, step.node, {step.node.input[0]: x, **weights})[0]
        y = read_layer(system, step, x, held_of(system, state, step.layer), None, **place)
        if not differs:
            known[step.number] = [y]
        return y

    def scan(step: ScanStep, values: Arrays) -> list[np.ndarray]:
        nonlocal differs
        node = next(node for node in network.nodes if step.node.output[0] in node.outputs)
        is_exact = exact.issuperset(_layers_in(node))
        differs |= is_exact
        if not differs and step.number in known:
            return known[step.number]
        if is_exact:
            return run_node_exactly(network, step.node, {**network.initializers, **parameters, **values})
        made = read_scan(system, state, step, values, None, **place)
        if not differs:
            known[step.number] = made
        return made

    outputs = run_steps(network, batch.feeds, digital_parameters(state), layer=layer, scan=scan)
    return cut_outputs(network, outputs, batch)


def _layers_in(node: Node) -> tuple[str, ...]:
    """The layers of a node: itself, those in the body of a Scan, none."""
    return tuple(inner.layer for inner in with_bodies([node]) if inner.layer is not None)
