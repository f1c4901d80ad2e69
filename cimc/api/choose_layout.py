"""The cheapest layout that keeps a network's answers: a short ladder of settings, measured in order of their cost."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import onnx_ir as ir
from jax import Array

from cimc.api.agreement import Agreement, compare_outputs, worst_layer
from cimc.api.choose_digital import DigitalChoice, choose_digital, choose_within
from cimc.api.lay_out import Numbers, lay_out
from cimc.api.progress import Note
from cimc.by_layer import ALL, NOTHING
from cimc.chip import Chip
from cimc.dataset import Dataset, Preprocess, Samples
from cimc.errors import CimcError
from cimc.mapping import Mapping
from passes.mapper.options import MappingOptions
from runtime.crossbar.keys import new_key
from runtime.crossbar.xla import use_compilation_cache
from runtime.deployment.programming import programmed_chip
from runtime.network.load import load_network
from runtime.system.calibration import calibration_index
from runtime.system.choose_scales import choose_scales
from runtime.system.inference import exact_parameters
from runtime.system.inputs import match_data
from runtime.system.layer_errors import layer_errors
from runtime.system.state import State, System, build_system, initial_state

FILLED_ROWS = (64, 128, 256, 1024)  # tried beside none
READS = 4  # of a full array, tried beside one
BUDGETS = (0.01, 0.05)  # of the multiply-accumulates, for layers left digital
MEASURED = 64  # samples at most


@dataclass(frozen=True)
class Target:
    """What is wanted on a chip with its noise: the SNR of every output against float32, in dB; the share of cases in
    which every output has its largest entry where float32 has it. None: any.
    """

    snr_db: float | None = None
    agreement: float | None = None

    def __str__(self) -> str:
        wanted = [] if self.agreement is None else [f"{self.agreement:.1%} agreement"]
        return " and ".join(wanted if self.snr_db is None else [*wanted, f"{self.snr_db:g} dB"])


@dataclass(frozen=True)
class Measured:
    """Of the output that has least: its agreement with float32 (None where no output has several entries), its SNR."""

    agreement: float | None
    snr_db: float

    def __str__(self) -> str:
        same = "" if self.agreement is None else f"{self.agreement:.1%} agreement and "
        return f"{same}{self.snr_db:.1f} dB"


@dataclass(frozen=True, eq=False)
class Setting:
    """A layout of the whole network. noise_off, noise_on: None where it was not measured."""

    fill_rows: Numbers
    rows_per_read: Numbers
    digital_budget: float
    network: ir.Model
    mapping: Mapping
    noise_off: Measured | None = None
    noise_on: Measured | None = None

    @property
    def cost(self) -> tuple[float, int, float]:
        """What settings are ordered by: energy of one input, arrays, its time."""
        return (self.mapping.cost.spent_mj, self.mapping.cost.crossbars, self.mapping.latency_ms)

    def __str__(self) -> str:
        parts = [f"{_text(self.fill_rows)} rows filled"] if self.fill_rows else []
        parts += [f"{_text(self.rows_per_read)} rows a read"] if self.rows_per_read else []
        parts += [f"{self.digital_budget:.3%} digital".replace(".000%", "%")] if self.digital_budget else []
        return ", ".join(parts) or "plain"


@dataclass(frozen=True, eq=False)
class LayoutChoice:
    """The settings, those on arrays alone first and by their cost; which is taken; the samples that were measured.

    reached: whether it reaches the target; else it comes nearest.
    """

    target: Target
    samples: int
    settings: tuple[Setting, ...]
    chosen: Setting
    reached: bool

    @property
    def figures(self) -> dict[str, Any]:
        """All of it but networks and mappings, as JSON values."""
        return {
            "target": {"snr_db": self.target.snr_db, "agreement": self.target.agreement},
            "samples": self.samples,
            "reached": self.reached,
            "settings": [
                {
                    "setting": str(setting),
                    "fill_rows": dict(setting.fill_rows),
                    "rows_per_read": dict(setting.rows_per_read),
                    "digital_budget": setting.digital_budget,
                    "arrays": setting.mapping.cost.crossbars,
                    "latency_ms": setting.mapping.latency_ms,
                    "energy_mj": setting.mapping.cost.spent_mj,
                    "noise_off": setting.noise_off and vars(setting.noise_off),
                    "noise_on": setting.noise_on and vars(setting.noise_on),
                    "chosen": setting is self.chosen,
                }
                for setting in self.settings
            ],
        }


def choose_layout(
    lowered: ir.Model,
    chip: Chip,
    options: MappingOptions,
    data: Dataset,
    target: Target,
    *,
    fill_rows: Numbers = NOTHING,
    digital_budget: float | None = None,
    curve: bool = False,
    note: Note,
) -> tuple[LayoutChoice, str | None]:
    """Map every setting, measure them in the order of their energy, then arrays, and take the first that is enough.

    Settings: no rows filled or some of `FILLED_ROWS`, all rows at once or in `READS` reads. Where none is enough, the
    one that comes nearest is measured again with layers left digital by sensitivity, within each of `BUDGETS`. One half
    of the training samples sets scales and input ranges (as many as for `export`); of the other `MEASURED` are measured
    on one virtual chip with its noise, and without noise.

    Args:
        lowered: the network, without the layers that are digital anyway.
        chip: the chip.
        options: its rows_per_read, where given, are the only ones; seed: of samples, chip and noise.
        data: its training samples are used, labels are not looked at.
        target: what is wanted.
        fill_rows: where given, the only ones.
        digital_budget: where given, the only one.
        curve: measure all settings, although one is enough.
        note: takes a line for each setting that was measured.

    Returns:
        The choice, and where no setting reaches the target a line that says so and what would help most.

    Raises:
        CimcError: no setting can be mapped or simulated, the data does not fit, or no output has an agreement.
    """
    use_compilation_cache()
    settings = _on_arrays(lowered, chip, options, fill_rows)
    trial = _trial(settings[0], chip, data, options.seed)
    found: list[Setting] = []

    def enough(setting: Setting) -> bool:
        return setting.noise_on is not None and _reaches(setting.noise_on, target)

    def measure(setting: Setting) -> None:
        if curve or not any(map(enough, found)):
            setting = _measured(setting, chip, trial)
            note(f"{setting}: {setting.noise_on} ({setting.noise_off} without noise)")
        if target.agreement is not None and setting.noise_on is not None and setting.noise_on.agreement is None:
            raise CimcError("--min-agreement needs an output of several entries, and there is none; give --target-snr")
        found.append(setting)

    def nearest() -> Setting:
        return max((one for one in found if one.noise_on is not None), key=lambda one: _score(one.noise_on, target))

    for setting in settings:
        measure(setting)
    budgets = BUDGETS if digital_budget is None else (digital_budget,)
    if curve or not any(map(enough, found)):
        for setting in _partly_digital(nearest(), lowered, chip, options, data, budgets):
            measure(setting)
    chosen = next(filter(enough, found), None) or nearest()
    choice = LayoutChoice(target, len(trial.measured), tuple(found), chosen, enough(chosen))
    return choice, None if choice.reached else _missed(choice, chip, trial)


def _text(numbers: Numbers) -> str:
    return str(numbers[ALL]) if numbers.keys() == {ALL} else "some layers'"


def _reaches(measured: Measured, target: Target) -> bool:
    same = target.agreement is None or (measured.agreement or 0.0) >= target.agreement
    return same and (target.snr_db is None or measured.snr_db >= target.snr_db)


def _score(measured: Measured | None, target: Target) -> tuple[float, float]:
    """The more the nearer to the target."""
    if measured is None:
        return (0.0, -np.inf)
    return (0.0 if target.agreement is None else measured.agreement or 0.0, measured.snr_db)


def _on_arrays(lowered: ir.Model, chip: Chip, options: MappingOptions, fill_rows: Numbers) -> list[Setting]:
    """The settings with all layers on arrays that differ and can be mapped, by their cost."""
    filled: Sequence[Numbers] = [fill_rows]
    if not fill_rows:
        filled = [NOTHING, *({ALL: rows} for rows in FILLED_ROWS)]
    reads: Sequence[Numbers] = [options.rows_per_read]
    if not options.rows_per_read:
        reads = [NOTHING, {ALL: -(-chip.weight_rows // READS)}]
    settings: dict[tuple[tuple[int, int], ...], Setting] = {}
    refused: list[CimcError] = []
    for fill in filled:
        for read in reads:
            try:
                network, mapping = lay_out(lowered, chip, replace(options, rows_per_read=read), fill, {})
            except CimcError as error:  # more chips than are allowed
                refused.append(error)
                continue
            key = tuple((layer.rows, layer.read_rows) for layer in mapping.layers)
            settings.setdefault(key, Setting(fill, read, 0.0, network, mapping))
    if not settings:
        raise refused[0]
    # What is cut into segments is not simulated; where all are, `build_system` says so.
    whole = [setting for setting in settings.values() if not setting.mapping.segments] or [*settings.values()]
    return sorted(whole, key=lambda setting: setting.cost)


def _partly_digital(
    setting: Setting, lowered: ir.Model, chip: Chip, options: MappingOptions, data: Dataset, budgets: Sequence[float]
) -> Iterator[Setting]:
    """The setting with layers left digital within each budget, where those are others than before."""
    options = replace(options, rows_per_read=setting.rows_per_read)
    before: dict[str, str] = {}
    found: DigitalChoice | None = None
    for budget in budgets:
        found = found or choose_digital(
            lowered, chip, options, data, budget, fill_rows=setting.fill_rows, seed=options.seed
        )
        within = replace(found, budget=budget, candidates=tuple(choose_within(budget, found.candidates)))
        if within.reasons and within.reasons != before:
            before = within.reasons
            network, mapping = lay_out(lowered, chip, options, setting.fill_rows, before)
            yield Setting(setting.fill_rows, setting.rows_per_read, budget, network, mapping)


@dataclass(frozen=True, eq=False)
class _Trial:
    """Samples by the network's input names that set scales and ranges, others that are measured, and a key."""

    calibrated: Samples
    measured: Samples
    preprocess: Preprocess
    key: Array


def _trial(setting: Setting, chip: Chip, data: Dataset, seed: int) -> _Trial:
    network = build_system(load_network(setting.network), setting.mapping, chip).network
    data = match_data(network, data, free_batch=False)
    count = len(data.train)
    if count < 2:
        raise CimcError(
            f"{data.name} has only one training sample; settings are calibrated on some and measured on others"
        )
    first = calibration_index(seed, count)[: count // 2]
    others = np.setdiff1d(np.arange(count), first)
    others = others[:: -(-len(others) // MEASURED)]
    return _Trial(data.train.take(first), data.train.take(others), data.preprocess, new_key(seed))


def _programmed(setting: Setting, chip: Chip, trial: _Trial) -> tuple[System, State, State, Array]:
    """The network on its arrays, with exact targets and as one virtual chip holds them; the key of its reads."""
    system = build_system(load_network(setting.network), setting.mapping, chip)
    calibration_key, program_key, read_key = jax.random.split(trial.key, 3)
    state = initial_state(system, weight_range=None)
    state = choose_scales(system, state, trial.calibrated, trial.preprocess, calibration_key)
    return system, state, programmed_chip(system, state, program_key), read_key


def _measured(setting: Setting, chip: Chip, trial: _Trial) -> Setting:
    system, state, programmed, read_key = _programmed(setting, chip, trial)
    exact = exact_parameters(system, state)
    found = compare_outputs(system, state, programmed, trial.measured, trial.preprocess, read_key, exact=exact)
    return replace(setting, noise_off=_least(found["noise_off"]), noise_on=_least(found["noise_on"]))


def _least(agreement: Agreement) -> Measured:
    if not agreement:
        raise CimcError("the network gives no output of floats, so no setting can be judged by it")
    same = [found["argmax_agreement"] for found in agreement.values() if "argmax_agreement" in found]
    return Measured(min(same, default=None), min(found["snr_db"] for found in agreement.values()))


def _missed(choice: LayoutChoice, chip: Chip, trial: _Trial) -> str:
    """A line that says that the target is not reached, by how much, and what would help most."""
    system, state, programmed, read_key = _programmed(choice.chosen, chip, trial)
    targets = state["conductance"]
    errors = layer_errors(system, programmed, trial.measured, trial.preprocess, read_key, targets=targets)
    return (
        f"TARGET NOT REACHED: {choice.target} is wanted, and the best of {len(choice.settings)} settings "
        f"({choice.chosen}) has {choice.chosen.noise_on}, without noise {choice.chosen.noise_off}{worst_layer(errors)}"
    )
