"""A network on several chips as one compiled program, where all that lies between its layers is exact.

Such operators (`EXACT`) give the same numbers wherever they are computed, so that the outputs are those of the network
step by step (`runtime.network.stepwise`). Nothing waits between the layers and few values go through memory: LeNet-5 on
eight chips takes seven tenths of the processor time, on both processors.
"""

from collections import deque
from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from runtime.crossbar.chips import HeldByChips
from runtime.crossbar.crossbar import Crossbar, Reading
from runtime.crossbar.exact import decided
from runtime.crossbar.pieces import PIECES_AT_ONCE, Held, bytes_of_mvm, cut_layer, read_piece
from runtime.crossbar.xla import jit
from runtime.network.network import Network
from runtime.network.run import run_network
from runtime.network.stepwise import Arrays, LayerStep, steps_of

EXACT = frozenset(["Flatten", "Identity", "MaxPool", "Relu"])
# Of the inputs and currents of a layer at once, and of the samples of a chip. With a quarter of it LeNet-5 takes a
# fifth more processor time, and so with twice as much.
MOST_BYTES, MOST_SAMPLES = 1 << 25, 64


def samples_in_one_program(network: Network, crossbars: Mapping[str, Crossbar], chips: int, least: int) -> int:
    """How many samples of each chip run at once; 0: the network does not run so, or with fewer than `least`.

    It does where each layer is used once, on vectors or images, and nothing but `EXACT` operators lies between.
    """
    between = {node.operator for node in network.nodes if node.layer is None}
    used = [node for node in network.nodes if node.layer is not None]
    if not between <= EXACT or any(node.foreign or node.body for node in network.nodes):
        return 0
    if len({node.layer for node in used}) < len(used) or any(network.logits.get(o) != o for o in network.outputs):
        return 0
    samples = MOST_SAMPLES
    for node in used:
        crossbar, weight = crossbars[str(node.layer)], network.initializers[node.inputs[1]]
        taken, made = (network.shapes.get(name, ()) for name in (node.inputs[0], node.outputs[0]))
        if crossbar.window is None and len(taken) != 2:
            return 0
        sizes = [1] if crossbar.window is None else [size for size in made[2:] if isinstance(size, int)]
        devices = crossbar.chip.scheme.devices
        most = MOST_BYTES // (chips * bytes_of_mvm(crossbar.reading, devices, *weight.shape))
        cut = cut_layer(most, sizes, MOST_SAMPLES)
        samples = 0 if cut.strips > 1 else min(samples, cut.samples)
    return samples if samples >= least else 0


def outputs_in_one_program(
    network: Network,
    crossbars: Mapping[str, Crossbar],
    feeds: Arrays,
    held: Mapping[str, HeldByChips],
    keys: Array,
    *,
    samples: int,
    first: int,
) -> dict[str, np.ndarray]:
    """The outputs by name [chips, samples, ...] of all chips for the same inputs.

    Args:
        network: of `samples_in_one_program`, with its crossbars.
        feeds: the inputs by name [samples, ...].
        held: what the chips hold of each layer.
        keys: of their reads [chips].
        samples: how many run at once.
        first: the number of the first sample.
    """
    count = len(next(iter(feeds.values())))
    own = tuple((name, tuple(sorted(of_layer.own))) for name, of_layer in held.items())
    found = {
        name: decided(crossbars[name].reading, of_layer.held.conductance, of_layer.held.reference_column)
        for name, of_layer in held.items()
    }
    readings = {name: reading for name, (reading, _) in found.items()}
    arrays = {name: of_layer.held._replace(conductance=found[name][1]) for name, of_layer in held.items()}
    numbers = {step.layer: np.int32(step.number) for step in steps_of(network)[0] if isinstance(step, LayerStep)}
    made: dict[str, list[np.ndarray]] = {name: [] for name in network.outputs}
    running: deque[dict[str, Array]] = deque()

    def take() -> None:
        for name, output in running.popleft().items():
            made[name].append(np.asarray(output))

    for start in range(0, count, samples):
        part = {name: _filled_up(x[start : start + samples], samples) for name, x in feeds.items()}
        running.append(_run(network, own, readings, part, arrays, keys, numbers, np.int32(first + start)))
        if len(running) == PIECES_AT_ONCE:
            take()
    while running:
        take()
    return {name: np.concatenate(parts, axis=1)[:, :count] for name, parts in made.items()}


def _filled_up(x: np.ndarray, samples: int) -> np.ndarray:
    """Zeros after the last sample, so that all parts are of one program."""
    missing = samples - len(x)
    return np.concatenate([x, np.zeros((missing, *x.shape[1:]), x.dtype)]) if missing else x


@partial(jit, static_argnums=(0, 1))
def _run(
    network: Network,
    own: tuple[tuple[str, tuple[str, ...]], ...],
    readings: dict[str, Reading],
    feeds: dict[str, Array],
    held: dict[str, Held],
    keys: Array,
    numbers: dict[str, Array],
    first: Array,
) -> dict[str, Array]:
    """Samples from number `first` on. own: by layer, what each chip has of its own; numbers: of the layers' steps."""

    def one(of_chip: dict[str, dict[str, Array]], key: Array) -> dict[str, Array]:
        def product(name: str, x: Array, _: Array | None) -> Array:
            mine = held[name]._replace(**of_chip[name])
            samples_first = x.T[:, None] if network.windows[name] is None else jnp.moveaxis(x, -1, 0)
            y = read_piece(readings[name], samples_first, mine, key, numbers[name], first, jnp.int32(0))
            return y[:, 0].T if network.windows[name] is None else jnp.moveaxis(y, 0, -1)

        return run_network(network, feeds, product, {}, {})[0]

    of_chips = {name: {field: getattr(held[name], field) for field in fields} for name, fields in own}
    return jax.vmap(one)(of_chips, keys)
