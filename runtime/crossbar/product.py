"""The crossbar product and the order in which non-idealities apply. For one array, inputs u and conductances G:

    u        = round(x / range (2^bits - 1)), clipped            DAC; a negative part is applied in a second phase
    level[c] = V / (2^bits LSB) sum_r u[r] (G[r, c] + noise)     analog; G holds programming errors; noise: read noise
    D[c]     = clip(round(level[c] + ADC noise), 0, 2^bits - 1)  one conversion for each column, phase and MVM
    d        = sum over row blocks (D[+] - D[-])                 differential pair and partial sums, digital
    y        = (d + bias / s) s                                  s: weight and input scales times the layer's gain

Read noise is Gaussian for each cell and MVM; its sum over a column is drawn at once with the exact variance
sum_r u[r]^2 sigma^2. All arrays of a layer are one batched product. Not modelled: IR drop, device-to-device read noise,
settling, drift.
"""

from dataclasses import dataclass
from functools import partial, reduce
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.units import count_scale, dac_step, levels_per_product
from cimc.window import Window
from runtime.crossbar.converters import adc, dac
from runtime.crossbar.noise import normal
from runtime.crossbar.unfold import unfold


@dataclass(frozen=True)
class Crossbar:
    """Static description of a layer on arrays.

    row_block: rows of a full row block (the last one may be shorter). column_block: weight columns of a full array.
    signed: inputs may be negative. backward: how the input gradient is computed. groups: of a grouped convolution, each
    with its own inputs and arrays; rows count those of one group.
    """

    chip: Chip
    row_block: int
    column_block: int
    signed: bool
    window: Window | None = None
    backward: Literal["digital", "analog"] = "digital"
    groups: int = 1


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def layer_output(
    layer: Crossbar,
    x: Array,
    weight: Array,
    gain: Array,
    bias: Array | None,
    conductance: Array,
    weight_range: Array,
    input_range: Array,
    key: Array | None,
) -> Array:
    """The layer's output y for every MVM, differentiable in x, weight, gain and bias.

    The forward pass reads the arrays. The backward pass is straight-through: y stands for gain x W + bias, the weight
    gradient is the outer product of the applied inputs, and the input gradient uses the digital copy of the weights
    (`digital`) or a transposed read of the arrays (`analog`).

    Args:
        layer: static description.
        x: [C, *spatial, N] or [rows, ...].
        weight: digital copy of the weights [rows, columns]; used backward only.
        gain: scalar, the layer's digital gain.
        bias: [columns] or None.
        conductance: [2, rows, columns] in uS: G+ and G-.
        weight_range: scalar, the weight of a fully programmed pair.
        input_range: scalar, the input of the DAC's largest code.
        key: for read and ADC noise; None: no noise.

    Returns:
        [columns, MVMs].
    """
    return _forward(layer, x, weight, gain, bias, conductance, weight_range, input_range, key)[0]


def _forward(
    layer: Crossbar,
    x: Array,
    weight: Array,
    gain: Array,
    bias: Array | None,
    conductance: Array,
    weight_range: Array,
    input_range: Array,
    key: Array | None,
) -> tuple[Array, tuple[Any, ...]]:
    u, vectors = _applied(layer, x, input_range)
    d = _sums(layer, vectors, conductance, key)
    # The barriers keep XLA from merging these products with those of the activations, which would round otherwise.
    scale = jax.lax.optimization_barrier(count_scale(weight_range, input_range, layer.chip) * gain)
    shifted = d if bias is None else d + jax.lax.optimization_barrier(bias / scale)[:, None]
    y = jax.lax.optimization_barrier(shifted * scale)
    return y, (u, vectors, y, weight, gain, bias, conductance, weight_range, input_range, key)


def counts(layer: Crossbar, x: Array, conductance: Array, input_range: Array, key: Array | None) -> Array:
    """The layer's digital sums d [columns, MVMs], integers for a chip with an ADC; arguments as `layer_output`."""
    return _sums(layer, _applied(layer, x, input_range)[1], conductance, key)


def clipped_conversions(layer: Crossbar, x: Array, conductance: Array, input_range: Array, key: Array | None) -> Array:
    """Share of the layer's conversions that end at the ADC's largest code; 0 for an ideal ADC. As `layer_output`."""
    if layer.chip.adc.bits is None:
        return jnp.float32(0)
    _, vectors = _applied(layer, x, input_range)
    if layer.signed:
        vectors = jnp.concatenate([jnp.maximum(vectors, 0), jnp.maximum(-vectors, 0)], axis=1)
    top = float(2**layer.chip.adc.bits - 1)

    def at_top(u: Array, g: Array, group_key: Array | None) -> Array:
        codes = _codes(layer.chip, u, g, layer.row_block, group_key)
        ends = [jnp.sum(code >= top, dtype=jnp.float32) for code in codes]
        return reduce(jnp.add, ends) / sum(code.size for code in codes)

    if layer.groups == 1:
        return at_top(vectors, conductance, key)
    return jnp.mean(
        _for_groups(at_top, (split_groups(vectors, layer.groups), by_group(conductance, layer.groups)), key)
    )


def _applied(layer: Crossbar, x: Array, input_range: Array) -> tuple[Array, Array]:
    """DAC integers of the inputs, as the inputs lie and as vectors [rows, MVMs]."""
    # Without the barrier XLA converts each input again for every patch that holds it.
    u = jax.lax.optimization_barrier(dac(x, input_range, layer.chip))
    return u, jax.lax.optimization_barrier(unfold(u, layer.window))


def _sums(layer: Crossbar, vectors: Array, conductance: Array, key: Array | None) -> Array:
    if layer.groups == 1:
        return read(layer.chip, vectors, conductance, layer.row_block, layer.signed, key)
    groups = split_groups(vectors, layer.groups), by_group(conductance, layer.groups)
    d = _for_groups(
        lambda u, g, group_key: read(layer.chip, u, g, layer.row_block, layer.signed, group_key), groups, key
    )
    return d.reshape(-1, d.shape[-1])


def _backward(layer: Crossbar, residuals: tuple[Any, ...], y_bar: Array) -> tuple[Array | None, ...]:
    u, vectors, y, weight, gain, bias, conductance, weight_range, input_range, key = residuals
    y_bar = jax.lax.optimization_barrier(y_bar)
    # Sums as products of vectors: XLA's own sums over several axes take a quarter of a VGG-8 training step.
    bias_bar = None if bias is None else y_bar @ jnp.ones(y_bar.shape[1], jnp.float32)
    gain_bar = jnp.vdot(y_bar, y)
    if bias_bar is not None:
        gain_bar -= jnp.vdot(bias_bar, bias)
    # Scales go to the small operands: y_bar is as large as the layer's output.
    factor = dac_step(input_range, layer.chip) * gain

    def gradients(v: Array, w: Array, g: Array, bar: Array, group_key: Array | None) -> tuple[Array, Array]:
        w_bar = (v @ bar.T) * factor
        if layer.backward == "digital":
            return w_bar, (w * gain) @ bar
        return w_bar, transposed_read(layer, bar, g, weight_range, group_key) * gain

    if layer.groups == 1:
        weight_bar, vectors_bar = gradients(vectors, weight, conductance, y_bar, key)
    else:
        split = (
            split_groups(vectors, layer.groups),
            by_group(weight, layer.groups),
            by_group(conductance, layer.groups),
            split_groups(y_bar, layer.groups),
        )
        weight_bar, vectors_bar = _for_groups(gradients, split, key)
        weight_bar = jnp.moveaxis(weight_bar, 0, 1).reshape(weight.shape)
        vectors_bar = vectors_bar.reshape(vectors.shape)
    _, unfold_transpose = jax.vjp(lambda image: unfold(image, layer.window), u)
    (x_bar,) = unfold_transpose(vectors_bar)
    x_bar = jax.lax.optimization_barrier(x_bar)
    return x_bar, weight_bar, gain_bar / gain, bias_bar, None, None, None, None


layer_output.defvjp(_forward, _backward)


def by_group(matrix: Array, groups: int) -> Array:
    """Columns of each group: [..., rows, columns] -> [groups, ..., rows, columns / groups]."""
    split = matrix.reshape(*matrix.shape[:-1], groups, -1)
    return jnp.moveaxis(split, -2, 0)


def split_groups(vectors: Array, groups: int) -> Array:
    """Rows of each group: [rows, MVMs] -> [groups, rows / groups, MVMs]."""
    return vectors.reshape(groups, -1, vectors.shape[-1])


def _for_groups(function: Any, arguments: tuple[Array, ...], key: Array | None) -> Any:
    """`function` of each group's part of the arguments [groups, ...] and a key of its own, all at once."""
    if key is None:
        return jax.vmap(lambda *parts: function(*parts, None))(*arguments)
    return jax.vmap(function)(*arguments, jax.random.split(key, len(arguments[0])))


def read(chip: Chip, u: Array, conductance: Array, row_block: int, signed: bool, key: Array | None) -> Array:
    """MVMs of all row blocks, converted and summed digitally.

    Args:
        chip: converters and read noise.
        u: [rows, MVMs], DAC integers (float32); signed inputs take two phases.
        conductance: [2, rows, columns] in uS.
        row_block: rows of a full row block.
        signed: whether u may be negative.
        key: for noise; None: none.

    Returns:
        d: [columns, MVMs].
    """
    if signed and chip.input.bits is not None:
        mvms = u.shape[1]
        both = jnp.concatenate([jnp.maximum(u, 0), jnp.maximum(-u, 0)], axis=1)
        d = read(chip, both, conductance, row_block, False, key)
        return d[:, :mvms] - d[:, mvms:]
    codes = _codes(chip, u, conductance, row_block, key)
    return reduce(jnp.add, [block[0] - block[1] for block in codes])


def _codes(chip: Chip, u: Array, conductance: Array, row_block: int, key: Array | None) -> list[Array]:
    """ADC codes of MVMs with conductances [sides, rows, columns]: for each row block [sides, columns, MVMs].

    The full row blocks are one batched product and a shorter last one is its own: to fill it up with zeros would copy
    all inputs and, for 3 x 3 kernels, nearly double the product.
    """
    rows = len(u)
    full = rows // row_block * row_block
    if full in (0, rows):
        return list(_block_codes(chip, u, conductance, min(row_block, rows), key))
    rest_key = None if key is None else jax.random.fold_in(key, 2)
    codes = _block_codes(chip, u[:full], conductance[:, :full], row_block, key)
    return [*codes, _block_codes(chip, u[full:], conductance[:, full:], rows - full, rest_key)[0]]


def _block_codes(chip: Chip, u: Array, conductance: Array, row_block: int, key: Array | None) -> Array:
    """ADC codes [blocks, sides, columns, MVMs] of equal row blocks."""
    rows, mvms = u.shape
    sides, _, columns = conductance.shape
    blocks = rows // row_block
    vectors = u.reshape(blocks, row_block, mvms)
    bit_lines = conductance.reshape(sides, blocks, row_block, columns).transpose(1, 0, 3, 2)
    products = bit_lines.reshape(blocks, sides * columns, row_block) @ vectors
    level = products * jnp.float32(levels_per_product(chip))
    if key is not None and (chip.cell.read_noise_uS or chip.adc.noise_lsb):
        per_cell = jnp.float32((chip.cell.read_noise_uS * levels_per_product(chip)) ** 2)
        power = jax.lax.optimization_barrier(_power(vectors))
        sigma = jax.lax.optimization_barrier(jnp.sqrt(power * per_cell + jnp.float32(chip.adc.noise_lsb**2)))
        level = level + sigma * normal(key, level.shape)
    return adc(level, chip).reshape(blocks, sides, columns, mvms)


def _power(vectors: Array) -> Array:
    """Sum of squares over the rows of each block: [blocks, rows, n] -> [blocks, 1, n].

    Up to 16 rows are added at a time and the rest by a product: XLA's own sum over a leading axis is ten times slower.
    """
    blocks, rows, n = vectors.shape
    terms = max(count for count in range(1, 17) if rows % count == 0)
    groups = vectors.reshape(blocks, terms, rows // terms, n)
    partial_sums = reduce(jnp.add, [jnp.square(groups[:, term]) for term in range(terms)])
    return jnp.ones((blocks, 1, rows // terms), jnp.float32) @ partial_sums


def transposed_read(layer: Crossbar, y_bar: Array, conductance: Array, weight_range: Array, key: Array | None) -> Array:
    """The input gradient by reading the arrays backwards: bit lines are driven, word-line currents converted.

    The positive part of a gradient drives G+ and the negative part G- (first phase), then the reverse (second phase);
    the phases are subtracted. The DAC range is the largest gradient of the batch, so that gradients far below it are
    lost in the ADC's step and noise. Row lines see the same converters.

    Args:
        layer: static description.
        y_bar: [columns, MVMs] gradients with respect to x W.
        conductance: [2, rows, columns] in uS.
        weight_range: scalar.
        key: for noise; None: none.

    Returns:
        [rows, MVMs].
    """
    largest = jnp.maximum(jnp.max(jnp.abs(y_bar)), jnp.float32(1e-30))
    u = dac(y_bar, largest, layer.chip)
    plus, minus = jnp.maximum(u, 0), jnp.maximum(-u, 0)
    # The bit lines as rows of a transposed array: those of G+ and G- of one array are driven at once.
    lines = jnp.stack([plus, minus], axis=1).reshape(-1, u.shape[1])
    swapped = jnp.stack([minus, plus], axis=1).reshape(lines.shape)
    transposed = jnp.moveaxis(conductance, 0, 2).reshape(conductance.shape[1], -1).T
    noise_key = None if key is None else jax.random.fold_in(key, 1)
    both = jnp.concatenate([lines, swapped], axis=1)
    codes = _codes(layer.chip, both, transposed[None], 2 * layer.column_block, noise_key)
    phases = reduce(jnp.add, [block[0] for block in codes])
    d = phases[:, : u.shape[1]] - phases[:, u.shape[1] :]
    return d * count_scale(weight_range, largest, layer.chip)
