"""The operators of a lowered network: what runs on crossbars, and what runs beside them digitally."""

from dataclasses import dataclass
from typing import Literal

CROSSBAR_DOMAIN = "ai.cimc"
CROSSBAR_OPERATORS = frozenset({"CrossbarMatMul", "CrossbarConv"})
FAKE_QUANTIZE = "FakeQuantize"  # of the same domain: a quantiser and its inverse in one, digital


@dataclass(frozen=True)
class Operator:
    """An operator of the standard domain, as the runtime executes it (opset 21).

    place: on crossbars where its weights are constants (Gemm, MatMul and Einsum of two values run digitally), or
    digitally. trainable: whether gradients pass. passed, cases: of the `onnx` package's own test cases
    (tests/runtime/test_conformance.py; what does not pass is listed there with the reason).
    """

    place: Literal["crossbar", "digital"]
    trainable: bool
    passed: int
    cases: int


OPERATORS: dict[str, Operator] = {
    "Abs": Operator("digital", True, 1, 1),
    "Acos": Operator("digital", True, 2, 2),
    "Acosh": Operator("digital", True, 2, 2),
    "Add": Operator("digital", True, 8, 8),
    "And": Operator("digital", False, 8, 8),
    "ArgMax": Operator("digital", False, 16, 16),
    "ArgMin": Operator("digital", False, 16, 16),
    "Asin": Operator("digital", True, 2, 2),
    "Asinh": Operator("digital", True, 2, 2),
    "Atan": Operator("digital", True, 2, 2),
    "Atanh": Operator("digital", True, 2, 2),
    "AveragePool": Operator("digital", True, 20, 20),
    "BatchNormalization": Operator("digital", True, 2, 4),
    "BitShift": Operator("digital", False, 28, 28),
    "BitwiseAnd": Operator("digital", False, 4, 4),
    "BitwiseNot": Operator("digital", False, 3, 3),
    "BitwiseOr": Operator("digital", False, 4, 4),
    "BitwiseXor": Operator("digital", False, 4, 4),
    "Cast": Operator("digital", True, 82, 116),
    "CastLike": Operator("digital", True, 40, 56),
    "Ceil": Operator("digital", False, 2, 2),
    "Celu": Operator("digital", True, 3, 3),
    "Clip": Operator("digital", True, 12, 12),
    "Col2Im": Operator("digital", True, 5, 5),
    "Concat": Operator("digital", True, 12, 12),
    "ConstantOfShape": Operator("digital", False, 3, 3),
    "Conv": Operator("crossbar", True, 6, 6),
    "ConvTranspose": Operator("crossbar", True, 11, 11),
    "Cos": Operator("digital", True, 2, 2),
    "Cosh": Operator("digital", True, 2, 2),
    "CumSum": Operator("digital", True, 9, 9),
    "DepthToSpace": Operator("digital", True, 2, 2),
    "DequantizeLinear": Operator("digital", False, 9, 14),
    "Div": Operator("digital", True, 10, 10),
    "Dropout": Operator("digital", True, 8, 12),
    "DynamicQuantizeLinear": Operator("digital", False, 3, 3),
    "Einsum": Operator("digital", True, 9, 9),
    "Elu": Operator("digital", True, 3, 3),
    "Equal": Operator("digital", False, 8, 10),
    "Erf": Operator("digital", True, 1, 1),
    "Exp": Operator("digital", True, 2, 2),
    "Expand": Operator("digital", True, 2, 2),
    "EyeLike": Operator("digital", False, 3, 3),
    "Flatten": Operator("digital", True, 9, 9),
    "Floor": Operator("digital", False, 2, 2),
    "GRU": Operator("crossbar", True, 6, 6),
    "Gather": Operator("digital", True, 4, 4),
    "GatherElements": Operator("digital", True, 3, 3),
    "GatherND": Operator("digital", True, 3, 3),
    "Gelu": Operator("digital", True, 4, 4),
    "Gemm": Operator("crossbar", True, 11, 11),
    "GlobalAveragePool": Operator("digital", True, 2, 2),
    "GlobalLpPool": Operator("digital", True, 0, 0),
    "GlobalMaxPool": Operator("digital", True, 2, 2),
    "Greater": Operator("digital", False, 8, 8),
    "GreaterOrEqual": Operator("digital", False, 8, 8),
    "GroupNormalization": Operator("digital", True, 2, 2),
    "HardSigmoid": Operator("digital", True, 3, 3),
    "HardSwish": Operator("digital", True, 1, 1),
    "Hardmax": Operator("digital", False, 7, 7),
    "Identity": Operator("digital", True, 5, 5),
    "InstanceNormalization": Operator("digital", True, 2, 2),
    "IsInf": Operator("digital", False, 4, 4),
    "IsNaN": Operator("digital", False, 2, 2),
    "LRN": Operator("digital", True, 2, 2),
    "LSTM": Operator("crossbar", True, 6, 6),
    "LayerNormalization": Operator("digital", True, 19, 19),
    "LeakyRelu": Operator("digital", True, 3, 3),
    "Less": Operator("digital", False, 8, 8),
    "LessOrEqual": Operator("digital", False, 8, 8),
    "Log": Operator("digital", True, 2, 2),
    "LogSoftmax": Operator("digital", True, 7, 7),
    "LpNormalization": Operator("digital", True, 6, 6),
    "LpPool": Operator("digital", True, 8, 8),
    "MatMul": Operator("crossbar", True, 7, 7),
    "Max": Operator("digital", True, 14, 14),
    "MaxPool": Operator("digital", True, 19, 19),
    "Mean": Operator("digital", True, 3, 3),
    "MeanVarianceNormalization": Operator("digital", True, 1, 1),
    "Min": Operator("digital", True, 14, 14),
    "Mish": Operator("digital", True, 1, 1),
    "Mod": Operator("digital", True, 19, 19),
    "Mul": Operator("digital", True, 9, 9),
    "Neg": Operator("digital", True, 2, 2),
    "Not": Operator("digital", False, 3, 3),
    "OneHot": Operator("digital", False, 6, 6),
    "Or": Operator("digital", False, 8, 8),
    "PRelu": Operator("digital", True, 2, 2),
    "Pad": Operator("digital", True, 6, 6),
    "Pow": Operator("digital", True, 12, 12),
    "QuantizeLinear": Operator("digital", False, 10, 13),
    "RMSNormalization": Operator("digital", True, 19, 19),
    "RNN": Operator("crossbar", True, 6, 6),
    "Range": Operator("digital", False, 3, 4),
    "Reciprocal": Operator("digital", True, 2, 2),
    "ReduceL1": Operator("digital", True, 9, 9),
    "ReduceL2": Operator("digital", True, 9, 9),
    "ReduceLogSum": Operator("digital", True, 5, 5),
    "ReduceLogSumExp": Operator("digital", True, 9, 9),
    "ReduceMax": Operator("digital", True, 11, 11),
    "ReduceMean": Operator("digital", True, 8, 8),
    "ReduceMin": Operator("digital", True, 10, 10),
    "ReduceProd": Operator("digital", True, 9, 9),
    "ReduceSum": Operator("digital", True, 12, 12),
    "ReduceSumSquare": Operator("digital", True, 9, 9),
    "Relu": Operator("digital", True, 1, 1),
    "Reshape": Operator("digital", True, 10, 10),
    "Resize": Operator("digital", True, 39, 39),
    "ReverseSequence": Operator("digital", True, 3, 3),
    "Round": Operator("digital", False, 1, 1),
    "ScatterElements": Operator("digital", True, 7, 7),
    "ScatterND": Operator("digital", True, 7, 7),
    "Selu": Operator("digital", True, 3, 3),
    "Shape": Operator("digital", False, 11, 11),
    "Shrink": Operator("digital", True, 2, 2),
    "Sigmoid": Operator("digital", True, 2, 2),
    "Sign": Operator("digital", False, 1, 1),
    "Sin": Operator("digital", True, 2, 2),
    "Sinh": Operator("digital", True, 2, 2),
    "Size": Operator("digital", False, 2, 2),
    "Slice": Operator("digital", True, 8, 8),
    "Softmax": Operator("digital", True, 7, 7),
    "Softplus": Operator("digital", True, 2, 2),
    "Softsign": Operator("digital", True, 2, 2),
    "SpaceToDepth": Operator("digital", True, 4, 4),
    "Split": Operator("digital", True, 16, 16),
    "Sqrt": Operator("digital", True, 2, 2),
    "Squeeze": Operator("digital", True, 2, 2),
    "Sub": Operator("digital", True, 9, 9),
    "Sum": Operator("digital", True, 3, 3),
    "Swish": Operator("digital", True, 1, 1),
    "Tan": Operator("digital", True, 2, 2),
    "Tanh": Operator("digital", True, 2, 2),
    "ThresholdedRelu": Operator("digital", True, 3, 3),
    "Tile": Operator("digital", True, 2, 2),
    "TopK": Operator("digital", True, 7, 7),
    "Transpose": Operator("digital", True, 7, 7),
    "Trilu": Operator("digital", True, 18, 18),
    "Unsqueeze": Operator("digital", True, 7, 7),
    "Where": Operator("digital", True, 2, 2),
    "Xor": Operator("digital", False, 8, 8),
}

# Operators that become crossbar layers where their weights are constants.
CROSSBAR_SOURCES = frozenset(name for name, operator in OPERATORS.items() if operator.place == "crossbar")

# Operators that the runtime executes digitally; a product of two values has no weights to lay on an array.
DIGITAL_OPERATORS = frozenset(OPERATORS) - CROSSBAR_SOURCES | {"Gemm", "MatMul", "Einsum"}

# Inputs of digital operators that are parameters of the network, and so are trained. Of a BatchNormalization the third
# and the fourth are statistics.
PARAMETERS: dict[str, tuple[int, ...]] = {
    "BatchNormalization": (1, 2, 3, 4),
    "GroupNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
    "PRelu": (1,),
    "RMSNormalization": (1,),
}


def layer_of(weight: str) -> str:
    """The crossbar layer whose weight initializer has that name; all nodes that use the weight are that layer."""
    return weight.removesuffix(".weight")
