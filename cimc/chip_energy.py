"""What a read takes by its data, `[energy]`: how long cells are driven, word lines that change, conversions by law."""

from pydantic import Field

from cimc.chip_sections import NonNegative, Positive, Section


class ReadEnergy(Section):
    """Energy that follows the inputs and the conductances, beside the figures of `[cost]`; for `--energy`."""

    pulse_ns: Positive | None = Field(
        default=None,
        description="time that a word line is driven for one cycle of bit-serial inputs, or for the largest input, ns. "
        "Left out: cost.mvm_us over the cycles of an input, which is an upper bound as it has the conversions in it",
    )
    dac_toggle_pj: NonNegative | None = Field(
        default=None, description="energy of a word line that changes its level once, pJ. Left out: not counted"
    )
    adc_step_fj: NonNegative | None = Field(
        default=None,
        description="energy of a conversion over its 2^adc.bits steps, fJ (Walden's figure). Left out: cost.adc_pj a "
        "conversion; without that not counted",
    )
