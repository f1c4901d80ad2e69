"""What each layer costs the outputs: their error with that layer alone on its arrays and all others exact, noise off.

Small errors add up in power, so what layers cost together is about the sum, of which each can be judged by itself. With
all others on the arrays too, what one layer adds would be lost in what they do.
"""

import math
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np

from cimc.dataset import Preprocess, Samples
from cimc.errors import CimcError
from runtime.crossbar.pieces import Floats
from runtime.network.network import Network, Node, with_bodies
from runtime.network.stepwise import Arrays, LayerStep, ScanStep, run_exactly, run_node_exactly, run_steps
from runtime.system.inference import Batch, Outputs, batches, cut_outputs, digital_parameters, exact_parameters
from runtime.system.layer_errors import samples_side_by_side
from runtime.system.layers import held_of, read_layer
from runtime.system.quality import Quality
from runtime.system.scans import read_scan
from runtime.system.state import State, System

Results = dict[int, list[np.ndarray]]  # of steps by number
_LEAST, _ROUNDING = np.float32(1e-30), np.finfo(np.float32).eps  # of a probability


@dataclass(frozen=True)
class Sensitivity:
    """The outputs with some layers on the arrays and all others exact, against those of the exact network.

    layers: those on the arrays. error: power of the error over that of the output, the mean over the outputs of floats;
    of probabilities that of their logits, which do not saturate. agreement: share of samples or positions with the same
    largest entry, of the first output; without one its fidelity.
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
    """One for each set of layers that are to be on the arrays together.

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
            exact, known = _judged(network, run_exactly(network, batch.feeds, parameters), batch), Results()
            for quality, layers in zip(found, groups, strict=True):
                outputs = _outputs(system, state, batch, layers, parameters, known)
                quality.add(_judged(network, outputs, batch), batch.samples, exact)
    return [_summed(quality, layers) for quality, layers in zip(found, groups, strict=True)]


def _summed(quality: Quality, layers: AbstractSet[str]) -> Sensitivity:
    shares = [sums["noise"] / sums["signal"] for sums in quality.agreed.values() if sums["signal"]]
    if not shares:
        raise CimcError("the network gives no output of floats other than 0, so no layer can be judged by it")
    return Sensitivity(tuple(sorted(layers)), float(np.mean(shares)), quality.main()[1])


def _judged(network: Network, outputs: Outputs, batch: Batch) -> Outputs:
    """The outputs by name, samples first; of a Softmax or Sigmoid what it takes, for a Softmax less its mean."""
    judged = dict(outputs)
    for node in network.nodes:
        for name in outputs.keys() & node.outputs:
            if node.operator == "Softmax":
                logits = np.log(np.maximum(outputs[name], _LEAST))
                judged[name] = logits - logits.mean(axis=int(node.attributes.get("axis", -1)), keepdims=True)
            elif node.operator == "Sigmoid":
                judged[name] = np.log(np.maximum(outputs[name], _LEAST) / np.maximum(1 - outputs[name], _ROUNDING))
    return cut_outputs(network, judged, batch)


def _outputs(
    system: System, state: State, batch: Batch, layers: AbstractSet[str], parameters: Arrays, known: Results
) -> Outputs:
    """The outputs without noise with those layers on the arrays, the others with `exact_parameters`.

    known: results of steps with all before them exact, which are taken from there; more are added.
    """
    network, place = system.network, {"first": batch.first, "samples": len(batch.samples)}
    differs = False

    def exactly(step: LayerStep | ScanStep, values: Arrays) -> list[np.ndarray]:
        if not differs and step.number in known:
            return known[step.number]
        made = run_node_exactly(network, step.node, {**network.initializers, **parameters, **values})
        if not differs:
            known[step.number] = made
        return made

    def layer(step: LayerStep, x: Floats) -> Floats:
        nonlocal differs
        if step.layer not in layers:
            y: Floats = exactly(step, {step.node.input[0]: x})[0]
            return y
        differs = True
        return read_layer(system, step, x, held_of(system, state, step.layer), None, **place)

    def scan(step: ScanStep, values: Arrays) -> list[np.ndarray]:
        nonlocal differs
        node = next(node for node in network.nodes if step.node.output[0] in node.outputs)
        if layers.isdisjoint(_layers_in(node)):
            return exactly(step, values)
        differs = True
        return read_scan(system, state, step, values, None, **place)

    return run_steps(network, batch.feeds, digital_parameters(state), layer=layer, scan=scan)


def _layers_in(node: Node) -> tuple[str, ...]:
    """The layers of a node: itself, those in the body of a Scan, none."""
    return tuple(inner.layer for inner in with_bodies([node]) if inner.layer is not None)
