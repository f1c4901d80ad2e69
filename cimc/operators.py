"""The operators of a lowered network: what runs on crossbars, and what runs beside them digitally."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

CROSSBAR_DOMAIN = "ai.cimc"
CROSSBAR_OPERATORS = frozenset({"CrossbarMatMul", "CrossbarConv"})
FAKE_QUANTIZE = "FakeQuantize"  # of the same domain: a quantiser and its inverse in one, digital
# Among the metadata of the nodes of a layer that is left to the digital side: why. Their constants are parameters.
LEFT_DIGITAL = "ai.cimc.digital"
# Of a node among its metadata: how often each row of its weight is held (`passes.repeat_rows`).
ROW_COPIES = "ai.cimc.row_copies"
# Of a Scan among its metadata: the steps of the whole sequence, of which some may stand before the Scan.
SEQUENCE_STEPS = "ai.cimc.sequence_steps"


@dataclass(frozen=True)
class Operator:
    """An operator of the standard domain, as the runtime executes it (opset 21), and what the passes know of it.

    place: on crossbars where its weights are constants (Conv, Gemm, MatMul and Einsum of two values run digitally), or
    digitally. trainable: whether gradients pass. passed, cases: of the `onnx` package's own test cases
    (tests/runtime/test_conformance.py; what does not pass is listed there with the reason).

    rows: which rows of an input a row of the output needs. "same": that row. "axis": that row, unless the operator
    works along the axis of the rows, then all. "window": those under its kernel. "regroup": elements keep their order,
    so rows that stay whole are found again. "all", and "" where it is not known: all.
    sign: when the output is never negative. "always"; "first": if the first input never is; "all": if no input is;
    "any": if one input never is.
    moves: elements come out as they went in, which takes no operation.
    on_levels: computed on the levels of a quantised value it gives the levels of the result.
    passes: operations of a vector unit for one element of the output.
    parameters: inputs that are parameters of the network, and so are trained; of a BatchNormalization the third and the
    fourth are statistics.
    """

    place: Literal["crossbar", "digital"]
    trainable: bool
    passed: int
    cases: int
    rows: Literal["same", "axis", "window", "regroup", "all", ""] = ""
    sign: Literal["always", "first", "all", "any", ""] = ""
    moves: bool = False
    on_levels: bool = False
    passes: int = 1
    parameters: tuple[int, ...] = ()


OPERATORS: dict[str, Operator] = {
    "Abs": Operator("digital", True, 1, 1, rows="same", sign="always"),
    "Acos": Operator("digital", True, 2, 2, rows="same"),
    "Acosh": Operator("digital", True, 2, 2, rows="same"),
    "Add": Operator("digital", True, 8, 8, rows="same", sign="all"),
    "And": Operator("digital", False, 8, 8, rows="same"),
    "ArgMax": Operator("digital", False, 16, 16),
    "ArgMin": Operator("digital", False, 16, 16),
    "Asin": Operator("digital", True, 2, 2, rows="same"),
    "Asinh": Operator("digital", True, 2, 2, rows="same"),
    "Atan": Operator("digital", True, 2, 2, rows="same"),
    "Atanh": Operator("digital", True, 2, 2, rows="same"),
    "AveragePool": Operator("digital", True, 20, 20, rows="window", sign="first"),
    "BatchNormalization": Operator("digital", True, 2, 4, rows="same", passes=2, parameters=(1, 2, 3, 4)),
    "BitShift": Operator("digital", False, 28, 28, rows="same"),
    "BitwiseAnd": Operator("digital", False, 4, 4),
    "BitwiseNot": Operator("digital", False, 3, 3),
    "BitwiseOr": Operator("digital", False, 4, 4),
    "BitwiseXor": Operator("digital", False, 4, 4),
    "Cast": Operator("digital", True, 82, 116, rows="same", sign="first", moves=True),
    "CastLike": Operator("digital", True, 40, 56),
    "Ceil": Operator("digital", False, 2, 2, rows="same", sign="first"),
    "Celu": Operator("digital", True, 3, 3, rows="same", sign="first"),
    "Clip": Operator("digital", True, 12, 12, rows="same"),
    "Col2Im": Operator("digital", True, 5, 5),
    "Concat": Operator("digital", True, 12, 12, rows="same", sign="all", moves=True),
    "ConstantOfShape": Operator("digital", False, 3, 3),
    "Conv": Operator("crossbar", True, 6, 6),
    "ConvTranspose": Operator("crossbar", True, 11, 11),
    "Cos": Operator("digital", True, 2, 2, rows="same"),
    "Cosh": Operator("digital", True, 2, 2, rows="same"),
    "CumSum": Operator("digital", True, 9, 9, rows="all"),
    "DepthToSpace": Operator("digital", True, 2, 2, sign="first"),
    "DequantizeLinear": Operator("digital", False, 9, 14, rows="same"),
    "Div": Operator("digital", True, 10, 10, rows="same"),
    "Dropout": Operator("digital", True, 8, 12, rows="same", sign="first", moves=True),
    "DynamicQuantizeLinear": Operator("digital", False, 3, 3),
    "Einsum": Operator("digital", True, 9, 9),
    "Elu": Operator("digital", True, 3, 3, rows="same", sign="first"),
    "Equal": Operator("digital", False, 8, 10, rows="same"),
    "Erf": Operator("digital", True, 1, 1, rows="same", sign="first"),
    "Exp": Operator("digital", True, 2, 2, rows="same", sign="always"),
    "Expand": Operator("digital", True, 2, 2, sign="first", moves=True),
    "EyeLike": Operator("digital", False, 3, 3),
    "Flatten": Operator("digital", True, 9, 9, rows="regroup", sign="first", moves=True, on_levels=True),
    "Floor": Operator("digital", False, 2, 2, rows="same", sign="first"),
    "GRU": Operator("crossbar", True, 6, 6, rows="all"),
    "Gather": Operator("digital", True, 4, 4, moves=True, sign="first"),
    "GatherElements": Operator("digital", True, 3, 3, sign="first"),
    "GatherND": Operator("digital", True, 3, 3, sign="first"),
    "Gelu": Operator("digital", True, 4, 4, rows="same", sign="first", passes=2),
    "Gemm": Operator("crossbar", True, 11, 11),
    "GlobalAveragePool": Operator("digital", True, 2, 2, sign="first"),
    "GlobalLpPool": Operator("digital", True, 0, 0),
    "GlobalMaxPool": Operator("digital", True, 2, 2, sign="first"),
    "Greater": Operator("digital", False, 8, 8, rows="same"),
    "GreaterOrEqual": Operator("digital", False, 8, 8, rows="same"),
    "GroupNormalization": Operator("digital", True, 2, 2, rows="all", parameters=(1, 2)),
    "HardSigmoid": Operator("digital", True, 3, 3, rows="same", sign="always"),
    "HardSwish": Operator("digital", True, 1, 1, rows="same", sign="first"),
    "Hardmax": Operator("digital", False, 7, 7, rows="axis"),
    "Identity": Operator("digital", True, 5, 5, rows="same", sign="first", moves=True),
    "InstanceNormalization": Operator("digital", True, 2, 2, rows="all", parameters=(1, 2)),
    "IsInf": Operator("digital", False, 4, 4),
    "IsNaN": Operator("digital", False, 2, 2),
    "LRN": Operator("digital", True, 2, 2, rows="same", sign="first", passes=3),
    "LSTM": Operator("crossbar", True, 6, 6, rows="all"),
    "LayerNormalization": Operator("digital", True, 19, 19, rows="axis", passes=4, parameters=(1, 2)),
    "LeakyRelu": Operator("digital", True, 3, 3, rows="same", sign="first"),
    "Less": Operator("digital", False, 8, 8, rows="same"),
    "LessOrEqual": Operator("digital", False, 8, 8, rows="same"),
    "Log": Operator("digital", True, 2, 2, rows="same"),
    "LogSoftmax": Operator("digital", True, 7, 7, rows="axis", passes=3),
    "LpNormalization": Operator("digital", True, 6, 6),
    "LpPool": Operator("digital", True, 8, 8, rows="window"),
    "MatMul": Operator("crossbar", True, 7, 7),
    "Max": Operator("digital", True, 14, 14, rows="same", sign="any"),
    "MaxPool": Operator("digital", True, 19, 19, rows="window", sign="first", on_levels=True),
    "Mean": Operator("digital", True, 3, 3, rows="same", sign="all"),
    "MeanVarianceNormalization": Operator("digital", True, 1, 1, rows="all"),
    "Min": Operator("digital", True, 14, 14, rows="same", sign="all"),
    "Mish": Operator("digital", True, 1, 1, rows="same", sign="first"),
    "Mod": Operator("digital", True, 19, 19, rows="same"),
    "Mul": Operator("digital", True, 9, 9, rows="same", sign="all"),
    "Neg": Operator("digital", True, 2, 2, rows="same"),
    "Not": Operator("digital", False, 3, 3, rows="same"),
    "OneHot": Operator("digital", False, 6, 6),
    "Or": Operator("digital", False, 8, 8, rows="same"),
    "PRelu": Operator("digital", True, 2, 2, rows="same", sign="first", parameters=(1,)),
    "Pad": Operator("digital", True, 6, 6, rows="same"),
    "Pow": Operator("digital", True, 12, 12, rows="same"),
    "QuantizeLinear": Operator("digital", False, 10, 13, rows="same"),
    "RMSNormalization": Operator("digital", True, 19, 19, rows="axis", parameters=(1,)),
    "RNN": Operator("crossbar", True, 6, 6, rows="all"),
    "Range": Operator("digital", False, 3, 4),
    "Reciprocal": Operator("digital", True, 2, 2, rows="same"),
    "ReduceL1": Operator("digital", True, 9, 9),
    "ReduceL2": Operator("digital", True, 9, 9),
    "ReduceLogSum": Operator("digital", True, 5, 5),
    "ReduceLogSumExp": Operator("digital", True, 9, 9),
    "ReduceMax": Operator("digital", True, 11, 11, sign="first"),
    "ReduceMean": Operator("digital", True, 8, 8, sign="first"),
    "ReduceMin": Operator("digital", True, 10, 10, sign="first"),
    "ReduceProd": Operator("digital", True, 9, 9),
    "ReduceSum": Operator("digital", True, 12, 12, sign="first"),
    "ReduceSumSquare": Operator("digital", True, 9, 9),
    "Relu": Operator("digital", True, 1, 1, rows="same", sign="always"),
    "Reshape": Operator("digital", True, 10, 10, rows="regroup", sign="first", moves=True, on_levels=True),
    "Resize": Operator("digital", True, 39, 39),
    "ReverseSequence": Operator("digital", True, 3, 3, sign="first"),
    "Round": Operator("digital", False, 1, 1, rows="same", sign="first"),
    "ScatterElements": Operator("digital", True, 7, 7),
    "ScatterND": Operator("digital", True, 7, 7),
    "Selu": Operator("digital", True, 3, 3, rows="same", sign="first"),
    "Shape": Operator("digital", False, 11, 11),
    "Shrink": Operator("digital", True, 2, 2, rows="same"),
    "Sigmoid": Operator("digital", True, 2, 2, rows="same", sign="always"),
    "Sign": Operator("digital", False, 1, 1, rows="same"),
    "Sin": Operator("digital", True, 2, 2, rows="same"),
    "Sinh": Operator("digital", True, 2, 2, rows="same"),
    "Size": Operator("digital", False, 2, 2),
    "Slice": Operator("digital", True, 8, 8, rows="same", sign="first", moves=True, on_levels=True),
    "Softmax": Operator("digital", True, 7, 7, rows="axis", sign="always", passes=3),
    "Softplus": Operator("digital", True, 2, 2, rows="same", sign="always"),
    "Softsign": Operator("digital", True, 2, 2, rows="same", sign="first"),
    "SpaceToDepth": Operator("digital", True, 4, 4, sign="first"),
    "Split": Operator("digital", True, 16, 16, rows="same", sign="first", moves=True),
    "Sqrt": Operator("digital", True, 2, 2, rows="same", sign="always"),
    "Squeeze": Operator("digital", True, 2, 2, rows="regroup", sign="first", moves=True, on_levels=True),
    "Sub": Operator("digital", True, 9, 9, rows="same"),
    "Sum": Operator("digital", True, 3, 3, rows="same", sign="all"),
    "Swish": Operator("digital", True, 1, 1, rows="same", sign="first"),
    "Tan": Operator("digital", True, 2, 2, rows="same"),
    "Tanh": Operator("digital", True, 2, 2, rows="same", sign="first"),
    "ThresholdedRelu": Operator("digital", True, 3, 3, rows="same", sign="first"),
    "Tile": Operator("digital", True, 2, 2, sign="first"),
    "TopK": Operator("digital", True, 7, 7, rows="all", sign="first"),
    "Transpose": Operator("digital", True, 7, 7, sign="first", moves=True, on_levels=True),
    "Trilu": Operator("digital", True, 18, 18),
    "Unsqueeze": Operator("digital", True, 7, 7, rows="regroup", sign="first", moves=True, on_levels=True),
    "Where": Operator("digital", True, 2, 2, rows="same"),
    "Xor": Operator("digital", False, 8, 8, rows="same"),
}

# Operators that become crossbar layers where their weights are constants.
CROSSBAR_SOURCES = frozenset(name for name, operator in OPERATORS.items() if operator.place == "crossbar")

# Operators that the runtime executes digitally; a product of two values has no weights to lay on an array.
DIGITAL_OPERATORS = frozenset(OPERATORS) - CROSSBAR_SOURCES | {"Conv", "Einsum", "Gemm", "MatMul"}

# The places of inputs that are parameters, for operators that have any.
PARAMETERS = {name: operator.parameters for name, operator in OPERATORS.items() if operator.parameters}


def operators_where(holds: Callable[[Operator], bool]) -> frozenset[str]:
    """The names of the operators for which that holds."""
    return frozenset(name for name, operator in OPERATORS.items() if holds(operator))


def layer_of(weight: str) -> str:
    """The crossbar layer whose weight initializer has that name; all nodes that use the weight are that layer."""
    return weight.removesuffix(".weight")
