"""The mean square of what each word line of a layer is driven with: what an error of its weights costs."""

from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from cimc.dataset import Preprocess, Samples
from runtime.crossbar.pieces import Floats
from runtime.network.stepwise import Arrays, LayerStep, ScanStep, run_node_exactly, run_steps
from runtime.system.carry import Carry, with_states
from runtime.system.fit_scales import divide_channels
from runtime.system.inference import MOST_BYTES, batches, digital_parameters, exact_parameters
from runtime.system.layers import samples_first
from runtime.system.sample_vectors import sample_vectors
from runtime.system.state import State, System

MOST_MVMS = 4096  # of a batch


def input_powers(
    system: System, state: State, samples: Samples, preprocess: Preprocess, *, carry: Carry = MappingProxyType({})
) -> dict[str, Floats]:
    """By layer the mean square of the inputs of its weight rows, [rows, groups], over its input factors.

    The inputs are those of the exact network. Layers in a Scan are left out.

    Args:
        system: network and chip.
        state: the digital side; conductances are not looked at.
        samples, preprocess, carry: as of `runtime.system.calibration.calibrate`.
    """
    network, parameters = system.network, exact_parameters(system, state)
    sums: dict[str, NDArray[np.float64]] = {}
    counts: dict[str, int] = {}
    random = np.random.default_rng(0)

    def layer(step: LayerStep, x: Floats) -> Floats:
        crossbar, (inputs, _) = system.crossbars[step.layer], samples_first(system, step, x)
        factor = state["input_factor"].get(step.layer)
        if factor is not None:
            inputs = divide_channels(inputs, np.asarray(factor), crossbar)
        vectors = sample_vectors(crossbar, inputs, MOST_MVMS, random)
        squares = np.square(vectors, dtype=np.float64).sum(axis=1).reshape(crossbar.groups, -1).T
        sums[step.layer] = sums.get(step.layer, 0) + squares
        counts[step.layer] = counts.get(step.layer, 0) + vectors.shape[1]
        weights = {name: parameters[name] for name in step.node.input[1:] if name}
        y: Floats = run_node_exactly(network, step.node, {step.node.input[0]: x, **weights})[0]
        return y

    def scan(step: ScanStep, values: Arrays) -> list[np.ndarray]:
        return run_node_exactly(network, step.node, {**network.initializers, **parameters, **values})

    every = batches(network, samples, preprocess, MOST_BYTES, steps=bool(carry))
    for batch in with_states(network, carry, every, parameters):
        run_steps(network, batch.feeds, digital_parameters(state), layer=layer, scan=scan)
    return {name: (total / max(counts[name], 1)).astype(np.float32) for name, total in sums.items()}
