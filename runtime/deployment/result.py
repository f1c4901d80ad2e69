"""What a deployment found: the figures of every chip at every time, and of all of them together."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.durations import time_text
from cimc.html_table import html_table
from cimc.shares import LOWER_IS_BETTER
from runtime.system.layer_errors import LayerError
from runtime.system.quality import better
from runtime.system.sensitivity import Sensitivity

Doubles = NDArray[np.float64]
CONFIDENCE = 0.95  # of the interval of the yield
ISO_ACCURACY, ISO_SECONDS = 0.99, 3600.0  # A* above that one hour after programming (Rasch et al. 2023)


@dataclass(frozen=True, eq=False)
class Details:
    """Figures of every chip at one time.

    agreement, snr_db: with the package's weights in float32, of the first output: the share of samples with the same
    largest entry (of an output without several entries its fidelity), and the SNR [chips]. calibration_error: expected
    calibration error of the confidence [chips], and class_accuracy [chips, classes], NaN of classes that do not occur;
    of networks that are measured by their accuracy over classes, else None.
    """

    agreement: Doubles
    snr_db: Doubles
    calibration_error: Doubles | None = None
    class_accuracy: Doubles | None = None


@dataclass(frozen=True, eq=False)
class WorstChip:
    """The chip with the worst figure at the last time, and why.

    chip: its number. value: its figure. stuck_share: share of its devices that are stuck. layers: what each of its
    layers loses; sensitivities: the outputs with one layer alone on its arrays and all others exact, noise off; both
    only where they were asked for.
    """

    chip: int
    value: float
    stuck_share: float
    layers: tuple[LayerError, ...] = ()
    sensitivities: tuple[Sensitivity, ...] = ()

    @property
    def figures(self) -> dict[str, Any]:
        """As JSON: the layers with the largest error of their own come first."""
        return {
            "chip": self.chip,
            "value": self.value,
            "stuck_share": self.stuck_share,
            "layers": {one.name: one.figures for one in self.layers},
            "sensitivity": {
                "+".join(one.layers): {"snr_db": one.snr_db, "agreement": one.agreement} for one in self.sensitivities
            },
        }


@dataclass(frozen=True, eq=False)
class Deployment:
    """Result over virtual chips.

    measure: what is measured: of labelled data its usual measure (accuracy), else the agreement with the package's own
    weights in float32. accuracies: that figure of every chip. baseline_accuracy: of the reference network (by default
    the package's own weights, computed exactly). normalized: accuracies / baseline, the other way round for errors.
    yield_fraction: chips whose normalised accuracy is at least `required`. agreement: by output that of the first chip
    with the package's own weights in float32 (`runtime.system.measures.agreement_of`). aged: the figure of every chip
    so many seconds after programming, of the times that were asked for. dies: the real die that each chip is, if any.
    details: further figures right after programming (None) and at each time. classes: of the labels, where these are
    classes. compensation: by what the digital side makes up for, the numbers it holds for that. stuck_shares: of each
    chip's devices. worst: the worst chip. energy_mj: of the first chip's reads by their data, where it was asked for
    (`runtime.system.read_energy`). reprogrammed: of every round of reprogramming the share of the devices that it wrote
    again, and the figure of every chip before it. temperature_C: at which chips were kept, where one was stated.
    """

    accuracies: np.ndarray
    baseline_accuracy: float
    required: float
    measure: str = "accuracy"
    agreement: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    aged: Mapping[float, np.ndarray] = field(default_factory=dict)
    dies: tuple[str, ...] = ()
    details: Mapping[float | None, Details] = field(default_factory=dict)
    classes: int | None = None
    compensation: Mapping[str, int] = field(default_factory=dict)
    stuck_shares: Doubles | None = None
    worst: WorstChip | None = None
    energy_mj: Mapping[str, Any] = field(default_factory=dict)
    reprogrammed: tuple[tuple[float, np.ndarray], ...] = ()
    temperature_C: float | None = None

    def at(self, seconds: float) -> "Deployment":
        """The result so long after programming, one of the times that were asked for."""
        details: dict[float | None, Details] = {None: self.details[seconds]} if seconds in self.details else {}
        return replace(
            self, accuracies=self.aged[seconds], agreement={}, aged={}, details=details, worst=None, energy_mj={}
        )

    @property
    def lower_is_better(self) -> bool:
        """Whether the measure is an error."""
        return self.measure in LOWER_IS_BETTER

    @property
    def normalized(self) -> np.ndarray:
        """The figure of every chip over the baseline's."""
        return np.array([better(self.measure, value, self.baseline_accuracy) for value in self.accuracies.tolist()])

    @property
    def a_star(self) -> np.ndarray | None:
        """A*: how far the accuracy of every chip lies from guessing (0) to the baseline (1).

        None without classes, and where the baseline guesses.
        """
        if self.classes is None or self.baseline_accuracy <= 1 / self.classes:
            return None
        guess = 1 / self.classes
        return (self.accuracies - guess) / (self.baseline_accuracy - guess)

    @property
    def good(self) -> int:
        """How many chips reach the required normalised accuracy."""
        return int(np.sum(self.normalized >= self.required))

    @property
    def yield_fraction(self) -> float:
        """Fraction of chips that reach the required normalised accuracy."""
        return self.good / len(self.accuracies)

    @property
    def yield_interval(self) -> tuple[float, float]:
        """The interval of the yield with 95 % confidence, by Wilson's score."""
        from scipy.stats import binomtest  # here: its import takes half a second

        found = binomtest(self.good, len(self.accuracies)).proportion_ci(CONFIDENCE, "wilson")
        return float(found.low), float(found.high)

    @property
    def iso_accuracy(self) -> bool | None:
        """Whether the mean A* one hour after programming is above 99 %; None where that was not asked for."""
        if ISO_SECONDS not in self.aged or (a_star := self.at(ISO_SECONDS).a_star) is None:
            return None
        return bool(np.mean(a_star) > ISO_ACCURACY)

    def _repr_html_(self) -> str:
        rows = [_row("as programmed", self), *(_row(time_text(seconds), self.at(seconds)) for seconds in self.aged)]
        title = (
            f"{self.measure.replace('_', ' ')} of {len(self.accuracies)} chips, baseline {self.baseline_accuracy:.4f}"
        )
        return html_table(title, ("", "mean", "sd", "worst", "median", "yield"), rows)


def _row(when: str, at: Deployment) -> list[object]:
    spread = _of_measure(at, at.accuracies)
    return [when, spread["mean"], spread["std"], spread["worst"], spread["median"], f"{at.yield_fraction:.0%}"]


def _of_measure(result: Deployment, values: np.ndarray) -> dict[str, float]:
    """The distribution of the deployment's measure over chips."""
    return distribution(values, lower_is_better=result.lower_is_better)


def summary(result: Deployment) -> dict[str, Any]:
    """The figures of a deployment as JSON values."""
    return {
        "chips": len(result.accuracies),
        "measure": result.measure,
        **_figures(result),
        "required_normalized_accuracy": result.required,
        "baseline_accuracy": result.baseline_accuracy,
        "iso_accuracy": result.iso_accuracy,
        "compensation": dict(result.compensation),
        **({"dies": list(result.dies)} if result.dies else {}),
        "agreement": result.agreement,
        **({"energy_mj": dict(result.energy_mj)} if result.energy_mj else {}),
        "worst": result.worst and {**_die_of(result, result.worst.chip), **result.worst.figures},
        **({"reprogrammed": _rounds(result)} if result.reprogrammed else {}),
        **({"temperature_C": result.temperature_C} if result.temperature_C is not None else {}),
        **({"aged": [_at(result, seconds) for seconds in result.aged]} if result.aged else {}),
    }


def _rounds(result: Deployment) -> list[dict[str, Any]]:
    """What each round of reprogramming wrote again, and the figures before it."""
    return [{"share": share, "before": _of_measure(result, values)} for share, values in result.reprogrammed]


def _die_of(result: Deployment, chip: int) -> dict[str, Any]:
    """The die that a chip is, where the chips are dies."""
    return {"die": result.dies[chip]} if result.dies else {}


def _at(result: Deployment, seconds: float) -> dict[str, Any]:
    """The figures so long after programming."""
    return {"seconds": seconds, **_figures(result.at(seconds))}


def _figures(result: Deployment) -> dict[str, Any]:
    """The figures at one time."""
    figures: dict[str, Any] = {
        "accuracy": _of_measure(result, result.accuracies),
        "yield": result.yield_fraction,
        "yield_interval": list(result.yield_interval),
        "normalized_accuracy": distribution(result.normalized),
        "accuracies": result.accuracies.tolist(),
    }
    if result.a_star is not None:
        figures["a_star"] = distribution(result.a_star)
    details = result.details.get(None)
    if details is None:
        return figures
    if not np.isnan(details.agreement).any():  # of outputs of whole numbers there is none
        figures["agreement_of_chips"] = distribution(details.agreement)
        figures["snr_db_of_chips"] = distribution(details.snr_db)
    if details.calibration_error is not None and details.class_accuracy is not None:
        figures["calibration_error"] = distribution(details.calibration_error, lower_is_better=True)
        figures["class_accuracy"] = [
            None if np.isnan(one).all() else {"mean": float(np.mean(one)), "min": float(np.min(one))}
            for one in details.class_accuracy.T
        ]
    return figures


def distribution(values: np.ndarray, *, lower_is_better: bool = False) -> dict[str, float]:
    """A figure over chips. worst: of the worst one, worst_p5: 5 % are no better; of errors the largest, and 95 %."""
    return {
        "mean": float(np.mean(values)),
        "std": float(np.std(values, ddof=1)) if len(values) > 1 else 0.0,
        "min": float(np.min(values)),
        "p5": float(np.percentile(values, 5)),
        "median": float(np.median(values)),
        "worst": float(np.max(values) if lower_is_better else np.min(values)),
        "worst_p5": float(np.percentile(values, 95 if lower_is_better else 5)),
    }


def rows_of_chips(result: Deployment) -> list[dict[str, Any]]:
    """A row for every chip and time, with the same names in all."""
    rows = []
    for moment in (None, *result.aged):
        at = result if moment is None else result.at(moment)
        details, a_star, normalized = at.details.get(None), at.a_star, at.normalized
        for chip, value in enumerate(at.accuracies.tolist()):
            rows.append(
                {
                    "chip": chip,
                    **({"die": result.dies[chip]} if result.dies else {}),
                    "seconds": "" if moment is None else moment,
                    result.measure: value,
                    "normalized": float(normalized[chip]),
                    **({"a_star": float(a_star[chip])} if a_star is not None else {}),
                    **({} if details is None else _row_of(details, chip)),
                    **({} if result.stuck_shares is None else {"stuck_share": float(result.stuck_shares[chip])}),
                }
            )
    return rows


def _row_of(details: Details, chip: int) -> dict[str, float]:
    row = {"agreement": float(details.agreement[chip]), "snr_db": float(details.snr_db[chip])}
    if details.calibration_error is not None and details.class_accuracy is not None:
        row["calibration_error"] = float(details.calibration_error[chip])
        row |= {f"accuracy_class_{k}": float(value) for k, value in enumerate(details.class_accuracy[chip])}
    return row
