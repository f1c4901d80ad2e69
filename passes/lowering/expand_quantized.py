"""Quantised operators become their float forms between DequantizeLinear and QuantizeLinear, as the standard defines
them: so their weights come onto the arrays dequantised, and the scales of the activations stay in the network.

Results can differ by one step of a quantiser, where float32 rounds a value near a half to the other side.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from passes.graph_edit import constant
from passes.lowering.expand import Builder, Rule, expand

MICROSOFT = "com.microsoft"
_CONV = ("auto_pad", "dilations", "group", "kernel_shape", "pads", "strides")
_POOL = ("auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides")


class ExpandQuantized(ir.passes.InPlacePass):
    """Expand the quantised operators of the standard and of onnxruntime's quantiser."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Expand all of them."""
        return ir.passes.PassResult(model, modified=bool(expand(model, _RULES)))


def _dequantize(build: Builder, first: int, axis: int = 1) -> ir.Value:
    """Input `first` in float, by the scale and the zero point that follow it."""
    scale = build.needed(first + 1)
    return build("DequantizeLinear", build.needed(first), _vector(build, scale), _zero(build, first + 2), axis=axis)


def _quantize(build: Builder, value: ir.Value, scale: int) -> list[ir.Value]:
    """`value` quantised by input `scale` and the zero point that follows it."""
    return [build("QuantizeLinear", value, _vector(build, build.needed(scale)), _zero(build, scale + 1))]


def _vector(build: Builder, value: ir.Value) -> ir.Value:
    """A scale or zero point with one entry as a scalar, which quantises along no axis."""
    array = constant(value)
    return build.constant(array.reshape(())) if array is not None and array.size == 1 and array.ndim else value


def _zero(build: Builder, index: int) -> ir.Value | None:
    value = build.input(index)
    return None if value is None else _vector(build, value)


def _qlinear_conv(build: Builder) -> list[ir.Value]:
    x, kernel = _dequantize(build, 0), _dequantize(build, 3, axis=0)
    attributes = _kept(build, _CONV)
    bias = build.input(8)
    if bias is None:
        return _quantize(build, build("Conv", x, kernel, **attributes), 6)
    scale = build("Mul", build.needed(1), build.needed(4))
    offset = build("Mul", build("Cast", bias, to=int(ir.DataType.FLOAT)), scale)
    return _quantize(build, build("Conv", x, kernel, offset, **attributes), 6)


def _qlinear_matmul(build: Builder) -> list[ir.Value]:
    # A scale for each column of the second operand.
    return _quantize(build, build("MatMul", _dequantize(build, 0), _dequantize(build, 3, axis=-1)), 6)


def _levels(build: Builder, index: int, zero: int, axis: int) -> ir.Value:
    """Input `index` minus its zero point, as float; one straight from a DynamicQuantizeLinear keeps its gradient."""
    value, shift = build.needed(index), build.input(zero)
    producer = value.producer()
    if producer is not None and producer.op_type == "DynamicQuantizeLinear" and shift is producer.outputs[2]:
        scale = producer.outputs[1]
        return build("Div", build("DequantizeLinear", value, scale, shift), scale)
    levels = build("Cast", value, to=int(ir.DataType.FLOAT))
    if shift is None:
        return levels
    offset = build("Cast", shift, to=int(ir.DataType.FLOAT))
    array = constant(shift)
    if array is not None and array.size > 1:  # a zero point for each row or column
        rank = len(value.shape) if value.shape is not None else 2
        sizes = [1] * rank
        sizes[axis] = array.size
        offset = build("Reshape", offset, build.constant(np.array(sizes, np.int64)))
    elif array is not None:
        offset = build.constant(array.reshape(()).astype(np.float32))
    return build("Sub", levels, offset)


def _integers(build: Builder, product: ir.Value) -> list[ir.Value] | None:
    """A product of integers, exact in float below 2^24, for nodes that cast it to float; else cast to int32."""
    output = build.node.outputs[0]
    casts = [use.node for use in output.uses()]
    floats = [node for node in casts if node.op_type == "Cast" and node.attributes.get_int("to") == ir.DataType.FLOAT]
    results = [output, *(node.outputs[0] for node in floats)]
    if len(floats) == len(casts) and not any(value.is_graph_output() for value in results):
        for node in floats:
            node.outputs[0].replace_all_uses_with(product)
        output.type = ir.TensorType(ir.DataType.FLOAT)  # what takes its place takes its type
        return [product]
    return [build("Cast", product, to=int(ir.DataType.INT32))]


def _matmul_integer(build: Builder) -> list[ir.Value] | None:
    return _integers(build, build("MatMul", _levels(build, 0, 2, -2), _levels(build, 1, 3, -1)))


def _conv_integer(build: Builder) -> list[ir.Value] | None:
    product = build("Conv", _levels(build, 0, 2, 1), _levels(build, 1, 3, 0), **_kept(build, _CONV))
    return _integers(build, product)


def _matmul_integer_to_float(build: Builder) -> list[ir.Value]:
    """MatMulIntegerToFloat(A, B, a_scale, b_scale, a_zero, b_zero, bias)."""
    product = build("MatMul", _levels(build, 0, 4, -2), _levels(build, 1, 5, -1))
    scaled = build("Mul", product, build("Mul", build.needed(2), build.needed(3)))
    bias = build.input(6)
    return [scaled if bias is None else build("Add", scaled, bias)]


def _dynamic_quantize_matmul(build: Builder) -> list[ir.Value]:
    """DynamicQuantizeMatMul(A, B, b_scale, b_zero, bias)."""
    name = f"{build.name}.quantize"
    level, scale, zero = build.tape.op_multi_out("DynamicQuantizeLinear", [build.needed(0)], num_outputs=3, name=name)
    x = build("DequantizeLinear", level, scale, zero)
    weight = build("DequantizeLinear", build.needed(1), _vector(build, build.needed(2)), _zero(build, 3), axis=-1)
    product, bias = build("MatMul", x, weight), build.input(4)
    return [product if bias is None else build("Add", product, bias)]


def _qgemm(build: Builder) -> list[ir.Value]:
    """QGemm(A, a_scale, a_zero, B, b_scale, b_zero, C, y_scale, y_zero)."""
    attributes = build.node.attributes
    by_row = attributes.get_int("transB", 0)
    inputs = [_dequantize(build, 0), _dequantize(build, 3, axis=0 if by_row else -1)]
    if build.input(6) is not None:
        scale = build("Mul", build.needed(1), build.needed(4))
        alpha = build.constant(float(attributes.get_float("alpha", 1.0)))
        offset = build("Cast", build.needed(6), to=int(ir.DataType.FLOAT))
        inputs.append(build("Mul", build("Mul", offset, scale), alpha))
    product = build("Gemm", *inputs, **_kept(build, ("alpha", "transA", "transB")))
    return [product] if build.input(7) is None else _quantize(build, product, 7)


def _qlinear(operator: str, operands: int = 1, kept: Sequence[str] = ()) -> Rule:
    """QLinear<operator>: each operand with scale and zero point, then those of the result."""

    def rule(build: Builder) -> list[ir.Value] | None:
        attributes = build.node.attributes
        # Channels last, or a Softmax that flattens, is another operator.
        if attributes.get_int("channels_last", 0) or attributes.get_int("opset", 13) < 13:
            return None
        inputs = [_dequantize(build, 3 * n) for n in range(operands)]
        return _quantize(build, build(operator, *inputs, **_kept(build, kept)), 3 * operands)

    return rule


def _qlinear_concat(build: Builder) -> list[ir.Value]:
    """QLinearConcat(y_scale, y_zero, then value, scale and zero point of each operand)."""
    inputs = [_dequantize(build, first) for first in range(2, len(build.node.inputs), 3)]
    return _quantize(build, build("Concat", *inputs, **_kept(build, ("axis",))), 0)


def _matmul_nbits(build: Builder) -> list[ir.Value] | None:
    """MatMulNBits: blocks of 2, 4 or 8-bit weights along the rows, little end first, each with a scale."""
    attributes = build.node.attributes
    rows, columns = attributes.get_int("K"), attributes.get_int("N")
    bits, size = attributes.get_int("bits", 4), attributes.get_int("block_size")
    packed, scales = constant(build.needed(1)), constant(build.needed(2))
    zeros = build.input(3)
    if packed is None or scales is None or bits not in (2, 4, 8) or build.input(4) is not None:
        return None
    blocks = -(-rows // size)
    level = _unpack(packed.reshape(columns, blocks, -1), bits)[..., :size].astype(np.float32)
    shift: np.ndarray | float = float(2 ** (bits - 1))
    if zeros is not None:
        array = constant(zeros)
        if array is None:
            return None
        points = _unpack(array.reshape(columns, -1), bits)[:, :blocks] if array.dtype == np.uint8 else array
        shift = points.reshape(columns, blocks, 1).astype(np.float32)
    weight = (level - shift) * scales.reshape(columns, blocks, 1).astype(np.float32)
    matrix = weight.reshape(columns, -1)[:, :rows].T
    product, bias = (
        build("MatMul", build.needed(0), build.constant(np.ascontiguousarray(matrix), build.needed(1))),
        build.input(5),
    )
    return [product if bias is None else build("Add", product, bias)]


def _unpack(array: np.ndarray, bits: int) -> np.ndarray:
    """The numbers of `bits` bits in the bytes of the last axis, the lowest bits first."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    return ((array[..., None] >> shifts) & (2**bits - 1)).reshape(*array.shape[:-1], -1)


def _standard(build: Builder) -> list[ir.Value]:
    """The same operator of the standard domain."""
    attributes = _kept(build, ("axis", "block_size"))
    scale, zero = _vector(build, build.needed(1)), _zero(build, 2)
    return [build(build.node.op_type, build.needed(0), scale, zero, **attributes)]


def _kept(build: Builder, names: Sequence[str]) -> dict[str, int | float | str | Sequence[int]]:
    return {name: build.node.attributes[name].value for name in names if name in build.node.attributes}


_RULES: dict[tuple[str, str], Rule] = {
    ("", "QLinearConv"): _qlinear_conv,
    ("", "QLinearMatMul"): _qlinear_matmul,
    ("", "MatMulInteger"): _matmul_integer,
    ("", "ConvInteger"): _conv_integer,
    (MICROSOFT, "DequantizeLinear"): _standard,
    (MICROSOFT, "QuantizeLinear"): _standard,
    (MICROSOFT, "DynamicQuantizeMatMul"): _dynamic_quantize_matmul,
    (MICROSOFT, "MatMulIntegerToFloat"): _matmul_integer_to_float,
    (MICROSOFT, "MatMulNBits"): _matmul_nbits,
    (MICROSOFT, "QGemm"): _qgemm,
    (MICROSOFT, "QLinearAdd"): _qlinear("Add", 2),
    (MICROSOFT, "QLinearMul"): _qlinear("Mul", 2),
    (MICROSOFT, "QLinearAveragePool"): _qlinear("AveragePool", kept=_POOL),
    (MICROSOFT, "QLinearGlobalAveragePool"): _qlinear("GlobalAveragePool"),
    (MICROSOFT, "QLinearLeakyRelu"): _qlinear("LeakyRelu", kept=("alpha",)),
    (MICROSOFT, "QLinearSigmoid"): _qlinear("Sigmoid"),
    (MICROSOFT, "QLinearSoftmax"): _qlinear("Softmax", kept=("axis",)),
    (MICROSOFT, "QLinearConcat"): _qlinear_concat,
}
