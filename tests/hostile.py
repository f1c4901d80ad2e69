"""Networks that are meant to do harm: small files that ask for a lifetime, a memory, or a foreign page."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.networks import network_proto, weights


def calls(levels: Sequence[Sequence[str]]) -> onnx.ModelProto:
    """A product behind function f0; level n calls the functions that it lists, one after the other."""
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("f", 1)]
    functions = []
    for number, called in enumerate(levels):
        names = ["x", *(f"v{k}" for k in range(len(called) - 1)), "y"]
        nodes = [
            helper.make_node(name, [a], [b], domain="f" if name.startswith("f") else "")
            for name, a, b in zip(called, names[:-1], names[1:], strict=True)
        ]
        functions.append(helper.make_function("f", f"f{number}", ["x"], ["y"], nodes, opsets))
    nodes = [
        helper.make_node("f0", ["x"], ["h"], domain="f"),
        helper.make_node("MatMul", ["h", "w"], ["y"], name="fc"),
    ]
    proto = network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)})
    proto.functions.extend(functions)
    proto.opset_import.append(helper.make_opsetid("f", 1))
    return proto


def _product(
    name: str, sizes: Sequence[int | str] = ("N", 4), array: npt.NDArray[np.float32] | None = None
) -> onnx.ModelProto:
    """A product whose node and values bear a name, of an input of these sizes with these weights."""
    nodes = [
        helper.make_node("MatMul", ["x", "w"], [f"h{name}"], name=name),
        helper.make_node("Relu", [f"h{name}"], ["y"], name=f"r{name}"),
    ]
    constants: dict[str, npt.ArrayLike] = {"w": weights(4, 3) if array is None else array}
    return network_proto(nodes, {"x": list(sizes)}, {"y": ["N", 3]}, constants)


def _swelling() -> onnx.ModelProto:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="fc"),
        helper.make_node("Expand", ["h", "sizes"], ["large"], name="swell"),
        helper.make_node("ReduceMax", ["large"], ["y"], keepdims=0, name="most"),
    ]
    constants: dict[str, npt.ArrayLike] = {"w": weights(4, 3), "sizes": np.array([1, 2**29, 3], np.int64)}
    return network_proto(nodes, {"x": ["N", 1, 4]}, {"y": []}, constants)


def _diamonds(count: int) -> onnx.ModelProto:
    """So many sums of a value with itself, halved: two ways through each."""
    names = ["h", *(f"d{n}" for n in range(count - 1)), "y"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"], name="fc")]
    for n, (a, b) in enumerate(pairwise(names)):
        nodes += [
            helper.make_node("Relu", [a], [f"l{n}"]),
            helper.make_node("Neg", [a], [f"r{n}"]),
            helper.make_node("Add", [f"l{n}", f"r{n}"], [b]),
        ]
    return network_proto(nodes, {"x": ["N", 4]}, {"y": ["N", 3]}, {"w": weights(4, 3)})


def loops(trips: int, depth: int) -> onnx.ModelProto:
    """Loops in loops around a product, each with so many trips."""
    weight = numpy_helper.from_array(weights(4, 4), "w")
    trip, go = (numpy_helper.from_array(np.array(value), name) for value, name in ((np.int64(trips), "t"), (True, "g")))

    def body(level: int) -> onnx.GraphProto:
        inner = (
            helper.make_node("MatMul", [f"s{level}", "w"], [f"o{level}"])
            if level == depth
            else helper.make_node("Loop", ["t", "g", f"s{level}"], [f"o{level}"], body=body(level + 1))
        )
        given = [
            helper.make_tensor_value_info(f"i{level}", TensorProto.INT64, []),
            helper.make_tensor_value_info(f"c{level}", TensorProto.BOOL, []),
            helper.make_tensor_value_info(f"s{level}", TensorProto.FLOAT, ["N", 4]),
        ]
        kept = helper.make_node("Identity", [f"c{level}"], [f"k{level}"])
        made = [
            helper.make_tensor_value_info(f"k{level}", TensorProto.BOOL, []),
            helper.make_tensor_value_info(f"o{level}", TensorProto.FLOAT, ["N", 4]),
        ]
        return helper.make_graph([kept, inner], f"body{level}", given, made)

    node = helper.make_node("Loop", ["t", "g", "x"], ["y"], body=body(1))
    proto = network_proto([node], {"x": ["N", 4]}, {"y": ["N", 4]}, {})
    proto.graph.initializer.extend([weight, trip, go])
    return proto


def lstm(steps: int) -> onnx.ModelProto:
    """An LSTM of so many steps."""
    node = helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=4)
    constants = {"w": weights(1, 16, 2), "r": weights(1, 16, 4)}
    return network_proto([node], {"x": [steps, "N", 2]}, {"y": [steps, 1, "N", 4]}, constants)


def hostile_networks() -> dict[str, onnx.ModelProto]:
    """By what they do."""
    bad = weights(4, 3).copy()
    bad[0, 0] = np.nan
    return {
        **{
            f"functions that expand 2^{depth}-fold": calls([*([f"f{n + 1}"] * 2 for n in range(depth)), ["Relu"]])
            for depth in (14, 30, 90)
        },
        "a function that calls itself": calls([["f1"], ["f2"], ["f0"]]),
        "a declared shape of 2^62": _product("fc", sizes=["N", 2**62]),
        "an Expand to 6 GB": _swelling(),
        "a loop of 10^9 trips": loops(10**9, 1),
        "four loops of 100 trips in each other": loops(100, 4),
        "an LSTM of 2,000 steps": lstm(2000),
        "10,000 diamonds": _diamonds(10_000),
        "NaN among the weights": _product("fc", array=bad),
        "weights of 3e38": _product("fc", array=np.full((4, 3), 3e38, np.float32)),
        "names of 10,000 characters": _product("a" * 10_000),
        "terminal escapes in names": _product("\x1b[2J\x1b]0;title\x07[/b]"),
        "HTML in names": _product("<script>alert(1)</script><img src=x onerror=alert(1)>"),
    }
