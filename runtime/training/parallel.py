"""Data-parallel training: every device that JAX sees, in this process or in others, takes an equal part of each batch.

The program is one, of the whole batch (`jax.sharding`): draws do not depend on how many devices there are, and
gradients differ only by the order in which they are summed. What the chip holds is the same on all of them.

Several processes (`join`), on one host or on many, each run the same command; between the steps each computes the same.
"""

from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cimc.errors import CimcError

BATCH = "batch"


def mesh_for(batch_size: int) -> Mesh | None:
    """The devices that share a batch; None: one has all of it, because there are no others or it does not divide.

    Raises:
        CimcError: it does not divide among the devices of several processes, which would each train alone.
    """
    devices = jax.devices()
    if batch_size % len(devices) and jax.process_count() > 1:
        raise CimcError(
            f"a batch of {batch_size} does not divide among {len(devices)} devices of {jax.process_count()} processes; "
            "give another --batch-size"
        )
    if len(devices) == 1 or batch_size % len(devices):
        return None
    return Mesh(np.array(devices), (BATCH,))


def on_all(mesh: Mesh | None, arrays: Any) -> Any:
    """The arrays, whole on every device."""
    return jax.device_put(arrays, None if mesh is None else NamedSharding(mesh, PartitionSpec()))


def in_parts(mesh: Mesh | None, batches: Any) -> Any:
    """Batches [steps, batch size], a part of each on every device."""
    return batches if mesh is None else jax.device_put(batches, NamedSharding(mesh, PartitionSpec(None, BATCH)))


def on_own(arrays: Any) -> Any:
    """Arrays that are whole on every device, as this process alone has them, to go on with between the steps."""
    if jax.process_count() == 1:
        return arrays
    return jax.tree.map(lambda array: array.addressable_data(0), arrays)
