"""A layer read on several chips at once: one compiled program, in which what all chips share is computed once.

The noise of a sample on a chip is that of the chip read alone (`runtime.crossbar.pieces`). The first layer of a network
gets the same inputs on every chip: they are converted and unfolded once, and the chips' columns are one product.
"""

from collections import deque
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from runtime.crossbar.cell_wires import as_read_each
from runtime.crossbar.crossbar import Crossbar, Reading
from runtime.crossbar.exact import decided
from runtime.crossbar.pieces import (
    PIECE_BYTES,
    PIECES_AT_ONCE,
    Floats,
    Held,
    bytes_of_mvm,
    cut_layer,
    output_shape,
    read_in_pieces,
    read_piece,
)
from runtime.crossbar.xla import jit


class HeldByChips(NamedTuple):
    """What several chips hold of a layer. own: the fields of `held` that are each chip's own: [chips, ...]."""

    held: Held
    own: frozenset[str]

    def of(self, chip: int) -> Held:
        """What one of them holds."""
        return self.held._replace(**{name: getattr(self.held, name)[chip] for name in self.own})

    def as_read(self, layer: Crossbar) -> "HeldByChips":
        """With the conductances that reads see through the wires of the arrays."""
        seen = as_read_each(layer.wires, self.held.conductance)
        return HeldByChips(self.held._replace(conductance=seen), self.own)


def read_on_chips(
    layer: Crossbar, x: Floats, held: HeldByChips, keys: Array, *, number: int = 0, first: int = 0
) -> Floats:
    """The output of a layer on its arrays on every chip, piece by piece.

    Args:
        layer: static description.
        x: [chips, samples, C, *spatial], or of a product [chips, samples, vectors, rows]; [1, ...]: the same on all.
        held: what the chips and their digital sides hold.
        keys: for noise [chips].
        number, first: as of `read_in_pieces`.

    Returns:
        [chips, samples, columns, *spatial], or [chips, samples, vectors, columns].
    """
    chips, samples, seen = len(keys), x.shape[1], held.as_read(layer).held
    reading, stands = decided(layer.reading, seen.conductance, seen.reference_column)
    mvm = chips * bytes_of_mvm(reading, *stands.shape[1:])
    sizes = output_shape(layer, x[0], stands.shape[-1])
    limit = max(PIECE_BYTES, 2 * 4 * stands.size)
    cut = cut_layer(limit // mvm, sizes[1:] if layer.window is not None else sizes[:1], samples)
    if cut.strips > 1 or not samples:
        alone = [
            read_in_pieces(layer, x[chip % len(x)], held.of(chip), keys[chip], number=number, first=first)
            for chip in range(chips)
        ]
        return np.stack(alone)
    seen = seen._replace(conductance=stands)
    y = np.empty((chips, samples, *sizes), np.float32)
    running: deque[tuple[Floats, Array]] = deque()
    for start in range(0, samples, cut.samples):
        part = x[:, start : start + cut.samples]
        target = y[:, start : start + cut.samples]
        if missing := cut.samples - part.shape[1]:
            part = np.pad(part, [(0, 0), (0, missing), *[(0, 0)] * (part.ndim - 2)])
        made = _read(len(x) == 1, held.own, reading, part, seen, keys, np.int32(number), np.int32(first + start))
        if cut.samples >= samples:
            return np.asarray(made)[:, :samples]
        running.append((target, made))
        if len(running) == PIECES_AT_ONCE:
            _take(*running.popleft())
    for target, made in running:
        _take(target, made)
    return y


def _take(target: Floats, made: Array) -> None:
    """Wait for a piece and put what counts of it into the output."""
    target[...] = np.asarray(made)[:, : target.shape[1]]


@partial(jit, static_argnums=(0, 1))
def _read(
    shared: bool,
    own: frozenset[str],
    reading: Reading,
    x: Array,
    held: Held,
    keys: Array,
    number: Array,
    first: Array,
) -> Array:
    """A piece of samples from number `first` on: [chips, samples, ...]; shared: x is [1, ...]."""

    def one(x: Array, of_chip: dict[str, Array], key: Array) -> Array:
        return read_piece(reading, x, held._replace(**of_chip), key, number, first, jnp.int32(0))

    of_chips = {name: getattr(held, name) for name in sorted(own)}
    return jax.vmap(one, in_axes=(None if shared else 0, 0, 0))(x[0] if shared else x, of_chips, keys)
