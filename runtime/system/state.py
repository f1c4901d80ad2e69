"""The state of a network on arrays: what training changes, as named groups of arrays, and its flat form on disk."""

import math
from collections.abc import Callable
from collections.abc import Mapping as Dictionary
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.chip import Chip
from cimc.errors import CimcError
from cimc.layer_settings import chip_of_layer
from cimc.mapping import Mapping
from cimc.options import Backward
from cimc.planes import planes_of
from cimc.programming_counts import tile_groups
from cimc.units import reference_target
from runtime.crossbar.cell_wires import cell_wires_of
from runtime.crossbar.crossbar import Crossbar
from runtime.devices.device import device_of
from runtime.devices.targets import device_targets, weight_of
from runtime.network.network import Network, Node, with_bodies

# Group -> name -> array, by who holds it.
# The chip, by crossbar layer:
#   conductance   of the devices of each weight [devices, rows, columns], uS; of a pair G+ and G-
#   reference     of the reference columns of its arrays [rows, groups x column blocks], uS, once they are written; of a
#                 layer without, they hold what they are to hold
#   step_up, ...  traits of its devices (`runtime.devices.traits`), of those that have any once they are written
# The digital side:
#   weight        digital copy of the weights [rows, columns], in the network's own unit
#   weight_range  the weight of a fully programmed pair, scalar or [columns]
#   input_range   the input of the DAC's largest code, scalar; 0 until calibrated
#   input_factor  of the layers that have them: what divides the inputs and multiplies the weights, [channels]
#   gain, bias    of the layers whose scale and bias on the chip are not the network's own (they correct what the chip
#                 makes of it): in place of those, scalar or [columns], and [columns]
#   digital       trainable parameters by initializer, and `<layer>.gain`, scalar or [columns]
#   statistics    by initializer
# A training run adds (`runtime.training.train.start`):
#   seen          of devices whose blind writes are noisy: what conductance has beside what the device holds, uS
#   the memory of its update policy, like the weights (accumulator)
#   updates       times a device of a weight was written [rows, columns]; writes, trials: [devices, rows, columns]
#   schedule      what the row writes took (`runtime.training.writes.Scheduled`)
State = dict[str, dict[str, Array]]


@dataclass(frozen=True, eq=False)
class System:
    """All that is fixed while a network trains or runs.

    chip: without the settings of single layers, which `chip_of` has. crossbars: each layer on its arrays. bias_names:
    the bias initializer of each layer that has one. mapping: where all of it lies.
    """

    network: Network
    chip: Chip
    crossbars: dict[str, Crossbar]
    bias_names: dict[str, str]
    mapping: Mapping

    def chip_of(self, layer: str) -> Chip:
        """The chip as a layer is read on it."""
        return self.crossbars[layer].chip


LAYER_GROUPS = (  # of the state, by layer
    *("weight", "conductance", "reference_column"),
    *("weight_range", "input_range", "input_factor", "gain", "bias"),
)
REFERENCES = 1 << 20  # key of the writes of reference columns, beside those of the layers


def build_system(network: Network, mapping: Mapping, chip: Chip, backward: Backward = Backward.digital) -> System:
    """Join a network with its mapping; of several copies the runtime computes one.

    Raises:
        CimcError: the chip, or a mapping in segments, is not simulated.
    """
    if chip.not_simulated is not None:
        raise CimcError(
            f"{chip.name} is not simulated ({chip.not_simulated}); compile and inspect take it, "
            f"train, eval, export and deploy need fewer"
        )
    chips = {layer.name: chip_of_layer(chip, layer.settings) for layer in mapping.layers}
    if backward is Backward.analog and not all(map(_has_plain_pairs, chips.values())):
        raise CimcError(
            f"gradients by transposed reads need pairs of devices in columns whose currents are converted once, and "
            f"{chip.name} has others; use --backward digital"
        )
    if mapping.segments:
        raise CimcError(
            f"the network runs on {chip.name} in {len(mapping.segments)} segments, which is not simulated; "
            f"compile it with more --arrays, or without --objective"
        )
    crossbars = {}
    for layer in mapping.layers:
        of_layer = chips[layer.name]
        if of_layer.not_simulated is not None:
            raise CimcError(f"layer {layer.name} on {chip.name} is not simulated ({of_layer.not_simulated})")
        crossbars[layer.name] = Crossbar(
            chip=of_layer,
            read_rows=layer.read_rows,
            column_block=layer.column_block,
            signed=layer.signed_input,
            groups=layer.groups,
            groups_at_once=layer.groups_per_read or 1,
            window=network.windows[layer.name],
            backward=backward,
            wires=cell_wires_of(mapping, layer.name, of_layer),
        )
    biases = {node.name: node.inputs[2] for node in network.layers() if len(node.inputs) > 2}
    return System(network, chip, crossbars, biases, mapping)


def _has_plain_pairs(chip: Chip) -> bool:
    """Whether weights are pairs of devices in columns whose currents are converted once."""
    scheme = chip.scheme
    return scheme.has_pair and not scheme.in_rows and chip.adc.sense == "current" and not planes_of(chip, True).widths


# The weight of a fully programmed pair, for weights [rows, columns] on a chip: scalar or [columns].
RangeRule = Callable[[np.ndarray, Chip], np.ndarray | np.float32]


def largest_weight(weight: np.ndarray, chip: Chip) -> np.float32:
    """The largest magnitude; 1 where all are 0."""
    return np.float32(float(np.max(np.abs(weight))) or 1.0)


def initial_state(system: System, *, weight_range: RangeRule | None = largest_weight) -> State:
    """The state of a compiled network: its ONNX weights as digital copy and as exact target conductances.

    Args:
        system: network and chip.
        weight_range: the rule for each layer's; None: no conductances and ranges yet, a program brings them
            (`runtime.system.program.with_program`).

    Raises:
        CimcError: weights are not finite.
    """
    network = system.network
    state: State = {group: {} for group in LAYER_GROUPS}
    state["digital"] = {name: jax.device_put(network.initializers[name]) for name in network.trainable}
    state["statistics"] = {name: jax.device_put(network.initializers[name]) for name in network.statistics}
    for node in network.layers():
        # NumPy, and device_put: JAX would compile each of these operations, `asarray` too, for each shape.
        weight = np.asarray(network.initializers[node.inputs[1]], np.float32)
        if not np.isfinite(np.max(np.abs(weight))):
            raise CimcError(f"the weights of {node.name} hold NaN or infinity; export the model again")
        state["weight"][node.name] = jax.device_put(weight)
        if weight_range is not None:
            chip = system.chip_of(node.name)
            chosen = weight_range(weight, chip)
            state["conductance"][node.name] = jax.device_put(device_targets(weight, chosen, chip))
            state["weight_range"][node.name] = jax.device_put(chosen)
        state["input_range"][node.name] = jax.device_put(np.float32(0.0))
        state["digital"][gain_name(node.name)] = jax.device_put(np.float32(1.0))
    return state


def gain_name(layer: str) -> str:
    """Name of a layer's trainable scale among the digital parameters."""
    return f"{layer}.gain"


def gain_of(state: State, layer: str) -> Array:
    """The digital scale of a layer on the chip, scalar or [columns]."""
    found = state["gain"].get(layer)
    return state["digital"][gain_name(layer)] if found is None else found


def bias_of(system: System, state: State, layer: str) -> Array | None:
    """The digital bias of a layer on the chip [columns], or None."""
    name = system.bias_names.get(layer)
    return state["bias"].get(layer, None if name is None else state["digital"][name])


def draw_chip(system: System, conductance: Dictionary[str, Array], key: Array) -> State:
    """The traits of a chip's devices, as groups of the state; {} where devices have none."""
    device = device_of(system.chip.cell)
    drawn = {
        name: device.traits(jax.random.fold_in(key, index), pairs.shape)
        for index, (name, pairs) in enumerate(conductance.items())
    }
    return {trait: {name: traits[trait] for name, traits in drawn.items()} for trait in device.trait_names}


def traits_of(system: System, state: State, layer: str) -> dict[str, Array]:
    """The traits of a layer's devices that the state holds."""
    names = device_of(system.chip.cell).trait_names
    return {trait: state[trait][layer] for trait in names if layer in state.get(trait, {})}


def reference_targets(system: System) -> dict[str, Array]:
    """What the reference columns of each layer are to hold [rows, groups x column blocks], uS; {} without any."""
    layers = system.mapping.layers if system.chip.scheme.reference is not None else ()
    return {
        layer.name: jnp.full((layer.rows, len(layer.reference_starts)), reference_target(system.chip_of(layer.name)))
        for layer in layers
    }


def program(
    system: System,
    state: State,
    key: Array,
    count: Callable[[str, Array], Array] = lambda name, trials: trials_of_columns(trials),
) -> tuple[State, dict[str, Array]]:
    """Write every device to the target of the digital copy, with the chip's programming error; reference columns too.

    Returns:
        The new state, and by layer the trials that this took, for one copy of each: `count` of the layer's name and
        the trials of its devices [devices, rows, columns], those of its reference columns with its first column.
    """
    conductance, reference, trials, seen = {}, {}, {}, {}
    device = device_of(system.chip.cell)
    for index, (name, weight) in enumerate(state["weight"].items()):
        # Step after step: what is only queued holds its memory already.
        targets = jax.block_until_ready(device_targets(weight, state["weight_range"][name], system.chip_of(name)))
        traits = traits_of(system, state, name)
        written = device.write(targets, jax.random.fold_in(key, index), traits)
        conductance[name], trials[name] = jax.block_until_ready((written.conductance, count(name, written.trials)))
        if written.seen is not None:
            seen[name] = written.seen
        del targets, written
    for index, (name, targets) in enumerate(reference_targets(system).items()):
        traits_key, write_key = jax.random.split(jax.random.fold_in(key, REFERENCES + index))
        written = device.write(targets, write_key, device.traits(traits_key, targets.shape))
        reference[name] = written.conductance
        trials[name] = trials[name].at[0].add(jnp.sum(written.trials, dtype=jnp.int32))
    held = {"conductance": conductance, "reference_column": reference, **({"seen": seen} if seen else {})}
    return {**state, **held}, trials


def trials_of_columns(trials: Array) -> Array:
    """The sum of [devices, rows, columns] in each column: that of a large layer is beyond 32 bits."""
    return jnp.sum(trials, axis=(0, 1), dtype=jnp.int32)


def read_back(system: System, state: State, key: Array, reads: int = 1) -> State:
    """Read every device that many times into the digital copy, with read noise. Returns a new state."""
    weight = {}
    for index, (name, conductance) in enumerate(state["conductance"].items()):
        pair = device_of(system.chip.cell).read(conductance, jax.random.fold_in(key, index), reads)
        weight[name] = weight_of(pair, state["weight_range"][name], system.chip)
    return {**state, "weight": weight}


def leave_layers_digital(before: Network, state: State, network: Network) -> State:
    """The state of a network in which some crossbar layers of another are digital: with its weights as they are there.

    Args:
        before: the other network.
        state: its state.
        network: the same, but for the layers that are digital.
    """
    left = state["weight"].keys() - {node.layer for node in network.layers()}
    gone = left | {gain_name(layer) for layer in left}
    new = {group: {name: a for name, a in arrays.items() if name not in gone} for group, arrays in state.items()}
    for node in before.layers():
        if node.layer in left:
            name, gain = node.inputs[1], np.asarray(state["digital"][gain_name(node.layer)])
            weight = np.asarray(state["weight"][node.layer]) * gain
            convolution, shape = before.windows[node.layer] is not None, network.initializers[name].shape
            copies = weight.size // math.prod(shape)
            if copies > 1:
                weight = _joined_rows(before, node, weight, copies * shape[1 if convolution else 0])
            kernel = weight.T if convolution else weight
            new["digital"][name] = jax.device_put(kernel.reshape(shape))
    return new


def _joined_rows(network: Network, node: Node, weight: np.ndarray, channels: int) -> np.ndarray:
    """A weight [rows, columns] with the rows that are held several times once: their copies add up.

    Args:
        network: in which a Gather repeats the channels of the layer's input, group by group.
        node: of the layer.
        weight: of the layer.
        channels: of a group, as repeated.
    """
    (gather,) = (one for one in with_bodies(network.nodes) if node.inputs[0] in one.outputs)
    order = network.initializers[gather.inputs[1]][:channels]
    by_channel = weight.reshape(channels, -1, weight.shape[1])
    once = np.zeros((np.max(order) + 1, *by_channel.shape[1:]), np.float32)
    np.add.at(once, order, by_channel)
    return once.reshape(-1, weight.shape[1])


def flatten_state(state: State) -> dict[str, np.ndarray]:
    """`group/name` -> NumPy array, as written to `state.safetensors`."""
    return {f"{group}/{name}": np.asarray(array) for group, arrays in state.items() for name, array in arrays.items()}


def restore_state(system: System, flat: Dictionary[str, np.ndarray], source: str) -> State:
    """The state of a network that was trained, from its flat form: what the chip and the digital side hold.

    The endurance of devices is what the run has left of it.

    Raises:
        CimcError: arrays are missing or have the wrong shape, naming `source`.
    """
    state: State = {}
    by_group = _shapes(system)
    for group, shapes in by_group.items():
        state[group] = {}
        for name, shape in shapes.items():
            stored = flat.get(f"{group}/{name}")
            allowed = [shape, by_group["weight"][name][1:]] if group == "weight_range" else [shape]
            if stored is None or stored.shape not in allowed:
                raise CimcError(f"the state in {source} does not fit its network (at {group}/{name}); train it again")
            state[group][name] = jax.device_put(stored)
    columns = reference_targets(system)  # not in files of earlier versions
    written = {name: flat[f"reference_column/{name}"] for name in columns if f"reference_column/{name}" in flat}
    for name, array in written.items():
        if array.shape != columns[name].shape:
            raise CimcError(
                f"the state in {source} does not fit its network (at reference_column/{name}); train it again"
            )
    state["reference_column"] = {name: jax.device_put(array) for name, array in written.items()}
    for trait in device_of(system.chip.cell).trait_names:  # of devices that were written; a float run writes none
        held = {name: flat[f"{trait}/{name}"] for name in state["weight"] if f"{trait}/{name}" in flat}
        state[trait] = {name: jax.device_put(array) for name, array in held.items()}
    if "endurance" in state:  # a run counts trials from its beginning: those of the run before are no longer left
        state["endurance"] = {
            name: endurance - jnp.float32(flat.get(f"trials/{name}", 0))
            for name, endurance in state["endurance"].items()
        }
    if not tile_groups(flat):  # with further devices the conductances are those of no single pair
        seen = {name: flat[f"seen/{name}"] for name in state["weight"] if f"seen/{name}" in flat}
        state |= {"seen": jax.device_put(seen)} if seen else {}
    return state


def _shapes(system: System) -> dict[str, dict[str, tuple[int, ...]]]:
    """The shapes of the groups that `initial_state` makes."""
    network = system.network
    weights = {node.name: network.initializers[node.inputs[1]].shape for node in network.layers()}
    scalars: dict[str, tuple[int, ...]] = dict.fromkeys(weights, ())
    digital = {name: network.initializers[name].shape for name in network.trainable}
    return {
        "weight": weights,
        "conductance": {name: (system.chip.scheme.devices, *shape) for name, shape in weights.items()},
        "weight_range": scalars,
        "input_range": scalars,
        "input_factor": {},
        "gain": {},
        "bias": {},
        "digital": {**digital, **{gain_name(name): () for name in weights}},
        "statistics": {name: network.initializers[name].shape for name in network.statistics},
    }
