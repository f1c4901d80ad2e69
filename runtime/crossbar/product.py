"""The read, and the order in which non-idealities apply. For one layer with inputs x and conductances G of its devices:

    u        = clip(round(x / range (2^bits - 1)))               DAC
    u_p      = planes of u, with weights a_p                     two phases: +1 max(u, 0), -1 max(-u, 0)
    G_k      = devices of a weight, with signs s_k               a pair: +1 G+, -1 G-; G as written, and aged
    level[c] = V / (2^bits LSB) currents(u_p, G_k)[c]            analog: sum_r u_p[r] (G_k[r, c] + noise(G_k[r, c]))
    D[c]     = clip(round(level[c] + ADC noise), 0, 2^bits - 1)  one conversion for each column, plane and MVM
    d        = sum over p a_p sum over reads sum over k s_k D   digital; sums are taken from the right
    y        = (d + bias / s) s                                  s: weight and input scales times the layer's gain

Planes are a table (`runtime.crossbar.planes`), and so are the devices of a weight (`cimc.scheme`); `currents` is the
ideal product (`runtime.crossbar.currents`), or what wires leave of it (`runtime.crossbar.ir_drop`). All arrays, planes
and devices of a layer are one batched product. Not modelled: device-to-device read noise, settling.
"""

from dataclasses import dataclass, replace
from functools import reduce

import jax.numpy as jnp
from jax import Array

from cimc.chip import Chip
from cimc.options import Backward
from cimc.scheme import weighted_sum
from cimc.units import count_scale, idle_target, levels_per_product
from cimc.window import Window
from runtime.crossbar.converters import adc, dac
from runtime.crossbar.currents import currents
from runtime.crossbar.groups import Sets, by_group, for_groups, split_groups
from runtime.crossbar.ir_drop import less_ir_drop
from runtime.crossbar.keys import derive
from runtime.crossbar.planes import Planes, planes_of
from runtime.crossbar.read_noise import with_noise
from runtime.crossbar.unfold import unfold
from runtime.crossbar.wiring import Wiring
from runtime.crossbar.xla import once, rounded


@dataclass(frozen=True)
class Crossbar:
    """Static description of a layer on arrays.

    read_rows: rows that are driven at once (the last read may have fewer).
    column_block: weight columns of a full array.
    signed: inputs may be negative.
    window: of a convolution; None: a matrix product.
    backward: how the input gradient is computed: with the digital copy, or by a transposed read of the arrays.
    groups: of a grouped convolution, each with its own inputs; rows count those of one group. groups_at_once: groups
        that are driven together, with the idle current of each in the columns of the others.
    wiring: of arrays whose wires change what reads see of the devices (`as_read`).
    """

    chip: Chip
    read_rows: int
    column_block: int
    signed: bool
    window: Window | None = None
    backward: Backward = Backward.digital
    groups: int = 1
    groups_at_once: int = 1
    wiring: Wiring | None = None


def apply_inputs(
    layer: Crossbar, x: Array, input_range: Array, input_factor: Array | None = None
) -> tuple[Array, Array]:
    """DAC integers of the inputs [channels, ...], as the inputs lie and as vectors [rows, MVMs].

    input_factor: [channels], by which the inputs are divided; None: 1.
    """
    if input_factor is not None:
        input_range = (input_range * input_factor).reshape(-1, *(1,) * (x.ndim - 1))
    u = once(dac(x, input_range, layer.chip))
    return u, once(unfold(u, layer.window))


def read_vectors(layer: Crossbar, vectors: Array, conductance: Array, key: Array | None) -> Array:
    """The layer's digital sums d [columns, MVMs] of applied inputs [rows, MVMs]; all groups at once."""
    layer, vectors, conductance = _as_driven(layer, vectors, conductance)

    def one(u: Array, g: Array, group_key: Array | None) -> Array:
        return read(layer.chip, u, g, layer.read_rows, layer.signed, group_key)

    if layer.groups == 1:
        return one(vectors, conductance, key)
    d = for_groups(one, (split_groups(vectors, layer.groups), by_group(conductance, layer.groups)), key)
    return d.reshape(-1, d.shape[-1])


def as_sets(layer: Crossbar) -> Crossbar:
    """The layer with the groups that are driven together as one group."""
    together = layer.groups_at_once
    return replace(layer, groups=layer.groups // together, groups_at_once=1, read_rows=together * layer.read_rows)


def _as_driven(layer: Crossbar, vectors: Array, conductance: Array) -> tuple[Crossbar, Array, Array]:
    """Groups that are driven together as one group."""
    together = layer.groups_at_once
    if together == 1:
        return layer, vectors, conductance
    sets = Sets(layer.groups, together, conductance.shape[-2], layer.read_rows)
    vectors, conductance = sets.join_vectors(vectors), sets.join_cells(conductance, idle_target(layer.chip))
    return as_sets(layer), vectors, conductance


def scale_sums(
    layer: Crossbar, d: Array, gain: Array, bias: Array | None, weight_range: Array, input_range: Array
) -> Array:
    """The output y [columns, MVMs] of digital sums."""
    scale = rounded(count_scale(weight_range, input_range, layer.chip) * gain)
    shifted = d if bias is None else d + rounded(bias / scale)[:, None]
    return rounded(shifted * (scale[:, None] if scale.ndim else scale))


def counts(layer: Crossbar, x: Array, conductance: Array, input_range: Array, key: Array | None) -> Array:
    """The layer's digital sums d [columns, MVMs], integers for a chip with an ADC; arguments as `layer_output`."""
    return read_vectors(layer, apply_inputs(layer, x, input_range)[1], conductance, key)


def clipped_conversions(
    layer: Crossbar,
    x: Array,
    conductance: Array,
    input_range: Array,
    key: Array | None,
    input_factor: Array | None = None,
) -> Array:
    """Share of the layer's conversions that end at the ADC's largest code; 0 for an ideal ADC. As `layer_output`."""
    if layer.chip.adc.bits is None:
        return jnp.float32(0)
    _, vectors = apply_inputs(layer, x, input_range, input_factor)
    vectors = _side_by_side(planes_of(layer.chip, layer.signed).split(vectors))
    top = float(2**layer.chip.adc.bits - 1)
    layer, vectors, conductance = _as_driven(layer, vectors, conductance)

    def at_top(u: Array, g: Array, group_key: Array | None) -> Array:
        codes = convert(layer.chip, u, g, layer.read_rows, group_key)
        ends = [jnp.sum(code >= top, dtype=jnp.float32) for code in codes]
        return reduce(jnp.add, ends) / sum(code.size for code in codes)

    if layer.groups == 1:
        return at_top(vectors, conductance, key)
    return jnp.mean(for_groups(at_top, (split_groups(vectors, layer.groups), by_group(conductance, layer.groups)), key))


def read(chip: Chip, u: Array, conductance: Array, read_rows: int, signed: bool, key: Array | None) -> Array:
    """MVMs of all row blocks, planes and devices, converted and summed digitally.

    Args:
        chip: planes, scheme, converters and read noise.
        u: [rows, MVMs], DAC integers (float32).
        conductance: [devices, rows, columns] in uS.
        read_rows: rows that are driven at once.
        signed: whether u may be negative.
        key: for noise; None: none; a vector of keys: one a sample, whose MVMs follow one another.

    Returns:
        d: [columns, MVMs].
    """
    planes, signs = planes_of(chip, signed), chip.scheme.signs
    codes = convert(chip, _side_by_side(planes.split(u)), conductance, read_rows, _key_of_planes(key, planes))
    d = reduce(jnp.add, [weighted_sum(block, signs) for block in codes])
    return weighted_sum(_apart(d, len(planes.weights)), planes.weights)


def convert(chip: Chip, u: Array, conductance: Array, read_rows: int, key: Array | None) -> list[Array]:
    """ADC codes of MVMs with conductances [devices, rows, columns]: for each row block [devices, columns, MVMs].

    The full row blocks are one batched product and a shorter last one is its own: to fill it up with zeros would copy
    all inputs and, for 3 x 3 kernels, nearly double the product.
    """
    rows = len(u)
    full = rows // read_rows * read_rows
    if full in (0, rows):
        return list(_convert_blocks(chip, u, conductance, min(read_rows, rows), key))
    rest_key = None if key is None else derive(key, 2)
    codes = _convert_blocks(chip, u[:full], conductance[:, :full], read_rows, key)
    return [*codes, _convert_blocks(chip, u[full:], conductance[:, full:], rows - full, rest_key)[0]]


def _convert_blocks(chip: Chip, u: Array, conductance: Array, read_rows: int, key: Array | None) -> Array:
    """ADC codes [blocks, devices, columns, MVMs] of equal row blocks."""
    rows, mvms = u.shape
    devices, _, columns = conductance.shape
    vectors = u.reshape(rows // read_rows, read_rows, mvms)
    drawn = currents(vectors, conductance)
    if chip.wires.ir_drop == "per-input" and chip.input.bits is not None:
        drawn = less_ir_drop(drawn, vectors, conductance, chip.wires, top=2**chip.input.bits - 1)
    level = drawn * jnp.float32(levels_per_product(chip))
    return adc(with_noise(chip, level, vectors, conductance, key), chip).reshape(-1, devices, columns, mvms)


def _side_by_side(planes: list[Array]) -> Array:
    """Planes as further MVMs, all of one product: [rows, planes * MVMs]."""
    return planes[0] if len(planes) == 1 else jnp.concatenate(planes, axis=1)


def _key_of_planes(key: Array | None, planes: Planes) -> Array | None:
    """One key draws for all planes; of a vector of keys, one a sample, each plane has its own."""
    if key is None or not key.ndim or len(planes.weights) == 1:
        return key
    return jnp.concatenate([derive(key, plane) for plane in range(len(planes.weights))])


def _apart(d: Array, planes: int) -> list[Array]:
    """The sums of each plane [columns, MVMs]."""
    mvms = d.shape[1] // planes
    return [d] if planes == 1 else [d[:, plane * mvms : (plane + 1) * mvms] for plane in range(planes)]
