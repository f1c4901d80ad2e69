"""`[cell.pulse]`: what a blind SET or RESET pulse does, a section a law.

Common to all laws: a pulse moves a device by its law's mean step, times the device's own factor, plus cycle-to-cycle
noise, within the device's own bounds. "Middle" is the middle of the window, where a weight of a single device is 0.
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import Discriminator, Field, Tag, model_validator

from cimc.chip_sections import Finite, NonNegative, Positive, Section
from cimc.device_laws import Numbers

Probability = Annotated[float, Field(gt=0, le=1)]


class Pulse(Section):
    """Open-loop response to one blind SET or RESET pulse, within the bounds of the device."""

    step_uS: Positive = Field(
        description="mean change of conductance by one SET pulse, uS; where the law depends on the state, that at the "
        "middle of the window, or what the law says"
    )
    step_down_uS: Positive | None = Field(
        default=None, description="the same of one RESET pulse, uS. Left out: step_uS"
    )
    directions: Literal["both", "up"] = Field(
        default="both",
        description="both; up: blind pulses only raise a device, and a pair that runs out of room is refreshed (both "
        "devices reset, the difference written anew)",
    )
    c2c: NonNegative = Field(
        default=0.0, description="cycle-to-cycle: sd of the change from pulse to pulse, as a fraction of `c2c_of`"
    )
    c2c_of: Literal["step", "nominal-step", "window"] = Field(
        default="step",
        description="what c2c is a fraction of: step, the mean change where the device is; nominal-step, the device's "
        "step_uS wherever it is; window, G_max - G_min",
    )
    step_d2d: NonNegative = Field(
        default=0.0, description="device-to-device: sd of a device's step, both directions alike, as a fraction of it"
    )
    step_d2d_law: Literal["normal", "log-normal"] = Field(
        default="normal", description="distribution of a device's step: 1 + s z, or exp(s z); z standard normal"
    )
    asymmetry_d2d: NonNegative = Field(
        default=0.0,
        description="device-to-device: sd of half the difference between a device's up and down step, as a fraction "
        "of step_uS; it shifts the symmetric point",
    )
    high_d2d: NonNegative = Field(
        default=0.0, description="device-to-device: sd of a device's upper bound, as a fraction of half the window"
    )
    low_d2d: NonNegative = Field(
        default=0.0, description="device-to-device: sd of a device's lower bound, as a fraction of half the window"
    )
    write_noise_uS: NonNegative = Field(
        default=0.0,
        description="sd of what is seen of a device after a blind write beside what it holds, uS: drawn anew by each "
        "write and not added up",
    )

    @property
    def law_name(self) -> str:
        """Name of the law, as in `runtime.devices.pulse_laws.PULSE_LAWS`."""
        return str(self.__dict__["law"])

    @property
    def down_uS(self) -> float:
        """Mean change by a RESET pulse, uS, as a positive number."""
        return self.step_uS if self.step_down_uS is None else self.step_down_uS

    @property
    def varies(self) -> bool:
        """Whether each device has traits of its own."""
        return bool(self.step_d2d or self.asymmetry_d2d or self.high_d2d or self.low_d2d)


class Linear(Pulse):
    """The same step everywhere."""

    law: Literal["linear"] = Field(default="linear", description="the same step everywhere")


class SoftBounds(Pulse):
    """The step shrinks linearly to 0 at the bound (arXiv 2502.06309; Rasch 2024, s41467-024-51221-z)."""

    law: Literal["soft-bounds"] = Field(
        description="the step shrinks linearly to 0 at the bound: SET step (high - g) / (high - middle), RESET "
        "step (g - low) / (middle - low)"
    )


class Exponential(Pulse):
    """The conductance saturates exponentially with the number of pulses (NeuroSim's A and B)."""

    law: Literal["exponential"] = Field(
        description="G(n) = G_min + B (1 - exp(-n / A)) by SET pulses, B such that G_max is reached after "
        "window / step pulses (so step_uS is the mean over the window); RESET is its mirror image (Chen, Peng, Yu: "
        "NeuroSim)"
    )
    nonlinearity: Finite = Field(
        description="NeuroSim's label of SET, 0 (linear) to 9; negative: the first steps are the smallest",
        ge=-9,
        le=9,
    )
    nonlinearity_down: Finite | None = Field(
        default=None,
        description="the same of RESET, positive where its first steps are the largest (NeuroSim writes that as a "
        "negative NL of LTD). Left out: as nonlinearity",
        ge=-9,
        le=9,
    )


class ExponentialStep(Pulse):
    """The step falls exponentially towards the bound (Gong 2018, aihwkit's ExpStep)."""

    law: Literal["exponential-step"] = Field(
        description="step x max(1 - amplitude exp(gamma z), 0) with z = 2 a w / width + b (RESET: -z), w the state as "
        "a weight, -1 to 1, width that between the device's bounds, 2; step_uS is far from the bound (Gong et al. 2018)"
    )
    amplitude: Finite = Field(default=0.00081, description="A, of SET pulses")
    amplitude_down: Finite = Field(default=0.36833, description="A, of RESET pulses")
    gamma: Finite = Field(default=12.44625, description="gamma, of SET pulses")
    gamma_down: Finite = Field(default=12.78785, description="gamma, of RESET pulses")
    slope: Finite = Field(default=0.244, description="a, of both directions")
    shift: Finite = Field(default=0.2425, description="b, of both directions")


class Power(Pulse):
    """The step follows a power of the distance to the bound (aihwkit's PowStep)."""

    law: Literal["power"] = Field(
        description="SET step (2 (high - g) / (high - low))^exponent, RESET with g - low: that at the middle is the "
        "stated one for every exponent"
    )
    exponent: NonNegative = Field(le=20, description="exponent of SET pulses")
    exponent_down: NonNegative | None = Field(
        default=None, le=20, description="exponent of RESET pulses. Left out: as exponent"
    )


class Piecewise(Pulse):
    """The step is interpolated between nodes across the window (aihwkit's PiecewiseStep)."""

    law: Literal["piecewise"] = Field(description="the step is interpolated between equidistant nodes")
    factors: Numbers = Field(
        min_length=2, description="SET step over step_uS at equidistant states, from the lower to the upper bound"
    )
    factors_down: Numbers | None = Field(
        default=None, min_length=2, description="the same of RESET. Left out: factors in reverse order"
    )

    @model_validator(mode="after")
    def _check_factors(self) -> "Piecewise":
        if any(factor < 0 for factor in (*self.factors, *(self.factors_down or ()))):
            raise ValueError("factors and factors_down are not negative: a RESET goes down by itself")
        return self


class Tabulated(Pulse):
    """Measured conductance against pulse number, up and down."""

    law: Literal["tabulated"] = Field(
        description="the step is that of a measured staircase where it passes the state; step_uS only says when an "
        "update is due"
    )
    curve_uS: Numbers = Field(
        min_length=2, description="conductance after 0, 1, 2, ... SET pulses, uS, ascending; between them linear"
    )
    curve_down_uS: Numbers | None = Field(
        default=None,
        min_length=2,
        description="conductance after 0, 1, 2, ... RESET pulses, uS, descending. Left out: curve_uS in reverse order",
    )

    @model_validator(mode="after")
    def _check_curves(self) -> "Tabulated":
        if any(b <= a for a, b in pairwise(self.curve_uS)):
            raise ValueError("curve_uS must ascend with every pulse")
        if any(b >= a for a, b in pairwise(self.curve_down_uS or ())):
            raise ValueError("curve_down_uS must descend with every pulse")
        return self


class Binary(Pulse):
    """A pulse switches the device fully, or not at all (STT-MRAM)."""

    law: Literal["binary"] = Field(
        description="a pulse takes the device to the bound with a probability, and else leaves it as it is; step_uS "
        "is the window, c2c has no meaning"
    )
    probability: Probability = Field(default=1.0, description="that a SET pulse switches")
    probability_down: Probability | None = Field(
        default=None, description="that a RESET pulse switches. Left out: as probability"
    )


LAWS = (Linear, SoftBounds, Exponential, ExponentialStep, Power, Piecewise, Tabulated, Binary)


def _law_of(value: Any) -> str:
    """The law that a description names; linear where it names none."""
    given = value.get("law", "linear") if isinstance(value, Mapping) else getattr(value, "law", None)
    return str(given)


AnyPulse = Annotated[
    Annotated[Linear, Tag("linear")]
    | Annotated[SoftBounds, Tag("soft-bounds")]
    | Annotated[Exponential, Tag("exponential")]
    | Annotated[ExponentialStep, Tag("exponential-step")]
    | Annotated[Power, Tag("power")]
    | Annotated[Piecewise, Tag("piecewise")]
    | Annotated[Tabulated, Tag("tabulated")]
    | Annotated[Binary, Tag("binary")],
    Discriminator(_law_of),
]
