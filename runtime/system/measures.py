"""How good outputs are: measures against labels, and agreement with a reference, batch by batch in bounded memory."""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cimc.errors import CimcError

Values = NDArray[Any]
# Numbers or arrays by name, which add up over the batches; of names with `largest` the larger is kept.
Sums = dict[str, Any]

NOT_COUNTED = -1  # a label that is left out, such as of padding
BLANK = 0  # the class of sequences that is no symbol, as in CTC
DECIBELS_AT_MOST = 300.0  # where nothing differs


@dataclass(frozen=True)
class Measure:
    """A measure of one output.

    add: what a batch adds, from outputs [N, ...] and labels. finish: the figures by name, the main one first, from all
    of it. classes: whether labels are classes, of which the outputs have an axis.
    """

    add: Callable[[Values, Values], Sums]
    finish: Callable[[Sums], dict[str, float]]
    classes: bool = False


def measure_of(name: str) -> Measure:
    """The measure of that name, or the function `module:function`.

    Such a function takes a batch's outputs and labels and returns a number or numbers by name; each is averaged over
    the batches by their numbers of samples.

    Raises:
        CimcError: there is none.
    """
    if name in MEASURES:
        return MEASURES[name]
    module, colon, function = name.partition(":")
    if not colon:
        raise CimcError(f"metric is {name!r}; choose {', '.join(MEASURES)} or a function MODULE:FUNCTION")
    try:
        found = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise CimcError(f"metric {name} cannot be had ({error}); give an importable MODULE:FUNCTION") from None
    return Measure(lambda outputs, labels: _own_sums(found(outputs, labels), name, len(outputs)), _own_means)


def _own_sums(given: Any, name: str, samples: int) -> Sums:
    figures = given if isinstance(given, Mapping) else {name.rpartition(":")[2]: given}
    return {"count": samples, **{f"sum.{key}": float(value) * samples for key, value in figures.items()}}


def _own_means(sums: Sums) -> dict[str, float]:
    return {name.removeprefix("sum."): mean for name, mean in _means(sums).items()}


def choose_measure(output_shape: Sequence[int], labels: Values) -> str:
    """The usual measure of outputs [N, ...] with these labels, by name.

    Raises:
        CimcError: their shapes do not go together.
    """
    shape = squeezed_shape(output_shape)
    stated = labels.reshape(labels.shape[0], *(size for size in labels.shape[1:] if size != 1))
    if labels.dtype.kind == "f":
        if stated.shape[1:] == shape[1:]:
            return "mse"
    elif stated.ndim == 1:
        return "top1" if len(shape) == 2 else "binary" if len(shape) == 1 else _no_measure(output_shape, labels)
    elif stated.shape[1:] == shape[1:]:
        return "multilabel" if len(shape) == 2 else "binary"
    elif _class_axis(shape, stated.shape) is not None:
        return "miou" if len(shape) >= 4 else "positions"
    elif len(shape) == 3 and stated.ndim == 2:
        return "edit"  # fewer or more steps than symbols
    return _no_measure(output_shape, labels)


def _no_measure(output_shape: Sequence[int], labels: Values) -> str:
    raise CimcError(
        f"outputs {_text(output_shape)} and {labels.dtype} labels {_text(labels.shape)} do not go together; give one "
        "label a sample or a position, or one target a value"
    )


def _text(shape: Sequence[int]) -> str:
    return "x".join(map(str, ("N", *shape[1:])))


def squeezed_shape(shape: Sequence[int]) -> tuple[int, ...]:
    """Without the axes of size 1 behind the samples."""
    return (shape[0], *(size for size in shape[1:] if size != 1))


def class_axis(output_shape: Sequence[int], label_shape: Sequence[int]) -> int:
    """The axis of the classes of outputs, from the axes that the labels have: the last, or else the second.

    Raises:
        CimcError: it is neither.
    """
    axis = _class_axis(output_shape, label_shape)
    if axis is None:
        raise CimcError(
            f"outputs {_text(output_shape)} have no axis of classes beside the positions of labels {_text(label_shape)}"
        )
    return axis


def _class_axis(output_shape: Sequence[int], label_shape: Sequence[int]) -> int | None:
    if len(output_shape) == len(label_shape) + 1:
        for axis in (len(output_shape) - 1, 1):
            rest = [size for place, size in enumerate(output_shape) if place not in (0, axis)]
            if rest == list(label_shape[1:]):
                return axis
    return None


def require_finite(outputs: Values) -> None:
    """Raises CimcError where outputs are no numbers."""
    if not np.isfinite(outputs).all():
        raise CimcError("the network's output holds NaN or infinity; lower the learning rate or check the weights")


def merge(total: Sums | None, added: Sums) -> Sums:
    """The sums of more batches."""
    if total is None:
        return added
    return {
        name: max(total[name], value) if name.startswith("largest") else total[name] + value
        for name, value in added.items()
    }


def measure(name: str, outputs: Values, labels: Values) -> dict[str, float]:
    """Figures of outputs that are at hand in one piece."""
    chosen = measure_of(name)
    return chosen.finish(chosen.add(outputs, labels))


# --- Classes ---


def _scores(outputs: Values, labels: Values) -> tuple[Values, Values]:
    """Scores [samples or positions, classes] and labels, without what is not counted."""
    require_finite(outputs)
    outputs = outputs.reshape(squeezed_shape(outputs.shape))
    labels = labels.reshape(labels.shape[0], *(size for size in labels.shape[1:] if size != 1))
    if outputs.ndim == 1:
        outputs = outputs[:, None]
    scores = np.moveaxis(outputs, class_axis(outputs.shape, labels.shape), -1)
    counted = labels != NOT_COUNTED
    return scores[counted], labels[counted]


def _top(k: int) -> Callable[[Values, Values], Sums]:
    def add(outputs: Values, labels: Values) -> Sums:
        scores, labels = _scores(outputs, labels)
        if k == 1:
            right = np.argmax(scores, axis=-1) == labels
        else:
            best = np.argsort(-scores, axis=-1, kind="stable")[:, :k]
            right = (best == labels[:, None]).any(axis=1)
        return {"count": len(labels), "right": int(right.sum())}

    return add


def _share(name: str) -> Callable[[Sums], dict[str, float]]:
    return lambda sums: {name: sums["right"] / max(sums["count"], 1)}


def _perplexity(outputs: Values, labels: Values) -> Sums:
    scores, labels = _scores(outputs, labels)
    scores = scores.astype(np.float64)
    highest = scores.max(axis=-1, keepdims=True)
    log_total = np.log(np.exp(scores - highest).sum(axis=-1)) + highest[:, 0]
    return {"count": len(labels), "loss": float((log_total - scores[np.arange(len(labels)), labels]).sum())}


def _iou(outputs: Values, labels: Values) -> Sums:
    scores, labels = _scores(outputs, labels)
    classes = scores.shape[-1]
    pairs = labels.astype(np.int64) * classes + np.argmax(scores, axis=-1)
    return {"confusion": np.bincount(pairs, minlength=classes**2).reshape(classes, classes)}


def _mean_iou(sums: Sums) -> dict[str, float]:
    """The mean over the classes that occur."""
    confusion = sums["confusion"]
    both = np.diag(confusion)
    either = confusion.sum(axis=0) + confusion.sum(axis=1) - both
    occurs = either > 0
    return {
        "miou": float(np.mean(both[occurs] / either[occurs])) if occurs.any() else 0.0,
        "pixel_accuracy": float(both.sum() / max(confusion.sum(), 1)),
    }


def _edits(outputs: Values, labels: Values) -> Sums:
    """Outputs [N, T, C] as sequences: the best class of each step, repeats as one, without blanks (as CTC reads)."""
    require_finite(outputs)
    if outputs.ndim != 3 or labels.ndim != 2:
        raise CimcError(f"outputs {_text(outputs.shape)} are no sequences; the edit distance needs [N, steps, classes]")
    wrong = length = exact = 0
    for steps, stated in zip(np.argmax(outputs, axis=-1), labels, strict=True):
        changed = np.concatenate([[True], steps[1:] != steps[:-1]])
        read = steps[changed & (steps != BLANK)]
        wanted = stated[(stated != NOT_COUNTED) & (stated != BLANK)]
        distance = edit_distance(read.tolist(), wanted.tolist())
        wrong, length, exact = wrong + distance, length + len(wanted), exact + (distance == 0)
    return {"wrong": wrong, "length": length, "exact": exact, "count": len(labels)}


def edit_distance(read: Sequence[int], wanted: Sequence[int]) -> int:
    """The fewest symbols to change, add or leave out (Levenshtein)."""
    row = list(range(len(wanted) + 1))
    for index, symbol in enumerate(read):
        corner, row[0] = row[0], index + 1
        for place, other in enumerate(wanted):
            corner, row[place + 1] = (
                row[place + 1],
                min(corner + (symbol != other), row[place + 1] + 1, row[place] + 1),
            )
    return row[-1]


def _edit_shares(sums: Sums) -> dict[str, float]:
    return {
        "edit_distance": sums["wrong"] / max(sums["length"], 1),
        "exact_sequences": sums["exact"] / max(sums["count"], 1),
    }


# --- Truth values. Whether outputs are probabilities or logits shows when all are seen: both thresholds are counted ---


def _answers(outputs: Values, labels: Values) -> tuple[Values, Values, Values]:
    """Answers [2, N, values] with the thresholds 0.5 and 0, labels [N, values], and which of these count."""
    computed, labels = _flat(outputs, labels)
    return np.stack([computed > 0.5, computed > 0]), labels > 0.5, labels != NOT_COUNTED


def _range(outputs: Values) -> Sums:
    return {"largest_output": float(outputs.max(initial=0)), "largest_below": float(-outputs.min(initial=0))}


def _by_threshold(sums: Sums) -> int:
    """Which of the two thresholds holds: 0.5 where all outputs lie from 0 to 1."""
    return 0 if sums["largest_output"] <= 1 and sums["largest_below"] <= 0 else 1


def _binary(outputs: Values, labels: Values) -> Sums:
    yes, true, counted = _answers(outputs, labels)
    right = ((yes == true) & counted).sum(axis=(1, 2))
    return {"count": int(counted.sum()), "right": right, **_range(outputs)}


def _binary_accuracy(sums: Sums) -> dict[str, float]:
    return {"binary_accuracy": float(sums["right"][_by_threshold(sums)] / max(sums["count"], 1))}


def _multilabel(outputs: Values, labels: Values) -> Sums:
    yes, true, counted = _answers(outputs, labels)
    yes &= counted
    return {
        "both": (yes & true).sum(axis=(1, 2)),
        "either": yes.sum(axis=(1, 2)) + true.sum(),
        "exact": (yes == true).all(axis=2).sum(axis=1),
        "count": len(labels),
        **_range(outputs),
    }


def _f1(sums: Sums) -> dict[str, float]:
    which = _by_threshold(sums)
    both, either, exact = (int(sums[name][which]) for name in ("both", "either", "exact"))
    return {"f1_micro": 2 * both / either if either else 1.0, "exact_match": exact / max(sums["count"], 1)}


# --- Values ---


def _flat(outputs: Values, targets: Values) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    require_finite(outputs)
    computed, wanted = (array.reshape(len(array), -1).astype(np.float64) for array in (outputs, targets))
    if computed.shape != wanted.shape:
        raise CimcError(f"outputs {_text(outputs.shape)} and targets {_text(targets.shape)} need the same sizes")
    return computed, wanted


def _errors(of: Callable[[NDArray[np.float64]], NDArray[np.float64]], name: str) -> Callable[[Values, Values], Sums]:
    def add(outputs: Values, targets: Values) -> Sums:
        computed, wanted = _flat(outputs, targets)
        return {"count": computed.size, name: float(of(computed - wanted).sum())}

    return add


def _cosine(outputs: Values, targets: Values) -> Sums:
    computed, wanted = _flat(outputs, targets)
    lengths = np.linalg.norm(computed, axis=1) * np.linalg.norm(wanted, axis=1)
    return {
        "count": len(computed),
        "cosine": float(((computed * wanted).sum(axis=1) / np.maximum(lengths, 1e-30)).sum()),
    }


def _means(sums: Sums) -> dict[str, float]:
    return {name: value / max(sums["count"], 1) for name, value in sums.items() if name != "count"}


MEASURES: dict[str, Measure] = {
    "top1": Measure(_top(1), _share("accuracy"), classes=True),
    "accuracy": Measure(_top(1), _share("accuracy"), classes=True),
    "top5": Measure(_top(5), _share("top5_accuracy"), classes=True),
    "positions": Measure(_top(1), _share("position_accuracy"), classes=True),
    "edit": Measure(_edits, _edit_shares, classes=True),
    "perplexity": Measure(
        _perplexity, lambda sums: {"perplexity": float(np.exp(sums["loss"] / max(sums["count"], 1)))}, classes=True
    ),
    "miou": Measure(_iou, _mean_iou, classes=True),
    "binary": Measure(_binary, _binary_accuracy),
    "multilabel": Measure(_multilabel, _f1),
    "mse": Measure(_errors(np.square, "mse"), _means),
    "mae": Measure(_errors(np.abs, "mae"), _means),
    "cosine": Measure(_cosine, _means),
}


# --- Agreement with a reference ---


def agreement_sums(computed: Values, reference: Values) -> Sums:
    """What a batch adds to the agreement of an output with the reference's, both [N, ...]."""
    got, wanted = _flat(computed, reference)
    axis = _axis_of_entries(reference.shape)
    best = [] if axis is None else [np.argmax(x.reshape(reference.shape), axis=axis) for x in (computed, reference)]
    return {
        "signal": float(np.square(wanted).sum()),
        "noise": float(np.square(got - wanted).sum()),
        "largest_error": float(np.abs(got - wanted).max(initial=0.0)),
        "largest_value": float(np.abs(wanted).max(initial=0.0)),
        "same": int((best[0] == best[1]).sum()) if best else 0,
        "count": best[0].size if best else 0,
    }


def _axis_of_entries(shape: Sequence[int]) -> int | None:
    """The axis whose largest entry decides: the last, of maps [N, C, H, W] the second, of [N, 1, 1, C] the last.

    None where that has one entry: one value a sample, a step [N, T, 1] or a pixel [N, 1, H, W] decides nothing.
    """
    axis = len(shape) - 1 if len(shape) < 4 or all(size == 1 for size in shape[1:-1]) else 1
    return axis if axis and shape[axis] > 1 else None


def agreement_of(sums: Sums) -> dict[str, float]:
    """The agreement of an output.

    argmax_agreement: share of samples or positions whose largest entry is where the reference has it (only where there
    are several entries). snr_db: the reference's power over that of the error. largest_error: absolute; relative_error:
    of the reference's largest magnitude. fidelity: share of the reference's power that is not error, at least 0.
    """
    ratio = sums["signal"] / sums["noise"] if sums["noise"] else np.inf
    decibels = 10 * np.log10(ratio) if ratio > 0 else -DECIBELS_AT_MOST
    figures = {"argmax_agreement": sums["same"] / sums["count"]} if sums["count"] else {}
    return {
        **figures,
        "fidelity": max(1 - sums["noise"] / sums["signal"], 0.0) if sums["signal"] else float(not sums["noise"]),
        "snr_db": float(np.clip(decibels, -DECIBELS_AT_MOST, DECIBELS_AT_MOST)),
        "largest_error": sums["largest_error"],
        "relative_error": sums["largest_error"] / (sums["largest_value"] or 1.0),
    }


def agreement(computed: Values, reference: Values) -> dict[str, float]:
    """The agreement of an output with the reference's, both [N, ...] and at hand in one piece (`agreement_of`)."""
    return agreement_of(agreement_sums(computed, reference))
