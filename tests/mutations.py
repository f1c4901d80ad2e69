"""Seeded mutations of valid files: what a broken exporter, a bad disk or an attacker could hand to `cimc compile`."""

import os
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import onnx
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from onnx import TensorProto, helper, numpy_helper

from tests.sealing import members_of, redigested, sealed

INTEGERS = (0, 1, -1, 2, 3, 7, 255, 2**15, 2**31 - 1, -(2**31), 2**31, 2**40, 2**62, 2**63 - 1, -(2**63))
FLOATS = (0.0, -1.0, 1e-30, 1e30, float("nan"), float("inf"), -float("inf"))
STRINGS = ("", "x", "y", "N", "../secret", "/dev/zero", "a" * 5000, "\n\t\x00", "é" * 9, "Conv", "Loop", "ai.cimc")
SECRET = "secret.data"  # lies beside the folder of the model, never to be opened


def networks() -> dict[str, onnx.ModelProto]:
    """Small valid networks with many kinds of fields."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> onnx.TensorProto:
        return numpy_helper.from_array(random.uniform(-1, 1, shape).astype(np.float32), name)

    def ints(name: str, *values: int) -> onnx.TensorProto:
        return numpy_helper.from_array(np.array(values, np.int64), name)

    def model(nodes: list[Any], shape: list[Any], tensors: list[Any], opset: int = 21) -> onnx.ModelProto:
        graph = helper.make_graph(
            [helper.make_node(op, i, o, name=f"n{k}", **a) for k, (op, i, o, a) in enumerate(nodes)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            tensors,
        )
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(made)

    convolution = [
        ("Conv", ["x", "w", "b"], ["c"], {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
        ("BatchNormalization", ["c", "s", "s", "s", "v"], ["n"], {}),
        ("Relu", ["n"], ["r"], {}),
        ("MaxPool", ["r"], ["p"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Reshape", ["p", "t"], ["f"], {}),
        ("Gemm", ["f", "u", "o"], ["g"], {"transB": 1, "alpha": 0.5}),
        ("Softmax", ["g"], ["y"], {"axis": 1}),
    ]
    positive = numpy_helper.from_array(np.ones(3, np.float32), "v")
    tensors = [weight("w", 3, 2, 3, 3), weight("b", 3), weight("s", 3), positive, ints("t", 0, -1)]
    attention = [
        ("LayerNormalization", ["x", "s", "s"], ["l"], {"axis": -1}),
        ("MatMul", ["l", "w"], ["q"], {}),
        ("Transpose", ["q"], ["k"], {"perm": [0, 2, 1]}),
        ("MatMul", ["q", "k"], ["a"], {}),
        ("Softmax", ["a"], ["m"], {"axis": -1}),
        ("MatMul", ["m", "q"], ["o"], {}),
        ("Einsum", ["o", "u"], ["e"], {"equation": "bij,jk->bik"}),
        ("Add", ["e", "x"], ["z"], {}),
        ("Slice", ["z", "i0", "i2", "i1"], ["y"], {}),
    ]
    recurrent = [
        ("LSTM", ["x", "w", "r", "b"], ["h", "l"], {"hidden_size": 4}),
        ("Squeeze", ["l", "i0"], ["q"], {}),
        ("ConvTranspose", ["c", "k"], ["d"], {"strides": [2]}),
        ("ReduceMean", ["d", "i1"], ["y"], {"keepdims": 0}),
    ]
    recurrent.insert(2, ("Unsqueeze", ["q", "i2"], ["c"], {}))
    quantised = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
        ("QLinearConv", ["q", "s", "z", "w", "s", "z", "s", "z"], ["c"], {"group": 2}),
        ("DequantizeLinear", ["c", "s", "z"], ["d"], {}),
        ("Resize", ["d", "", "f"], ["r"], {"mode": "nearest"}),
        ("GlobalAveragePool", ["r"], ["p"], {}),
        ("Flatten", ["p"], ["y"], {}),
    ]
    scale, zero = numpy_helper.from_array(np.float32(0.02), "s"), numpy_helper.from_array(np.uint8(128), "z")
    kernel = numpy_helper.from_array(random.integers(0, 255, (4, 1, 3, 3), dtype=np.uint8), "w")
    factors = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "f")
    return {
        "convolution": model(convolution, ["N", 2, 8, 8], [*tensors, weight("u", 5, 12), weight("o", 5)]),
        "old": model([*convolution[:5], ("Relu", ["f"], ["y"], {})], [1, 2, 8, 8], tensors, opset=9),
        "attention": model(
            attention,
            ["N", 4, 6],
            [weight("w", 6, 6), weight("u", 6, 6), weight("s", 6), ints("i0", 0), ints("i1", 1), ints("i2", 2)],
        ),
        "recurrent": model(
            recurrent,
            [3, "N", 2],
            [
                *(weight("w", 1, 16, 2), weight("r", 1, 16, 4), weight("b", 1, 32), weight("k", 4, 3, 3)),
                *(ints("i0", 0), ints("i1", 2), ints("i2", 2)),
            ],
        ),
        "quantised": model(quantised, ["N", 2, 6, 6], [scale, zero, kernel, factors]),
    }


def mutated_network(seed: int, folder: Path) -> tuple[Path, str]:
    """Write a mutated network into `folder`/model; its path and what was done to it."""
    random = Random(seed)
    models = networks()
    name = random.choice(sorted(models))
    proto = models[name]
    inside = folder / "model"
    inside.mkdir(exist_ok=True)
    path = inside / "network.onnx"
    if random.random() < 0.25:
        content, what = changed_bytes(proto.SerializeToString(), random)
        path.write_bytes(content)
        return path, f"{name}: {what}"
    if random.random() < 0.2:
        _externalise(proto, inside, random)
    done = [_change(proto, random) for _ in range(random.choice((1, 1, 1, 2, 3, 8)))]
    path.write_bytes(proto.SerializeToString())
    return path, f"{name}: " + "; ".join(done)


def mutated_artifact(seed: int, content: bytes) -> tuple[bytes, str]:
    """A mutated copy of a `.cim` file, and what was done: bytes anywhere, or in one member under a seal made anew."""
    random = Random(seed)
    if random.random() < 0.3:
        return changed_bytes(content, random)
    name = random.choice(sorted(members_of(content)))
    data, what = changed_bytes(members_of(content)[name], random)
    members = {**members_of(content), name: data} if name == "manifest.json" else redigested(content, name, data)
    return sealed(members), f"{name}: {what}"


def changed_bytes(content: bytes, random: Random) -> tuple[bytes, str]:
    """A copy with other bytes, and what was done."""
    data = bytearray(content or b"\0")
    kind = random.choice(("flip", "cut", "double", "zero", "insert"))
    start = random.randrange(len(data))
    stop = min(len(data), start + random.choice((1, 4, 64, 1000)))
    if kind == "flip":
        for _ in range(random.choice((1, 1, 2, 10, 100))):
            data[random.randrange(len(data))] ^= 1 << random.randrange(8)
    elif kind == "cut":
        del data[start : random.choice((stop, len(data)))]
    elif kind == "double":
        data[start:start] = data[start:stop]
    elif kind == "zero":
        data[start:stop] = bytes(stop - start)
    else:
        data[start:start] = random.randbytes(random.choice((1, 8, 300)))
    return bytes(data), f"{kind} at {start}"


def _externalise(proto: onnx.ModelProto, folder: Path, random: Random) -> None:
    """Move the weights to a file, and name places in and outside the folder."""
    whole = b"".join(t.raw_data for t in proto.graph.initializer)
    (folder / "weights.data").write_bytes(whole)
    link = folder / "link.data"
    if not link.is_symlink():
        link.symlink_to(Path("..") / SECRET)
    offset = 0
    for tensor in proto.graph.initializer:
        size = len(tensor.raw_data)
        places = ("weights.data",) * 6 + (f"../{SECRET}", "link.data", str(folder.parent / SECRET), "missing", "", ".")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        values = {"location": random.choice(places), "offset": str(offset), "length": str(size)}
        if random.random() < 0.2:
            values[random.choice(("offset", "length"))] = random.choice(("-1", "x", str(2**63), "0", "1e3", ""))
        for key, value in values.items():
            tensor.external_data.add(key=key, value=value)
        offset += size


def _fields(message: Message) -> Iterator[tuple[Message, FieldDescriptor]]:
    """All set fields of a message and of the messages in it."""
    for field, value in message.ListFields():
        yield message, field
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            for item in value if _repeated(field) else (value,):
                yield from _fields(item)


def _repeated(field: FieldDescriptor) -> bool:
    return bool(field.is_repeated)


def _change(proto: onnx.ModelProto, random: Random) -> str:
    """Change one field anywhere; what was done."""
    fields = list(_fields(proto))
    if not fields:
        return "nothing left"
    message, field = random.choice(fields)
    kind = f"{message.DESCRIPTOR.name}.{field.name}"
    action = random.random()
    if action < 0.12:
        message.ClearField(field.name)
        return f"cleared {kind}"
    if _repeated(field):
        return _change_list(message, field, random, kind)
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        getattr(message, field.name).Clear()
        return f"emptied {kind}"
    value = _scalar(field, getattr(message, field.name), proto, random)
    try:
        setattr(message, field.name, value)
    except (ValueError, TypeError):
        message.ClearField(field.name)
    return f"{kind} = {str(value)[:40]!r}"


def _change_list(message: Message, field: FieldDescriptor, random: Random, kind: str) -> str:
    items = getattr(message, field.name)
    index = random.randrange(len(items))
    action = random.choice(("delete", "double", "swap", "change", "change", "many"))
    if action == "delete":
        del items[index]
    elif action == "double":
        items.append(items[index])
    elif action == "many" and len(items) < 50:
        items.extend([items[index]] * 40)
    elif action == "swap":
        other = random.randrange(len(items))
        if field.type == FieldDescriptor.TYPE_MESSAGE:
            one, two = type(items[index])(), type(items[index])()
            one.CopyFrom(items[index])
            two.CopyFrom(items[other])
            items[index].CopyFrom(two)
            items[other].CopyFrom(one)
        else:
            items[index], items[other] = items[other], items[index]
    elif field.type != FieldDescriptor.TYPE_MESSAGE:
        value = _scalar(field, items[index], None, random)
        try:
            items[index] = value
        except (ValueError, TypeError):
            del items[index]
        return f"{kind}[{index}] = {str(value)[:40]!r}"
    return f"{action} {kind}[{index}]"


def _scalar(field: FieldDescriptor, old: Any, proto: onnx.ModelProto | None, random: Random) -> Any:
    if field.type == FieldDescriptor.TYPE_STRING:
        names = [name for node in proto.graph.node for name in (*node.input, *node.output)] if proto else []
        return random.choice([*STRINGS, *names])
    if field.type == FieldDescriptor.TYPE_BYTES:
        return (
            bytes(old)[: random.randrange(len(old) + 1)] if random.random() < 0.5 else random.choice(STRINGS).encode()
        )
    if field.type in (FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE):
        return random.choice(FLOATS)
    return random.choice((*INTEGERS, *range(1, 25)))


def trap(folder: Path) -> None:
    """A pipe beside the folder of the model, under the name that mutations refer to: opening it blocks for ever."""
    if not (folder / SECRET).exists():
        os.mkfifo(folder / SECRET)
