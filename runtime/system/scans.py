"""A Scan with crossbar layers in its body as a step of inference: the loop is compiled as a whole."""

from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import Array

from runtime.crossbar.pieces import keys_of_samples
from runtime.crossbar.xla import jit
from runtime.network.run import run_scan
from runtime.network.scan import Product
from runtime.network.stepwise import Arrays, ScanStep
from runtime.system.input_ranges import calibrating_product, read_part
from runtime.system.products import array_product
from runtime.system.state import State, System


def read_scan(
    system: System, state: State, step: ScanStep, values: Arrays, key: Array | None, *, first: int, samples: int
) -> list[np.ndarray]:
    """The results of a Scan with its layers on the arrays.

    Args:
        system: network and chip.
        state: what the chip and the digital side hold.
        step: the node.
        values: all that it and its body need, but constants, by name.
        key: for noise; None: none.
        first: the number of the first sample of the batch.
        samples: in the batch.
    """
    keys = None if key is None else keys_of_samples(key, step.number, first, samples)
    return [np.asarray(array) for array in _read(system, step.node.output[0], read_part(state), _traced(values), keys)]


def choose_ranges_in_scan(
    system: System, state: State, step: ScanStep, values: Arrays, key: Array | None
) -> dict[str, np.float32]:
    """The input ranges of the layers in the body of a Scan, chosen on what they see there (`calibrating_product`)."""
    found = _choose(system, step.node.output[0], read_part(state), _traced(values), key)
    return {name: np.float32(array) for name, array in found.items()}


def _traced(values: Arrays) -> dict[str, Array]:
    return {name: jnp.asarray(array) for name, array in values.items()}


@partial(jit, static_argnums=(0, 1))
def _read(system: System, output: str, state: State, values: dict[str, Array], key: Array | None) -> list[Array]:
    return _run(system, output, values, array_product(system, state), key)


@partial(jit, static_argnums=(0, 1))
def _choose(system: System, output: str, state: State, values: dict[str, Array], key: Array | None) -> dict[str, Array]:
    record: dict[str, Array] = {}
    _run(system, output, values, calibrating_product(system, state, record), key)
    return record


def _run(system: System, output: str, values: dict[str, Array], product: Product, key: Array | None) -> list[Array]:
    """Run the Scan that gives `output`."""
    network = system.network
    node = next(node for node in network.nodes if output in node.outputs)
    return run_scan(network, node, {**network.initializers, **values, "": None}, set(), product, key)
