"""The operators of a lowered network: what runs on crossbars, and what runs beside them digitally."""

CROSSBAR_DOMAIN = "ai.cimc"
CROSSBAR_OPERATORS = frozenset({"CrossbarMatMul", "CrossbarConv"})

# Operators of the standard domain that the runtime executes digitally, in the form they have in opset 21.
DIGITAL_OPERATORS = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Clip",
        "Concat",
        "Div",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "GlobalMaxPool",
        "Identity",
        "LeakyRelu",
        "LogSoftmax",
        "MaxPool",
        "Mul",
        "ReduceMean",
        "Relu",
        "Reshape",
        "Sigmoid",
        "Softmax",
        "Squeeze",
        "Sub",
        "Tanh",
        "Transpose",
        "Unsqueeze",
    }
)


def layer_of(weight: str) -> str:
    """The crossbar layer whose weight initializer has that name; all nodes that use the weight are that layer."""
    return weight.removesuffix(".weight")
