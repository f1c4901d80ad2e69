"""The wires of an array, `[wires]`: their resistance, which ends are driven and sensed, how their drop is computed."""

from typing import Literal

from pydantic import Field, model_validator

from cimc.chip_sections import NonNegative, Section


class Wires(Section):
    """Resistance of the word lines and bit lines of an array, and whether reads see the voltage that drops on them."""

    word_line_ohm: NonNegative = Field(
        default=0.0, description="resistance of a word line from one bit line to the next, or to its driver, ohm"
    )
    bit_line_ohm: NonNegative = Field(
        default=0.0, description="resistance of a bit line from one word line to the next, or to its ADC, ohm"
    )
    driven_at: Literal["first", "both"] = Field(
        default="first", description="word lines are driven before the first bit line, or at both ends"
    )
    sensed_at: Literal["last", "first", "both"] = Field(
        default="last",
        description="bit lines are held at 0 V and sensed after the last word line, before the first, or at both ends",
    )
    ir_drop: Literal["none", "static", "per-input", "exact"] = Field(
        default="none",
        description="none: wires are ideal; static: each cell carries what it carries when all word lines are driven "
        "alike, found once a programming (too much for rows driven with both polarities, where exact is due); "
        "per-input: columns lose a fraction that follows their current, in each read "
        "(bit lines alone, as aihwkit has it); exact: nodal analysis once a programming, slow",
    )

    @model_validator(mode="after")
    def _check_drop(self) -> "Wires":
        if self.ir_drop != "none" and not (self.word_line_ohm or self.bit_line_ohm):
            raise ValueError(f'ir_drop = "{self.ir_drop}" needs word_line_ohm or bit_line_ohm above 0')
        if self.ir_drop == "per-input" and not self.bit_line_ohm:
            raise ValueError('ir_drop = "per-input" is that of bit lines and needs bit_line_ohm above 0')
        if self.ir_drop == "per-input" and self.sensed_at != "last":
            raise ValueError('ir_drop = "per-input" needs sensed_at = "last"')
        return self

    @property
    def in_conductances(self) -> bool:
        """Whether reads see other conductances than the devices hold."""
        return self.ir_drop in ("static", "exact")
