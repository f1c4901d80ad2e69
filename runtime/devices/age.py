"""What time does to written devices: drift, relaxation and retention, in that order.

With g0 the conductance after the write, x = g0 / G_max (of states beyond the window that of its nearer end), t the time
since the write in s, and three standard normal numbers z that each device keeps:

    drift        g = g0 (t / start)^-nu                     nu = mean(x) + sd(x) z1, or its magnitude (`sign`)
    relaxation   g = g + m(t, x) + s(t, x) z2               m, s: between the stated times linear in ln t
    retention    g = rest + (g - rest) exp(-(t / tau)^stretch)      tau = median exp(tau_d2d z3)

With `thermal` t is that time by as many times as heat speeds it up (Arrhenius).

Before `start` of the drift and the first time of the relaxation a device holds what was written. Where a relaxation is
stated from the target, the write's error is its first entry, so time adds s^2 = sd(t)^2 - sd(first)^2 and
m = mean(t) - mean(first). `limits_uS` hold here too.

Not modelled: what a read of a warm device sees; a state that goes on drifting from where a read or a blind pulse has
left it (each write starts the clock anew); 1/f noise that is alike from one read to the next (each read draws its own);
what devices do to their neighbours. The laws are taken at the state held, which stands for the target that it was
written to.
"""

import jax
import jax.numpy as jnp
from jax import Array

from cimc.chip import Cell
from cimc.device_laws import law_at
from cimc.device_time import Drift, Relaxation, Retention, state_law_at
from runtime.crossbar.normal import normal

_DRIFT, _RELAXATION, _RETENTION = range(3)  # below the key, so that one law's draw does not hang on another's


def age_devices(conductance: Array, seconds: Array | float, key: Array, *, cell: Cell) -> Array:
    """Conductances in uS so long after the write; the same where the device states no law of time.

    Args:
        conductance: what the devices held after the write [..], uS; not what they held at an earlier age.
        seconds: since the write, a scalar (traced, too) or an array that broadcasts against the conductances, of a
            device with `thermal` at the temperature that it is kept at.
        key: a `jax.random` key; the same key gives the same device at every time.
        cell: the device.
    """
    x = cell.state(conductance)
    aged = conductance
    if cell.thermal is not None:
        seconds = seconds * cell.thermal.acceleration
    if cell.drift is not None:
        aged = aged * _drift(cell.drift, x, seconds, jax.random.fold_in(key, _DRIFT))
    if cell.relaxation is not None:
        aged = aged + _relaxation(cell.relaxation, x, seconds, jax.random.fold_in(key, _RELAXATION))
    if cell.retention is not None:
        left = _retention(cell.retention, x, seconds, jax.random.fold_in(key, _RETENTION))
        aged = cell.retention.rest_uS + (aged - cell.retention.rest_uS) * left
    if cell.limits_uS is None or aged is conductance:
        return aged
    low, high = cell.limits_uS
    return jnp.clip(aged, jnp.minimum(conductance, low), jnp.maximum(conductance, high))


def _drift(drift: Drift, x: Array, seconds: Array | float, key: Array) -> Array:
    """Share of its conductance that each device has left."""
    exponent = state_law_at(drift.exponent, x) + state_law_at(drift.exponent_sd, x) * normal(key, x.shape)
    if drift.sign == "positive":
        exponent = jnp.abs(exponent)
    return jnp.exp(-exponent * jnp.log(jnp.maximum(jnp.asarray(seconds, x.dtype) / drift.start_s, 1)))


def _relaxation(relaxation: Relaxation, x: Array, seconds: Array | float, key: Array) -> Array:
    """What time has added to each device, uS."""
    times = jnp.asarray(relaxation.times_s, x.dtype)
    after = jnp.asarray(seconds, x.dtype)
    place = jnp.log(jnp.maximum(after, times[0]))
    # The share of each of the stated times at this time, by linear interpolation: held at the last.
    shares = [jnp.interp(place, jnp.log(times), row) for row in jnp.eye(len(times), dtype=x.dtype)]
    sds = [law_at(law, x) for law in relaxation.sd_uS]
    means = [law_at(law, x) for law in relaxation.mean_uS or (0.0,) * len(times)]
    sd = sum(share * value for share, value in zip(shares, sds, strict=True))
    mean = sum(share * value for share, value in zip(shares, means, strict=True))
    if relaxation.of == "target":
        sd = jnp.sqrt(jnp.maximum(sd**2 - sds[0] ** 2, 0))
        mean = mean - means[0]
    return jnp.where(after < times[0], 0, mean + sd * normal(key, x.shape))


def _retention(retention: Retention, x: Array, seconds: Array | float, key: Array) -> Array:
    """Share of its distance to the rest state that each device has left."""
    tau: float | Array = retention.tau_s
    if retention.tau_d2d:
        tau = tau * jnp.exp(retention.tau_d2d * normal(key, x.shape))
    return jnp.exp(-((jnp.asarray(seconds, x.dtype) / tau) ** retention.stretch))
