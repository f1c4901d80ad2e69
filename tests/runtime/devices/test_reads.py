"""Reads of devices: the noise that the chip's figures promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import load_chip
from cimc.device_file import load_device
from runtime.devices.device import device_of
from tests.runtime.devices.moments import COUNT, assert_moments


@pytest.mark.parametrize("chip", ["brram-soc", "brram-256x64"])
def test_reads_have_the_stated_noise_and_leave_the_devices_alone(chip: str) -> None:
    cell = load_chip(chip).cell
    conductance = jnp.full(COUNT, 30.0, jnp.float32)
    first, second = (
        np.asarray(device_of(cell).read(conductance, jax.random.key(seed)), np.float64) - 30 for seed in (0, 1)
    )
    assert_moments(first, 0.0, cell.read_noise_uS)
    assert abs(np.corrcoef(first, second)[0, 1]) < 5e-3


def test_a_read_without_noise_is_exact() -> None:
    conductance = jnp.linspace(0, 1, 100)
    np.testing.assert_array_equal(device_of(load_chip("ideal").cell).read(conductance, jax.random.key(0)), conductance)


def test_the_mean_of_many_reads_has_less_noise() -> None:
    cell = load_chip("brram-256x64").cell
    conductance = jnp.full(COUNT, 30.0, jnp.float32)
    read = device_of(cell).read(conductance, jax.random.key(0), 16)
    assert_moments(np.asarray(read, np.float64) - 30, 0.0, cell.read_noise_uS / 4)


def test_reads_of_devices_whose_noise_follows_the_state() -> None:
    """PCM of Nandakumar et al.: 1/f noise of sd g min(0.0088 / x^0.65, 0.2) sqrt(ln((t + t_r) / (2 t_r)))."""
    cell = load_device("pcm-nandakumar")
    for state in (2.5, 20.0):
        q = min(0.0088 / (state / 25) ** 0.65, 0.2)
        sd = state * q * np.sqrt(np.log((20 + 250e-9) / (2 * 250e-9)))
        conductance = jnp.full(COUNT, state, jnp.float32)
        read = device_of(cell).read(conductance, jax.random.key(0), 4)
        assert_moments(np.asarray(read, np.float64) - state, 0.0, sd / 2)
    np.testing.assert_array_equal(device_of(cell).read(jnp.zeros(3), jax.random.key(0)), 0.0)
