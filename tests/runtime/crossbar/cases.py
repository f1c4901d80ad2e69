"""Layers on small arrays, and their sums in the order of the plain model, for the tests of the read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from cimc.chip import Chip, load_chip
from cimc.units import count_scale
from cimc.window import Window
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.layer import layer_output
from runtime.crossbar.product import counts
from runtime.crossbar.xla import jit
from tests import reference

CHIPS = ("brram-256x64", "brram-soc", "ideal")


def channels_first(layer: Crossbar, x: Any) -> jax.Array:
    """Inputs in the order of ONNX, [N, C, *spatial] or [N, rows], as a layer takes them."""
    x = jnp.asarray(x)
    return jnp.moveaxis(x, 0, -1) if layer.window else x.T


def by_image(values: jax.Array, images: int) -> jax.Array:
    """[.., MVMs] -> [.., images, positions], the order of the plain model."""
    return jnp.swapaxes(values.reshape(*values.shape[:-1], -1, images), -1, -2)


def by_mvm(values: Any) -> jax.Array:
    """[.., images, positions] -> [.., MVMs]."""
    return jnp.swapaxes(jnp.asarray(values), -1, -2).reshape(*np.shape(values)[:-2], -1)


def sums(layer: Crossbar, x: Any, g: Any, input_range: Any, key: jax.Array | None) -> jax.Array:
    """`counts` [columns, images, positions] of inputs in the order of ONNX."""
    return by_image(counts(layer.reading, channels_first(layer, x), g, input_range, key), len(x))


jitted_sums = jit(sums, static_argnums=0)


def differentiable_sums(
    layer: Crossbar, x: Any, weight: Any, g: Any, weight_range: Any, input_range: Any, key: jax.Array | None
) -> jax.Array:
    """`layer_output` with the gain that makes the sums themselves its output."""
    gain = 1 / count_scale(weight_range, input_range, layer.chip, layer.signed)
    y = layer_output(layer, channels_first(layer, x), weight, gain, None, g, weight_range, input_range, key)
    return by_image(y, len(x))


def small_chip(name: str, rows: int, columns: int = 64, row_split: str = "channel", **cell: float) -> Chip:
    chip = load_chip(name)
    array = chip.array.model_copy(update={"rows": rows, "columns": columns})
    cells = chip.cell.model_copy(update=cell)
    return chip.model_copy(update={"array": array, "row_split": row_split, "cell": cells})


def quiet(chip: Chip, **adc: float | None) -> Chip:
    """The chip without noise of its ADC, apart from what is given."""
    return chip.model_copy(update={"adc": chip.adc.model_copy(update={"noise_lsb": 0.0, **adc})})


def without_adc(chip: Chip) -> Chip:
    return quiet(chip, bits=None, range_uA=None)


def crossbar(chip: Chip, signed: bool, rows: int, kernel: int = 1, window: Window | None = None, **kw: Any) -> Crossbar:
    start, stop = reference.row_bounds(rows, kernel, chip)[0]
    return Crossbar(chip, stop - start, chip.array.columns // 2, signed, window, **kw)


def inputs(
    random: np.random.Generator, shape: tuple[int, ...], input_range: float, signed: bool
) -> npt.NDArray[np.float32]:
    """Inputs up to 1.2 times the range, none near a rounding tie of an 8-bit DAC."""
    codes = random.integers(-306 if signed else 0, 307, shape) * (random.random(shape) < 0.8)
    return ((codes + random.uniform(-0.4, 0.4, shape) * (signed | (codes > 0))) * input_range / 255).astype(np.float32)


def assert_same_sums(d: npt.ArrayLike, expected: reference.Sums, chip: Chip) -> None:
    """Equal codes one by one (a conversion on a rounding tie may differ by one); without an ADC to rounding."""
    difference = np.abs(np.asarray(d, np.float64) - expected.d)
    if chip.adc.bits is None:
        assert difference.max() <= 1e-5 * max(1.0, float(np.abs(expected.d).max()))
    else:
        assert (difference <= expected.ties).all()
        assert expected.ties.sum() <= 4, "the comparison would mean little"
