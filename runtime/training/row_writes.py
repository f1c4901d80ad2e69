"""Row writes: the word line of every weight, the write port of every line, and what the writes of a step take.

A word line here is a row of one block of a layer in one array: layers that share an array are written one after the
other. Each copy of a layer is written at its own places. A row write has up to two phases, SET and RESET, each as long
as the pulses of its longest device; ports work in parallel, and the lines of a port one after the other.
"""

from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.chip import Chip
from cimc.mapping import Mapping
from cimc.row_cost import RowCost
from runtime.crossbar.figures import figure
from runtime.training.vectors import Packing, pack

PHASES = 2  # SET, RESET
# Sums over steps of each layer: rows and phases (of all copies), pulses of the longest device of each phase, and the
# time of its busiest port.
FIGURES = ("rows", "phases", "pulses", "us")


class Lines(NamedTuple):
    """Word lines, numbered layer by layer.

    line: of every weight, as vectors like the packed weights, int32. layer: of each line. copies: row writes that it
    takes. place_line, place_port: of each copy of each line, which line and at which port, numbered from 0.
    port: of a line's first copy. layers, ports: arrays whose lengths say how many there are.
    """

    line: tuple[Array, ...]
    layer: Array
    copies: Array
    place_line: Array
    place_port: Array
    port: Array
    layers: Array
    ports: Array


# Totals over steps, by name, each [2, ..]: a sum, and what float32 left out of it. `layers` [2, layers, FIGURES],
# `ports` [2, ports] (us busy), `steps` [2, 1] (us of the busiest port of each step).
Totals = dict[str, Array]


def word_lines(mapping: Mapping) -> dict[str, np.ndarray]:
    """The word line of every weight [rows, columns], by layer, numbered through all layers; of the first copies."""
    lines, first = {}, 0
    for layer in mapping.layers:
        lines[layer.name] = np.zeros((layer.rows, layer.columns), np.int32)
        for block in layer.blocks:
            if block.copy == 0:
                rows = np.arange(block.row_stop - block.row_start, dtype=np.int32)
                place = slice(block.row_start, block.row_stop), slice(block.column_start, block.column_stop)
                lines[layer.name][place] = first + rows[:, None]
                first += len(rows)
    return lines


def ports_of(mapping: Mapping, chip: Chip) -> list[int]:
    """The write port of each array, numbered from 0 without gaps."""
    ports = []
    cores = mapping.placement.cores if mapping.placement is not None else None
    for array in range(mapping.arrays):
        number, place = mapping.place_of(array)
        # Without a placement arrays of each kind fill one core after the other.
        of_kind, in_core = mapping.places[array][1] if mapping.kinds else place, chip.of_kind(mapping.kind_of(array))
        core = of_kind // in_core.arrays_per_core if cores is None else cores[array]
        owner = (number, core) if chip.write.ports_of == "core" else (number, 0)
        within = place
        if chip.write.ports_of == "core" and cores is None:
            within = place - of_kind + of_kind % in_core.arrays_per_core
        ports.append((owner, array if chip.write.ports is None else within % chip.write.ports))
    numbers = {port: index for index, port in enumerate(dict.fromkeys(ports))}
    return [numbers[port] for port in ports]


def lines_of(mapping: Mapping, chip: Chip, weights: Packing) -> Lines:
    """The word lines of a mapping; weights: how they are packed."""
    lines = word_lines(mapping)
    port_of = ports_of(mapping, chip)
    layer_of_line, copies, place_line, place_port = [], [], [], []
    for index, layer in enumerate(mapping.layers):
        for block in layer.blocks:
            rows = lines[layer.name][block.row_start : block.row_stop, block.column_start]
            place_line.append(rows)
            place_port.append(np.full(len(rows), port_of[block.array], np.int32))
            if block.copy == 0:
                layer_of_line.append(np.full(len(rows), index, np.int32))
                copies.append(np.full(len(rows), layer.copies, np.int32))
    of_place, port = np.concatenate(place_line), np.concatenate(place_port)
    first = np.unique(of_place, return_index=True)[1]
    return Lines(
        line=pack(weights, {name: jax.device_put(line) for name, line in lines.items()}),
        layer=jax.device_put(np.concatenate(layer_of_line)),
        copies=jax.device_put(np.concatenate(copies)),
        place_line=jax.device_put(of_place),
        place_port=jax.device_put(port),
        port=jax.device_put(port[first]),
        layers=jnp.zeros(len(mapping.layers)),
        ports=jnp.zeros(max(port_of) + 1),
    )


def no_totals(lines: Lines) -> Totals:
    """Totals of no step."""
    return {
        "layers": jnp.zeros((2, len(lines.layers), len(FIGURES))),
        "ports": jnp.zeros((2, len(lines.ports))),
        "steps": jnp.zeros((2, 1)),
    }


def account(cost: RowCost, lines: Lines, longest: Array, totals: Totals) -> Totals:
    """The totals with a step in them.

    Args:
        cost: of row writes.
        lines: of the network.
        longest: pulses of the longest device of each line, SET and RESET, of each pair of a weight, whose lines are
            written one after the other [pairs, 2, lines].
        totals: before.
    """
    layers, ports = len(lines.layers), len(lines.ports)
    phases, pulses = jnp.sum(longest > 0, axis=(0, 1)), jnp.sum(longest, axis=(0, 1))
    rows = jnp.sum(jnp.any(longest > 0, axis=1), axis=0, dtype=jnp.int32)
    counts = jnp.stack([rows, phases, pulses], axis=1).astype(jnp.float32) * lines.copies[:, None]
    by_layer = jax.ops.segment_sum(counts, lines.layer, layers, indices_are_sorted=True)
    cost = replace(cost, **{name: figure(getattr(cost, name)) for name in ("phase_us", "pulse_us", "read_us")})
    time = cost.time_us(*(part.astype(jnp.float32) for part in (rows, phases, pulses)))
    at_port = lines.layer[lines.place_line] * ports + lines.place_port
    busy = jax.ops.segment_sum(time[lines.place_line], at_port, layers * ports).reshape(layers, ports)
    of_ports = jnp.sum(busy, axis=0)
    return {
        "layers": add_up(totals["layers"], jnp.concatenate([by_layer, jnp.max(busy, axis=1, keepdims=True)], axis=1)),
        "ports": add_up(totals["ports"], of_ports),
        "steps": add_up(totals["steps"], jnp.max(of_ports)[None]),
    }


def add_up(total: Array, more: Array) -> Array:
    """A total [2, ..] with more [..] added: float32 alone would stop counting after some ten thousand steps."""
    missing = more + total[1]
    new = total[0] + missing
    return jnp.stack([new, missing - (new - total[0])])


def total(sums: Array) -> np.ndarray:
    """A total [2, ..] as float64 [..]."""
    return np.asarray(sums, np.float64).sum(axis=0)
