"""Rows wait for what they depend on: changed input rows change no row that is said to be complete without them."""

from collections.abc import Iterator

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from onnx import TensorProto, helper

from passes.graph_edit import constant
from passes.pipeline import lower
from passes.simulator.row_flow import Flow, row_flow
from tests.benchmarks.mapper.builder import Builder
from tests.benchmarks.mapper.networks import network as benchmark_network
from tests.real_networks import REAL_NETWORKS

IMAGES = ("mobilenet", "vit", "unet", "mixer")


def complete_rows(flows: dict[str, Flow], input_rows: int) -> dict[str, int]:
    """Rows of every node that can be computed from the first `input_rows` rows of the network input."""
    complete = {"": input_rows}
    for name, flow in flows.items():
        complete[name] = sum(
            all(source.needed[row] <= complete[source.node] for source in flow.sources) for row in range(flow.rows)
        )
    return complete


def values_of(model: ir.Model, x: np.ndarray) -> dict[str, np.ndarray]:
    """Every value of the network."""
    proto = ir.to_proto(model)
    names = [node.outputs[0].name or "" for node in model.graph if node.outputs[0].dtype == ir.DataType.FLOAT]
    del proto.graph.output[:]
    proto.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    session = onnxruntime.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))


def stale_rows(flows: dict[str, Flow], changed: int) -> dict[str, int]:
    """Rows from the first on of every node that may read one of the first `changed` rows of the network input."""
    stale = {"": changed}
    for name, flow in flows.items():
        reads = [row for row in range(flow.rows) if any(s.oldest[row] < stale[s.node] for s in flow.sources)]
        stale[name] = max(reads, default=-1) + 1
    return stale


def changed_rows(
    model: ir.Model, flows: dict[str, Flow], kept: int, from_the_end: bool = True
) -> Iterator[tuple[str, int, np.ndarray]]:
    """(node, rows said to be complete or stale, rows that really change) when the input's rows from `kept` on (or
    before it) change.
    """
    random = np.random.default_rng(0)
    shape = [size if isinstance(size, int) else 1 for size in model.graph.inputs[0].shape or ()]
    first = random.uniform(0.1, 1, shape).astype(np.float32)
    second = first.copy()
    rest = (slice(None),) * 2 + (slice(kept, None) if from_the_end else slice(kept),)
    second[rest] += random.uniform(0.5, 1, second[rest].shape).astype(np.float32)
    before, after = values_of(model, first), values_of(model, second)
    complete = complete_rows(flows, kept) if from_the_end else stale_rows(flows, kept)
    for node in model.graph:
        name = node.outputs[0].name
        if name in before and any(value is not None and constant(value) is None for value in node.inputs):
            axis = flows[name].axis
            differs = before[name] != after[name]
            others = tuple(i for i in range(differs.ndim) if i != axis)
            yield name, complete[name], differs.any(axis=others) if axis is not None else differs.any(keepdims=True)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("kept", [1, 5, 8, 15])
def test_complete_rows_depend_on_nothing_that_is_missing(name: str, kept: int) -> None:
    model = lower(ir.from_proto(REAL_NETWORKS[name]()))
    flows = row_flow(model)
    seen = 0
    for node, complete, changed in changed_rows(model, flows, kept):
        assert not changed.ravel()[:complete].any(), f"{node}: {complete} rows are said to be complete"
        seen += complete
    assert seen > 0 or kept < 8


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("kept", [1, 8])
def test_rows_that_are_freed_are_read_no_more(name: str, kept: int) -> None:
    model = lower(ir.from_proto(REAL_NETWORKS[name]()))
    for node, stale, changed in changed_rows(model, row_flow(model), kept, from_the_end=False):
        assert not changed.ravel()[stale:].any(), f"{node}: only {stale} rows are said to read the first {kept}"


def test_rows_of_convolutions_wait_for_no_more_than_they_need() -> None:
    b = Builder("stack", ["N", 2, 20, 12])
    x = b.conv("x", 2, 3, 5, 2, 2)
    left = b.conv(x, 3, 3, 3, pads=1, activation="")
    right = b.conv(b.conv(x, 3, 3, (1, 3), pads=(0, 1, 0, 1), activation=""), 3, 3, 3, pads=1, activation="")
    y = b.conv(b.concat(b.op("Sigmoid", left), b.op("Add", left, right)), 6, 2, 3, 1, (0, 1, 1, 1), activation="")
    model = lower(ir.from_proto(b.model(y)))
    flows = row_flow(model)
    for kept in range(1, 20):
        for node, complete, changed in changed_rows(model, flows, kept):
            assert complete == int(np.argmax(changed)) if changed.any() else len(changed), f"{node}, {kept} rows"
        for node, stale, changed in changed_rows(model, flows, kept, from_the_end=False):
            assert stale == int(np.flatnonzero(changed).max(initial=-1)) + 1, f"{node}, {kept} rows"


@pytest.mark.parametrize(("name", "at_once"), [("shufflenet", 3), ("vit_b_32", 2), ("inception_v3", 3), ("vgg16", 6)])
def test_benchmark_networks_flow_row_by_row(name: str, at_once: int) -> None:
    flows = row_flow(lower(ir.from_proto(benchmark_network(name))))
    assert sum(flow.rows == 1 for flow in flows.values()) == at_once


def test_channel_shuffle_keeps_the_rows() -> None:
    flows = row_flow(lower(ir.from_proto(benchmark_network("shufflenet"))))
    for name, flow in flows.items():
        if name.startswith(("reshape", "transpose")):
            (source,) = flow.sources
            assert source.needed.tolist() == list(range(1, flow.rows + 1))
