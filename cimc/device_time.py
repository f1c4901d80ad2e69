"""What time, heat and wear do to a device: drift, relaxation, retention, leak, flicker noise, faults, endurance."""

import math
from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from cimc.chip_sections import Finite, NonNegative, Positive, Section
from cimc.device_laws import MeanLaw, Numbers, SdLaw, law_at
from cimc.scheme import namespace_of

Share = Annotated[float, Field(ge=0, le=1)]
Conductance = Annotated[float, Field(ge=0, le=1e9)]
# What float32 can count in: from a picosecond to 30,000 years.
Seconds = Annotated[float, Field(ge=1e-12, le=1e12)]
COLDEST_C, HOTTEST_C = -200.0, 1000.0
Celsius = Annotated[float, Field(ge=COLDEST_C, le=HOTTEST_C)]
BOLTZMANN_EV = 8.617333262e-5  # eV/K (CODATA 2018)
ZERO_C_IN_K = 273.15
MOST_ACCELERATION = 1e12


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


SdLaws = Annotated[tuple[SdLaw, ...], BeforeValidator(_tuple)]
MeanLaws = Annotated[tuple[MeanLaw, ...], BeforeValidator(_tuple)]


class StateLaw(Section):
    """A figure that depends on the state x = g / G_max: constant + log ln x + scale x^power, within least and most.

    From x = `beyond` on, the polynomial instead.
    """

    constant: Finite = Field(default=0.0, description="the part that is the same for every state")
    log: Finite = Field(default=0.0, description="factor of ln x")
    scale: Finite = Field(default=0.0, description="factor of x^power")
    power: Finite = Field(default=0.0, ge=-20, le=20, description="exponent of x, with scale")
    least: Finite | None = Field(default=None, description="not less than this. Left out: no bound")
    most: Finite | None = Field(default=None, description="not more than this. Left out: no bound")
    beyond: Positive | None = Field(default=None, description="from this x on, `polynomial`. Left out: nowhere")
    polynomial: Numbers = Field(default=(), description="coefficients in x from `beyond` on, constant first")

    @model_validator(mode="after")
    def _check_beyond(self) -> "StateLaw":
        if (self.beyond is None) != (not self.polynomial):
            raise ValueError("beyond and polynomial go together")
        return self


class Drift(Section):
    """Power law: g(t) = g(start) (t / start)^-nu, nu of each device normal with a mean and sd that follow its state."""

    start_s: Seconds = Field(description="time after the write at which the written state holds, s")
    exponent: StateLaw = Field(description="mean of nu")
    exponent_sd: StateLaw = Field(default=StateLaw(), description="sd of nu from device to device")
    sign: Literal["any", "positive"] = Field(
        default="any", description="any: as drawn; positive: the magnitude of what is drawn (no device drifts upwards)"
    )


class Relaxation(Section):
    """Further spread after a write: mean and sd of the deviation at stated times, between them linear in ln t.

    Before the first time a device holds what was written, after the last its deviation is that of the last. What time
    adds is drawn once for each device: one that lies 2 sd high after an hour does so after a day.
    """

    times_s: Numbers = Field(min_length=2, description="times after the write, s, ascending")
    of: Literal["target", "written"] = Field(
        default="target",
        description="what the deviation is measured from: target, so that the first of the times is that of the "
        "write's error, and time adds the variance by which later ones exceed it; written, what the write left",
    )
    sd_uS: SdLaws = Field(description="sd at each of the times, uS: numbers, or lists of coefficients in x = g / G_max")
    mean_uS: MeanLaws | None = Field(default=None, description="mean at each of the times, uS, likewise. Left out: 0")

    @model_validator(mode="after")
    def _check_times(self) -> "Relaxation":
        if self.times_s[0] < 1e-12 or self.times_s[-1] > 1e12 or any(b <= a for a, b in pairwise(self.times_s)):
            raise ValueError("times_s must ascend, from 1e-12 to 1e12 s")
        if len(self.sd_uS) != len(self.times_s) or len(self.mean_uS or self.times_s) != len(self.times_s):
            raise ValueError("sd_uS and mean_uS need one entry for each of times_s")
        return self


class Retention(Section):
    """The state decays to a rest state: g(t) = rest + (g - rest) exp(-(t / tau)^stretch)."""

    tau_s: Seconds = Field(description="time after which 1/e of the way is left, s; the median of all devices")
    rest_uS: NonNegative = Field(description="the state to which devices decay, uS")
    stretch: Positive = Field(default=1.0, description="1: exponential; less: stretched")
    tau_d2d: NonNegative = Field(default=0.0, description="device-to-device: sd of ln tau")


class Thermal(Section):
    """Arrhenius: kept at T, drift, relaxation and retention run exp(Ea / k (1 / T0 - 1 / T)) times as fast as at T0.

    The acceleration factor of JEDEC JEP122, with T in K.
    """

    activation_energy_eV: Positive = Field(le=10, description="Ea, eV, of what time does to the device")
    measured_at_C: Celsius = Field(default=25.0, description="T0, where the stated laws hold, degrees Celsius")
    kept_at_C: Celsius | None = Field(
        default=None,
        description="T, at which chips are kept after programming, degrees Celsius; `deploy --temperature` goes "
        "before it. Left out: T0",
    )

    @model_validator(mode="after")
    def _check_acceleration(self) -> "Thermal":
        if not abs(self._exponent) <= math.log(MOST_ACCELERATION):
            raise ValueError(
                f"at {self.kept_C:g} C time would run 1e{self._exponent / math.log(10):.0f} times as fast as at "
                f"{self.measured_at_C:g} C; the law is for less than {MOST_ACCELERATION:g} times either way"
            )
        return self

    @property
    def kept_C(self) -> float:
        """T, degrees Celsius."""
        return self.measured_at_C if self.kept_at_C is None else self.kept_at_C

    @property
    def _exponent(self) -> float:
        inverse = 1 / (self.measured_at_C + ZERO_C_IN_K) - 1 / (self.kept_C + ZERO_C_IN_K)
        return self.activation_energy_eV / BOLTZMANN_EV * inverse

    @property
    def acceleration(self) -> float:
        """How many times as fast as at T0 time runs."""
        return math.exp(self._exponent)


class Leak(Section):
    """A volatile cell in training: each step takes 1 / steps of the way to the rest state."""

    steps: Positive = Field(gt=1, description="training steps (batches) after which 1/e of the way is left, the median")
    rest_uS: NonNegative = Field(description="the state to which cells leak, uS")
    steps_d2d: NonNegative = Field(default=0.0, description="device-to-device: sd of ln steps")


class Flicker(Section):
    """1/f read noise: sd = g q(x) sqrt(ln((t + read) / (2 read))), t after the write."""

    q: StateLaw | None = Field(default=None, description="q, of the state; or q_uS")
    q_uS: StateLaw | None = Field(default=None, description="in place of g q, uS")
    read_s: Seconds = Field(description="duration of a read, s")
    after_s: Seconds = Field(description="time after the write, s, where none is told (training, evaluation)")

    @model_validator(mode="after")
    def _check_q(self) -> "Flicker":
        if (self.q is None) == (self.q_uS is None):
            raise ValueError("give either q or q_uS")
        return self


class Faults(Section):
    """Stuck devices: shares of all devices, and the conductance that they keep, which may lie beyond the window."""

    stuck_low: Share = Field(default=0.0, description="share of devices stuck at low_uS")
    stuck_high: Share = Field(default=0.0, description="share of devices stuck at high_uS")
    stuck_anywhere: Share = Field(
        default=0.0, description="share of devices stuck where a uniform draw in the window puts them"
    )
    low_uS: Conductance | None = Field(default=None, description="value of those stuck low, uS. Left out: G_min")
    high_uS: Conductance | None = Field(default=None, description="value of those stuck high, uS. Left out: G_max")

    @model_validator(mode="after")
    def _check_shares(self) -> "Faults":
        if self.stuck_low + self.stuck_high + self.stuck_anywhere > 1:
            raise ValueError("the shares of stuck devices add up to more than 1")
        return self

    @property
    def share(self) -> float:
        """Of all devices, those that are stuck."""
        return self.stuck_low + self.stuck_high + self.stuck_anywhere


class Endurance(Section):
    """Wear: a device takes so many writes (or pulses), and then keeps what it holds."""

    writes: Positive = Field(description="acts of writing after which half the devices are worn out: writes, or pulses")
    spread_decades: NonNegative = Field(default=0.0, description="device-to-device: sd of log10 of that number")
    then: Literal["keeps", "low", "high"] = Field(
        default="keeps", description="a worn device keeps what it holds, or falls to G_min or G_max for good"
    )


def state_law_at(law: StateLaw, x: Any) -> Any:
    """The law at states x = g / G_max, an array (NumPy or JAX) of numbers of at least 0."""
    xp = namespace_of(x)
    safe = xp.maximum(x, 1e-6)
    value = law.constant + law.log * xp.log(safe) + (law.scale * safe**law.power if law.scale else 0.0)
    if law.least is not None or law.most is not None:
        value = xp.clip(value, law.least, law.most)
    if law.beyond is None:
        return value
    return xp.where(x < law.beyond, value, law_at(law.polynomial, x))
