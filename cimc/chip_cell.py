"""The device of a chip description, `[cell]`: what it can hold, what a write leaves, what a blind pulse does."""

import math
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from cimc.chip_sections import NonNegative, Positive, Section
from cimc.device_laws import Law, MeanLaw, Numbers, SdLaw, extreme_of, law_at
from cimc.device_pulse import AnyPulse, Tabulated
from cimc.device_time import Drift, Endurance, Faults, Flicker, Leak, Relaxation, Retention, Thermal, state_law_at
from cimc.scheme import namespace_of

# Where a chip states neither a step nor levels, an update is due at twice the largest sd that a write leaves: the rule
# of the published simulations, where a level of 4 uS is programmed with an sd of 2 uS (arXiv 2305.14547, Table 1).
ERRORS_A_STEP = 2.0
# A device without errors still takes no endless small updates: the least default step, as a fraction of the window.
LEAST_STEP = 1e-3
# A level lies where a state of a bit slice is if it is no further from it, as a fraction of the window.
LEVEL_TOLERANCE = 1e-6
# The largest default step: with errors as large as the window no update would ever be due.
MOST_STEP = 0.5


class PulseTrain(Section):
    """Write-verify as it runs: read, a pulse towards the target, read again, until within tolerance or out of pulses.

    Pulses are those of `[cell.pulse]`, reads have the device's read noise.
    """

    pulses: int = Field(ge=1, le=10000, description="at most so many pulses a write")
    reads: int = Field(default=1, ge=1, le=1000, description="reads that a verify averages")
    amplitude: Literal["fixed", "stepped"] = Field(
        default="fixed",
        description="fixed: every pulse is one of [cell.pulse]; stepped: a pulse in the same direction as the one "
        "before is `growth` times as strong, up to a step of the whole window, one in the other direction begins anew",
    )
    growth: Positive = Field(default=1.1, description="of the step, with a stepped amplitude")


class Programming(Section):
    """Closed-loop write-verify: the error of a device after at most `trials` trials, as measured.

    A trial ends within `tolerance_uS` of the target or is repeated; the last trial is accepted as it is. The error
    of a single trial is derived from these figures (`runtime.devices.write_law.trial_error`).
    """

    error_sd_uS: SdLaw = Field(
        default=0.0,
        description="sd of the error left, uS, with whatever saturation there was when it was measured; a number, or "
        "a list of polynomial coefficients in x = g / G_max, constant first",
    )
    error_mean_uS: MeanLaw = Field(
        default=0.0, description="mean of the error left, uS; a number or a list of coefficients, as error_sd_uS"
    )
    trials: int = Field(default=1, ge=1, le=1000, description="at most so many trials a write")
    tolerance_uS: Positive | None = Field(
        default=None, description="a trial that ends within so much of the target is accepted, uS"
    )
    train: PulseTrain | None = Field(
        default=None,
        description="write-verify as a loop of pulses and reads in place of the error as measured; error_sd_uS then "
        "says what the loop leaves, for the choice of ranges and thresholds. Left out: the error as measured",
    )
    pulse_us: NonNegative | None = Field(default=None, description="time of one trial, us")
    pulse_nj: NonNegative | None = Field(default=None, description="energy of one trial, nJ")

    @model_validator(mode="after")
    def _check_trials(self) -> "Programming":
        if self.trials > 1 and self.follows_state:
            raise ValueError("an error given as a polynomial needs trials = 1: state the error left after the last one")
        if self.trials > 1 and self.tolerance_uS is None:
            raise ValueError("tolerance_uS is needed when trials > 1")
        if self.train is not None and self.tolerance_uS is None:
            raise ValueError("programming.train needs programming.tolerance_uS")
        return self

    @property
    def follows_state(self) -> bool:
        """Whether the error left depends on the target."""
        return isinstance(self.error_sd_uS, tuple) or isinstance(self.error_mean_uS, tuple)


class Cell(Section):
    """One device.

    Targets lie in the window, G_min to G_max. The error a chip file states is the error left as measured, with whatever
    saturation there was in it: a write ends there, also beyond the window, and for a G_min of 0 also below 0 (a
    difference to a reference, not a negative resistor); nothing is clipped that would shift the mean or narrow the
    spread. Where `limits_uS` is stated, no act takes a device beyond it: it is clipped there, and
    `cimc chips NAME --explain` prints the mean and sd that result. Without limits_uS, blind pulses, which are open
    loop, stop at the window.
    """

    technology: str = Field(description="kind of device, for the reader")
    conductance_min_uS: NonNegative = Field(description="G_min, uS: an idle device; the lower end of the window")
    conductance_max_uS: Positive = Field(
        le=1e9, description="G_max, uS: a fully-on device; the upper end of the window"
    )
    read_voltage_V: Positive = Field(description="voltage on a driven row in a read, V")
    levels: int | None = Field(
        default=None,
        ge=2,
        le=1 << 16,
        description="conductances that can be programmed, uniform from G_min to G_max; a target snaps to the nearest. "
        "Left out: any conductance (write-verify to an analog target). The step of updates is granularity_uS, which "
        "this key alone once meant",
    )
    level_uS: Numbers | None = Field(
        default=None,
        description="in place of levels: the conductances that can be programmed, uS, ascending from G_min",
    )
    granularity_uS: Positive | None = Field(
        default=None,
        description="change of conductance at which an accumulated update is due, uS. Left out: one level (the "
        "smallest spacing), or without levels twice the largest sd of a write, at least a thousandth of the window",
    )
    limits_uS: Numbers | None = Field(
        default=None,
        description="[low, high], uS: no write or pulse takes a device beyond; holds the window. Left out: a write "
        "ends where its error takes it, blind pulses stop at the window",
    )
    read_noise_uS: NonNegative = Field(default=0.0, description="sd of one read of one device, uS")
    read_noise_polynomial_uS: Numbers = Field(
        default=(),
        description="sd of further read noise that follows the state, uS: polynomial coefficients in x = g / G_max, "
        "constant first; its variance adds to that of read_noise_uS. Left out: none",
    )
    programming: Programming = Field(default=Programming(), description="closed-loop writes")
    pulse: AnyPulse | None = Field(default=None, description="open-loop pulses. Left out: only closed-loop writes")
    flicker: Flicker | None = Field(default=None, description="1/f read noise beside read_noise_uS. Left out: none")
    drift: Drift | None = Field(default=None, description="power law of time. Left out: none")
    relaxation: Relaxation | None = Field(default=None, description="spread that grows after a write. Left out: none")
    retention: Retention | None = Field(default=None, description="decay to a state. Left out: none")
    thermal: Thermal | None = Field(default=None, description="heat speeds time up. Left out: at any it runs as stated")
    leak: Leak | None = Field(default=None, description="of volatile cells in training. Left out: none")
    faults: Faults | None = Field(default=None, description="stuck devices. Left out: none")
    endurance: Endurance | None = Field(default=None, description="wear. Left out: any number of writes")

    @model_validator(mode="after")
    def _check_range(self) -> "Cell":
        low, high = self.conductance_min_uS, self.conductance_max_uS
        if high <= low:
            raise ValueError("conductance_max_uS must be above conductance_min_uS")
        if self.limits_uS is not None and not (
            len(self.limits_uS) == 2 and self.limits_uS[0] <= low and self.limits_uS[1] >= high
        ):
            raise ValueError(
                f"limits_uS must be [low, high] and hold the window of {low:g} to {high:g} uS, "
                f"it is {list(self.limits_uS)}"
            )
        if self.granularity_uS is not None and self.granularity_uS > self.window_uS:
            raise ValueError(f"granularity_uS {self.granularity_uS:g} is more than the window of {self.window_uS:g} uS")
        return self

    @model_validator(mode="after")
    def _check_levels(self) -> "Cell":
        if self.level_uS is None:
            return self
        if self.levels is not None:
            raise ValueError("levels and level_uS exclude each other; leave one out")
        if len(self.level_uS) < 2 or any(above <= below for below, above in pairwise(self.level_uS)):
            raise ValueError(f"level_uS must be at least two ascending conductances, it is {list(self.level_uS)}")
        if self.level_uS[0] != self.conductance_min_uS or self.level_uS[-1] > self.conductance_max_uS:
            raise ValueError(
                f"level_uS must begin at G_min, {self.conductance_min_uS:g} uS, and end at or below G_max, "
                f"{self.conductance_max_uS:g} uS; it runs from {self.level_uS[0]:g} to {self.level_uS[-1]:g}"
            )
        return self

    @model_validator(mode="after")
    def _check_curves(self) -> "Cell":
        if isinstance(self.pulse, Tabulated):
            low, high = self.conductance_min_uS, self.conductance_max_uS
            for key in ("curve_uS", "curve_down_uS"):
                curve = getattr(self.pulse, key)
                if curve is not None and (min(curve) > low or max(curve) < high):
                    raise ValueError(
                        f"pulse.{key} runs from {min(curve):g} to {max(curve):g} uS; it must hold the window, "
                        f"{low:g} to {high:g} uS"
                    )
        return self

    @model_validator(mode="after")
    def _check_train(self) -> "Cell":
        if self.programming.train is not None and self.pulse is None:
            raise ValueError("programming.train writes by pulses; add [cell.pulse]")
        return self

    @model_validator(mode="after")
    def _check_error(self) -> "Cell":
        at, least = self._extreme_error_sd(largest=False)
        if least < 0:
            raise ValueError(
                f"programming.error_sd_uS is negative within the window, {least:.3g} uS at {at:.4g} uS; "
                f"its coefficients are those of g / G_max, constant first"
            )
        return self

    def require_states(self, count: int) -> None:
        """Raises ValueError where the cell has levels, and one of so many states spread over the window is none."""
        levels = self.programmable_uS
        if levels is None:
            return
        states = np.linspace(self.conductance_min_uS, self.conductance_max_uS, count)
        known = np.array([-math.inf, *levels, math.inf])
        place = np.searchsorted(known, states)
        missing = np.minimum(states - known[place - 1], known[place] - states) > LEVEL_TOLERANCE * self.window_uS
        if missing.any():
            raise ValueError(
                f"weights.bits_per_cell takes {count} states spread evenly over the window, and none of the cell's "
                f"{len(levels)} levels is at {states[missing][0]:.4g} uS; state levels = {count} or leave levels out"
            )

    @property
    def window_uS(self) -> float:
        """G_max - G_min."""
        return self.conductance_max_uS - self.conductance_min_uS

    @property
    def programmable_uS(self) -> tuple[float, ...] | None:
        """All conductances that can be programmed, ascending from G_min; None: any within the window."""
        if self.levels is None:
            return self.level_uS
        last = self.levels - 1
        return tuple(self.conductance_min_uS + self.window_uS * index / last for index in range(self.levels))

    @property
    def largest_spacing(self) -> float:
        """The widest step between neighbouring levels, as a fraction of the window; 0 without levels."""
        levels = self.programmable_uS
        return 0.0 if levels is None else max(b - a for a, b in pairwise(levels)) / self.window_uS

    @property
    def granularity(self) -> float:
        """The step at which an accumulated update is due, as a fraction of the window."""
        return self._granularity()[0]

    @property
    def granularity_origin(self) -> str:
        """Where the granularity comes from, in a few words."""
        return self._granularity()[1]

    @property
    def largest_error_sd_uS(self) -> float:
        """The largest sd that a write leaves anywhere in the window."""
        return self._extreme_error_sd(largest=True)[1]

    def error_sd_uS(self, target: Any) -> Any:
        """The stated sd of the error left at a target in uS: a number, or an array like the target (NumPy or JAX)."""
        return self._law_at(self.programming.error_sd_uS, target)

    def error_mean_uS(self, target: Any) -> Any:
        """The stated mean of the error left at a target in uS; see `error_sd_uS`."""
        return self._law_at(self.programming.error_mean_uS, target)

    @property
    def reads_are_noisy(self) -> bool:
        """Whether a read of a device differs from what it holds."""
        return self.read_noise_uS > 0 or self.reads_follow_state

    @property
    def largest_read_sd_uS(self) -> float:
        """The largest sd of one read of a device anywhere in the window."""
        window = np.linspace(self.conductance_min_uS, self.conductance_max_uS, 101)
        return float(np.sqrt(np.max(self.read_noise_variance(window))))

    @property
    def ages(self) -> bool:
        """Whether time changes what a write has left."""
        return self.drift is not None or self.relaxation is not None or self.retention is not None

    @property
    def as_read(self) -> "Cell":
        """The cell with no more than its read noise depends on: of equal ones reads are equal."""
        others = {name: f.default for name, f in Cell.model_fields.items() if not f.is_required()}
        kept = {name: getattr(self, name) for name in ("read_noise_uS", "read_noise_polynomial_uS", "flicker")}
        return self.model_copy(update={**others, **kept, "technology": ""})

    @property
    def reads_follow_state(self) -> bool:
        """Whether read noise depends on the conductance."""
        return bool(self.read_noise_polynomial_uS) or self.flicker is not None

    def read_noise_variance(self, conductance: Any, after_s: float | None = None) -> Any:
        """Variance of one read in uS^2, an array like the conductances in uS (NumPy or JAX).

        after_s: time since the write, for 1/f noise; None: what the description says.
        """
        x = self.state(conductance)
        variance = x * 0 + self.read_noise_uS**2
        if self.read_noise_polynomial_uS:
            variance = variance + law_at(self.read_noise_polynomial_uS, x) ** 2
        if self.flicker is not None:
            after, read = self.flicker.after_s if after_s is None else after_s, self.flicker.read_s
            spread = math.log((after + read) / (2 * read))
            q, q_uS = self.flicker.q, self.flicker.q_uS
            scale = conductance * state_law_at(q, x) if q is not None else 0.0
            scale = scale + state_law_at(q_uS, x) if q_uS is not None else scale
            variance = variance + scale**2 * max(spread, 0.0)
        return variance

    def state(self, conductance: Any) -> Any:
        """x = g / G_max, at which laws of the state are taken; beyond the window that of its nearer end.

        conductance: uS, an array (NumPy or JAX).
        """
        xp = namespace_of(conductance)
        return xp.clip(conductance, self.conductance_min_uS, self.conductance_max_uS) * (1.0 / self.conductance_max_uS)

    def _law_at(self, law: Law, target: Any) -> Any:
        return law if isinstance(law, float) else law_at(law, target * (1.0 / self.conductance_max_uS))

    def _granularity(self) -> tuple[float, str]:
        if self.granularity_uS is not None:
            return self.granularity_uS / self.window_uS, "stated"
        if self.levels is not None:
            return 1.0 / (self.levels - 1), "one level"
        if self.level_uS is not None:
            return min(above - below for below, above in pairwise(self.level_uS)) / self.window_uS, "smallest level"
        step = ERRORS_A_STEP * self.largest_error_sd_uS / self.window_uS
        if step > MOST_STEP:
            return MOST_STEP, f"{MOST_STEP:g} of the window, less than {ERRORS_A_STEP:g} x the largest sd of a write"
        if step > LEAST_STEP:
            return step, f"{ERRORS_A_STEP:g} x the largest sd of a write"
        return LEAST_STEP, f"{LEAST_STEP:g} of the window"

    def _extreme_error_sd(self, *, largest: bool) -> tuple[float, float]:
        """(conductance in uS, sd in uS) where the stated sd is largest or smallest in the window."""
        most = self.conductance_max_uS
        x, sd = extreme_of(self.programming.error_sd_uS, self.conductance_min_uS / most, 1.0, largest=largest)
        return x * most, sd
