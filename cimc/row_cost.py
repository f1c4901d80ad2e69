"""What a row write takes on a chip, in time and energy, with a rule for each figure that the chip file leaves out."""

from dataclasses import dataclass
from typing import Any

from cimc.chip import Chip

# Where a source is silent: published pulses of RRAM and PCM last from 0.05 us to 10 us, at 1 V to 4 V.
USUAL_PULSE_US = 1.0
USUAL_WRITE_V = 2.0


@dataclass(frozen=True)
class RowCost:
    """What the parts of a row write take on a chip, each with its rule where the chip file is silent.

    phase: before the pulses of a phase. pulse: of a device, closed loop: a trial. read: of a word line.
    pulse_reads: reads of the line after each pulse of its longest device; phase_reads: once a phase. row_reads: before
    and after the write, for the digital copy. assumed: keys that the chip file leaves out and a rule stands for.
    """

    phase_us: float
    phase_nj: float
    pulse_us: float
    pulse_nj: float
    read_us: float
    read_nj: float
    pulse_reads: int
    phase_reads: int
    row_reads: int
    assumed: tuple[str, ...] = ()

    def time_us(self, rows: Any, phases: Any, pulses: Any) -> Any:
        """Of row writes one after the other; pulses: those of the longest device, summed over phases.

        Numbers or arrays (NumPy or JAX).
        """
        return phases * self.phase_us + pulses * self.pulse_us + self.reads(rows, phases, pulses) * self.read_us

    def energy_nj(self, rows: float, phases: float, pulses: float, all_pulses: float) -> float:
        """all_pulses: of all devices; the others as `time_us`."""
        read: float = self.reads(rows, phases, pulses) * self.read_nj
        return phases * self.phase_nj + all_pulses * self.pulse_nj + read

    def reads(self, rows: Any, phases: Any, pulses: Any) -> Any:
        """Reads of word lines; arguments as `time_us`."""
        return rows * self.row_reads + phases * self.phase_reads + pulses * self.pulse_reads


def stated_pulse(chip: Chip, *, blind: bool) -> tuple[float | None, float | None]:
    """Time in us and energy in nJ of a pulse, closed loop of a trial, where the chip file states them."""
    write, programming = chip.write, chip.cell.programming
    return (
        programming.pulse_us if not blind or write.blind_us is None else write.blind_us,
        programming.pulse_nj if not blind or write.blind_nj is None else write.blind_nj,
    )


def row_cost(chip: Chip, *, blind: bool, row_reads: int) -> RowCost:
    """The costs of a chip's row writes.

    Args:
        chip: the chip.
        blind: pulses without a read after each.
        row_reads: reads of a line before and after its write.
    """
    write, programming, cell = chip.write, chip.cell.programming, chip.cell
    assumed = []
    pulse_us, pulse_nj = stated_pulse(chip, blind=blind)
    if pulse_us is None:
        pulse_us = USUAL_PULSE_US
        assumed.append("write.blind_us" if blind else "cell.programming.pulse_us")
    if pulse_nj is None:
        middle_uS = (cell.conductance_min_uS + cell.conductance_max_uS) / 2
        pulse_nj = USUAL_WRITE_V**2 * middle_uS * pulse_us * 1e-3
        assumed.append("write.blind_nj" if blind else "cell.programming.pulse_nj")
    train = programming.train
    return RowCost(
        phase_us=write.line_us,
        phase_nj=write.line_nj,
        pulse_us=pulse_us,
        pulse_nj=pulse_nj,
        read_us=chip.cost.mvm_us if write.read_us is None else write.read_us,
        read_nj=_line_read_nj(chip) if write.read_nj is None else write.read_nj,
        pulse_reads=0 if blind else 1 if train is None else train.reads,
        phase_reads=0 if blind or train is None else train.reads,
        row_reads=row_reads,
        assumed=tuple(assumed),
    )


def most_pulses(chip: Chip) -> int:
    """The most pulses or trials that a closed-loop write of a device takes."""
    programming = chip.cell.programming
    return programming.trials if programming.train is None else programming.train.pulses


def _line_read_nj(chip: Chip) -> float:
    """One MVM of an array with one row driven; what the chip file leaves out counts nothing."""
    cost = chip.cost
    if cost.mvm_nj is not None:
        return cost.mvm_nj
    conversions = chip.array.columns * ((cost.adc_pj or 0.0) + (cost.shift_add_pj or 0.0))
    return (conversions + (cost.dac_pj or 0.0) + (cost.array_pj or 0.0)) * 1e-3
