"""Small chips of every scheme, encoding, sign rule and converter that a chip file states, with inputs and weights."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from cimc.chip import Chip

SCHEMES = ("differential", "differential-rows", "offset", "single")
ENCODINGS = ("ideal", "bit-serial-accumulated", "bit-serial", "pulse-width")
SIGN_RULES = ("two-phase", "one-phase")
NOTHING: Mapping[str, Any] = MappingProxyType({})
ROWS = 5  # of weights in one array


class Case(NamedTuple):
    """A chip and what its layer is given: signed inputs or not, weights [rows, columns], inputs [images, rows]."""

    chip: Chip
    signed: bool
    weight: npt.NDArray[np.float32]
    weight_range: float
    x: npt.NDArray[np.float32]
    input_range: float


def chip_of(
    *,
    weights: Mapping[str, Any] = NOTHING,
    cell: Mapping[str, Any] = NOTHING,
    inputs: Mapping[str, Any] = NOTHING,
    adc: Mapping[str, Any] = NOTHING,
    rows: int = ROWS,
) -> Chip:
    """A chip from the tables of its file, with arrays of `rows` rows of weights."""
    scheme = weights.get("scheme", "differential")
    tables = {
        "name": "small",
        "description": "for tests",
        "array": {"rows": rows * (2 if scheme == "differential-rows" else 1), "columns": 64, "per_chip": 64},
        "weights": dict(weights),
        "cell": {
            "technology": "any",
            "conductance_min_uS": 0.0,
            "conductance_max_uS": 30.0,
            "read_voltage_V": 0.5,
            **cell,
        },
        "input": dict(inputs),
        "adc": dict(adc),
        "row_split": "flat",
        "cost": {"mvm_us": 1.0, "mvm_nj": 1.0},
    }
    return Chip.model_validate(tables)


@st.composite
def weight_tables(draw: st.DrawFn) -> dict[str, Any]:
    """`[weights]`."""
    scheme = draw(st.sampled_from(SCHEMES))
    table: dict[str, Any] = {"scheme": scheme, "slices_in": draw(st.sampled_from(("columns", "arrays")))}
    if scheme == "single" or draw(st.booleans()):
        table["bits"], table["bits_per_cell"] = draw(st.integers(2, 8)), draw(st.integers(1, 4))
    if scheme == "offset":
        table["offset_columns"] = draw(st.integers(0, 2))
    return table


@st.composite
def cell_tables(draw: st.DrawFn, weights: Mapping[str, Any]) -> dict[str, Any]:
    """`[cell]`: a window, and levels of devices that hold a weight whole."""
    least = draw(st.sampled_from((0.0, 2.5)))
    table: dict[str, Any] = {"conductance_min_uS": least, "conductance_max_uS": draw(st.sampled_from((30.0, 41.7)))}
    if "bits" not in weights:
        kind = draw(st.sampled_from(("any", "levels", "listed")))
        if kind == "levels":
            table["levels"] = draw(st.integers(2, 12))
        elif kind == "listed":
            table["level_uS"] = [least, 6.0, 11.0, 29.0]
    return table


@st.composite
def input_tables(draw: st.DrawFn) -> dict[str, Any]:
    """`[input]`."""
    encoding = draw(st.sampled_from(ENCODINGS))
    if encoding == "ideal" and draw(st.booleans()):
        return {}
    bits = draw(st.integers(2, 8))
    table: dict[str, Any] = {"encoding": encoding, "bits": bits, "signed": draw(st.sampled_from(SIGN_RULES))}
    if encoding == "bit-serial":
        table["bits_per_cycle"] = draw(st.integers(1, bits - 1))
    return table


@st.composite
def adc_tables(draw: st.DrawFn, scheme: str, cell: Mapping[str, Any], inputs: Mapping[str, Any]) -> dict[str, Any]:
    """`[adc]`: none, a range that some columns go beyond, the range that follows from the chip, or voltages."""
    kinds = ["none"] if "bits" not in inputs else ["none", "stated", "stated", "exact", "exact"]
    if scheme == "differential-rows" and inputs.get("encoding") is not None and "bits" in inputs:
        kinds.append("voltage")
    kind = draw(st.sampled_from(kinds))
    if kind == "none":
        return {}
    table: dict[str, Any] = {"bits": draw(st.integers(3, 9))}
    if kind == "stated":
        most = 0.5 * ROWS * cell["conductance_max_uS"]
        table["range_uA"] = most * draw(st.floats(0.2, 0.9))
    elif kind == "voltage":
        table |= {"sense": "voltage", "range_mV": draw(st.floats(80.0, 500.0))}
    return table


@st.composite
def chips(draw: st.DrawFn) -> Chip:
    """Any chip that the runtime reads."""
    weights = draw(weight_tables())
    cell, inputs = draw(cell_tables(weights)), draw(input_tables())
    adc = draw(adc_tables(weights["scheme"], cell, inputs))
    return chip_of(weights=weights, cell=cell, inputs=inputs, adc=adc)


def case_of(chip: Chip, signed: bool, seed: int, *, images: int = 3, rows: int = 7, columns: int = 3) -> Case:
    """Weights and inputs, some beyond their ranges, the ends of both among them, none near where a target changes."""
    random = np.random.default_rng(seed)
    weight_range, input_range = float(random.uniform(0.3, 3)), float(random.uniform(0.3, 3))
    weight = random.uniform(-1.1, 1.1, (rows, columns)) * weight_range
    weight[0, :3] = np.array((weight_range, -weight_range, 0.0))[:columns]
    top = 1 if chip.input.bits is None else 2**chip.input.bits - 1
    codes = random.integers(-top if signed else 0, top + 1, (images, rows)) + random.uniform(0.05, 0.3, (images, rows))
    x = codes * (random.random((images, rows)) < 0.85) * input_range / top * 1.1
    x[0, 0] = input_range
    return Case(chip, signed, weight.astype(np.float32), weight_range, x.astype(np.float32), input_range)
