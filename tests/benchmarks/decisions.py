"""What the outputs of the listed networks decide, and how far two sets of outputs decide alike."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from runtime.system.measures import NOT_COUNTED, agreement, measure

Floats = NDArray[np.float32]
Boxes = NDArray[np.floating]  # [boxes, x1 y1 x2 y2 score class]
TEXT = 0.3  # of a pixel to be text, as the detector's own package takes it
SCORE, OVERLAP, SAME_PLACE = 0.2, 0.45, 0.5  # of a box to count, of two to be one, of two to be in one place


def same_answers(outputs: Floats, reference: Floats) -> str:
    """The share of largest entries in the same place."""
    return f"{agreement(outputs, reference)['argmax_agreement']:.0%}"


def same_lines(outputs: Floats, reference: Floats) -> str:
    """Sequences [N, steps, classes] as CTC reads them: the share that is equal, and of the symbols that differ."""
    read = [best[np.concatenate([[True], best[1:] != best[:-1]])] for best in np.argmax(reference, axis=-1)]
    labels = np.full((len(read), max(map(len, read))), NOT_COUNTED, np.int32)
    for row, symbols in zip(labels, read, strict=True):
        row[: len(symbols)] = symbols
    found = measure("edit", outputs, labels)
    return f"{found['exact_sequences']:.0%} of lines, {found['edit_distance']:.1%} of letters wrong"


def same_pixels(outputs: Floats, reference: Floats) -> str:
    """Text pixels: those of both over those of either."""
    both, either = (f(outputs > TEXT, reference > TEXT).sum() for f in (np.logical_and, np.logical_or))
    return f"text pixels IoU {both / max(either, 1):.2f}"


def same_directions(outputs: Floats, reference: Floats) -> str:
    """The mean cosine between vectors along the last axis."""
    rows = (array.reshape(-1, array.shape[-1]) for array in (outputs, reference))
    return f"cosine {measure('cosine', *rows)['cosine']:.4f}"


def same_probability(outputs: Floats, reference: Floats) -> str:
    """The mean difference of the last probability."""
    return f"probability off by {np.abs(outputs - reference)[..., -1].mean():.3f}"


def same_boxes(outputs: Floats, reference: Floats) -> str:
    """Boxes [N, 4 + classes, anchors] (YOLOv8), of which those of the same class and place are the same."""
    right = found = wanted = 0
    for mine, theirs in zip(map(_boxes, outputs), map(_boxes, reference), strict=True):
        found, wanted, free = found + len(mine), wanted + len(theirs), list(theirs)
        for box in mine:
            match = next((k for k, o in enumerate(free) if o[5] == box[5] and _overlap(box, o) > SAME_PLACE), None)
            if match is not None:
                right += 1
                del free[match]
    return f"{right} of {wanted} boxes found, {found - right} others"


def _boxes(output: Floats) -> Boxes:
    """Those of one image, the best of each place, best first."""
    scores = output[4:]
    order = [int(k) for k in np.argsort(-scores.max(axis=0)) if scores[:, k].max() > SCORE]
    kept: list[Boxes] = []
    for k in order:
        x, y, width, height = output[:4, k]
        corners = [x - width / 2, y - height / 2, x + width / 2, y + height / 2]
        box = np.array([*corners, scores[:, k].max(), scores[:, k].argmax()])
        if all(_overlap(box, other) < OVERLAP for other in kept):
            kept.append(box)
    return np.array(kept).reshape(-1, 6)


def _overlap(a: Boxes, b: Boxes) -> float:
    """Intersection over union."""
    sides = np.maximum(np.minimum(a[2:4], b[2:4]) - np.maximum(a[:2], b[:2]), 0)
    areas = [float(np.prod(box[2:4] - box[:2])) for box in (a, b)]
    return float(sides.prod() / max(sum(areas) - sides.prod(), 1e-9))


# By network; of others `same_answers`.
DECISIONS: dict[str, Callable[[Floats, Floats], str]] = {
    "nudenet": same_boxes,
    "ocr-detection": same_pixels,
    "ocr-recognition": same_lines,
    "ocr-recognition-v6-tiny": same_lines,
    "open-nsfw": same_probability,
    "sentence-embedding": same_directions,
    "wake-word-embedding": same_directions,
}
