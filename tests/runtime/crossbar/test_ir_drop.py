"""IR drop, judged by nodal analysis: Kirchhoff's laws cell by cell, dense for small arrays, sparse for larger ones."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cimc.chip import Wires, load_chip
from cimc.errors import CimcError
from runtime.crossbar.currents import currents
from runtime.crossbar.ir_drop import effective_conductances, less_ir_drop
from tests.nodal import column_currents

Doubles = npt.NDArray[np.float64]
Kind = Literal["static", "exact"]
KINDS: tuple[Kind, ...] = ("static", "exact")
seen = jax.jit(effective_conductances, static_argnames=("wires", "most_uS"))


def read(cells: Doubles, wires: Wires, voltages: Doubles, kind: Kind) -> Doubles:
    found = seen(jnp.asarray(cells, jnp.float32)[None], wires.model_copy(update={"ir_drop": kind}), most_uS=100.0)[0]
    return np.asarray(found, np.float64).T @ voltages


def difference(a: Doubles, b: Doubles) -> float:
    """Mean absolute difference, of the largest."""
    return float(np.abs(a - b).mean() / np.abs(b).max())


def dense(cells: Doubles, wires: Wires, voltages: Doubles) -> Doubles:
    """The currents out of the bit lines, one node and one equation after the other, in uA."""
    rows, columns = cells.shape
    names = [(line, r, c) for line in ("word", "bit") for r in range(rows) for c in range(columns)]
    number = {name: index for index, name in enumerate(names)}
    sums, into = np.zeros((len(names), len(names))), np.zeros((len(names), voltages.shape[1]))
    word, bit = 1e6 / wires.word_line_ohm, 1e6 / wires.bit_line_ohm  # uS
    for (line, r, c), here in number.items():
        neighbours = [((line, r, c - 1), word), ((line, r, c + 1), word)]
        if line == "bit":
            neighbours = [((line, r - 1, c), bit), ((line, r + 1, c), bit)]
        for name, conductance in [*neighbours, (("bit" if line == "word" else "word", r, c), cells[r, c])]:
            if name in number:
                sums[here, here] += conductance
                sums[here, number[name]] -= conductance
        ends = [c == 0, c == columns - 1 and wires.driven_at == "both"]
        if line == "bit":
            ends = [r == rows - 1 and wires.sensed_at != "first", r == 0 and wires.sensed_at != "last"]
        sums[here, here] += (word if line == "word" else bit) * sum(ends)
        if line == "word":
            into[here] += word * sum(ends) * voltages[r]
    found = np.linalg.solve(sums, into)
    last = [found[number["bit", rows - 1, c]] for c in range(columns)]
    first = [found[number["bit", 0, c]] for c in range(columns)]
    return bit * ((wires.sensed_at != "first") * np.array(last) + (wires.sensed_at != "last") * np.array(first))


@pytest.mark.parametrize(("driven_at", "sensed_at"), [("first", "last"), ("both", "first"), ("first", "both")])
def test_nodal_analysis_cell_by_cell(
    driven_at: Literal["first", "both"], sensed_at: Literal["last", "first", "both"]
) -> None:
    random = np.random.default_rng(0)
    cells = random.uniform(0, 100, (4, 5)) * (random.uniform(size=(4, 5)) < 0.8)
    wires = Wires(word_line_ohm=300, bit_line_ohm=700, driven_at=driven_at, sensed_at=sensed_at, ir_drop="exact")
    voltages = random.normal(size=(4, 3))
    expected = dense(cells, wires, voltages)
    assert difference(cells.T @ voltages, expected) > 0.05
    np.testing.assert_allclose(column_currents(cells, wires, voltages), expected, rtol=1e-9)
    np.testing.assert_allclose(read(cells, wires, voltages, "exact"), expected, rtol=1e-5, atol=1e-4)
    alike = np.full((4, 1), 0.3)
    np.testing.assert_allclose(read(cells, wires, alike, "static"), dense(cells, wires, alike), rtol=1e-5)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), missing=st.floats(0, 1), both=st.booleans(), kind=st.sampled_from(KINDS))
def test_wires_without_resistance_change_nothing(seed: int, missing: float, both: bool, kind: Kind) -> None:
    random = np.random.default_rng(seed)
    cells = random.uniform(0, 100, (6, 3)) * (random.uniform(size=(6, 3)) >= missing)
    wires = Wires(driven_at="both", sensed_at="both") if both else Wires()
    np.testing.assert_allclose(read(cells, wires, np.eye(6), kind), cells.T, rtol=1e-6)


@pytest.mark.parametrize(("rows", "columns", "most"), [(64, 64, 0.002), (256, 24, 0.01)])
def test_static_drop_is_near_the_exact_one(rows: int, columns: int, most: float) -> None:
    random = np.random.default_rng(1)
    cells, wires = random.uniform(10, 100, (rows, columns)), Wires(word_line_ohm=1, bit_line_ohm=1, ir_drop="static")
    # Even inputs, sparse ones, inputs of both signs.
    even = random.uniform(size=(rows, 4))
    voltages = np.concatenate([even, even * (random.uniform(size=even.shape) < 0.3), random.normal(size=even.shape)], 1)
    expected = column_currents(cells, wires, voltages)
    for part in np.split(np.arange(12), 3):
        assert difference(cells.T @ voltages[:, part], expected[:, part]) > 0.02
        assert difference(read(cells, wires, voltages[:, part], "static"), expected[:, part]) < most
    assert difference(read(cells, wires, voltages, "exact"), expected) < 1e-6


def test_drop_per_input_where_cells_lose_as_they_are_driven() -> None:
    """Its rule is that of bit lines whose cells are cut off where they are not driven."""
    random = np.random.default_rng(2)
    cells, wires = random.uniform(10, 100, (64, 8)), Wires(bit_line_ohm=1, ir_drop="per-input")
    driven = (random.uniform(size=(64, 6)) < 0.5).astype(np.float64)
    expected = np.stack([column_currents(cells * one[:, None], wires, one[:, None])[:, 0] for one in driven.T], 1)
    bit_lines, vectors = jnp.asarray(cells, jnp.float32)[None], jnp.asarray(15 * driven, jnp.float32)[None]
    found = less_ir_drop(currents(vectors, bit_lines), vectors, bit_lines, wires, top=15)[0] / 15
    assert difference(cells.T @ driven, expected) > 0.02
    assert difference(np.asarray(found), expected) < 0.002


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"ir_drop": "static"}, "needs word_line_ohm or bit_line_ohm"),
        ({"ir_drop": "per-input", "bit_line_ohm": 1.0, "sensed_at": "both"}, 'needs sensed_at = "last"'),
        ({"bit_line_ohm": -1.0}, "wires.bit_line_ohm"),
        ({"bit_line_uohm": 1.0}, "wires.bit_line_uohm"),
    ],
)
def test_wires_that_cannot_be_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(CimcError, match=words):
        load_chip("brram-soc", settings={"wires": settings})


def test_drop_per_input_needs_codes_of_one_sign() -> None:
    wires = {"ir_drop": "per-input", "bit_line_ohm": 1.0}
    with pytest.raises(CimcError, match=r"needs input\.bits, and currents of one sign"):
        load_chip("brram-soc", settings={"wires": wires, "input": {"signed": "one-phase"}})
