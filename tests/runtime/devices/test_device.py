"""The door to the devices: one object a description, fit to be a static argument of `jit`."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cimc.chip import load_chip
from runtime.devices.device import Device, device_of


def test_equal_descriptions_are_one_device_and_others_are_not() -> None:
    cell = load_chip("brram-256x64").cell
    assert device_of(cell) is device_of(cell.model_copy())
    assert device_of(cell) != device_of(cell.model_copy(update={"read_noise_uS": 0.0}))


def test_a_device_is_a_static_argument_that_is_traced_once() -> None:
    traced = []

    @partial(jax.jit, static_argnums=0)
    def act(device: Device, goal: Array, key: Array) -> tuple[Array, Array]:
        traced.append(device)
        written = device.write(goal, key)
        return written.conductance, device.read(device.pulse(written.conductance, jnp.ones_like(goal), key), key)

    cell, goal = load_chip("brram-256x64").cell, jnp.full(16, 30.0)
    first = act(device_of(cell), goal, jax.random.key(0))
    second = act(device_of(cell.model_copy()), goal, jax.random.key(0))
    assert len(traced) == 1
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(np.asarray(first)).all()
