"""Chips that differ in numbers alone are read by one compiled program, each with its own numbers."""

from typing import Any

import jax
import numpy as np
import pytest

from cimc.chip import Chip, load_chip
from cimc.units import device_targets
from runtime.crossbar.crossbar import Crossbar
from runtime.crossbar.pieces import Held, _read_piece, read_in_pieces

# Of chips: numbers that change no shape, and whether a read shows them.
NUMBERS: dict[str, list[tuple[dict[str, Any], bool]]] = {
    "brram-256x64": [
        ({"cell": {"read_noise_uS": 0.5}}, True),
        ({"adc": {"bits": 6}}, True),
        ({"adc": {"range_uA": 30.0, "noise_lsb": 0.3}}, True),
        ({"cell": {"read_voltage_V": 0.15}}, True),
        ({"input": {"bits": 6}}, True),
        ({"cell": {"programming": {"error_sd_uS": 1.0, "trials": 1}}, "cost": {"mvm_us": 0.2}}, False),
    ],
    "hermes": [({"adc": {"noise_lsb": 2.0}}, True), ({"cell": {"granularity_uS": 1.0}}, False)],
    "neurram": [({"adc": {"range_mV": 40.0}}, True), ({"cell": {"programming": {"error_sd_uS": 0.5}}}, False)],
}


def read(chip: Chip, key: jax.Array | None) -> np.ndarray:
    random = np.random.default_rng(1)
    layer = Crossbar(chip, 12, 5, signed=False)
    weight = random.uniform(-1, 1, (30, 5)).astype(np.float32)
    held = Held(device_targets(weight, np.float32(1), chip), np.float32(1), np.float32(2), np.float32(1), None)
    return read_in_pieces(layer, random.uniform(0, 2, (4, 3, 30)).astype(np.float32), held, key)


@pytest.mark.parametrize("name", NUMBERS)
def test_other_numbers_compile_nothing_and_count(name: str) -> None:
    compiled: Any = _read_piece  # what jax.jit returns counts what it compiled
    key = jax.random.key(0)
    plain = load_chip(name)
    before = read(plain, key)
    programs = compiled._cache_size()
    for numbers, shows in NUMBERS[name]:
        assert (read(load_chip(name, settings=numbers), key) != before).any() == shows, numbers
    assert compiled._cache_size() == programs


def test_what_changes_the_program_is_another_reading() -> None:
    chip = load_chip("brram-256x64")
    known = jax.tree.structure(Crossbar(chip, 12, 5, signed=False).reading)
    others: list[dict[str, Any]] = [
        {"cell": {"read_noise_uS": 0.0}, "adc": {"noise_lsb": 0.0}},
        {"cell": {"read_noise_polynomial_uS": [0.1, 0.2]}},
        {"weights": {"scheme": "offset"}},
    ]
    for numbers in others:
        other = Crossbar(load_chip("brram-256x64", settings=numbers), 12, 5, signed=False)
        assert jax.tree.structure(other.reading) != known
