"""Configurations A, C and D: networks for 3x224x224 images and 1,000 classes.

A is PIMCOMP-NN's own set, in the shapes of the network files it ships: AlexNet and GoogLeNet are Caffe's, ShuffleNet is
that of the onnx package's test data, Inception v3 has no auxiliary classifier and takes 224x224 too, SqueezeNet is 1.1.
"""

from collections.abc import Callable, Sequence

import onnx

from tests.benchmarks.mapper.builder import Builder

CLASSES = 1000


def _start(name: str) -> Builder:
    return Builder(name, ["N", 3, 224, 224])


def squeezenet() -> onnx.ModelProto:
    """SqueezeNet 1.1 (Iandola et al. 2016): a 3x3 stem and eight fire modules."""
    b = _start("squeezenet")
    x, inputs = b.max_pool(b.conv("x", 3, 64, 3, 2), 3, 2), 64
    for squeezed, expanded, pool in (
        (16, 64, False),
        (16, 64, True),
        (32, 128, False),
        (32, 128, True),
        (48, 192, False),
        (48, 192, False),
        (64, 256, False),
        (64, 256, False),
    ):
        s = b.conv(x, inputs, squeezed, 1)
        x = b.concat(b.conv(s, squeezed, expanded, 1), b.conv(s, squeezed, expanded, 3, pads=1))
        inputs = 2 * expanded
        if pool:
            x = b.max_pool(x, 3, 2)
    x = b.op("GlobalAveragePool", b.conv(x, inputs, CLASSES, 1))
    return b.model(b.op("Flatten", x))


def _resnet(name: str, blocks: Sequence[int], bottleneck: bool) -> onnx.ModelProto:
    b = _start(name)
    x, inputs = b.max_pool(b.conv("x", 3, 64, 7, 2, 3), 3, 2, (1, 1, 1, 1)), 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        outputs = 4 * width if bottleneck else width
        for block in range(count):
            stride = 2 if stage and not block else 1
            shortcut = x if stride == 1 and inputs == outputs else b.conv(x, inputs, outputs, 1, stride, activation="")
            if bottleneck:
                y = b.conv(b.conv(x, inputs, width, 1), width, width, 3, stride, 1)
                y = b.conv(y, width, outputs, 1, activation="")
            else:
                y = b.conv(b.conv(x, inputs, width, 3, stride, 1), width, width, 3, 1, 1, activation="")
            x, inputs = b.op("Relu", b.op("Add", y, shortcut)), outputs
    return b.model(b.classifier(x, inputs, CLASSES))


def resnet18() -> onnx.ModelProto:
    """ResNet-18 (He et al. 2016), also configurations C and D."""
    return _resnet("resnet18", (2, 2, 2, 2), bottleneck=False)


def resnet34() -> onnx.ModelProto:
    """ResNet-34 (He et al. 2016)."""
    return _resnet("resnet34", (3, 4, 6, 3), bottleneck=False)


def resnet50() -> onnx.ModelProto:
    """ResNet-50 (He et al. 2016), stride in the 3x3 convolution as in torchvision."""
    return _resnet("resnet50", (3, 4, 6, 3), bottleneck=True)


def googlenet() -> onnx.ModelProto:
    """GoogLeNet of Caffe (Szegedy et al. 2015): 5x5 branches, local response normalisation, no auxiliary classifier."""
    b = _start("googlenet")
    end = (0, 0, 2, 2)  # Caffe rounds the size of a pooled map up
    x = _lrn(b, b.max_pool(b.conv("x", 3, 64, 7, 2, 3), 3, 2, end))
    x = _lrn(b, b.conv(b.conv(x, 64, 64, 1), 64, 192, 3, pads=1))
    x, inputs = b.max_pool(x, 3, 2, end), 192
    for one, reduce3, three, reduce5, five, pool, downsample in (
        (64, 96, 128, 16, 32, 32, False),
        (128, 128, 192, 32, 96, 64, True),
        (192, 96, 208, 16, 48, 64, False),
        (160, 112, 224, 24, 64, 64, False),
        (128, 128, 256, 24, 64, 64, False),
        (112, 144, 288, 32, 64, 64, False),
        (256, 160, 320, 32, 128, 128, True),
        (256, 160, 320, 32, 128, 128, False),
        (384, 192, 384, 48, 128, 128, False),
    ):
        x = b.concat(
            b.conv(x, inputs, one, 1),
            b.conv(b.conv(x, inputs, reduce3, 1), reduce3, three, 3, pads=1),
            b.conv(b.conv(x, inputs, reduce5, 1), reduce5, five, 5, pads=2),
            b.conv(b.max_pool(x, 3, 1, (1, 1, 1, 1)), inputs, pool, 1),
        )
        inputs = one + three + five + pool
        if downsample:
            x = b.max_pool(x, 3, 2, end)
    return b.model(b.classifier(x, inputs, CLASSES))


def _lrn(b: Builder, x: str) -> str:
    return b.op("LRN", x, size=5, alpha=1e-4, beta=0.75)


def inception_v3() -> onnx.ModelProto:
    """Inception v3 (Szegedy et al. 2016) as in torchvision, without the auxiliary classifier, at 224x224."""
    b = _start("inception_v3")

    def one(x: str, inputs: int, outputs: int) -> str:
        return b.conv(x, inputs, outputs, 1)

    def line(x: str, inputs: int, outputs: int) -> str:  # 1x7
        return b.conv(x, inputs, outputs, (1, 7), pads=(0, 3, 0, 3))

    def column(x: str, inputs: int, outputs: int) -> str:  # 7x1
        return b.conv(x, inputs, outputs, (7, 1), pads=(3, 0, 3, 0))

    def split(x: str, inputs: int) -> str:  # 1x3 and 3x1 side by side
        left = b.conv(x, inputs, 384, (1, 3), pads=(0, 1, 0, 1))
        return b.concat(left, b.conv(x, inputs, 384, (3, 1), pads=(1, 0, 1, 0)))

    x = b.conv(b.conv(b.conv("x", 3, 32, 3, 2), 32, 32, 3), 32, 64, 3, pads=1)
    x = b.conv(one(b.max_pool(x, 3, 2), 64, 80), 80, 192, 3)
    x, inputs = b.max_pool(x, 3, 2), 192
    for pool in (32, 64, 64):
        five = b.conv(one(x, inputs, 48), 48, 64, 5, pads=2)
        double = b.conv(b.conv(one(x, inputs, 64), 64, 96, 3, pads=1), 96, 96, 3, pads=1)
        x = b.concat(one(x, inputs, 64), five, double, one(b.average_pool(x, 3, 1, 1), inputs, pool))
        inputs = 224 + pool
    double = b.conv(b.conv(one(x, inputs, 64), 64, 96, 3, pads=1), 96, 96, 3, 2)
    x, inputs = b.concat(b.conv(x, inputs, 384, 3, 2), double, b.max_pool(x, 3, 2)), inputs + 480
    for width in (128, 160, 160, 192):
        seven = column(line(one(x, inputs, width), width, width), width, 192)
        double = one(x, inputs, width)
        for layer in (column, line, column):
            double = layer(double, width, width)
        double = line(double, width, 192)
        x = b.concat(one(x, inputs, 192), seven, double, one(b.average_pool(x, 3, 1, 1), inputs, 192))
    three = b.conv(one(x, inputs, 192), 192, 320, 3, 2)
    seven = b.conv(column(line(one(x, inputs, 192), 192, 192), 192, 192), 192, 192, 3, 2)
    x, inputs = b.concat(three, seven, b.max_pool(x, 3, 2)), inputs + 512
    for _ in range(2):
        three = split(one(x, inputs, 384), 384)
        double = split(b.conv(one(x, inputs, 448), 448, 384, 3, pads=1), 384)
        x = b.concat(one(x, inputs, 320), three, double, one(b.average_pool(x, 3, 1, 1), inputs, 192))
        inputs = 2048
    return b.model(b.classifier(x, inputs, CLASSES))


def mobilenetv2() -> onnx.ModelProto:
    """MobileNetV2 (Sandler et al. 2018), width 1.0."""
    b = _start("mobilenetv2")
    return b.model(inverted_residuals(b, strides=(1, 2, 2, 2, 1, 2, 1), stem_stride=2, classes=CLASSES))


def inverted_residuals(b: Builder, strides: Sequence[int], stem_stride: int, classes: int) -> str:
    """The whole of MobileNetV2 on the input `x`: stem, seven groups of inverted residuals, classifier."""
    x, inputs = b.conv("x", 3, 32, 3, stem_stride, 1, activation="Relu6"), 32
    groups = ((1, 16, 1), (6, 24, 2), (6, 32, 3), (6, 64, 4), (6, 96, 3), (6, 160, 3), (6, 320, 1))
    for (expansion, outputs, count), first_stride in zip(groups, strides, strict=True):
        for index in range(count):
            stride, wide = (1 if index else first_stride), expansion * inputs
            y = x if expansion == 1 else b.conv(x, inputs, wide, 1, activation="Relu6")
            y = b.conv(y, wide, wide, 3, stride, 1, group=wide, activation="Relu6")
            y = b.conv(y, wide, outputs, 1, activation="")
            x = b.op("Add", x, y) if stride == 1 and inputs == outputs else y
            inputs = outputs
    return b.classifier(b.conv(x, inputs, 1280, 1, activation="Relu6"), 1280, classes)


def shufflenet() -> onnx.ModelProto:
    """ShuffleNet (Zhang et al. 2018) with four groups, as in the onnx package: bottlenecks as wide as blocks."""
    b = _start("shufflenet")
    x, inputs, size = b.max_pool(b.conv("x", 3, 24, 3, 2, 1), 3, 2, (1, 1, 1, 1)), 24, 56
    for outputs, count in ((136, 3), (272, 7), (544, 3)):
        for block in range(count + 1):
            width = outputs if block else outputs - inputs
            y = b.conv(x, inputs, width, 1, group=4)
            y = b.op("Reshape", y, b.ints(0, 4, width // 4, size, size))
            y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3, 4]), b.ints(0, width, size, size))
            y = b.conv(y, width, width, 3, 1 if block else 2, 1, group=width, activation="")
            y = b.conv(y, width, width, 1, group=4, activation="")
            x = b.op("Add", y, x) if block else b.concat(y, b.average_pool(x, 3, 2, 1))
            x, inputs, size = b.op("Relu", x), outputs, size if block else size // 2
    return b.model(b.classifier(x, inputs, CLASSES))


def alexnet() -> onnx.ModelProto:
    """AlexNet of Caffe (Krizhevsky et al. 2012): two groups in three convolutions, local response normalisation."""
    b = _start("alexnet")
    x = b.max_pool(_lrn(b, b.conv("x", 3, 96, 11, 4)), 3, 2)
    x = b.max_pool(_lrn(b, b.conv(x, 96, 256, 5, pads=2, group=2)), 3, 2)
    x = b.conv(b.conv(x, 256, 384, 3, pads=1), 384, 384, 3, pads=1, group=2)
    x = b.max_pool(b.conv(x, 384, 256, 3, pads=1, group=2), 3, 2, (0, 0, 1, 1))
    x = b.dense(b.dense(b.op("Flatten", x), 9216, 4096, "Relu"), 4096, 4096, "Relu")
    return b.model(b.dense(x, 4096, CLASSES))


def vgg16() -> onnx.ModelProto:
    """VGG-16 (Simonyan and Zisserman 2015), also configuration C."""
    b = _start("vgg16")
    x, inputs = "x", 3
    for outputs, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            x, inputs = b.conv(x, inputs, outputs, 3, pads=1), outputs
        x = b.max_pool(x, 2, 2)
    x = b.dense(b.dense(b.op("Flatten", x), 25088, 4096, "Relu"), 4096, 4096, "Relu")
    return b.model(b.dense(x, 4096, CLASSES))


def vit_b_32() -> onnx.ModelProto:
    """ViT-B/32 (Dosovitskiy et al. 2021): 12 blocks of width 768, 49 patches and a class token. Configuration C."""
    b, width, heads, tokens = _start("vit_b_32"), 768, 12, 50

    def linear(x: str, inputs: int, outputs: int) -> str:
        return b.op("Add", b.op("MatMul", x, b.weight(inputs, outputs)), b.weight(outputs))

    def norm(x: str) -> str:
        return b.op("LayerNormalization", x, b.weight(width), b.weight(width), axis=-1)

    def gelu(x: str) -> str:
        erf = b.op("Erf", b.op("Mul", x, b.number(0.5**0.5)))
        return b.op("Mul", x, b.op("Mul", b.op("Add", erf, b.number(1)), b.number(0.5)))

    def attention(x: str) -> str:
        shape = b.ints(0, tokens, heads, width // heads)
        q, k, v = (b.op("Reshape", linear(x, width, width), shape) for _ in range(3))
        q, v = (b.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
        scores = b.op("MatMul", q, b.op("Transpose", k, perm=[0, 2, 3, 1]))
        scores = b.op("Softmax", b.op("Div", scores, b.number((width // heads) ** 0.5)), axis=-1)
        mixed = b.op("Transpose", b.op("MatMul", scores, v), perm=[0, 2, 1, 3])
        return linear(b.op("Reshape", mixed, b.ints(0, tokens, width)), width, width)

    patches = b.conv("x", 3, width, 32, 32, activation="")
    x = b.op("Transpose", b.op("Reshape", patches, b.ints(0, width, tokens - 1)), perm=[0, 2, 1])
    # The class token is a constant row in front of the patches; Pad keeps the batch free.
    x = b.op("Pad", x, b.ints(0, 1, 0, 0, 0, 0))
    x = b.op("Add", x, b.weight(1, tokens, width))
    for _ in range(12):
        x = b.op("Add", x, attention(norm(x)))
        hidden = gelu(linear(norm(x), width, 4 * width))
        x = b.op("Add", x, linear(hidden, 4 * width, width))
    first = b.op("Gather", norm(x), b.index(0), axis=1)
    return b.model(b.dense(first, width, CLASSES))


IMAGENET: dict[str, Callable[[], onnx.ModelProto]] = {
    "squeezenet": squeezenet,
    "resnet18": resnet18,
    "resnet34": resnet34,
    "resnet50": resnet50,
    "googlenet": googlenet,
    "inception_v3": inception_v3,
    "mobilenetv2": mobilenetv2,
    "shufflenet": shufflenet,
    "alexnet": alexnet,
    "vgg16": vgg16,
    "vit_b_32": vit_b_32,
}
