"""Statistics of batch normalisation, estimated anew with weights that stay: the mean of those of some batches.

In training they are averages of the last batches, each seen with other weights and read with other noise.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from jax import Array

from cimc.dataset import Preprocess
from cimc.errors import CimcError
from runtime.crossbar.figures import jit_with_figures
from runtime.network.network import Network, with_bodies
from runtime.network.run import run_network
from runtime.network.scan import Product
from runtime.system.inputs import input_shapes, network_inputs
from runtime.system.state import State, System

BATCHES = 40  # of 64: the 2,600 images of AdaBS (Joshi et al., Nature Communications 2020)


def check_statistics(network: Network, option: str) -> None:
    """Raise CimcError where the network has none for that option."""
    if not network.statistics:
        raise CimcError(f"{option} is for batch normalisation, and the network has none; leave it out")


@jit_with_figures(static_argnums=(0, 1, 3))
def estimate_statistics(
    system: System,
    product: Callable[[System, State], Product],
    state: State,
    preprocess: Preprocess,
    stored: Mapping[str, Array],
    batches: Array,
    key: Array | None,
) -> dict[str, Array]:
    """The statistics by name.

    Args:
        system: network and chip.
        product: how layers are computed.
        state: that stays.
        preprocess: of the samples.
        stored: samples by input.
        batches: [batches, batch size] of their indices.
        key: for noise; None: none.
    """
    network, before = system.network, state["statistics"]
    momentum = {
        name: float(node.attributes.get("momentum", 0.9))
        for node in with_bodies(network.nodes)
        if node.operator == "BatchNormalization"
        for name in node.inputs[3:5]
    }

    def one(n: Array, sums: dict[str, Array]) -> dict[str, Array]:
        taken = {name: array[batches[n]] for name, array in stored.items()}
        feeds = network_inputs(taken, input_shapes(network), preprocess)
        batch_key = None if key is None else jax.random.fold_in(key, n)
        running = run_network(network, feeds, product(system, state), state["digital"], before, batch_key, train=True)[
            1
        ]
        return {name: total + _of_batch(running[name], before[name], momentum[name]) for name, total in sums.items()}

    sums = jax.lax.fori_loop(0, len(batches), one, jax.tree.map(jnp.zeros_like, before))
    return {name: total / len(batches) for name, total in sums.items()}


def _of_batch(running: Array, before: Array, momentum: float) -> Array:
    """The statistic of the last batch in a running one; where nothing of it comes in, what was before."""
    return before if momentum == 1 else (running - momentum * before) / (1 - momentum)
