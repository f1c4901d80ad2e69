"""Planes of the inputs."""

import jax.numpy as jnp
import numpy as np
import pytest

from cimc.chip import load_chip
from cimc.scheme import weighted_sum
from runtime.crossbar.planes import PLANES, planes_of


@pytest.mark.parametrize("name", list(PLANES))
def test_planes_add_up_to_the_inputs(name: str) -> None:
    planes, u = PLANES[name], jnp.asarray([[3.0, 0.0, 255.0], [-4.0, 1.0, -255.0]])
    u = jnp.abs(u) if name == "unsigned" else u
    parts = planes.split(u)
    assert all(float(part.min()) >= 0 for part in parts)
    np.testing.assert_array_equal(weighted_sum(parts, planes.weights), u)


def test_only_signed_inputs_of_a_converter_take_a_second_phase() -> None:
    assert len(planes_of(load_chip("brram-256x64"), True).weights) == 2
    assert len(planes_of(load_chip("brram-256x64"), False).weights) == 1
    assert len(planes_of(load_chip("ideal"), True).weights) == 1
