"""Ways to compute that know the chip but touch no device: quantisation-aware and hardware-aware training.

The layers are read as on a chip whose devices hold the float weights, through its converters; gradients pass straight
through (`runtime.crossbar.layer`), and steps go to the float weights. Hardware-aware training adds noise, drawn anew
for every use of a layer, and keeps weights near each other, so that none spends the range of the devices alone:

    w_read  = held(w) + noise max|w| n                                 n normal, of every weight
    y       = read(x, w_read) + output_noise x_range max|w| n          n normal, of every output
    w       = clip(w + step, +-clip_sigma sd(w))                       after every step

with max|w| and sd(w) of the column or of the layer (`scale`), the column's being a digital scale of its own. Rasch et
al., Nature Communications 14:5282 (2023), by column: noise of programming, outputs of 0.04; Le Gallo et al. clip at 2.5
sd. NeuRRAM (Wan et al., Nature 2022), by layer: noise 0.1 to 0.2, no output noise. Input ranges are those that training
on the arrays would choose, chosen again when they have moved (`runtime.system.watch`).
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Annotated, Literal

import jax
import jax.numpy as jnp
from jax import Array
from pydantic import Field

from cimc.chip import Chip
from runtime.crossbar.cell_wires import as_read
from runtime.crossbar.layer import layer_output
from runtime.crossbar.normal import normal
from runtime.crossbar.unfold import fold_output
from runtime.crossbar.xla import jit
from runtime.devices.targets import device_targets
from runtime.network.scan import Product
from runtime.system.state import State, System, bias_of, gain_of
from runtime.system.weight_range import LEAST_COLUMN
from runtime.training.compute import Compute, add_steps, plain_rate

Scale = Literal["column", "layer"]
Share = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class QuantisationAware:
    """Options. scale: of what the largest weight is the weight of a fully programmed pair."""

    scale: Scale = "layer"


@dataclass(frozen=True)
class HardwareAware:
    """Options. noise: sd of the weights, output_noise: sd of the outputs, clip_sigma: bound of the weights in their sd
    (0: none), as the module states them. scale: of what the largest weight and the sd are.
    """

    noise: Share = 0.05
    output_noise: Share = 0.04
    clip_sigma: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 2.5
    scale: Scale = "column"


@lru_cache
def quantisation_aware(options: QuantisationAware) -> Compute:
    """The way to compute with these options; the same object for the same ones, which compiled functions go by."""
    return _compute(HardwareAware(0.0, 0.0, 0.0, options.scale))


@lru_cache
def hardware_aware(options: HardwareAware) -> Compute:
    """As `quantisation_aware`."""
    return _compute(options)


def _compute(options: HardwareAware) -> Compute:
    return Compute(
        on_arrays=False,
        product=partial(_product, options),
        unit=plain_rate,
        apply=add_steps,
        held=partial(_held, options.scale),
        clip=partial(_clipped, options) if options.clip_sigma else None,
    )


def _product(options: HardwareAware, system: System, state: State) -> Product:
    """Layers as on the chip, without its noise; the key draws that of the options, None: none."""

    def product(name: str, x: Array, key: Array | None) -> Array:
        crossbar, weight, input_range = system.crossbars[name], state["weight"][name], state["input_range"][name]
        weight_range = _largest(weight, options.scale)
        pairs = device_targets(jax.lax.stop_gradient(weight), weight_range, system.chip_of(name))
        gain = gain_of(state, name)
        if key is not None and options.noise:
            error = options.noise * normal(jax.random.fold_in(key, 0), weight.shape)
            pairs = _moved(pairs, weight / weight_range, error, system.chip)
            weight = weight + error * weight_range
        bias, pairs = bias_of(system, state, name), as_read(crossbar.wires, pairs)
        y = layer_output(crossbar, x, weight, gain, bias, pairs, weight_range, input_range, None)
        if key is not None and options.output_noise:
            sd = jax.lax.stop_gradient(options.output_noise * input_range * weight_range * gain)
            y = y + (sd[:, None] if sd.ndim else sd) * normal(jax.random.fold_in(key, 1), y.shape)
        return fold_output(y, x.shape, crossbar.window)

    return product


def _moved(devices: Array, fraction: Array, error: Array, chip: Chip) -> Array:
    """Conductances of devices whose weights, parts of the range, are off by that part of it.

    No device of a pair falls below what it holds; others hold the weight that is off, between their states too.
    """
    if chip.scheme.has_pair:
        return devices + jnp.maximum(jnp.stack([error, -error]), 0) * chip.cell.window_uS
    shares = chip.scheme.shares(jax.lax.stop_gradient(fraction) + error, False)
    return chip.cell.conductance_min_uS + shares * chip.cell.window_uS


def _largest(weight: Array, scale: Scale) -> Array:
    """The largest weight of each column [columns], of zeros `LEAST_COLUMN` of the layer's; or of the layer."""
    columns = jnp.max(jnp.abs(jax.lax.stop_gradient(weight)), axis=0)
    largest = jnp.maximum(jnp.max(columns), 1e-12)
    return jnp.maximum(columns, LEAST_COLUMN * largest) if scale == "column" else largest


def _clipped(options: HardwareAware, weight: Array) -> Array:
    bound = options.clip_sigma * jnp.std(weight, axis=0 if options.scale == "column" else None)
    return jnp.clip(weight, -bound, bound)


@partial(jit, static_argnums=(0, 1))
def _held(scale: Scale, system: System, state: State) -> State:
    """The state of a chip that holds the weights as they are."""
    ranges = {name: _largest(weight, scale) for name, weight in state["weight"].items()}
    pairs = {
        name: device_targets(weight, ranges[name], system.chip_of(name)) for name, weight in state["weight"].items()
    }
    return {**state, "conductance": pairs, "weight_range": ranges}
