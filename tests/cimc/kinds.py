"""A small network and chips with arrays of several kinds, for the tests of them."""

from collections.abc import Mapping as Dictionary
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from hypothesis import strategies as st
from onnx import helper

from cimc.chip import Chip, load_chip
from cimc.layer_settings import chip_of_layer, settings_of
from cimc.mapping import Mapping
from cimc.program import LayerProgram, Program
from cimc.units import device_targets
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from tests.networks import network_proto, weights

# LeNet-like: 18 x 4, 36 x 3, 48 x 5 and 5 x 30 weights.
LAYERS = ("conv1", "conv2", "fc1", "fc2")


SMALL = {"rows": 20, "columns": 12, "per_chip": 8}


def model() -> onnx.ModelProto:
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["h"], "conv1", kernel_shape=[3, 3]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "w2"], ["k"], "conv2", kernel_shape=[3, 3]),
        helper.make_node("Flatten", ["k"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["g"], "fc1"),
        helper.make_node("MatMul", ["g", "u"], ["y"], "fc2"),
    ]
    constants = {
        "w1": weights(4, 2, 3, 3), "w2": weights(3, 4, 3, 3, seed=1), "v": weights(48, 5, seed=2),
        "u": weights(5, 30, seed=3),
    }  # fmt: skip
    return network_proto(nodes, {"x": ["N", 2, 8, 8]}, {"y": ["N", 30]}, constants)


LOWERED = lower(ir.from_proto(model()))


def two_kinds(name: str = "brram-256x64", **kinds: Dictionary[str, Any]) -> Chip:
    """A built-in chip with arrays of 64 x 64 and further kinds; without any, with `small`."""
    array = {"rows": 64, "columns": 64, "columns_per_adc": 1, "spare_columns": 0, "per_chip": 16}
    return load_chip(name, settings={"array": array, "kinds": kinds or {"small": SMALL}})


CHIP = two_kinds()


def mapped(chip: Chip = CHIP, tables: Dictionary[str, Any] | None = None, **options: Any) -> Mapping:
    own = {layer: settings_of(chip, table, layer) for layer, table in (tables or {}).items()}
    return map_network(LOWERED, chip, options=MappingOptions(settings=own, **options))


def all_on(kind: str) -> dict[str, dict[str, Any]]:
    """Options by which all layers lie on arrays of that kind."""
    return {layer: {"array": kind} for layer in LAYERS}


def kinds_of(mapping: Mapping) -> dict[str, str]:
    return {layer.name: layer.kind for layer in mapping.layers}


SCHEMES: list[dict[str, Any]] = [
    {},
    {"scheme": "offset", "offset_columns": 1},
    {"scheme": "differential-rows"},
    {"scheme": "offset", "bits": 8, "bits_per_cell": 2, "slices_in": "arrays"},
]


@st.composite
def chips_of_kinds(draw: st.DrawFn) -> Chip:
    """Chips with two or three kinds of small arrays, in cores or not, in several schemes of weights."""
    size = st.fixed_dictionaries(
        {
            "rows": st.integers(8, 60),
            "columns": st.integers(6, 60),
            "per_chip": st.integers(4, 60),
            "spare_columns": st.integers(0, 2),
        }
    )
    changes: dict[str, Any] = {"array": draw(size), "weights": draw(st.sampled_from(SCHEMES))}
    changes["cores"] = draw(st.sampled_from([{}, {"count": 3, "mesh_rows": 2, "mesh_columns": 2, "mvm_start_ns": 9.0}]))
    changes["kinds"] = {kind: draw(size) for kind in draw(st.sampled_from([("b",), ("b", "c")]))}
    return load_chip("brram-256x64", settings=changes)


def program_of(mapping: Mapping, chip: Chip) -> Program:
    layers = {}
    for number, layer in enumerate(mapping.layers):
        targets = device_targets(
            weights(layer.rows, layer.columns, seed=number), np.float32(1), chip_of_layer(chip, layer.settings)
        )
        one = np.float32(1)
        layers[layer.name] = LayerProgram(np.asarray(targets), one, one, one, None)
    return Program(layers, {})
