"""Planes of the inputs."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.chip import Chip, Input, load_chip
from cimc.planes import planes_of
from cimc.scheme import weighted_sum


def chip_with(**inputs: Any) -> Chip:
    return load_chip("brram-256x64").model_copy(update={"input": Input(**inputs)})


@pytest.mark.parametrize("array", [np.asarray, jnp.asarray])
@settings(deadline=None)
@given(st.data())
def test_planes_add_up_to_the_inputs(array: Callable[[Any], Any], data: st.DataObject) -> None:
    bits = data.draw(st.integers(2, 16))
    chip = chip_with(
        bits=bits,
        encoding=data.draw(st.sampled_from(["bit-serial", "pulse-width", "bit-serial-accumulated"])),
        bits_per_cycle=data.draw(st.integers(1, bits)),
        signed=data.draw(st.sampled_from(["two-phase", "one-phase"])),
    )
    signed = data.draw(st.booleans())
    top = chip.top_input(signed)
    codes = data.draw(st.lists(st.integers(-top if signed else 0, top), min_size=1, max_size=8))
    u = array(np.array(codes, np.float32))
    planes = planes_of(chip, signed)
    parts = planes.split(u)
    phases = 2 if signed and chip.input.signed == "two-phase" else 1
    cycles = chip.input.signed_conversions if signed else chip.input.conversions
    assert len(parts) == len(planes.weights) == phases * cycles, "what time and energy count is what is read"
    np.testing.assert_array_equal(np.asarray(weighted_sum(parts, planes.weights)), codes)
    if chip.input.encoding == "bit-serial":
        for part in parts:
            values = np.asarray(part)
            assert set(values.tolist()) <= set(range(2**chip.input.bits_per_cycle))


def test_twos_complement_is_read_bit_by_bit() -> None:
    """-3 of four bits is 1101: its lowest bit first, and the sign bit counts -8."""
    planes = planes_of(chip_with(bits=4, encoding="bit-serial", signed="one-phase"), True)
    assert list(planes.weights) == [1, 2, 4, -8]
    assert [float(part[0]) for part in planes.split(np.array([-3.0], np.float32))] == [1, 0, 1, 1]


def test_only_signed_inputs_of_a_converter_take_a_second_phase() -> None:
    assert len(planes_of(load_chip("brram-256x64"), True).weights) == 2
    assert len(planes_of(load_chip("brram-256x64"), False).weights) == 1
    assert len(planes_of(load_chip("ideal"), True).weights) == 1
