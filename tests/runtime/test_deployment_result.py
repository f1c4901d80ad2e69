"""The figures of a deployment over its chips, against their definitions."""

import json

import numpy as np
import pytest
from scipy.stats import norm

from cimc.commands.deploy import SPREAD, measured_rows
from cimc.errors import CimcError
from runtime.deployment import result as module
from runtime.deployment.result import Deployment, Details, WorstChip, rows_of_chips, summary
from runtime.system.quality import require_baseline

HOUR, YEAR = 3600.0, 31557600.0


def deployment(**changed: object) -> Deployment:
    details = Details(np.array([0.9, 0.8, 0.7]), np.array([20.0, 15.0, 10.0]))
    given: dict[str, object] = {
        "accuracies": np.array([0.96, 0.95, 0.90]),
        "baseline_accuracy": 0.96,
        "required": 0.98,
        "classes": 10,
        "aged": {HOUR: np.array([0.958, 0.957, 0.9565]), YEAR: np.array([0.5, 0.4, 0.3])},
        "details": {None: details, HOUR: details, YEAR: details},
        "stuck_shares": np.array([0.0, 0.01, 0.02]),
        "worst": WorstChip(2, 0.3, 0.02),
    }
    return Deployment(**{**given, **changed})  # type: ignore[arg-type]


def test_the_yield_has_the_interval_of_wilson() -> None:
    result = deployment()
    share, n, z = result.yield_fraction, 3, norm.ppf(0.975)
    assert share == pytest.approx(2 / 3)
    middle = (share + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    assert result.yield_interval == pytest.approx((middle - half, middle + half))


def test_a_star_is_0_for_guesses_and_1_for_the_baseline() -> None:
    result = deployment(accuracies=np.array([0.1, 0.96, 0.53]))
    assert result.a_star == pytest.approx([0, 1, 0.5])
    assert deployment(classes=None).a_star is None
    assert deployment(baseline_accuracy=0.1).a_star is None, "no way from guessing to a baseline that guesses"


def test_iso_accuracy_is_asked_one_hour_after_programming() -> None:
    assert deployment().iso_accuracy is True
    assert deployment(aged={HOUR: np.array([0.95])}).iso_accuracy is False
    assert deployment(aged={YEAR: np.array([0.96])}).iso_accuracy is None


def test_a_row_for_every_chip_and_time() -> None:
    rows = rows_of_chips(deployment())
    assert [(row["chip"], row["seconds"]) for row in rows] == [(k, t) for t in ("", HOUR, YEAR) for k in range(3)]
    assert len({tuple(row) for row in rows}) == 1, "every row has the same columns"
    assert rows[-1]["accuracy"] == 0.3
    assert rows[-1]["stuck_share"] == 0.02
    assert rows[4]["agreement"] == 0.8


def test_json_keeps_its_names_and_says_which_chip_is_worst() -> None:
    found = summary(deployment())
    assert {"chips", "accuracy", "yield", "baseline_accuracy", "normalized_accuracy"} <= set(found)
    assert found["worst"]["chip"] == 2
    assert found["aged"][1]["accuracy"]["min"] == 0.3
    assert found["aged"][1]["yield"] == 0


def test_the_worst_of_errors_is_the_largest() -> None:
    found = deployment(measure="mse", accuracies=np.array([0.5, 2.0, 8.0]), classes=None)._repr_html_()
    head, first = found.split("</tr>")[:2]
    cells = first.replace("</td>", "").split("<td")[1:]
    assert float(cells[head.split("<th").index(">worst</th>") - 2].rpartition(">")[2]) == 8
    errors = deployment(measure="mse", accuracies=np.array([0.5, 2.0, 8.0]), classes=None)
    # The bad tail is that of large errors, in JSON and in the table; `min` and `p5` go by value.
    spread, of_accuracies = summary(errors)["accuracy"], summary(deployment())["accuracy"]
    assert (spread["min"], spread["worst"]) == (0.5, 8)
    assert spread["p5"] < 2 < spread["worst_p5"] == pytest.approx(8 - 0.1 * 6)
    assert (of_accuracies["worst"], of_accuracies["worst_p5"]) == (of_accuracies["min"], of_accuracies["p5"])
    measured, normalized = measured_rows(errors)[:2]
    assert measured[SPREAD.index("worst") + 1] == "8.0000"
    assert float(normalized[SPREAD.index("worst") + 1]) == min(np.round(errors.normalized, 4)), "more is better"


@pytest.mark.parametrize(
    ("measure", "baseline", "message"),
    [
        ("accuracy", 0.0, "the accuracy of the package's weights in float32 is 0 .* --baseline"),
        ("mse", 0.0, "the mse of the package's weights in float32 is 0 .* --baseline"),
        ("accuracy", 4.0, "--baseline is 4, and accuracy is at most 1"),
    ],
)
def test_nothing_is_normalised_by_a_baseline_that_is_none(measure: str, baseline: float, message: str) -> None:
    require_baseline("mse", 4.0)
    require_baseline("psnr", 35.0)  # a user's own measure
    require_baseline("accuracy_percent", 97.0, given=False)
    with pytest.raises(CimcError, match=message):
        require_baseline(measure, baseline)


def test_outputs_of_whole_numbers_agree_in_no_figure() -> None:
    none = Details(np.full(3, np.nan), np.full(3, np.nan))
    found = summary(deployment(details={None: none, HOUR: none, YEAR: none}))
    assert "agreement_of_chips" not in json.loads(json.dumps(found, allow_nan=False))


def test_rows_take_as_long_as_there_are_chips(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = list[tuple[object, ...]]()

    def counted(*figures: object) -> float:
        calls.append(figures)
        return 1.0

    monkeypatch.setattr(module, "better", counted)
    rows_of_chips(deployment())
    assert len(calls) == 9, "once for each of three chips at three times"
