"""The products among the digital operators of a lowered network, and their multiply-accumulates."""

import math

import onnx_ir as ir

from cimc.operators import CROSSBAR_SOURCES
from passes.image_sizes import elements_of_image, sizes_of_image

# Of onnxruntime's own operators, those that multiply by weights.
_MICROSOFT = frozenset({"Attention", "QAttention", "MatMulNBits", "MatMulBnb4", "DynamicQuantizeMatMul", "MoE", "QMoE"})
_MICROSOFT |= {"DynamicQuantizeLSTM", "MatMulIntegerToFloat", "FusedMatMul", "FusedGemm", "FusedConv", "GemmFastGelu"}
_MICROSOFT |= {"QGemm", "NhwcConv"}
_STANDARD = CROSSBAR_SOURCES | {"Einsum", "MatMulInteger", "ConvInteger", "QLinearMatMul", "QLinearConv", "DeformConv"}
RECURRENT = frozenset({"LSTM", "GRU", "RNN"})


def is_product(node: ir.Node) -> bool:
    """Whether the operator multiplies and adds, with weights or with values."""
    return node.op_type in (_MICROSOFT if node.domain == "com.microsoft" else _STANDARD if not node.domain else ())


def operands_of(node: ir.Node) -> list[ir.Value]:
    """What a product multiplies; all inputs of an operator that is not of the standard."""
    places = range(len(node.inputs)) if node.domain else (1, 2) if node.op_type in RECURRENT else (0, 1)
    if node.op_type in ("QLinearConv", "QLinearMatMul"):
        places = (0, 3)
    return [value for place in places if place < len(node.inputs) and (value := node.inputs[place]) is not None]


def macs_of(node: ir.Node, weights: int) -> int:
    """Multiply-accumulates of one image; weights: elements of the constants, where each is used once a position."""
    left, output = node.inputs[0], node.outputs[0]
    if node.domain or node.op_type in RECURRENT:  # every weight once a position, or once a step
        return weights * math.prod(sizes_of_image(left)[:-1])
    if node.op_type == "Einsum":
        operands, _, result = node.attributes.get_string("equation", "").replace(" ", "").partition("->")
        terms = zip([*operands.split(","), result], [*node.inputs, output], strict=False)
        pairs = (pair for term, value in terms for pair in zip(term, sizes_of_image(value), strict=False))
        return math.prod(dict(pairs).values())
    if node.op_type in ("Gemm", "MatMul", "MatMulInteger", "QLinearMatMul"):
        sizes = sizes_of_image(left)
        across = -2 if node.attributes.get_int("transA", 0) else -1
        return elements_of_image(output) * (sizes[across] if sizes else 1)
    # [C_out, C_in / group, ...], of a ConvTranspose [C_in, C_out / group, ...]
    kernel = sizes_of_image(operands_of(node)[1])[1:]
    each = left if node.op_type == "ConvTranspose" else output
    return elements_of_image(each) * math.prod(kernel)
