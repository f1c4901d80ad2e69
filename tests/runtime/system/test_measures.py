"""Measures and agreement: each against values counted here, the same in batches, and which one is chosen."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from cimc.errors import CimcError
from runtime.system.measures import (
    MEASURES,
    agreement,
    agreement_of,
    agreement_sums,
    choose_measure,
    edit_distance,
    measure,
    measure_of,
    merge,
)

RANDOM = np.random.default_rng(0)
SCORES = RANDOM.normal(size=(11, 7)).astype(np.float32)
CLASSES = RANDOM.integers(0, 7, 11)
SEQUENCES = RANDOM.normal(size=(11, 5, 7)).astype(np.float32)
POSITIONS = RANDOM.integers(-1, 7, (11, 5))
MAPS = RANDOM.normal(size=(11, 3, 4, 2)).astype(np.float32)
PIXELS = RANDOM.integers(0, 3, (11, 4, 2))
TRUTHS = RANDOM.integers(0, 2, (11, 7))
TARGETS = RANDOM.normal(size=(11, 7)).astype(np.float32)


def top(k: int) -> float:
    pairs = zip(SCORES, CLASSES, strict=True)
    return float(np.mean([label in sorted(range(7), key=lambda c: -row[c])[:k] for row, label in pairs]))


def counted_positions() -> list[tuple[Any, Any]]:
    return [(SEQUENCES[place], label) for place, label in np.ndenumerate(POSITIONS) if label >= 0]


def probabilities(scores: np.ndarray) -> np.ndarray:
    return np.exp(scores) / np.exp(scores).sum()


def iou() -> float:
    best, shares = MAPS.argmax(axis=1), []
    for one in range(3):
        both, either = ((best == one) & (one == PIXELS)).sum(), ((best == one) | (one == PIXELS)).sum()
        shares.append(both / either)
    return float(np.mean(shares))


def f1() -> float:
    said = SCORES > 0
    hits = sum(int(a and b) for a, b in zip(said.ravel(), TRUTHS.ravel(), strict=True))
    precision, recall = hits / said.sum(), hits / TRUTHS.sum()
    return float(2 * precision * recall / (precision + recall))


def cosine() -> float:
    return float(np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(SCORES, TARGETS, strict=True)]))


CASES: dict[str, tuple[np.ndarray, np.ndarray, str, Callable[[], float]]] = {
    "top1": (SCORES, CLASSES, "accuracy", lambda: top(1)),
    "accuracy": (SCORES[:, :, None, None], CLASSES[:, None], "accuracy", lambda: top(1)),
    "top5": (SCORES, CLASSES, "top5_accuracy", lambda: top(5)),
    "positions": (
        SEQUENCES,
        POSITIONS,
        "position_accuracy",
        lambda: float(np.mean([np.argmax(scores) == label for scores, label in counted_positions()])),
    ),
    "perplexity": (
        SEQUENCES,
        POSITIONS,
        "perplexity",
        lambda: float(np.exp(-np.mean([np.log(probabilities(s)[label]) for s, label in counted_positions()]))),
    ),
    "miou": (MAPS, PIXELS, "miou", iou),
    "binary": (SCORES, TRUTHS, "binary_accuracy", lambda: float(np.mean((SCORES > 0) == TRUTHS))),
    "multilabel": (SCORES, TRUTHS, "f1_micro", f1),
    "mse": (SCORES, TARGETS, "mse", lambda: float(np.mean(np.square(SCORES - TARGETS)))),
    "mae": (SCORES, TARGETS, "mae", lambda: float(np.mean(np.abs(SCORES - TARGETS)))),
    "cosine": (SCORES, TARGETS, "cosine", cosine),
}


@pytest.mark.parametrize("name", CASES)
def test_a_measure_is_what_is_counted_here_in_one_piece_and_in_batches(name: str) -> None:
    outputs, labels, figure, expected = CASES[name]
    whole = measure(name, outputs, labels)
    assert next(iter(whole)) == figure
    assert whole[figure] == pytest.approx(expected(), rel=1e-5)
    total = None
    for part in (slice(0, 4), slice(4, 5), slice(5, 11)):
        total = merge(total, MEASURES[name].add(outputs[part], labels[part]))
    assert total is not None
    assert MEASURES[name].finish(total) == pytest.approx(whole, rel=1e-6)


def test_every_measure_has_a_case() -> None:
    assert {*CASES, "edit"} == set(MEASURES)


@pytest.mark.parametrize(
    ("read", "wanted", "distance"),
    [("kitten", "sitting", 3), ("", "abc", 3), ("abc", "", 3), ("ab", "ba", 2), ("", "", 0)],
)
def test_the_edit_distance(read: str, wanted: str, distance: int) -> None:
    assert edit_distance([ord(c) for c in read], [ord(c) for c in wanted]) == distance


def test_sequences_are_read_without_blanks_and_repeats() -> None:
    steps = np.array([[1, 1, 0, 1, 2, 2], [0, 3, 3, 0, 0, 0]])  # read: 1 1 2, and 3
    outputs = np.eye(4, dtype=np.float32)[steps]
    assert measure("edit", outputs, np.array([[1, 1, 2], [3, -1, -1]]))["exact_sequences"] == 1
    figures = measure("edit", outputs, np.array([[1, 2, -1], [1, 3, -1]]))
    assert figures == {"edit_distance": 2 / 4, "exact_sequences": 0}


def test_answers_are_above_a_half_for_probabilities_and_above_0_for_logits() -> None:
    labels = np.array([[1], [0]])
    assert measure("binary", np.array([[0.6], [0.4]]), labels)["binary_accuracy"] == 1
    assert measure("binary", np.array([[0.4], [-0.4]]), labels)["binary_accuracy"] == 1
    # A batch that looks like probabilities, of outputs that are none.
    sums = merge(
        MEASURES["binary"].add(np.array([[0.4]]), labels[:1]), MEASURES["binary"].add(np.array([[-3.0]]), labels[1:])
    )
    assert MEASURES["binary"].finish(sums)["binary_accuracy"] == 1


def test_truth_values_that_are_left_out_count_neither_way() -> None:
    outputs = np.array([[0.9, 0.9, 0.1], [0.9, 0.1, 0.9]])
    labels = np.array([[1, -1, 0], [1, 0, -1]])
    assert measure("multilabel", outputs, labels) == {"f1_micro": 1, "exact_match": 1}
    assert measure("binary", outputs, labels) == {"binary_accuracy": 1}
    labels[0, 0] = 0
    assert measure("binary", outputs, labels) == {"binary_accuracy": 3 / 4}
    assert measure("multilabel", outputs, labels) == {"f1_micro": pytest.approx(2 / 3), "exact_match": 0.5}


@pytest.mark.parametrize(
    ("shape", "labels", "name"),
    [
        ((1, 10), CLASSES, "top1"),
        ((1, 10, 1, 1), CLASSES, "top1"),
        ((1, 10), CLASSES[:, None], "top1"),
        ((1,), TRUTHS[:, 0], "binary"),
        ((1, 1), TRUTHS[:, 0], "binary"),
        ((1, 7), TRUTHS, "multilabel"),
        ((1, 5, 7), POSITIONS, "positions"),
        ((1, 7, 5), POSITIONS, "positions"),
        ((1, 9, 7), POSITIONS, "edit"),
        ((1, 3, 4, 2), PIXELS, "miou"),
        ((1, 7), TARGETS, "mse"),
    ],
)
def test_the_usual_measure_follows_the_shapes(shape: tuple[int, ...], labels: np.ndarray, name: str) -> None:
    assert choose_measure(shape, labels) == name


@pytest.mark.parametrize(
    ("shape", "labels"), [((1, 4), TARGETS), ((1, 3, 4), CLASSES), ((1, 3, 4, 3), PIXELS), ((1, 3, 9), PIXELS)]
)
def test_shapes_without_a_measure_are_told(shape: tuple[int, ...], labels: np.ndarray) -> None:
    with pytest.raises(CimcError, match="outputs Nx") as error:
        choose_measure(shape, labels)
    assert "\n" not in str(error.value)


def own(outputs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {"largest": float(outputs.max()), "count_of_labels": len(labels)}


def test_a_function_of_ones_own_is_averaged_by_samples() -> None:
    mine = measure_of(f"{__name__}:own")
    total = merge(mine.add(SCORES[:8], CLASSES[:8]), mine.add(SCORES[8:], CLASSES[8:]))
    figures = mine.finish(total)
    assert figures["count_of_labels"] == pytest.approx((8 * 8 + 3 * 3) / 11)
    assert figures["largest"] == pytest.approx((8 * SCORES[:8].max() + 3 * SCORES[8:].max()) / 11)


@pytest.mark.parametrize("name", ["accurcy", "no_such_module:f", f"{__name__}:no_such_function"])
def test_a_measure_that_is_none_is_told(name: str) -> None:
    with pytest.raises(CimcError, match=name.split(":")[0]):
        measure_of(name)


def test_outputs_that_are_no_numbers_are_told() -> None:
    for name, (outputs, labels, _, _) in CASES.items():
        with pytest.raises(CimcError, match="NaN or infinity"):
            measure(name, np.full_like(outputs, np.nan), labels)


@pytest.mark.parametrize("reference", [SCORES, SEQUENCES, MAPS, SCORES[:, 0]])
def test_agreement_is_what_is_counted_here_in_one_piece_and_in_batches(reference: np.ndarray) -> None:
    noise = RANDOM.normal(size=reference.shape) * 0.3
    computed = reference + noise
    figures = agreement(computed, reference)
    axis = 1 if reference is MAPS else -1
    if reference.ndim > 1:
        same = computed.argmax(axis=axis) == reference.argmax(axis=axis)
        assert figures["argmax_agreement"] == pytest.approx(same.mean())
        assert 0.5 < same.mean() < 1
    else:
        assert "argmax_agreement" not in figures
    assert figures["snr_db"] == pytest.approx(
        10 * np.log10(np.square(reference).sum() / np.square(noise).sum()), abs=1e-4
    )
    assert figures["largest_error"] == pytest.approx(np.abs(noise).max(), rel=1e-5)
    assert figures["relative_error"] == pytest.approx(np.abs(noise).max() / np.abs(reference).max(), rel=1e-5)
    total: Any = None
    for part in (slice(0, 3), slice(3, 11)):
        total = merge(total, agreement_sums(computed[part], reference[part]))
    assert agreement_of(total) == pytest.approx(figures, rel=1e-9)


@pytest.mark.parametrize(
    ("shape", "axis"),
    [
        ((5, 20, 1), None),  # one value a step: the step with the largest is no decision
        ((5, 1, 6, 7), None),  # one value a pixel
        ((5, 1), None),
        ((5, 10, 1, 1), 1),
        ((5, 1, 1, 10), 3),
        ((5, 4, 9, 1), 1),
        ((5, 1, 10), 2),
    ],
)
def test_the_largest_entry_is_one_of_classes_not_of_steps_or_pixels(shape: tuple[int, ...], axis: int | None) -> None:
    reference = RANDOM.normal(size=shape)
    computed = reference + RANDOM.normal(size=shape)
    same = None if axis is None else np.mean(computed.argmax(axis) == reference.argmax(axis))
    assert agreement(computed, reference).get("argmax_agreement") == same


def test_equal_outputs_agree_wholly_and_finitely() -> None:
    for reference in (SCORES, np.zeros((3, 4), np.float32)):
        figures = agreement(reference, reference)
        assert figures["argmax_agreement"] == 1
        assert figures["largest_error"] == figures["relative_error"] == 0
        assert figures["snr_db"] == 300
