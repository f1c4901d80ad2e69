"""The operator cases that the `onnx` package carries, run by this runtime."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnx_ir as ir
from jax import Array
from onnx import numpy_helper
from onnx.backend.test.loader import load_model_tests

from cimc.errors import CimcError
from cimc.operators import CROSSBAR_SOURCES, DIGITAL_OPERATORS
from passes.crossbar_functions import is_crossbar
from passes.pipeline import lower
from passes.set_float32 import set_float32
from passes.set_inputs import set_inputs
from runtime.network.load import load_network
from runtime.network.network import Network
from runtime.network.run import run_nodes
from tests.networks import plain_product

# Inputs that shape the result, and so are constants: by operator, from which index on (or which indices).
SHAPING: dict[str, tuple[int, ...]] = {
    "Col2Im": (1, 2),
    "ConstantOfShape": (0,),
    "CumSum": (1,),
    "Dropout": (1, 2),
    "Expand": (1,),
    "OneHot": (1,),
    "Pad": (1, 3),
    "Range": (0, 1, 2),
    "Reshape": (1,),
    "Resize": (1, 2, 3),
    "Slice": (1, 2, 3, 4),
    "Split": (1,),
    "Squeeze": (1,),
    "Tile": (1,),
    "TopK": (1,),
    "Trilu": (1,),
    "Unsqueeze": (1,),
}


Outputs = Callable[[dict[str, Array]], list[Array]]


@dataclass(frozen=True)
class Case:
    """One case: a model with inputs and expected outputs. operator: the one it is named after."""

    name: str
    operator: str
    model: onnx.ModelProto
    inputs: Sequence[Any]
    outputs: Sequence[Any]
    rtol: float
    atol: float


@lru_cache
def loaded_cases() -> list[Any]:
    """All cases of single operators, as the package has them."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases are computed when they are loaded
        return list(load_model_tests(kind="node"))


def control_flow_cases() -> Iterator[Case]:
    """All cases with If, Loop or Scan, or with a list of tensors."""
    for case in loaded_cases():
        operators = {node.op_type for node in ir.from_proto(case.model).graph.all_nodes()}
        found = [name for name in ("If", "Loop", "Scan") if name in operators]
        found += ["lists"] if any("Sequence" in operator for operator in operators) else []
        if found:
            inputs, outputs = case.data_sets[0]
            yield Case(case.name, found[0], case.model, _arrays(inputs), _arrays(outputs), case.rtol, case.atol)


def run_control_flow_case(case: Case) -> None:
    """Lower a case and run it, with its integers, booleans and single numbers as constants, in float32."""
    model = ir.from_proto(onnx.ModelProto.FromString(case.model.SerializeToString()))
    feeds = {value.name: array for value, array in zip(model.graph.inputs, case.inputs, strict=True)}
    halves = any(value.dtype in (ir.DataType.FLOAT16, ir.DataType.BFLOAT16) for value in model.graph.inputs)
    set_float32(model)
    arrays = {name: np.asarray(array) for name, array in feeds.items() if not isinstance(array, list)}
    arrays = {n: array if array.dtype.kind in "iub" else array.astype(np.float32) for n, array in arrays.items()}
    set_inputs(model, {name: array for name, array in arrays.items() if array.dtype.kind != "f" or not array.ndim})
    network = load_network(ir.to_proto(lower(model)).SerializeToString())
    given = {name: jnp.asarray(arrays[name]) for name in network.inputs}
    values, _ = run_nodes(network, given, plain_product(network), {}, {})
    for name, expected in zip(network.outputs, case.outputs, strict=True):
        wanted = np.asarray(expected).astype(np.float64)
        result = np.asarray(values[name]).astype(np.float64)
        np.testing.assert_allclose(result, wanted, rtol=max(case.rtol, 1e-3), atol=1e-3 if halves else 1e-5)
        assert result.shape == wanted.shape


def cases() -> Iterator[Case]:
    """All cases whose operators are all claimed."""
    claimed = DIGITAL_OPERATORS | CROSSBAR_SOURCES
    for case in loaded_cases():
        nodes = case.model.graph.node
        operators = {f"{node.domain}{node.op_type}" for node in nodes}
        # Cases with many nodes are the standard's own expansions of an operator into others.
        operators.discard("Constant")
        if operators and operators <= claimed:
            operator = nodes[0].op_type if len(nodes) == 1 else "(expanded)"
            inputs, outputs = case.data_sets[0]
            yield Case(case.name, operator, case.model, _arrays(inputs), _arrays(outputs), case.rtol, case.atol)


def _arrays(values: Sequence[Any]) -> list[Any]:
    return [numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value for value in values]


def run_cases(some: Sequence[Case]) -> list[Exception | None]:
    """What fails in each case, or None. All are one program, which is compiled in about half the time of many."""
    functions: dict[int, Outputs] = {}
    given: dict[int, dict[str, Array]] = {}
    failures: list[Exception | None] = [None] * len(some)
    for index, case in enumerate(some):
        try:
            functions[index], given[index] = _function(case)
        except Exception as error:
            failures[index] = error

    @jax.jit
    def outputs(given: dict[int, dict[str, Array]]) -> dict[int, list[Array]]:
        computed = {}
        for index, function in functions.items():
            try:
                computed[index] = function(given[index])
            except Exception as error:
                failures[index] = error
        return computed

    try:
        computed = jax.tree.map(np.asarray, outputs(given))
    except Exception as error:  # of which case, they tell when they run alone
        return [error] if len(some) == 1 else [run_cases([case])[0] for case in some]
    for index, arrays in computed.items():
        try:
            _compare(some[index], arrays)
        except AssertionError as error:
            failures[index] = error
    return failures


def _function(case: Case) -> tuple[Outputs, dict[str, Array]]:
    """The network of a case as a function of the inputs that are no constants, and these."""
    model = onnx.ModelProto.FromString(case.model.SerializeToString())
    feeds = {entry.name: array for entry, array in zip(model.graph.input, case.inputs, strict=True)}
    network = _loaded(model, feeds, _constant_inputs(model.graph))

    def outputs(given: dict[str, Array]) -> list[Array]:
        values, _ = run_nodes(network, given, plain_product(network), {}, {})
        return [jnp.asarray(values[name]) for name in network.outputs]

    return outputs, {name: jnp.asarray(array) for name, array in feeds.items() if name in network.inputs}


def _compare(case: Case, computed: Sequence[np.ndarray]) -> None:
    for result, expected in zip(computed, case.outputs, strict=True):
        wanted = np.asarray(expected)
        assert result.shape == wanted.shape, f"shape {result.shape}, not {wanted.shape}"
        assert result.dtype.kind == wanted.dtype.kind, f"type {result.dtype}, not {wanted.dtype}"
        np.testing.assert_allclose(
            result.astype(np.float64), wanted.astype(np.float64), rtol=max(case.rtol, 1e-3), atol=max(case.atol, 1e-5)
        )


def _constant_inputs(graph: onnx.GraphProto) -> set[str]:
    """Inputs that become constants: those that shape results, and the weights of crossbar layers."""
    names: set[str] = set()
    for node in graph.node:
        shaping = SHAPING.get(node.op_type, (1,) if node.op_type.startswith("Reduce") else ())
        if node.op_type in CROSSBAR_SOURCES and len(graph.node) == 1:
            data = 3 if node.op_type == "QLinearMatMul" else 1
            shaping = tuple(range(data, len(node.input)))
        names |= {node.input[index] for index in shaping if index < len(node.input)}
    return names


def _loaded(model: onnx.ModelProto, feeds: dict[str, np.ndarray], constants: set[str]) -> Network:
    for entry in list(model.graph.input):
        if entry.name in constants:
            model.graph.input.remove(entry)
            model.graph.initializer.append(numpy_helper.from_array(feeds[entry.name], entry.name))
    if len(model.graph.node) > 1 or model.graph.node[0].op_type not in CROSSBAR_SOURCES:
        network = load_network(model.SerializeToString())
    else:
        lowered = lower(ir.from_proto(model))
        if not any(is_crossbar(node) for node in lowered.graph):
            raise CimcError("no crossbar layer")
        network = load_network(ir.to_proto(lowered).SerializeToString())
    return network
