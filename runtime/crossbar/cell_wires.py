"""Where the cells of a layer lie on the wires of their arrays, and the conductances that reads see there.

A layer stands by itself: cells of other layers and copies in its arrays are cut off by their transistors; word lines
that are not driven are held at 0 V, whichever rows are read at once. So the conductances that reads see follow from
those that the devices hold: once a programming, not in each read.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.addresses import cell_addresses
from cimc.chip import Chip
from cimc.chip_wires import Wires
from cimc.mapping import Mapping
from runtime.crossbar.ir_drop import effective_conductances
from runtime.crossbar.xla import jit


@dataclass(frozen=True)
class CellWires:
    """The cells of a layer on the wires of its arrays.

    size: arrays, their rows and their columns. places: of each device of each weight [devices, rows, columns] in
    arrays of that size, int32 as bytes, so that equal layers are equal. most_uS: the largest conductance of a cell.
    step_uS: the grid of conductances, on which sums are exact.
    """

    wires: Wires
    size: tuple[int, int, int]
    places: bytes = field(repr=False)
    most_uS: float
    step_uS: float


def cell_wires_of(mapping: Mapping, layer: str, chip: Chip) -> CellWires | None:
    """The cells of a layer's first copy; None where reads see what the devices hold."""
    if not chip.wires.in_conductances:
        return None
    cells = cell_addresses(mapping, layer)
    arrays, array = np.unique(cells.array, return_inverse=True)
    size = (len(arrays), chip.array.rows, chip.array.columns)
    places = np.ravel_multi_index((array.reshape(cells.row.shape), cells.row, cells.column), size)
    most = max(chip.cell.conductance_max_uS, 1e-9)
    return CellWires(chip.wires, size, places.astype(np.int32).tobytes(), most, chip.target_step_uS)


def as_read(cells: CellWires | None, conductance: Array) -> Array:
    """The conductances [devices, rows, columns] in uS that reads see, from those that the devices hold.

    Outside of compiled programs they are kept as long as the devices' own, for each read to come.
    """
    if cells is None:
        return conductance
    if isinstance(conductance, jax.core.Tracer):
        return _see(cells, conductance)
    return _kept(cells, conductance, _seen)


def as_read_each(cells: CellWires | None, conductance: Array) -> Array:
    """`as_read` of several chips: [chips, devices, rows, columns]."""
    return conductance if cells is None else _kept(cells, conductance, _seen_each)


def _kept(cells: CellWires, conductance: Array, seen: Callable[[CellWires, Array], Array]) -> Array:
    """What reads see of an array, found once in its life."""
    key = id(conductance)
    known = _known.get(key)
    if known is None or known[0] != cells:
        forget = weakref.ref(conductance, lambda _: _known.pop(key, None))
        known = _known[key] = (cells, forget, seen(cells, conductance))
    return known[2]


# By the id of an array that still lives.
_known: dict[int, tuple[CellWires, "weakref.ref[Array]", Array]] = {}


def _see(cells: CellWires, conductance: Array) -> Array:
    places = np.frombuffer(cells.places, np.int32)
    held = jnp.zeros(np.prod(cells.size), jnp.float32).at[places].set(conductance.ravel(), unique_indices=True)
    seen = effective_conductances(held.reshape(cells.size), cells.wires, most_uS=cells.most_uS)
    return jnp.round(seen.ravel()[places] / cells.step_uS).reshape(conductance.shape) * cells.step_uS


_seen = jit(_see, static_argnums=0)


@partial(jit, static_argnums=0)
def _seen_each(cells: CellWires, conductance: Array) -> Array:
    return jax.vmap(partial(_see, cells))(conductance)
