"""Configuration B: the MLPerf Tiny networks of MARP's packing bench, with the weight counts its results give."""

from collections.abc import Callable
from itertools import pairwise

import onnx

from tests.benchmarks.mapper.builder import Builder
from tests.benchmarks.mapper.imagenet import inverted_residuals


def autoencoder() -> onnx.ModelProto:
    """The anomaly detection autoencoder: 640 inputs, four layers of 128, 8 in the middle, and back."""
    b = Builder("autoencoder", ["N", 640])
    widths = (640, 128, 128, 128, 128, 8, 128, 128, 128, 128, 640)
    x = "x"
    for index, (inputs, outputs) in enumerate(pairwise(widths), 1):
        x = b.dense(x, inputs, outputs, "Relu" if index < len(widths) - 1 else "")
    return b.model(x)


def ds_cnn() -> onnx.ModelProto:
    """DS-CNN for keyword spotting (Zhang et al. 2017): 49x10 inputs, 64 channels, four depthwise-separable blocks."""
    b = Builder("ds_cnn", ["N", 1, 49, 10])
    x = b.conv("x", 1, 64, (10, 4), 2, (4, 1, 5, 1))
    for _ in range(4):
        x = b.conv(b.conv(x, 64, 64, 3, pads=1, group=64), 64, 64, 1)
    return b.model(b.classifier(x, 64, 12))


def resnet8() -> onnx.ModelProto:
    """ResNet-8 for CIFAR-10 with 3x3 shortcut convolutions.

    MLPerf Tiny's reference has 1x1 shortcuts: 77,360 weights, 14 arrays of 256x256. The bench reports 15 arrays filled
    to 9.953 %, which are 97,840 weights: shortcuts of 3x3.
    """
    b = Builder("resnet8", ["N", 3, 32, 32])
    x, inputs = b.conv("x", 3, 16, 3, pads=1), 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        y = b.conv(b.conv(x, inputs, outputs, 3, stride, 1), outputs, outputs, 3, pads=1, activation="")
        if stride != 1:
            x = b.conv(x, inputs, outputs, 3, stride, 1, activation="")
        x, inputs = b.op("Relu", b.op("Add", x, y)), outputs
    return b.model(b.classifier(x, inputs, 10))


def mobilenetv2_cifar() -> onnx.ModelProto:
    """MobileNetV2 for CIFAR-10, width 1.0, 10 classes.

    The bench gives no resolutions; as usual for 32x32 images the stem and the second group do not reduce it.
    """
    b = Builder("mobilenetv2_cifar", ["N", 3, 32, 32])
    return b.model(inverted_residuals(b, strides=(1, 1, 2, 2, 1, 2, 1), stem_stride=1, classes=10))


TINY: dict[str, Callable[[], onnx.ModelProto]] = {
    "autoencoder": autoencoder,
    "ds_cnn": ds_cnn,
    "resnet8": resnet8,
    "mobilenetv2_cifar": mobilenetv2_cifar,
}
