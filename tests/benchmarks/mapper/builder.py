"""Builds ONNX networks of published shapes without holding their weights in memory."""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8
SEED = 2024
CHUNK = 2**20  # weights of the seeded block that fills all tensors


class Builder:
    """Collects nodes; every method returns the name of its output.

    A weight is a ConstantOfShape: one seeded value throughout, which takes no memory. `write` stores the same network
    with seeded normal weights as external data.
    """

    def __init__(self, name: str, input_shape: list[int | str]) -> None:
        self.name = name
        self.input_shape = input_shape
        self.nodes: list[onnx.NodeProto] = []
        self.shapes: list[onnx.TensorProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.random = np.random.default_rng(SEED)

    def op(self, operator: str, *inputs: str, **attributes: object) -> str:
        """Append one node."""
        name = f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, list(inputs), [name], name=name, **attributes))
        return name

    def ints(self, *values: int) -> str:
        """An int64 vector, such as a shape."""
        name = f"ints_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(values, np.int64), name))
        return name

    def index(self, value: int) -> str:
        """An int64 scalar."""
        name = f"index_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, np.int64), name))
        return name

    def number(self, value: float) -> str:
        """A float32 scalar."""
        name = f"number_{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.array(value, np.float32), name))
        return name

    def weight(self, *shape: int) -> str:
        """A float32 tensor of `shape`."""
        name = f"weight_{len(self.shapes)}"
        self.shapes.append(numpy_helper.from_array(np.array(shape, np.int64), f"{name}_shape"))
        value = helper.make_tensor("value", TensorProto.FLOAT, [1], [float(self.random.uniform(0.01, 0.1))])
        self.nodes.append(helper.make_node("ConstantOfShape", [f"{name}_shape"], [name], name=name, value=value))
        return name

    def conv(
        self,
        x: str,
        inputs: int,
        outputs: int,
        kernel: int | tuple[int, int],
        stride: int = 1,
        pads: int | tuple[int, int, int, int] = 0,
        group: int = 1,
        activation: str = "Relu",
    ) -> str:
        """Convolution with bias (batch normalisation folded in, as exporters write it) and activation ("" for none).

        `pads` is one number, or top, left, bottom, right.
        """
        kernels = (kernel, kernel) if isinstance(kernel, int) else kernel
        weight, bias = self.weight(outputs, inputs // group, *kernels), self.weight(outputs)
        sides = [pads] * 4 if isinstance(pads, int) else list(pads)
        y = self.op("Conv", x, weight, bias, strides=[stride] * 2, pads=sides, group=group, kernel_shape=kernels)
        return self.activated(y, activation)

    def activated(self, x: str, activation: str) -> str:
        """Relu, Relu6 or nothing."""
        if activation == "Relu6":
            return self.op("Clip", x, self.number(0), self.number(6))
        return self.op(activation, x) if activation else x

    def dense(self, x: str, inputs: int, outputs: int, activation: str = "") -> str:
        """Gemm with bias; the weight is stored outputs x inputs."""
        return self.activated(
            self.op("Gemm", x, self.weight(outputs, inputs), self.weight(outputs), transB=1), activation
        )

    def max_pool(self, x: str, kernel: int, stride: int, pads: tuple[int, int, int, int] = (0, 0, 0, 0)) -> str:
        """Square MaxPool; `pads` is top, left, bottom, right."""
        return self.op("MaxPool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads)

    def average_pool(self, x: str, kernel: int, stride: int, pad: int = 0) -> str:
        """Square AveragePool that counts its padding, as torchvision's does."""
        pads = [pad] * 4
        return self.op(
            "AveragePool", x, kernel_shape=[kernel] * 2, strides=[stride] * 2, pads=pads, count_include_pad=1
        )

    def concat(self, *inputs: str) -> str:
        """Concatenate channels."""
        return self.op("Concat", *inputs, axis=1)

    def classifier(self, x: str, inputs: int, classes: int) -> str:
        """Global average pooling and a dense layer."""
        return self.dense(self.op("Flatten", self.op("GlobalAveragePool", x)), inputs, classes)

    def model(self, y: str) -> onnx.ModelProto:
        """The finished network: input `x`, output `y` (its shape is inferred)."""
        graph = helper.make_graph(
            self.nodes,
            self.name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.input_shape)],
            [helper.make_tensor_value_info(y, TensorProto.FLOAT, None)],
            [*self.shapes, *self.constants],
        )
        opsets = [helper.make_opsetid("", OPSET)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="cimc")
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)


def write(model: onnx.ModelProto, path: Path) -> int:
    """Store a network of this builder with seeded normal weights, in `path` and `path`.data; returns their number.

    One block of normal numbers (sd 0.02) fills all weights, so that a gigabyte is written as fast as the disk allows.
    """
    shapes = {tensor.name: numpy_helper.to_array(tensor).tolist() for tensor in model.graph.initializer}
    block = np.random.default_rng(SEED).normal(0, 0.02, CHUNK).astype(np.float32).tobytes()
    stored, count = onnx.ModelProto(), 0
    stored.CopyFrom(model)
    kept = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    data_path = path.with_suffix(".data")
    with data_path.open("wb") as data:
        for node in model.graph.node:
            if node.op_type != "ConstantOfShape":
                continue
            shape = shapes[node.input[0]]
            size = int(np.prod(shape))
            tensor = TensorProto(name=node.output[0], data_type=TensorProto.FLOAT, dims=shape, data_location=1)
            for key, value in (("location", data_path.name), ("offset", data.tell()), ("length", 4 * size)):
                tensor.external_data.add(key=key, value=str(value))
            for start in range(0, 4 * size, len(block)):
                data.write(block[: min(len(block), 4 * size - start)])
            stored.graph.initializer.append(tensor)
            count += size
    del stored.graph.node[:]
    stored.graph.node.extend(kept)
    path.write_bytes(stored.SerializeToString())
    return count
