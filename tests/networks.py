"""Small builders of test networks, and the comparison of a network with its lowered form in onnxruntime."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
from jax import Array
from onnx import TensorProto, helper, numpy_helper

from passes.crossbar_functions import is_crossbar
from passes.pipeline import lower
from passes.verify import Arrays, differences, random_inputs, run
from runtime.crossbar.unfold import fold_output, unfold
from runtime.network.network import Network
from runtime.network.run import Values, run_network
from runtime.network.scan import Product
from runtime.system.products import grouped_product

Size = int | str | None


def run_only(
    network: Network,
    x: Any,
    product: Product,
    digital: Values,
    statistics: Values,
    key: Any = None,
    train: bool = False,
) -> tuple[Any, Values]:
    """`run_network` for a network of one input and one output: its logits, and the updated statistics."""
    outputs, statistics = run_network(network, {network.input: x}, product, digital, statistics, key, train)
    (output,) = outputs.values()
    return output, statistics


def weights(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Random float32 numbers in [-1, 1)."""
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def network_proto(
    nodes: Sequence[onnx.NodeProto],
    inputs: Mapping[str, Sequence[Size]],
    outputs: Mapping[str, Sequence[Size] | None],
    constants: Mapping[str, npt.ArrayLike] | None = None,
    opset: int = 21,
    functions: Sequence[onnx.FunctionProto] = (),
    ir_version: int = 10,
    dtype: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """An ONNX model; inputs and outputs are of `dtype`, constants become initializers."""
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, dtype, shape) for name, shape in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )
    domains = sorted({function.domain for function in functions})
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, functions=functions)


def network(*args: object, **keywords: object) -> ir.Model:
    """Like `network_proto`, as the IR that the passes take."""
    proto = network_proto(*args, **keywords)  # type: ignore[arg-type]
    onnx.checker.check_model(proto)
    return ir.from_proto(proto)


def layers(model: ir.Model) -> list[ir.Node]:
    """The crossbar layers of a lowered network."""
    return [node for node in model.graph.all_nodes() if is_crossbar(node)]


def operators(model: ir.Model) -> list[str]:
    """The operators of a network in order."""
    return [node.op_type for node in model.graph]


def constant(value: ir.Value | None) -> npt.NDArray[Any]:
    """The array of a value that is constant."""
    assert value is not None
    assert value.const_value is not None
    return value.const_value.numpy()


def sizes(value: ir.Value | None) -> list[int | ir.SymbolicDim]:
    """The shape of a value that has one."""
    assert value is not None
    assert value.shape is not None
    return list(value.shape)


def lower_and_compare(model: ir.Model, batch: int = 3, tolerance: float = 1e-5) -> ir.Model:
    """Lower `model`, check the result with the ONNX checker and against onnxruntime, and return it."""
    lowered = lower(model)
    onnx.checker.check_model(ir.to_proto(lowered), full_check=True)
    random = np.random.default_rng(1)
    feeds: dict[str, npt.NDArray[Any]] = {}
    for value in model.graph.inputs:
        if not value.is_initializer():
            shape = [size if isinstance(size, int) else batch for size in value.shape or ()]
            feeds[value.name or ""] = random.uniform(-1, 1, shape).astype(np.float32)
    assert [value.name for value in lowered.graph.outputs] == [value.name for value in model.graph.outputs]
    results: Any = zip(run(model, feeds), run(lowered, feeds), strict=True)
    for expected, computed in results:
        assert expected.shape == computed.shape
        error = np.abs(expected - computed) / np.maximum(1, np.abs(expected))
        assert error.max(initial=0) <= tolerance
    for node in lowered.graph:
        for value in node.outputs:
            assert value.shape is not None, f"{value.name} has no shape"
    return lowered


def difference(expected: Arrays, computed: Arrays) -> float:
    """The largest absolute difference of two lists of outputs. Raises CimcError when their sizes differ."""
    return float(np.max(differences(expected, computed), initial=0.0))


def largest_difference(reference: ir.Model, lowered: ir.Model, batch: int = 2, seed: int = 0) -> float:
    """The largest absolute difference between the outputs of both networks on the same random inputs in [0, 1).

    The inputs have the sizes of `reference`, with `batch` for the first that is not static, as of `random_inputs`.

    Raises:
        CimcError: sizes are not known, an input has another type, or onnxruntime cannot run one.
    """
    feeds = random_inputs(reference, batch, seed)
    return difference(run(reference, feeds), run(lowered, feeds))


def plain_product(network: Network) -> Product:
    """Layers as float32 products with the network's own constants, without a system: no chip, no state."""

    def product(name: str, x: Array, key: Array | None) -> Array:
        node = next(node for node in network.layers() if node.layer == name)
        weight = jnp.asarray(network.initializers[node.inputs[1]])
        window, groups = network.windows[name], int(node.attributes.get("group", 1))
        y = grouped_product(weight, unfold(x, window), groups)
        if len(node.inputs) > 2:
            y = y + jnp.asarray(network.initializers[node.inputs[2]])[:, None]
        return fold_output(y, x.shape, window)

    return product
