"""Operators of ai.onnx.ml around scikit-learn's networks and linear models become standard ones."""

import numpy as np
import onnx_ir as ir

from passes.lowering.expand import Builder, Rule, expand

_ML = "ai.onnx.ml"


class ExpandMl(ir.passes.InPlacePass):
    """Expand scalers, normalisers, linear models and the lookup of class labels."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Expand all of them."""
        return ir.passes.PassResult(model, modified=bool(expand(model, _RULES)))


def _numbers(build: Builder, name: str) -> np.ndarray:
    return np.array(build.node.attributes.get_floats(name, ()), np.float32)


def _float(build: Builder) -> ir.Value:
    """The first input as float32: these operators take every number."""
    x = build.needed(0)
    return x if x.dtype == ir.DataType.FLOAT else build("Cast", x, to=int(ir.DataType.FLOAT))


def _scaler(build: Builder) -> list[ir.Value]:
    offset, scale = (build.constant(_numbers(build, name)) for name in ("offset", "scale"))
    return [build("Mul", build("Sub", _float(build), offset), scale)]


def _normalizer(build: Builder) -> list[ir.Value] | None:
    norm, x = build.node.attributes.get_string("norm", "MAX"), _float(build)
    if norm not in ("L1", "L2"):
        return None
    axes = build.constant(np.array([-1], np.int64))
    size = build("ReduceL1" if norm == "L1" else "ReduceL2", x, axes, keepdims=1)
    # Rows of zeros stay zeros.
    return [build("Div", x, build("Where", build("Equal", size, build.constant(0.0)), build.constant(1.0), size))]


def _binarizer(build: Builder) -> list[ir.Value]:
    threshold = build.constant(float(build.node.attributes.get_float("threshold", 0.0)))
    return [build("Cast", build("Greater", _float(build), threshold), to=int(ir.DataType.FLOAT))]


def _features(build: Builder) -> list[ir.Value] | None:
    """ArrayFeatureExtractor(x, y): the places y of the last axis; of a vector x, as a matrix with one row."""
    x, places = build.needed(0), build.constant(np.array([-1], np.int64))
    if x.shape is None:
        return None
    flat = build("Reshape", build.needed(1), places)
    picked = build("Gather", x, flat, axis=len(x.shape) - 1)
    return [build("Reshape", picked, build.constant(np.array([1, -1], np.int64))) if len(x.shape) == 1 else picked]


def _scores(build: Builder) -> ir.Value | None:
    """x W + b of a linear model, after its post_transform."""
    coefficients, intercepts = _numbers(build, "coefficients"), _numbers(build, "intercepts")
    transform = build.node.attributes.get_string("post_transform", "NONE")
    targets = len(intercepts) or build.node.attributes.get_int("targets", 1)
    operator = {"NONE": None, "LOGISTIC": "Sigmoid", "SOFTMAX": "Softmax"}.get(transform, "")
    if operator == "" or not coefficients.size or coefficients.size % targets:
        return None
    weight = build.constant(np.ascontiguousarray(coefficients.reshape(targets, -1).T))
    score = build("MatMul", _float(build), weight)
    if intercepts.size:
        score = build("Add", score, build.constant(intercepts))
    return score if operator is None else build(operator, score)


def _linear_regressor(build: Builder) -> list[ir.Value] | None:
    score = _scores(build)
    return None if score is None else [score]


def _linear_classifier(build: Builder) -> list[ir.Value | None] | None:
    labels = np.array(build.node.attributes.get_ints("classlabels_ints", ()), np.int64)
    words = build.node.attributes.get_strings("classlabels_strings", ())
    if max(len(labels), len(words)) < 2 or max(len(labels), len(words)) != len(_numbers(build, "intercepts")):
        return None  # one score for two classes
    score = _scores(build)
    if score is None:
        return None
    if len(words):
        return [None, score]
    best = build("ArgMax", score, axis=1, keepdims=0)
    return [build("Gather", build.constant(labels), best), score]


_RULES: dict[tuple[str, str], Rule] = {
    (_ML, "ArrayFeatureExtractor"): _features,
    (_ML, "Binarizer"): _binarizer,
    (_ML, "LinearClassifier"): _linear_classifier,
    (_ML, "LinearRegressor"): _linear_regressor,
    (_ML, "Normalizer"): _normalizer,
    (_ML, "Scaler"): _scaler,
}
