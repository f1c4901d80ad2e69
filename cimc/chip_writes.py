"""The write ports of a chip, `[write]`: what selecting a word line takes, how many lines are written at once."""

from typing import Literal

from pydantic import Field

from cimc.chip_sections import NonNegative, Section


class RowWrites(Section):
    """Row writes: a word line is selected and its devices take their pulses in parallel, SET and RESET apart."""

    line_us: NonNegative = Field(
        default=0.0, description="time to select a word line and set its voltages, once a phase (SET, RESET), us"
    )
    line_nj: NonNegative = Field(default=0.0, description="energy of the same, nJ")
    blind_us: NonNegative | None = Field(
        default=None, description="time of one blind pulse, us. Left out: cell.programming.pulse_us"
    )
    blind_nj: NonNegative | None = Field(
        default=None, description="energy of one blind pulse, nJ. Left out: cell.programming.pulse_nj"
    )
    read_us: NonNegative | None = Field(
        default=None, description="time of a read of all devices of a word line, us. Left out: cost.mvm_us"
    )
    read_nj: NonNegative | None = Field(
        default=None,
        description="energy of the same, nJ. Left out: that of one MVM of an array (of its split: one row driven)",
    )
    ports: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="word lines that are written at once in each `ports_of`; array i of it uses port i mod ports. Left "
        "out: each array has a port of its own",
    )
    ports_of: Literal["chip", "core"] = Field(default="chip", description="what has that many ports")
    order: Literal["set-first", "reset-first"] = Field(
        default="reset-first",
        description="which phase of a row write comes first; for the reader, its time does not depend on it",
    )
