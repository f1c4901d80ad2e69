"""Build the small networks that ship with the tool, and larger ones on request.

    python models/build.py                      the shipped four, into this folder
    python models/build.py resnet18 --out DIR   one by name

Weights are drawn uniformly in +-sqrt(6 / fan_in) (He) from a fixed seed, biases are zero, so that the files come out
byte-identical on every run.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 21
IR_VERSION = 10
SEED = 2024


class Builder:
    """Appends layers to a graph one after another; `value` is the name of the last layer's output."""

    def __init__(self, name: str, image_shape: Sequence[int]) -> None:
        self.name = name
        self.image_shape = list(image_shape)
        self.value = "image"
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(SEED)

    def constant(self, name: str, array: npt.NDArray[np.float32]) -> str:
        """Store an initializer and return its name."""
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(array, dtype=np.float32), name))
        return name

    def weight(self, name: str, shape: Sequence[int]) -> str:
        """Draw an initializer of `shape` (outputs first), uniform in +-sqrt(6 / fan_in)."""
        bound = float(np.sqrt(6.0 / np.prod(shape[1:])))
        return self.constant(name, self.random.uniform(-bound, bound, tuple(shape)).astype(np.float32))

    def node(self, operator: str, name: str, *inputs: str, **attributes: object) -> str:
        """Append one node that reads `inputs` (the last value if none are given); return its output name."""
        self.nodes.append(helper.make_node(operator, list(inputs or (self.value,)), [name], name=name, **attributes))
        self.value = name
        return name

    def conv(self, name: str, source: str, outputs: int, inputs: int, kernel: int, **attributes: object) -> str:
        """Append a Conv; `bias=False` leaves the bias out."""
        operands = [source, self.weight(f"{name}.weight", (outputs, inputs, kernel, kernel))]
        if attributes.pop("bias", True):
            operands.append(self.constant(f"{name}.bias", np.zeros(outputs, np.float32)))
        return self.node("Conv", name, *operands, kernel_shape=[kernel, kernel], **attributes)

    def norm(self, name: str, source: str, channels: int) -> str:
        """Append a BatchNormalization that starts as the identity."""
        parameters = {"scale": np.ones, "bias": np.zeros, "mean": np.zeros, "var": np.ones}
        operands = [self.constant(f"{name}.{key}", make(channels, np.float32)) for key, make in parameters.items()]
        return self.node("BatchNormalization", name, source, *operands, epsilon=1e-5)

    def dense(self, name: str, outputs: int, inputs: int) -> str:
        """Append a Gemm with a bias; the weight is stored outputs x inputs."""
        weight = self.weight(f"{name}.weight", (outputs, inputs))
        bias = self.constant(f"{name}.bias", np.zeros(outputs, np.float32))
        return self.node("Gemm", name, self.value, weight, bias, transB=1)

    def pool(self, name: str) -> str:
        """Append a 2x2 MaxPool with stride 2."""
        return self.node("MaxPool", name, kernel_shape=[2, 2], strides=[2, 2])

    def model(self, classes: int = 10) -> onnx.ModelProto:
        """The finished model: input `image` (N x image_shape), output `logits` (N x classes)."""
        self.nodes[-1].output[0] = "logits"
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", *self.image_shape])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])],
            self.initializers,
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cimc")
        model = onnx.shape_inference.infer_shapes(model, strict_mode=True)
        onnx.checker.check_model(model, full_check=True)
        return model


def _lenet(name: str, channels: tuple[int, int], widths: Sequence[int]) -> onnx.ModelProto:
    net = Builder(name, (1, 28, 28))
    inputs = 1
    for index, outputs in enumerate(channels, 1):
        net.conv(f"conv{index}", net.value, outputs, inputs, 5)
        net.node("Relu", f"relu{index}")
        net.pool(f"pool{index}")
        inputs = outputs
    net.node("Flatten", "flatten")
    inputs *= 16
    for index, outputs in enumerate(widths, 1):
        net.dense(f"fc{index}", outputs, inputs)
        if index < len(widths):
            net.node("Relu", f"relu{len(channels) + index}")
        inputs = outputs
    return net.model()


def lenet1() -> onnx.ModelProto:
    """LeNet-1 for 1x28x28 images: two 5x5 convolutions (4, 12 channels) and one layer 192-10."""
    return _lenet("lenet1", (4, 12), (10,))


def lenet5() -> onnx.ModelProto:
    """LeNet-5 for 1x28x28 images: two 5x5 convolutions (6, 16 channels) and layers 256-120-84-10."""
    return _lenet("lenet5", (6, 16), (120, 84, 10))


def mlp() -> onnx.ModelProto:
    """Two dense layers, 784-250-10, for 1x28x28 images."""
    net = Builder("mlp", (1, 28, 28))
    net.node("Flatten", "flatten")
    net.dense("fc1", 250, 784)
    net.node("Relu", "relu1")
    net.dense("fc2", 10, 250)
    return net.model()


def vgg8() -> onnx.ModelProto:
    """Six 3x3 convolutions (32, 32, 64, 64, 128, 128), each with batch normalisation, and 2048-128-10, for 3x32x32."""
    net = Builder("vgg8", (3, 32, 32))
    inputs = 3
    for index, outputs in enumerate((32, 32, 64, 64, 128, 128), 1):
        net.conv(f"conv{index}", net.value, outputs, inputs, 3, pads=[1, 1, 1, 1], bias=False)
        net.norm(f"bn{index}", net.value, outputs)
        net.node("Relu", f"relu{index}")
        if index % 2 == 0:
            net.pool(f"pool{index // 2}")
        inputs = outputs
    net.node("Flatten", "flatten")
    net.dense("fc1", 128, 2048)
    net.node("Relu", "relu7")
    net.dense("fc2", 10, 128)
    return net.model()


def resnet8_cifar() -> onnx.ModelProto:
    """ResNet-8 for 3x32x32 images: as ResNet-20, with one block in each stage."""
    return _resnet_of_32("resnet8_cifar", (16, 32, 64), 1)


def resnet18() -> onnx.ModelProto:
    """ResNet-18 for 3x32x32 images: a 3x3 stem, stages of 64 to 512 channels, two blocks each."""
    return _resnet_of_32("resnet18", (64, 128, 256, 512), 2)


def resnet20() -> onnx.ModelProto:
    """ResNet-20 for 3x32x32 images: a 3x3 stem, stages of 16, 32 and 64 channels, three blocks each."""
    return _resnet_of_32("resnet20", (16, 32, 64), 3)


def resnet50() -> onnx.ModelProto:
    """ResNet-50 for 3x224x224 images and 1,000 classes: 25.6 million parameters."""
    net = Builder("resnet50", (3, 224, 224))
    net.conv("stem.conv", net.value, 64, 3, 7, pads=[3, 3, 3, 3], strides=[2, 2], bias=False)
    net.norm("stem.bn", net.value, 64)
    net.node("Relu", "stem.relu")
    net.node("MaxPool", "stem.pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), 1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            _bottleneck(net, f"stage{stage}.block{block}", inputs, width, stride)
            inputs = 4 * width
    net.node("GlobalAveragePool", "pool")
    net.node("Flatten", "flatten")
    net.dense("fc", 1000, inputs)
    return net.model(1000)


def _resnet_of_32(name: str, widths: tuple[int, ...], blocks: int) -> onnx.ModelProto:
    """Basic blocks for images of 32x32: a 3x3 stem, a stage of so many blocks for each width, the later ones halved."""
    net = Builder(name, (3, 32, 32))
    inputs = widths[0]
    net.conv("stem.conv", net.value, inputs, 3, 3, pads=[1, 1, 1, 1], bias=False)
    net.norm("stem.bn", net.value, inputs)
    net.node("Relu", "stem.relu")
    for stage, outputs in enumerate(widths, 1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            _basic_block(net, f"stage{stage}.block{block}", inputs, outputs, stride)
            inputs = outputs
    net.node("GlobalAveragePool", "pool")
    net.node("Flatten", "flatten")
    net.dense("fc", 10, inputs)
    return net.model()


def _basic_block(net: Builder, name: str, inputs: int, outputs: int, stride: int) -> None:
    start = net.value
    strides = [stride, stride]
    net.conv(f"{name}.conv1", start, outputs, inputs, 3, pads=[1, 1, 1, 1], strides=strides, bias=False)
    net.norm(f"{name}.bn1", net.value, outputs)
    net.node("Relu", f"{name}.relu1")
    net.conv(f"{name}.conv2", net.value, outputs, outputs, 3, pads=[1, 1, 1, 1], bias=False)
    main = net.norm(f"{name}.bn2", net.value, outputs)
    shortcut = start
    if stride != 1 or inputs != outputs:
        net.conv(f"{name}.shortcut.conv", start, outputs, inputs, 1, strides=strides, bias=False)
        shortcut = net.norm(f"{name}.shortcut.bn", net.value, outputs)
    net.node("Add", f"{name}.add", main, shortcut)
    net.node("Relu", f"{name}.relu2")


def _bottleneck(net: Builder, name: str, inputs: int, width: int, stride: int) -> None:
    start, strides = net.value, [stride, stride]
    net.conv(f"{name}.conv1", start, width, inputs, 1, bias=False)
    net.norm(f"{name}.bn1", net.value, width)
    net.node("Relu", f"{name}.relu1")
    net.conv(f"{name}.conv2", net.value, width, width, 3, pads=[1, 1, 1, 1], strides=strides, bias=False)
    net.norm(f"{name}.bn2", net.value, width)
    net.node("Relu", f"{name}.relu2")
    net.conv(f"{name}.conv3", net.value, 4 * width, width, 1, bias=False)
    main = net.norm(f"{name}.bn3", net.value, 4 * width)
    shortcut = start
    if inputs != 4 * width:
        net.conv(f"{name}.shortcut.conv", start, 4 * width, inputs, 1, strides=strides, bias=False)
        shortcut = net.norm(f"{name}.shortcut.bn", net.value, 4 * width)
    net.node("Add", f"{name}.add", main, shortcut)
    net.node("Relu", f"{name}.relu3")


NETWORKS: dict[str, Callable[[], onnx.ModelProto]] = {
    "lenet1": lenet1,
    "lenet5": lenet5,
    "mlp": mlp,
    "vgg8": vgg8,
    "resnet18": resnet18,
    "resnet8_cifar": resnet8_cifar,
    "resnet20": resnet20,
    "resnet50": resnet50,
}
SHIPPED = ("lenet1", "lenet5", "mlp", "vgg8")


def main() -> None:
    """Write the named networks (the shipped ones by default) as ONNX files."""
    parser = argparse.ArgumentParser(description="Build ONNX networks with seeded random weights.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NETWORKS)}; default: {' '.join(SHIPPED)}")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="folder to write to")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in NETWORKS]
    if unknown:
        parser.error(f"unknown network {unknown[0]!r}; choose from {', '.join(NETWORKS)}")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for name in arguments.names or SHIPPED:
        path = arguments.out / f"{name}.onnx"
        path.write_bytes(NETWORKS[name]().SerializeToString(deterministic=True))
        print(f"{path}  {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
