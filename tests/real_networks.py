"""Networks of the kinds that people bring, small and with seeded weights, written with standard ONNX operators."""

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


class Builder:
    """Collects nodes and weights; every method returns the name of its output."""

    def __init__(self, opset: int = 17) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(0)
        self.opset = opset

    def name(self, kind: str) -> str:
        return f"{kind}_{len(self.nodes) + len(self.constants)}"

    def const(self, array: object, kind: str = "c") -> str:
        name = self.name(kind)
        self.constants.append(numpy_helper.from_array(np.asarray(array), name))
        return name

    def ints(self, *values: int) -> str:
        return self.const(np.array(values, np.int64))

    def weight(self, *shape: int) -> str:
        fan_in = int(np.prod(shape[1:])) if len(shape) > 2 else shape[0]
        return self.const((self.random.normal(0, fan_in**-0.5, shape)).astype(np.float32), "w")

    def op(self, operator: str, *inputs: str, **attributes: object) -> str:
        output = self.name(operator.lower())
        self.nodes.append(helper.make_node(operator, list(inputs), [output], name=output, **attributes))
        return output

    def split(self, x: str, parts: int, axis: int) -> list[str]:
        outputs = [self.name(f"split{i}") for i in range(parts)]
        self.nodes.append(helper.make_node("Split", [x], outputs, axis=axis))
        return outputs

    def conv(self, x: str, inputs: int, outputs: int, kernel: int, stride: int = 1, group: int = 1) -> str:
        w, b = self.weight(outputs, inputs // group, kernel, kernel), self.weight(outputs)
        return self.op("Conv", x, w, b, strides=[stride] * 2, pads=[kernel // 2] * 4, group=group)

    def norm(self, x: str, channels: int) -> str:
        values = [self.random.uniform(0.5, 1.5, channels).astype(np.float32) for _ in range(4)]
        return self.op("BatchNormalization", x, *(self.const(v) for v in values))

    def linear(self, x: str, inputs: int, outputs: int) -> str:
        return self.op("Add", self.op("MatMul", x, self.weight(inputs, outputs)), self.weight(outputs))

    def layer_norm(self, x: str, width: int) -> str:
        return self.op("LayerNormalization", x, self.const(np.ones(width, np.float32)), self.weight(width), axis=-1)

    def gelu(self, x: str) -> str:
        erf = self.op("Erf", self.op("Mul", x, self.const(np.float32(0.5**0.5))))
        half = self.op("Mul", self.op("Add", erf, self.const(np.float32(1))), self.const(np.float32(0.5)))
        return self.op("Mul", x, half)

    def attention(self, x: str, width: int, heads: int, causal: int = 0) -> str:
        def heads_of(value: str, perm: list[int]) -> str:
            shape = self.ints(0, 0, heads, width // heads)
            return self.op("Transpose", self.op("Reshape", value, shape), perm=perm)

        q, k, v = (self.linear(x, width, width) for _ in range(3))
        scores = self.op("MatMul", heads_of(q, [0, 2, 1, 3]), heads_of(k, [0, 2, 3, 1]))
        scores = self.op("Div", scores, self.const(np.float32((width // heads) ** 0.5)))
        if causal:
            mask = np.triu(np.full((causal, causal), -1e9, np.float32), 1)
            scores = self.op("Add", scores, self.const(mask))
        mixed = self.op("MatMul", self.op("Softmax", scores, axis=-1), heads_of(v, [0, 2, 1, 3]))
        joined = self.op("Reshape", self.op("Transpose", mixed, perm=[0, 2, 1, 3]), self.ints(0, 0, width))
        return self.linear(joined, width, width)

    def mlp(self, x: str, width: int, hidden: int) -> str:
        return self.linear(self.gelu(self.linear(x, width, hidden)), hidden, width)

    def block(self, x: str, width: int, heads: int, causal: int = 0) -> str:
        """Pre-norm transformer block."""
        x = self.op("Add", x, self.attention(self.layer_norm(x, width), width, heads, causal))
        return self.op("Add", x, self.mlp(self.layer_norm(x, width), width, 4 * width))

    def model(self, x: list[object], y: str, y_shape: list[object], kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "net",
            [helper.make_tensor_value_info("x", kind, x)],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, y_shape)],
            self.constants,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        onnx.checker.check_model(model, full_check=True)
        return model


def mobilenet() -> onnx.ModelProto:
    """MobileNetV2-style: inverted residuals, depthwise convolutions, ReLU6, squeeze-and-excite."""
    b = Builder()

    def relu6(x: str) -> str:
        return b.op("Clip", x, b.const(np.float32(0)), b.const(np.float32(6)))

    def excite(x: str, channels: int) -> str:
        squeezed = b.op("Relu", b.conv(b.op("GlobalAveragePool", x), channels, channels // 4, 1))
        return b.op("Mul", x, b.op("HardSigmoid", b.conv(squeezed, channels // 4, channels, 1)))

    x = relu6(b.norm(b.conv("x", 3, 8, 3, 2), 8))
    channels = 8
    for outputs, stride in ((8, 1), (16, 2), (16, 1)):
        wide = 4 * channels
        y = relu6(b.norm(b.conv(x, channels, wide, 1), wide))
        y = excite(relu6(b.norm(b.conv(y, wide, wide, 3, stride, wide), wide)), wide)
        y = b.norm(b.conv(y, wide, outputs, 1), outputs)
        x = b.op("Add", x, y) if outputs == channels and stride == 1 else y
        channels = outputs
    x = b.op("Flatten", b.op("GlobalAveragePool", b.op("HardSwish", x)))
    return b.model(["N", 3, 32, 32], b.linear(x, channels, 10), ["N", 10])


def bert() -> onnx.ModelProto:
    """BERT-style encoder: token and position embeddings, two post-norm blocks, pooler."""
    b = Builder()
    width, length = 32, 12
    x = b.op("Gather", b.weight(100, width), "x", axis=0)
    x = b.layer_norm(b.op("Add", x, b.weight(length, width)), width)
    for _ in range(2):
        x = b.layer_norm(b.op("Add", x, b.attention(x, width, 4)), width)
        x = b.layer_norm(b.op("Add", x, b.mlp(x, width, 64)), width)
    first = b.op("Gather", x, b.const(np.int64(0)), axis=1)
    pooled = b.op("Tanh", b.op("Gemm", first, b.weight(width, width), b.weight(width), transB=1))
    return b.model(["N", length], b.linear(pooled, width, 2), ["N", 2], TensorProto.INT64)


def gpt() -> onnx.ModelProto:
    """GPT-style decoder: causal mask, pre-norm blocks, logits of every token."""
    b = Builder()
    width, length = 32, 10
    x = b.op("Add", b.op("Gather", b.weight(64, width), "x", axis=0), b.weight(length, width))
    for _ in range(2):
        x = b.block(x, width, 4, causal=length)
    logits = b.op("MatMul", b.layer_norm(x, width), b.weight(width, 64))
    return b.model(["N", length], logits, ["N", length, 64], TensorProto.INT64)


def vit() -> onnx.ModelProto:
    """ViT: patch embedding by a strided convolution, class token, two blocks."""
    b = Builder()
    width = 32
    patches = b.op("Conv", "x", b.weight(width, 3, 8, 8), b.weight(width), strides=[8, 8])
    x = b.op("Transpose", b.op("Reshape", patches, b.ints(0, width, -1)), perm=[0, 2, 1])
    size = b.op("Slice", b.op("Shape", x), b.ints(0), b.ints(1), b.ints(0))
    shape = b.op("Concat", size, b.ints(1, width), axis=0)
    token = b.op("Expand", b.weight(1, 1, width), shape)
    x = b.op("Add", b.op("Concat", token, x, axis=1), b.weight(1, 17, width))
    for _ in range(2):
        x = b.block(x, width, 4)
    first = b.op("Gather", b.layer_norm(x, width), b.const(np.int64(0)), axis=1)
    return b.model(["N", 3, 32, 32], b.linear(first, width, 10), ["N", 10])


def lstm() -> onnx.ModelProto:
    """Bidirectional LSTM classifier over a sequence, batch first."""
    b = Builder()
    inputs, hidden, length = 8, 16, 9
    x = b.op("Transpose", "x", perm=[1, 0, 2])
    w, r = (b.const(b.random.uniform(-0.3, 0.3, (2, 4 * hidden, n)).astype(np.float32)) for n in (inputs, hidden))
    bias = b.const(b.random.uniform(-0.3, 0.3, (2, 8 * hidden)).astype(np.float32))
    outputs = [b.name("y"), b.name("h")]
    b.nodes.append(
        helper.make_node("LSTM", [x, w, r, bias], outputs, hidden_size=hidden, direction="bidirectional", name="lstm")
    )
    last = b.op("Reshape", b.op("Transpose", outputs[1], perm=[1, 0, 2]), b.ints(-1, 2 * hidden))
    return b.model(["N", length, inputs], b.linear(last, 2 * hidden, 5), ["N", 5])


def unet() -> onnx.ModelProto:
    """U-Net: two levels, one up by a transposed convolution and one by Resize, skip connections."""
    b = Builder()
    first = b.op("Relu", b.conv("x", 1, 8, 3))
    second = b.op("Relu", b.conv(b.op("MaxPool", first, kernel_shape=[2, 2], strides=[2, 2]), 8, 16, 3))
    x = b.op("Relu", b.conv(b.op("MaxPool", second, kernel_shape=[2, 2], strides=[2, 2]), 16, 32, 3))
    x = b.op("ConvTranspose", x, b.weight(32, 16, 2, 2), b.weight(16), strides=[2, 2])
    x = b.op("Relu", b.conv(b.op("Concat", x, second, axis=1), 32, 16, 3))
    scales = b.const(np.array([1, 1, 2, 2], np.float32))
    x = b.op("Resize", x, "", scales, mode="linear", coordinate_transformation_mode="half_pixel")
    x = b.op("LeakyRelu", b.conv(b.op("Concat", x, first, axis=1), 24, 8, 3))
    return b.model(["N", 1, 16, 16], b.op("Sigmoid", b.conv(x, 8, 2, 1)), ["N", 2, 16, 16])


def mixer() -> onnx.ModelProto:
    """MLP-Mixer: products over tokens and over channels in turn."""
    b = Builder()
    width, tokens = 24, 16
    patches = b.op("Conv", "x", b.weight(width, 3, 8, 8), b.weight(width), strides=[8, 8])
    x = b.op("Transpose", b.op("Reshape", patches, b.ints(0, width, tokens)), perm=[0, 2, 1])
    for _ in range(2):
        y = b.op("Transpose", b.layer_norm(x, width), perm=[0, 2, 1])
        x = b.op("Add", x, b.op("Transpose", b.mlp(y, tokens, 32), perm=[0, 2, 1]))
        x = b.op("Add", x, b.mlp(b.layer_norm(x, width), width, 48))
    mean = b.op("ReduceMean", x, axes=[1], keepdims=0)
    return b.model(["N", 3, 32, 32], b.linear(mean, width, 10), ["N", 10])


REAL_NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "mobilenet": mobilenet,
    "bert": bert,
    "gpt": gpt,
    "vit": vit,
    "lstm": lstm,
    "unet": unet,
    "mixer": mixer,
}
