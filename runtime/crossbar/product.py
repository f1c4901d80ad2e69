"""The read, and the order in which non-idealities apply. For one layer with inputs x and conductances G of its devices:

    u        = clip(round(x / range top))                        DAC
    u_p      = planes of u, with weights a_p                     two phases: +1 max(u, 0), -1 max(-u, 0)
    N_k      = what conversion k of a weight sees, signs s_k     a pair: +1 G+, -1 G-; G as written, and aged
    level[c] = currents(u_p, N_k)[c] / LSB                       analog: sum_r u_p[r] (N_k[r, c] + noise(N_k[r, c]))
    D[c]     = clip(round(level[c] + ADC noise))                 one conversion for each k, column, plane and MVM
    d        = sum over p a_p sum over reads sum over k s_k (D - offset)   digital; sums are taken from the right
    y        = (d + bias / s) s                                  s: weight and input scales times the layer's gain

Planes: `cimc.planes`; the devices of a weight and their conversions: `cimc.scheme`; what codes count:
`runtime.crossbar.conversions`; `currents` is the ideal product (`runtime.crossbar.currents`), what wires leave of it
(`runtime.crossbar.ir_drop`), or its mean over the column (voltage). All arrays, planes and devices of a layer are one
batched product. Not modelled: device-to-device read noise, settling.
"""

from functools import partial, reduce

import jax
import jax.numpy as jnp
from jax import Array

from cimc.planes import Planes
from cimc.scheme import weighted_sum
from runtime.crossbar.conversions import Applied, convert, count_codes, row_blocks
from runtime.crossbar.converters import dac
from runtime.crossbar.crossbar import Reading
from runtime.crossbar.exact import codes_are_exact, plain_reading, stored_digits
from runtime.crossbar.groups import as_sets, by_group, for_groups, sets_of, split_groups
from runtime.crossbar.keys import derive
from runtime.crossbar.unfold import unfold
from runtime.crossbar.xla import once, rounded


def apply_inputs(
    reading: Reading, x: Array, input_range: Array, input_factor: Array | None = None
) -> tuple[Array, Array]:
    """DAC integers of the inputs [channels, ...], as the inputs lie and as vectors [rows, MVMs].

    input_factor: [channels], by which the inputs are divided; None: 1.
    """
    if input_factor is not None:
        input_range = (input_range * input_factor).reshape(-1, *(1,) * (x.ndim - 1))
    u = once(dac(x, input_range, reading))
    return u, once(unfold(u, reading.window))


def read_vectors(
    reading: Reading, vectors: Array, conductance: Array, key: Array | None, reference: Array | None = None
) -> Array:
    """The layer's digital sums d [columns, MVMs] of applied inputs [rows, MVMs]; all groups at once.

    Where no conversion can err, they are computed as products of integers (`runtime.crossbar.exact`).

    Args:
        reading: how the layer is read.
        vectors: [rows of all groups, MVMs].
        conductance: [devices, rows, columns] in uS.
        key: for noise; None: none.
        reference: of the reference columns [rows, groups x column blocks] in uS; None: as they are to be.
    """
    if reading.digits is None:
        return _read_groups(reading, vectors, conductance, key, reference)

    def multiplied() -> Array:
        return _read_groups(plain_reading(reading), vectors, stored_digits(reading, conductance, reference), None)

    if not reading.converts_sums:
        return multiplied()
    converted = partial(_read_groups, reading, vectors, conductance, None, reference)
    return jax.lax.cond(codes_are_exact(reading, conductance, reference), multiplied, converted)


def _read_groups(
    reading: Reading, vectors: Array, conductance: Array, key: Array | None, reference: Array | None = None
) -> Array:
    if reference is not None and reading.groups_at_once > 1:
        reference = sets_of(reading, conductance.shape[-2]).join_references(reference)
    reading, vectors, conductance = _as_driven(reading, vectors, conductance)
    if reading.groups == 1:
        return read(reading, vectors, conductance, key, reference)

    def one(u: Array, g: Array, own: Array | None, group_key: Array | None) -> Array:
        return read(reading, u, g, group_key, own)

    own = None if reference is None else by_group(reference, reading.groups)
    d = for_groups(one, (split_groups(vectors, reading.groups), by_group(conductance, reading.groups), own), key)
    return d.reshape(-1, d.shape[-1])


def _as_driven(reading: Reading, vectors: Array, conductance: Array) -> tuple[Reading, Array, Array]:
    """Groups that are driven together as one group."""
    if reading.groups_at_once == 1:
        return reading, vectors, conductance
    sets = sets_of(reading, conductance.shape[-2])
    return as_sets(reading), sets.join_vectors(vectors), sets.join_cells(conductance, reading.figures.idle_uS)


def scale_sums(
    reading: Reading, d: Array, gain: Array, bias: Array | None, weight_range: Array, input_range: Array
) -> Array:
    """The output y [columns, MVMs] of digital sums."""
    ranges = input_range * weight_range if reading.converts_inputs else weight_range
    scale = rounded(ranges * reading.figures.unit * gain)
    shifted = d if bias is None else d + rounded(bias / scale)[:, None]
    return rounded(shifted * (scale[:, None] if scale.ndim else scale))


def counts(reading: Reading, x: Array, conductance: Array, input_range: Array, key: Array | None) -> Array:
    """The layer's digital sums d [columns, MVMs], integers for a chip with an ADC; arguments as `layer_output`."""
    return read_vectors(reading, apply_inputs(reading, x, input_range)[1], conductance, key)


def clipped_conversions(
    reading: Reading,
    x: Array,
    conductance: Array,
    input_range: Array,
    key: Array | None,
    input_factor: Array | None = None,
) -> Array:
    """Share of the layer's conversions that end at the ADC's largest code; 0 for an ideal ADC. As `layer_output`."""
    if not reading.converts_sums:
        return jnp.float32(0)
    _, vectors = apply_inputs(reading, x, input_range, input_factor)
    vectors = _side_by_side(reading.planes.split(vectors))
    reading, vectors, conductance = _as_driven(reading, vectors, conductance)

    def at_top(u: Array, g: Array, group_key: Array | None) -> Array:
        codes = [convert(reading, part) for part in row_blocks(Applied(u, g, None, group_key), reading.read_rows)]
        ends = [jnp.sum(jnp.abs(code) >= reading.figures.top_code, dtype=jnp.float32) for code in codes]
        return reduce(jnp.add, ends) / sum(code.size for code in codes)

    groups = reading.groups
    if groups == 1:
        return at_top(vectors, conductance, key)
    return jnp.mean(for_groups(at_top, (split_groups(vectors, groups), by_group(conductance, groups)), key))


def read(reading: Reading, u: Array, conductance: Array, key: Array | None, reference: Array | None = None) -> Array:
    """MVMs of all row blocks, planes and devices of one group, converted and summed digitally.

    Args:
        reading: planes, scheme, converters and read noise, and the rows that are driven at once.
        u: [rows, MVMs], DAC integers (float32).
        conductance: [devices, rows, columns] in uS.
        key: for noise; None: none; a vector of keys: one a sample, whose MVMs follow one another.
        reference: conductances of the reference columns [rows, column blocks] in uS; None: as they are to be.

    Returns:
        d: [columns, MVMs].
    """
    planes = reading.planes
    driven = Applied(_side_by_side(planes.split(u)), conductance, reference, _key_of_planes(key, planes))
    sums = []
    for part in row_blocks(driven, reading.read_rows):
        sums += list(count_codes(reading, convert(reading, part), part))
    d = reduce(jnp.add, sums)
    return weighted_sum(_apart(d, len(planes.weights)), planes.weights)


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
