"""The state of a network on arrays: what training changes, as named groups of arrays, and its flat form on disk."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.mapping import Mapping
from cimc.options import Backward
from cimc.units import pair_targets, pair_weight
from runtime.crossbar.product import Crossbar
from runtime.devices.cells import read_cells, write_verify
from runtime.network.network import Network

# Group -> name -> array. Groups, by crossbar layer:
#   weight        digital copy of the weights [rows, columns], in the network's own unit
#   accumulator   weight updates not yet programmed [rows, columns], same unit
#   conductance   G+ and G- [2, rows, columns], uS
#   weight_range  the weight of a fully programmed pair, scalar
#   input_range   the input of the DAC's largest code, scalar; 0 until calibrated
#   updates       times a weight was due [rows, columns]; writes, trials: [2, rows, columns], a device
# by initializer (and `<layer>.gain`): digital; by initializer: statistics
State = dict[str, dict[str, Array]]


@dataclass(frozen=True, eq=False)
class System:
    """All that is fixed while a network trains or runs.

    crossbars: each layer on its arrays. bias_names: the bias initializer of each layer that has one.
    """

    network: Network
    chip: Chip
    crossbars: dict[str, Crossbar]
    bias_names: dict[str, str]


def build_system(network: Network, mapping: Mapping, chip: Chip, backward: Backward = Backward.digital) -> System:
    """Join a network with its mapping; of several copies the runtime computes one.

    Raises:
        CimcError: the chip, or a mapping in segments, is not simulated.
    """
    if chip.not_simulated is not None:
        raise CimcError(
            f"{chip.name} is not simulated ({chip.not_simulated}); compile and inspect take it, "
            f"train, eval, export and deploy need a chip with differential pairs such as brram-256x64"
        )
    if mapping.segments:
        raise CimcError(
            f"the network runs on {chip.name} in {len(mapping.segments)} segments, which is not simulated; "
            f"compile it with more --arrays, or without --objective"
        )
    crossbars = {}
    for layer in mapping.layers:
        (row_start, row_stop), (column_start, column_stop) = layer.row_bounds[0], layer.column_bounds[0]
        crossbars[layer.name] = Crossbar(
            chip=chip,
            row_block=row_stop - row_start,
            column_block=column_stop - column_start,
            signed=layer.signed_input,
            groups=layer.groups,
            window=network.windows[layer.name],
            backward=backward,
        )
    biases = {node.name: node.inputs[2] for node in network.layers() if len(node.inputs) > 2}
    return System(network, chip, crossbars, biases)


def initial_state(system: System) -> State:
    """The state of a compiled network: its ONNX weights as digital copy and as exact target conductances."""
    network = system.network
    state: State = {group: {} for group in ("weight", "accumulator", "conductance", "weight_range", "input_range")}
    state |= {"updates": {}, "writes": {}, "trials": {}}
    state["digital"] = {name: jax.device_put(network.initializers[name]) for name in network.trainable}
    state["statistics"] = {name: jax.device_put(network.initializers[name]) for name in network.statistics}
    for node in network.layers():
        # NumPy, and device_put: JAX would compile each of these operations, `asarray` too, for each shape.
        weight = np.asarray(network.initializers[node.inputs[1]], np.float32)
        largest = float(np.max(np.abs(weight)))
        if not np.isfinite(largest):
            raise CimcError(f"the weights of {node.name} hold NaN or infinity; export the model again")
        weight_range = np.float32(largest or 1.0)
        pair = pair_targets(weight, weight_range, system.chip)
        state["weight"][node.name] = jax.device_put(weight)
        state["accumulator"][node.name] = jax.device_put(np.zeros_like(weight))
        state["conductance"][node.name] = jax.device_put(pair)
        state["weight_range"][node.name] = jax.device_put(weight_range)
        state["input_range"][node.name] = jax.device_put(np.float32(0.0))
        state["updates"][node.name] = jax.device_put(np.zeros(weight.shape, np.int32))
        state["writes"][node.name] = jax.device_put(np.zeros(pair.shape, np.int32))
        state["trials"][node.name] = jax.device_put(np.zeros(pair.shape, np.int32))
        state["digital"][gain_name(node.name)] = jax.device_put(np.float32(1.0))
    return state


def gain_name(layer: str) -> str:
    """Name of a layer's trainable scale among the digital parameters."""
    return f"{layer}.gain"


def program(system: System, state: State, key: Array) -> tuple[State, dict[str, Array]]:
    """Write every device to the target of the digital copy, with the chip's programming error.

    Returns:
        The new state, and the trials that this took by layer, for one copy of each.
    """
    conductance, trials = {}, {}
    for index, (name, weight) in enumerate(state["weight"].items()):
        targets = pair_targets(weight, state["weight_range"][name], system.chip)
        written = write_verify(targets, system.chip.cell, jax.random.fold_in(key, index))
        conductance[name] = written.conductance
        trials[name] = jnp.sum(written.trials, dtype=jnp.int32)
    return {**state, "conductance": conductance}, trials


def read_back(system: System, state: State, key: Array, reads: int = 1) -> State:
    """Read every device that many times into the digital copy, with read noise. Returns a new state."""
    weight = {}
    for index, (name, conductance) in enumerate(state["conductance"].items()):
        pair = read_cells(conductance, system.chip.cell, jax.random.fold_in(key, index), reads)
        weight[name] = pair_weight(pair, state["weight_range"][name], system.chip)
    return {**state, "weight": weight}


def flatten_state(state: State) -> dict[str, np.ndarray]:
    """`group/name` -> NumPy array, as written to `state.safetensors`."""
    return {f"{group}/{name}": np.asarray(array) for group, arrays in state.items() for name, array in arrays.items()}


def restore_state(system: System, flat: dict[str, np.ndarray], source: str) -> State:
    """The state from its flat form; the initial state where the form is empty.

    Raises:
        CimcError: arrays are missing or have the wrong shape, naming `source`.
    """
    state = initial_state(system)
    if not flat:
        return state
    for group, arrays in state.items():
        for name, array in arrays.items():
            stored = flat.get(f"{group}/{name}")
            if stored is None or stored.shape != array.shape:
                raise CimcError(f"the state in {source} does not fit its network (at {group}/{name}); train it again")
            arrays[name] = jax.device_put(stored)
    return state
