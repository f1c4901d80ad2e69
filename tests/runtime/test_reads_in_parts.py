"""Blocks read in parts: the arrays and `model.onnx` give the codes of the plain model, read part after part."""

from typing import Any

import jax.numpy as jnp
import numpy as np
import onnx_ir as ir
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from cimc.chip import Chip
from cimc.mapping import MappedLayer
from cimc.program import LayerProgram, Program
from cimc.units import device_targets
from passes.chip_network import chip_network
from passes.mapper.map_network import map_network
from passes.mapper.options import MappingOptions
from passes.pipeline import lower
from passes.verify import run
from runtime.crossbar.pieces import Held, read_in_pieces
from runtime.network.load import load_network
from runtime.system.state import build_system
from tests import reference
from tests.networks import constant, layers, network, weights
from tests.runtime.crossbar.cases import quiet, small_chip

RANGE = np.float32(2)
ONE = np.float32(1)


def parts(rows: int, kernel: int, chip: Chip, rows_per_read: int) -> reference.Bounds:
    """(start, stop) of the rows that are driven together, from the text of docs/mapper.md."""
    blocks = reference.row_bounds(rows, kernel, chip)
    height = blocks[0][1] - blocks[0][0]
    step = min(rows_per_read, height)
    while len(blocks) > 1 and height % step:
        step -= 1
    return [(first, min(first + step, stop)) for start, stop in blocks for first in range(start, stop, step)]


def on_chip(
    model: ir.Model, chip: Chip, rows_per_read: int, x: np.ndarray, groups_per_read: int | None = None
) -> tuple[MappedLayer, Any, np.ndarray, np.ndarray]:
    """The layer of a network, its targets, and its output on the arrays and of `model.onnx`."""
    lowered = lower(model)
    groups = {} if groups_per_read is None else {"": groups_per_read}
    options = MappingOptions(input_range=(-2.0, 2.0), rows_per_read={"": rows_per_read}, groups_per_read=groups)
    mapping = map_network(lowered, chip, options=options)
    (layer,) = mapping.layers
    targets = device_targets(constant(layers(lowered)[0].inputs[1]), ONE, chip)
    program = Program({layer.name: LayerProgram(targets, ONE, RANGE, ONE, None)}, {})
    (exported,) = run(chip_network(lowered, mapping, chip, program), {"x": x})
    system = build_system(load_network(ir.to_proto(lowered).SerializeToString()), mapping, chip)
    one = jnp.float32(1)
    held = Held(jnp.asarray(targets), one, jnp.float32(RANGE), one, None)
    return layer, targets, read_in_pieces(system.crossbars[layer.name], x, held, None), exported


def expected(
    layer: MappedLayer, targets: np.ndarray, x: np.ndarray, chip: Chip, bounds: reference.Bounds, window: Any
) -> reference.Sums:
    """All groups, one after the other, cell by cell."""
    inputs = np.split(x, layer.groups, axis=1)
    devices = np.split(np.asarray(targets), layer.groups, axis=2)
    found = [
        reference.sums(chip, reference.vectors(reference.dac_codes(part, 2.0, chip), window), g, bounds, True, None)
        for part, g in zip(inputs, devices, strict=True)
    ]
    return reference.Sums(np.concatenate([one.d for one in found]), np.concatenate([one.ties for one in found]))


def assert_equal(y: np.ndarray, exported: np.ndarray, sums: reference.Sums, chip: Chip) -> None:
    np.testing.assert_array_equal(y, exported)
    d = np.moveaxis(y.reshape(len(y), y.shape[1], -1), 0, 1) / reference.output_scale(1.0, 2.0, chip)
    assert (np.abs(d - sums.d) <= sums.ties + 1e-3).all()
    assert np.abs(sums.d).max() > 0


@settings(deadline=None, max_examples=5)
@given(data=st.data())
def test_a_product_in_parts(data: st.DataObject) -> None:
    rows, array_rows = data.draw(st.integers(1, 40)), data.draw(st.integers(2, 24))
    rows_per_read = data.draw(st.integers(1, 30))
    chip = quiet(small_chip("brram-soc", array_rows, row_split=data.draw(st.sampled_from(["channel", "flat"]))))
    model = network(
        [helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")],
        {"x": ["N", 1, rows]},
        {"y": ["N", 1, 3]},
        {"w": weights(rows, 3, seed=rows)},
    )
    x = 2 * weights(4, rows, seed=1)
    layer, targets, y, exported = on_chip(model, chip, rows_per_read, x[:, None])
    bounds = parts(rows, 1, chip, rows_per_read)
    assert layer.read_bounds == tuple(bounds)
    assert_equal(y[:, 0], exported[:, 0], expected(layer, targets, x, chip, bounds, None), chip)


@settings(deadline=None, max_examples=5)
@given(data=st.data())
def test_a_convolution_in_parts_in_groups_too(data: st.DataObject) -> None:
    groups, channels = data.draw(st.sampled_from([1, 2, 3])), data.draw(st.integers(1, 4))
    kernel = data.draw(st.sampled_from([(1, 1), (2, 2), (3, 2)]))
    size, array_rows = int(np.prod(kernel)), data.draw(st.integers(3, 20))
    rows_per_read = data.draw(st.integers(1, 14))
    chip = quiet(small_chip("brram-soc", array_rows, row_split=data.draw(st.sampled_from(["channel", "flat"]))))
    model = network(
        [
            helper.make_node(
                "Conv", ["x", "w"], ["y"], name="conv", kernel_shape=kernel, pads=[1, 0, 0, 1], group=groups
            )
        ],
        {"x": ["N", groups * channels, 4, 3]},
        {"y": ["N", 2 * groups, None, None]},
        {"w": weights(2 * groups, channels, *kernel, seed=channels)},
    )
    x = 2 * weights(2, groups * channels, 4, 3, seed=1)
    layer, targets, y, exported = on_chip(model, chip, rows_per_read, x)
    bounds = parts(channels * size, size, chip, rows_per_read)
    assert layer.read_bounds == tuple(bounds)
    window = reference.ConvWindow(kernel, (1, 1), (1, 0, 0, 1), (1, 1))
    assert_equal(y, exported, expected(layer, targets, x, chip, bounds, window), chip)


@settings(deadline=None, max_examples=5)
@given(data=st.data())
def test_groups_that_are_driven_together_have_the_idle_current_of_each_other(data: st.DataObject) -> None:
    """Cell by cell: the array of a set of groups with its weights along the diagonal and G_min beside them."""
    groups, channels = data.draw(st.sampled_from([4, 6])), data.draw(st.integers(1, 2))
    rows, array_rows = channels * 4, data.draw(st.integers(10, 40))
    rows_per_read, wanted = data.draw(st.integers(1, 9)), data.draw(st.integers(1, 6))
    chip = quiet(small_chip("brram-256x64", array_rows, columns=14))
    model = network(
        [helper.make_node("Conv", ["x", "w"], ["y"], name="conv", kernel_shape=[2, 2], group=groups)],
        {"x": ["N", groups * channels, 4, 3]},
        {"y": ["N", 2 * groups, None, None]},
        {"w": weights(2 * groups, channels, 2, 2, seed=channels)},
    )
    x = 2 * weights(2, groups * channels, 4, 3, seed=1)
    layer, targets, y, exported = on_chip(model, chip, rows_per_read, x, wanted)
    # Three pieces of two weight columns stand beside each other.
    most = min(wanted, array_rows // rows, 3)
    together = max(size for size in range(1, most + 1) if groups % size == 0)
    assert layer.groups_per_read == together
    devices, found = np.asarray(targets, np.float64), []
    for first in range(0, groups, together):
        array = np.full((2, together, rows, together, 2), chip.cell.conductance_min_uS)
        for group in range(together):
            array[:, group, :, group] = devices[:, :, 2 * (first + group) : 2 * (first + group) + 2]
        inputs = x[:, first * channels : (first + together) * channels]
        u = reference.vectors(
            reference.dac_codes(inputs, 2.0, chip), reference.ConvWindow((2, 2), (1, 1), (0,) * 4, (1, 1))
        )
        # A part drives the same rows of every group.
        u = u.reshape(together, rows, *u.shape[1:])
        total = [
            reference.sums(
                chip,
                u[:, start:stop].reshape(-1, *u.shape[2:]),
                array[:, :, start:stop].reshape(2, -1, together * 2),
                [(0, together * (stop - start))],
                True,
                None,
            )
            for start, stop in parts(rows, 4, chip, rows_per_read)
        ]
        found.append((sum(one.d for one in total), sum(one.ties for one in total)))
    d, ties = (np.concatenate(list(each)) for each in zip(*found, strict=True))
    assert_equal(y, exported, reference.Sums(d, ties), chip)
