"""Fit a device description to measured pulse trains and retention data."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from typing import Any

from cimc.data.measured import read_measurements
from cimc.device_file import DeviceFile, parse_device
from cimc.errors import CimcError
from cimc.files import replacing, require_outputs
from cimc.finite import require_finite
from cimc.options import check_number, check_seed
from cimc.report.drawing import picture_format
from cimc.toml_text import comment_lines, toml_text
from runtime.fitting.drift import DriftFit, RetentionData, fit_drift
from runtime.fitting.pulse_trains import PulseTrains
from runtime.fitting.pulses import Estimate, PulseFit, fit_pulses

READ_VOLTAGE_V = 0.2  # of a description, where none was measured
DIGITS = 5
NOTHING = 1e-6  # spreads below are none


@dataclass(frozen=True)
class FittedDevice:
    """What `fit_device` finds: the description, its text with sources and confidence, and both fits (None: no data)."""

    device: DeviceFile
    text: str
    pulses: PulseFit | None
    drift: DriftFit | None

    @property
    def not_stated(self) -> str:
        """In a line what the file leaves out, as the data do not tell it."""
        return _not_stated(self.pulses)


def fit_device(
    data: str | Path | Sequence[str | Path],
    output: str | Path | None = None,
    *,
    name: str | None = None,
    read_voltage_V: float | None = None,
    up_only: bool = False,
    picture: str | Path | None = None,
    seed: int = 0,
) -> FittedDevice:
    """Fit pulse laws and drift to measurements, choose the law on held-out devices, and describe the device.

    Args:
        data: CSV files, one of pulse trains, one of retention, or both; see `cimc.data.measured.read_measurements`.
        output: the device file to write; None: none.
        name: of the device; None: the first file's.
        read_voltage_V: of the currents in the files, and of the description.
        up_only: the device has no RESET pulses.
        picture: PNG, PDF or SVG of measured and fitted pulse trains to write; None: none.
        seed: of held-out devices and of the bootstrap that gives the confidence.

    Raises:
        CimcError: what of a file cannot be used, with its line, or a file that cannot be written.
    """
    paths = [Path(one) for one in ([data] if isinstance(data, str | Path) else data)]
    seed = check_seed(seed)
    if read_voltage_V is not None:
        read_voltage_V = check_number("read_voltage_V", read_voltage_V, 1e-6, 1e3)
    require_outputs(paths, (output, picture))
    if picture is not None:
        picture_format(picture)
    trains: PulseTrains | None = None
    retention: RetentionData | None = None
    for path in paths:
        found = read_measurements(path, read_voltage_V, up_only=up_only)
        if (isinstance(found, PulseTrains) and trains is not None) or (
            isinstance(found, RetentionData) and retention is not None
        ):
            raise CimcError(f"{path} is a second file of the same kind; give one of pulse trains and one of retention")
        if isinstance(found, PulseTrains):
            trains = found
        else:
            retention = found
    if trains is None and picture is not None:
        raise CimcError("a picture shows pulse trains, and none are given; leave --plot out")
    pulses = None if trains is None else fit_pulses(trains, seed=seed)
    drift = None if retention is None else fit_drift(retention, seed=seed)
    _require_law(f"the fit to {', '.join(map(str, paths))}", pulses, drift)
    text = _text(name or paths[0].stem, paths, pulses, drift, _seen(retention), read_voltage_V)
    device = parse_device(text, f"fitted to {paths[0]}")
    with nullcontext() if output is None else replacing(Path(output)) as temporary:
        if temporary is not None:
            temporary.write_text(text, encoding="utf-8")
        if picture is not None and trains is not None:  # a failing picture leaves no device file either
            from cimc.report.device_pictures import fit_picture  # needs matplotlib

            fit_picture(Path(picture), device, trains)
    return FittedDevice(device, text, pulses, drift)


def _require_law(source: str, pulses: PulseFit | None, drift: DriftFit | None) -> None:
    """Raises CimcError, naming `source`, where a figure is no number or steps are not positive."""
    hint = (
        "the data tell no law; measure more devices or more readings, with pulses of which many fit between the bounds"
    )
    for fitted in (pulses, drift):
        if fitted is not None:
            require_finite(asdict(fitted), source, hint)
    for key in ("pulse.step_uS", "pulse.step_down_uS"):
        if pulses is not None and key in pulses.figures and (step := pulses.figures[key].value) <= 0:
            raise CimcError(f"{source}: {key} would be {step:.3g} uS, which is not above 0; {hint}")


def _seen(retention: RetentionData | None) -> tuple[float, float] | None:
    """The least and greatest conductance of retention data, uS."""
    return None if retention is None else (float(retention.conductance.min()), float(retention.conductance.max()))


def _text(
    name: str,
    paths: Sequence[Path],
    pulses: PulseFit | None,
    drift: DriftFit | None,
    seen: tuple[float, float] | None,
    read_voltage_V: float | None,
) -> str:
    """The device file: sources first, and the confidence of every figure behind it."""
    sources = ", ".join(path.name for path in paths)
    lines = [f"Fitted by cimc on {date.today().isoformat()} to {sources}; behind each figure its 95 % confidence."]
    figures: dict[str, Estimate] = {}
    tables: dict[str, Any] = {}
    comments = {}
    if pulses is not None:
        figures |= {
            key: one for key, one in pulses.figures.items() if one.value > NOTHING or not key.endswith(("d2d", "c2c"))
        }
        tables["pulse"] = dict(pulses.settings)
        scores = ", ".join(f"{law} {score:.3g}" for law, (score, _) in pulses.scores.items())
        lines += [
            f"{pulses.devices} devices, {pulses.steps} single steps; left out: {pulses.outliers} outliers, "
            f"{pulses.stuck} devices that do not answer.",
            f"Squared error of one-step predictions on held-out devices: {scores}.",
        ]
    elif seen is not None:
        figures |= dict(
            zip(("conductance_min_uS", "conductance_max_uS"), (Estimate(g, g, g) for g in seen), strict=True)
        )
        comments = dict.fromkeys(figures, "as seen in the retention data")
    if drift is not None:
        figures |= {"drift.exponent.constant": drift.exponent, "drift.exponent_sd.constant": drift.exponent_sd}
        tables["drift"] = {"start_s": _rounded(drift.start_s)}
        lines.append(f"Drift: {drift.devices} devices, {drift.readings} readings.")
    lines.append(_not_stated(pulses))
    for key, estimate in figures.items():
        _put(tables, key, _rounded(estimate.value))
        comments.setdefault(key, f"{estimate.low:.4g} to {estimate.high:.4g}")
    least, most = tables.pop("conductance_min_uS"), tables.pop("conductance_max_uS")
    values = {
        "name": name,
        "description": f"fitted to {sources}",
        "technology": "measured device",
        "conductance_min_uS": least,
        "conductance_max_uS": most,
        "read_voltage_V": READ_VOLTAGE_V if read_voltage_V is None else read_voltage_V,
    }
    if read_voltage_V is None:
        comments["read_voltage_V"] = "not measured"
    if pulses is not None:
        values["granularity_uS"] = min(tables["pulse"]["step_uS"], _rounded(most - least))
        comments["granularity_uS"] = "a step"
    return comment_lines("\n".join(lines)) + toml_text(values | _listed(tables), comments)


def _not_stated(pulses: PulseFit | None) -> str:
    silent = f"; {pulses.stuck} devices did not answer here" if pulses is not None and pulses.stuck else ""
    return (
        "Not in these data, so not in the file and not simulated until you add it: errors of verified writes "
        f"(programming.error_sd_uS), read noise (read_noise_uS), stuck devices (faults{silent}), endurance."
    )


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")


def _put(tables: dict[str, Any], key: str, value: float) -> None:
    *sections, last = key.split(".")
    for section in sections:
        tables = tables.setdefault(section, {})
    tables[last] = value


def _listed(tables: Mapping[str, Any]) -> dict[str, Any]:
    """Tables with those whose keys are 0, 1, 2, ... as lists."""
    found = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            value = list(value.values()) if all(map(str.isdecimal, value)) else _listed(value)
        found[key] = value
    return found
