"""A layer on any number of inputs in bounded memory: in pieces, all of one size and so of one compiled program.

A piece is some samples, or a strip of one sample where its patches alone are too large: rows of a convolution's output,
or some of the vectors of a product. What a piece takes is set by the layer alone, so that neither the number of samples
at once nor the memory at hand changes a bit of the result: the noise of a sample is drawn from its own key.
"""

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from cimc.window import Window, output_sizes
from runtime.crossbar.cell_wires import as_read
from runtime.crossbar.crossbar import Crossbar, Reading
from runtime.crossbar.exact import decided
from runtime.crossbar.keys import derive
from runtime.crossbar.product import apply_inputs, read_vectors, scale_sums
from runtime.crossbar.unfold import fold_output
from runtime.crossbar.xla import jit

Floats = NDArray[np.float32]

# Of the inputs and currents of a piece: what stays near the processor. Larger pieces were slower, ResNet's first layers
# by a factor of two; smaller ones lose to the calls. Where the conductances take more, twice those: each piece reads
# them all.
PIECE_BYTES = 1 << 23
PIECES_AT_ONCE = 3  # while one is waited for, others run: not all of a piece uses all processors


class Held(NamedTuple):
    """What chip and digital side hold of a layer: conductances [devices, rows, columns] in uS, the weight of a fully
    programmed pair, the input of the DAC's largest code, the digital gain, the bias [columns] or None, and the factors
    of the inputs [channels] or None; as in `cimc.program.LayerProgram`. Last the conductances of its reference columns
    [rows, groups x column blocks], None: as they are to be.
    """

    conductance: Array
    weight_range: Array
    input_range: Array
    gain: Array
    bias: Array | None
    input_factor: Array | None = None
    reference_column: Array | None = None


@dataclass(frozen=True)
class Cut:
    """How the inputs of a layer are cut: pieces of `samples` samples, or each sample into `strips` of `height`.

    A strip is `height` rows of a convolution's output (the first spatial axis), or so many vectors of a product.
    """

    samples: int
    strips: int
    height: int


def read_in_pieces(
    layer: Crossbar, x: Floats, held: Held, key: Array | None, *, number: int = 0, first: int = 0
) -> Floats:
    """The output of a layer on its arrays, piece by piece.

    Args:
        layer: static description.
        x: [samples, C, *spatial], or of a product [samples, vectors, rows].
        held: what the chip and the digital side hold.
        key: for noise; None: none.
        number: of this use of the layer, which has its own noise.
        first: the number of the first sample: each sample has its own noise, whatever others come with it.

    Returns:
        [samples, columns, *spatial], or [samples, vectors, columns].
    """
    y = np.empty((len(x), *output_shape(layer, x, held.conductance.shape[-1])), np.float32)
    if not y.size:
        return y
    reading, seen = decided(layer.reading, as_read(layer.wires, held.conductance), held.reference_column)
    held = held._replace(conductance=seen, input_factor=_factors(reading, x, held.input_factor))
    axis, cut = 1 if layer.window is None else 2, _cut(reading, x, seen)
    piece, taken = _strips(reading, x, cut) if cut.strips > 1 else _samples(reading, x, cut)
    running: deque[tuple[Floats, Array]] = deque()
    for start, strip in product(range(0, len(x), cut.samples), range(cut.strips)):
        inputs = taken(start, strip)
        padded = _pad(inputs, cut.samples)
        found = _read_piece(piece, padded, held, key, np.int32(number), np.int32(first + start), np.int32(strip))
        place = [slice(start, start + len(inputs)), *[slice(None)] * (y.ndim - 1)]
        place[axis] = slice(strip * cut.height, (strip + 1) * cut.height)
        running.append((y[tuple(place)], found))
        if len(running) == PIECES_AT_ONCE:
            _take(*running.popleft())
    for target, found in running:
        _take(target, found)
    return y


def _take(target: Floats, found: Array) -> None:
    """Wait for a piece and put what counts of it into the output."""
    target[...] = np.asarray(found)[tuple(slice(size) for size in target.shape)]


def samples_of_piece(layer: Crossbar, x: Floats, held: Held) -> int:
    """How many samples of these inputs one piece takes; arguments as `read_in_pieces`."""
    seen = as_read(layer.wires, held.conductance)
    reading, stored = decided(layer.reading, seen, held.reference_column)
    return _cut(reading, x, stored).samples


def _factors(reading: Reading, x: Floats, factors: Array | None) -> Array | None:
    """The factors of the inputs; where there are none ones, so that a layer with and without is one program."""
    if factors is not None or not reading.converts_inputs:
        return factors
    return jax.device_put(np.ones(x.shape[-1 if reading.window is None else 1], np.float32))


def _cut(reading: Reading, x: Floats, seen: Array) -> Cut:
    limit = max(PIECE_BYTES, 2 * 4 * seen.size)
    return cut_layer(limit // bytes_of_mvm(reading, *seen.shape), _sizes(reading, x), len(x))


def output_shape(layer: Crossbar | Reading, x: Floats, columns: int) -> tuple[int, ...]:
    """Sizes of the output of a sample of inputs [samples, ...]: columns first, or the number of vectors."""
    sizes = _sizes(layer, x)
    return (*sizes, columns) if layer.window is None else (columns, *sizes)


def _sizes(layer: Crossbar | Reading, x: Floats) -> tuple[int, ...]:
    """Sizes of the output of a sample: rows first, or the number of vectors."""
    return x.shape[1:2] if layer.window is None else output_sizes(x.shape[2:], layer.window)


def cut_layer(most: int, sizes: Sequence[int], samples: int) -> Cut:
    """The cut of a layer into pieces of at most so many MVMs, for so many samples.

    Pieces of samples are powers of two, so that few sizes are compiled and few pieces are filled up.

    Args:
        most: MVMs of a piece.
        sizes: of the output of a sample: rows first, or the number of vectors.
        samples: in all.
    """
    most, positions = max(most, 1), max(math.prod(sizes), 1)
    if positions <= most:
        return Cut(min(1 << (most // positions).bit_length() - 1, 1 << (samples - 1).bit_length()), 1, sizes[0])
    height = max(most * sizes[0] // positions, 1)
    strips = -(-sizes[0] // height)
    return Cut(1, strips, -(-sizes[0] // strips))


def bytes_of_mvm(reading: Reading, devices: int, rows: int, columns: int) -> int:
    """Bytes of the inputs and the currents of one MVM in all planes, of conductances [devices, rows, columns]."""
    planes = len(reading.planes.weights)
    return 4 * planes * (rows * reading.groups + -(-rows // reading.read_rows) * devices * columns)


# How a piece is read, and what takes the inputs of strip `strip` of the samples from number `start` on.
_Pieces = tuple[Reading, Callable[[int, int], Floats]]


def _samples(reading: Reading, x: Floats, cut: Cut) -> _Pieces:
    """Pieces of whole samples."""
    return reading, lambda start, strip: x[start : start + cut.samples]


def _strips(reading: Reading, x: Floats, cut: Cut) -> _Pieces:
    """Pieces of one sample each; zeros stand beyond its end, and around the image of a convolution."""
    window, height = reading.window, cut.height
    if window is None:
        padded = np.pad(x, [(0, 0), (0, cut.strips * height - x.shape[1]), (0, 0)])
        return reading, lambda start, strip: padded[start : start + 1, strip * height : (strip + 1) * height]
    axes, stride = len(window.kernel), window.strides[0]
    reach = window.dilations[0] * (window.kernel[0] - 1) + 1
    span = (height - 1) * stride + reach
    pads = tuple(0 if place % axes == 0 else pad for place, pad in enumerate(window.pads))
    before = window.pads[0]

    def taken(start: int, strip: int) -> Floats:
        image = np.zeros((1, x.shape[1], span, *x.shape[3:]), np.float32)
        top = strip * height * stride - before
        inside = x[start : start + 1, :, max(top, 0) : max(top + span, 0)]
        image[:, :, max(-top, 0) :][:, :, : inside.shape[2]] = inside
        return image

    return replace(reading, window=replace(window, pads=pads)), taken


def _pad(inputs: Floats, samples: int) -> Floats:
    """The inputs and zeros up to so many samples, so that the last piece needs no program of its own."""
    missing = samples - len(inputs)
    return np.concatenate([inputs, np.zeros((missing, *inputs.shape[1:]), np.float32)]) if missing else inputs


def keys_of_samples(key: Array, number: Array | int, first: Array | int, samples: int) -> Array:
    """The key of each of so many samples, from number `first` on, for use `number` of a layer."""
    use = jax.random.fold_in(key, number)
    return jax.vmap(lambda sample: jax.random.fold_in(use, sample))(first + jnp.arange(samples, dtype=jnp.int32))


def read_piece(
    reading: Reading, x: Array, held: Held, key: Array | None, number: Array, first: Array, strip: Array
) -> Array:
    """A piece of samples from number `first` on, whose images come second here: patches copy whole rows of an image."""
    if key is not None:
        key = derive(keys_of_samples(key, number, first, len(x)), strip)
    if reading.window is None:
        inputs = x.reshape(-1, x.shape[-1]).T
    else:
        reading = replace(reading, window=_over_images(reading.window))
        inputs = jnp.moveaxis(x, 0, 1)[..., None]
    _, vectors = apply_inputs(reading, inputs, held.input_range, held.input_factor)
    d = read_vectors(reading, vectors, held.conductance, key, held.reference_column)
    y = scale_sums(reading, d, held.gain, held.bias, held.weight_range, held.input_range)
    if reading.window is None:
        return y.T.reshape(*x.shape[:-1], -1)
    return jnp.moveaxis(fold_output(y, inputs.shape, reading.window)[..., 0], 0, 1)


_read_piece = jit(read_piece)


def _over_images(window: Window) -> Window:
    """The window with the images as a first spatial axis, of which it takes one at a time."""
    axes = len(window.kernel)
    return Window(
        (1, *window.kernel),
        (1, *window.strides),
        (0, *window.pads[:axes], 0, *window.pads[axes:]),
        (1, *window.dilations),
    )
