"""Fused operators of onnxruntime's optimiser (domain com.microsoft) become the standard operators they stand for."""

import numpy as np
import onnx_ir as ir

from passes.graph_edit import constant
from passes.lowering.expand import Builder, Rule, expand
from passes.lowering.expand_quantized import MICROSOFT

_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_ACTIVATIONS = {"Relu": (), "Tanh": (), "Sigmoid": (), "LeakyRelu": ("alpha",), "HardSigmoid": ("alpha", "beta")}


class ExpandFused(ir.passes.InPlacePass):
    """Expand the fused products, activations and normalisations."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Expand all of them."""
        return ir.passes.PassResult(model, modified=bool(expand(model, _RULES)))


def _activate(build: Builder, value: ir.Value, parameters: list[float]) -> ir.Value | None:
    """`value` after the node's activation; None if that is not known here."""
    operator = build.node.attributes.get_string("activation", "")
    if not operator:
        return value
    if operator == "Clip":
        low, high = (build.constant(float(limit)) for limit in parameters)
        return build("Clip", value, low, high)
    if operator not in _ACTIVATIONS:
        return None
    given = dict(zip(_ACTIVATIONS[operator], parameters, strict=False))
    return build(operator, value, **given)


def _fused_conv(build: Builder) -> list[ir.Value] | None:
    attributes = build.node.attributes
    parameters = [float(number) for number in attributes.get_floats("activation_params", ())]
    kept = {name: attributes[name].value for name in _CONV if name in attributes}
    value = build("Conv", *build.node.inputs[:3], **kept)
    addend = build.input(3)
    result = _activate(build, value if addend is None else build("Add", value, addend), parameters)
    return None if result is None else [result]


def _fused_gemm(build: Builder) -> list[ir.Value] | None:
    attributes = build.node.attributes
    names = ("activation_alpha", "activation_beta", "activation_gamma")
    parameters = [attributes.get_float(name) for name in names if name in attributes]
    kept = {name: attributes[name].value for name in ("alpha", "beta", "transA", "transB") if name in attributes}
    result = _activate(build, build("Gemm", *build.node.inputs, **kept), parameters)
    return None if result is None else [result]


def _fused_matmul(build: Builder) -> list[ir.Value] | None:
    attributes = build.node.attributes
    if attributes.get_int("transBatchA", 0) or attributes.get_int("transBatchB", 0):
        return None
    turned, operands = [], []
    for index, name in ((0, "transA"), (1, "transB")):
        value = build.needed(index)
        turned.append(bool(attributes.get_int(name, 0)))
        array = constant(value)
        if array is not None and turned[-1]:
            value, turned[-1] = build.constant(np.swapaxes(array, -1, -2), value), False
        operands.append(value)
    if any(turned):  # of values whose ranks may not be known yet; those of two values are the same
        axes = ["km" if turned[0] else "mk", "nk" if turned[1] else "kn"]
        matrices = [value.shape is not None and len(value.shape) == 2 for value in operands]
        left, right = (pair if matrix else f"...{pair}" for pair, matrix in zip(axes, matrices, strict=True))
        result = "mn" if all(matrices) else "...mn"
        product = build("Einsum", *operands, equation=f"{left},{right}->{result}")
    else:
        product = build("MatMul", *operands)
    alpha = float(attributes.get_float("alpha", 1.0))
    return [product if alpha == 1 else build("Mul", product, build.constant(alpha))]


def _gelu(approximate: str) -> Rule:
    """Gelu of the input plus the bias, if there is one."""

    def rule(build: Builder) -> list[ir.Value]:
        x, bias = build.needed(0), build.input(1)
        return [build("Gelu", x if bias is None else build("Add", x, bias), approximate=approximate)]

    return rule


def _quick_gelu(build: Builder) -> list[ir.Value]:
    x, alpha = build.needed(0), build.constant(float(build.node.attributes.get_float("alpha", 1.702)))
    return [build("Mul", x, build("Sigmoid", build("Mul", x, alpha)))]


def _simple_norm(build: Builder, x: ir.Value, scale: ir.Value, axis: int, epsilon: float) -> ir.Value:
    """x / sqrt(mean of squares + epsilon) * scale, over the last axes (arXiv 1910.07467)."""
    axes = build.constant(np.arange(axis, 0, dtype=np.int64))
    mean = build("ReduceMean", build("Mul", x, x), axes)
    root = build("Sqrt", build("Add", mean, build.constant(epsilon)))
    return build("Mul", build("Div", x, root), scale)


def _simplified_layer_norm(build: Builder) -> list[ir.Value] | None:
    attributes, x = build.node.attributes, build.needed(0)
    axis = attributes.get_int("axis", -1)
    if axis >= 0:
        if x.shape is None:
            return None
        axis -= len(x.shape)
    return [_simple_norm(build, x, build.needed(1), axis, float(attributes.get_float("epsilon", 1e-5)))]


def _skip_layer_norm(build: Builder) -> list[ir.Value | None]:
    """SkipLayerNormalization(x, skip, scale, shift, bias) -> y, _, _, sum."""
    epsilon = float(build.node.attributes.get_float("epsilon", 1e-12))
    total, bias, shift = build("Add", build.needed(0), build.needed(1)), build.input(4), build.input(3)
    total = total if bias is None else build("Add", total, bias)
    return [build("LayerNormalization", total, build.needed(2), shift, axis=-1, epsilon=epsilon), None, None, total]


def _skip_simplified_layer_norm(build: Builder) -> list[ir.Value | None]:
    """SkipSimplifiedLayerNormalization(x, skip, scale, bias) -> y, _, _, sum."""
    epsilon = float(build.node.attributes.get_float("epsilon", 1e-12))
    total, bias = build("Add", build.needed(0), build.needed(1)), build.input(3)
    total = total if bias is None else build("Add", total, bias)
    return [_simple_norm(build, total, build.needed(2), -1, epsilon), None, None, total]


def _bias_softmax(build: Builder) -> list[ir.Value]:
    axis = build.node.attributes.get_int("axis", 1)
    return [build("Softmax", build("Add", build.needed(0), build.needed(1)), axis=axis)]


def _bias_add(build: Builder) -> list[ir.Value]:
    """BiasAdd(x, bias, skip)."""
    return [build("Add", build("Add", build.needed(0), build.needed(1)), build.needed(2))]


def _dynamic_quantize_lstm(build: Builder) -> list[ir.Value] | None:
    """DynamicQuantizeLSTM: inputs of LSTM with the weights transposed in integers, then scales and zero points of both.

    The weights are dequantised; that each step rounds its inputs to 8 bits is left out.
    """
    parts = []
    for place, first in ((1, 8), (2, 10)):
        levels, scale, zero = (constant(build.input(index)) for index in (place, first, first + 1))
        if levels is None or scale is None:
            return None
        count = levels.shape[0]
        shift = np.zeros((count, 1)) if zero is None else zero.reshape(count, -1).astype(np.float32)
        matrix = (levels.astype(np.float32) - shift[:, None]) * scale.astype(np.float32).reshape(count, 1, -1)
        parts.append(build.constant(np.ascontiguousarray(matrix.transpose(0, 2, 1)).astype(np.float32)))
    kept = {name: attribute.value for name, attribute in build.node.attributes.items()}
    inputs = [build.needed(0), *parts, *(build.input(place) for place in range(3, 8))]
    return list(build.tape.op_multi_out("LSTM", inputs, kept, num_outputs=3, name=build.name))


_RULES: dict[tuple[str, str], Rule] = {
    ("", "SimplifiedLayerNormalization"): _simplified_layer_norm,  # onnxruntime's own, in the standard's domain
    (MICROSOFT, "BiasAdd"): _bias_add,
    (MICROSOFT, "BiasGelu"): _gelu("none"),
    (MICROSOFT, "BiasSoftmax"): _bias_softmax,
    (MICROSOFT, "DynamicQuantizeLSTM"): _dynamic_quantize_lstm,
    (MICROSOFT, "FastGelu"): _gelu("tanh"),
    (MICROSOFT, "FusedConv"): _fused_conv,
    (MICROSOFT, "FusedGemm"): _fused_gemm,
    (MICROSOFT, "FusedMatMul"): _fused_matmul,
    (MICROSOFT, "Gelu"): _gelu("none"),
    (MICROSOFT, "QuickGelu"): _quick_gelu,
    (MICROSOFT, "SkipLayerNormalization"): _skip_layer_norm,
    (MICROSOFT, "SkipSimplifiedLayerNormalization"): _skip_simplified_layer_norm,
    (MICROSOFT, "TransposeMatMul"): _fused_matmul,
}
