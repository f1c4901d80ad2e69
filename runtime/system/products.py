"""The ways to compute a crossbar layer: on the arrays, or exactly from the digital weights."""

import jax.numpy as jnp
from jax import Array

from runtime.crossbar.cell_wires import as_read
from runtime.crossbar.groups import by_group, split_groups
from runtime.crossbar.layer import layer_output
from runtime.crossbar.unfold import fold_output, unfold
from runtime.network.scan import Product
from runtime.system.state import State, System, bias_of, gain_name, gain_of


def state_as_read(system: System, state: State) -> State:
    """The state with the conductances that reads see through the wires of the arrays."""
    if not system.chip.wires.in_conductances:
        return state
    seen = {name: as_read(system.crossbars[name].wires, held) for name, held in state["conductance"].items()}
    return {**state, "conductance": seen}


def array_product(system: System, state: State) -> Product:
    """Layers on the arrays, with all that `runtime.crossbar.product` models; noise when a key is given."""
    state = state_as_read(system, state)

    def product(name: str, x: Array, key: Array | None) -> Array:
        return layer_on_arrays(system, state, name, x, state["input_range"][name], key)

    return product


def exact_product(system: System, state: State) -> Product:
    """Layers as float32 products with the digital copy of the weights: no converters, no noise, no devices."""

    def product(name: str, x: Array, key: Array | None) -> Array:
        return exact_layer(system, state, name, x, state["weight"][name])

    return product


def exact_layer(system: System, state: State, name: str, x: Array, weight: Array) -> Array:
    """A layer as a float32 product with these weights [rows, columns], times its gain, with its bias."""
    crossbar = system.crossbars[name]
    gain = state["digital"][gain_name(name)]
    y = grouped_product(weight, unfold(x, crossbar.window), crossbar.groups) * (gain[:, None] if gain.ndim else gain)
    bias = system.bias_names.get(name)
    y = y if bias is None else y + state["digital"][bias][:, None]
    return fold_output(y, x.shape, crossbar.window)


def layer_on_arrays(system: System, state: State, name: str, x: Array, input_range: Array, key: Array | None) -> Array:
    """A layer on its arrays with this input range, of `state_as_read`; key None: no noise."""
    crossbar = system.crossbars[name]
    y = layer_output(
        crossbar,
        x,
        state["weight"][name],
        gain_of(state, name),
        bias_of(system, state, name),
        state["conductance"][name],
        state["weight_range"][name],
        input_range,
        key,
        state["reference_column"].get(name),
    )
    return fold_output(y, x.shape, crossbar.window)


def grouped_product(weight: Array, vectors: Array, groups: int) -> Array:
    """W^T x of each group: weight [rows, columns], vectors [groups * rows, MVMs] -> [columns, MVMs]."""
    if groups == 1:
        return weight.T @ vectors
    y = jnp.einsum("grc,grm->gcm", by_group(weight, groups), split_groups(vectors, groups))
    return y.reshape(-1, y.shape[-1])
