"""The chip-exact network, a package's model.onnx: crossbar layers as converters, array reads, sums and scales.

Runs in any ONNX runtime. Noise-free: each array column gives clip(round(level)) of the programmed targets. The layers'
functions are in `passes.chip_functions`. Inputs and conductances are such that every product below the ADC's range is
exact in float32, in any order of addition (`Chip.target_step_uS`).
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from cimc.chip import Chip
from cimc.layer_settings import Settings, chip_of_layer
from cimc.mapping import MappedLayer, Mapping
from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS
from cimc.program import Floats, LayerProgram, Program
from cimc.units import count_scale, dac_gain, idle_target
from passes.chip_functions import CONV_ATTRIBUTES, conv_attributes, function_texts, sums_inputs
from passes.crossbar_functions import crossbar_layers
from passes.graph_edit import add_constant, new_node, owner
from passes.set_constants import set_constants


def chip_network(model: ir.Model, mapping: Mapping, chip: Chip, program: Program) -> ir.Model:
    """The network of one programmed chip, from the lowered network; a new model with the program's constants.

    Args:
        model: a network lowered by `passes.pipeline.lower`; not changed.
        mapping: its mapping on `chip`.
        chip: the chip.
        program: targets and scales of every crossbar layer, and digital constants.
    """
    model = set_constants(model, program.digital)
    graph, layers = model.graph, {layer.name: layer for layer in mapping.layers}
    variants = _variants(mapping)
    for name, nodes in crossbar_layers(model).items():
        layer = layers[name]
        of_layer, variant = chip_of_layer(chip, layer.settings), variants[layer.settings]
        constants = _constants(graph, nodes[0], layer, of_layer, program.layers[name])
        for node in nodes:
            replacement = _chip_node(node, layer, constants, of_layer, variant)
            ir.convenience.replace_nodes_and_values(
                owner(node), node, [node], [replacement], node.outputs, replacement.outputs
            )
    for identifier in [key for key in model.functions if key[1] in CROSSBAR_OPERATORS]:
        del model.functions[identifier]
    for settings, variant in variants.items():
        for text in function_texts(chip_of_layer(chip, settings), model.opset_imports[""], variant):
            function = ir.from_proto(onnx.parser.parse_function(text))
            model.functions[function.identifier()] = function
    unused = [name for name, value in graph.initializers.items() if not value.uses() and not value.is_graph_output()]
    for name in unused:
        del graph.initializers[name]
    return model


def _variants(mapping: Mapping) -> dict[Settings, str]:
    """What the names of functions end in, by the settings of layers; without settings they have their plain names."""
    return {(): "", **{settings: f"_{number}" for number, settings in enumerate(mapping.by_settings, 2)}}


def _chip_node(node: ir.Node, layer: MappedLayer, constants: list[ir.Value], chip: Chip, variant: str) -> ir.Node:
    """The chip's form of a node that uses a crossbar layer."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    assert y.shape is not None
    convolution = node.op_type == "CrossbarConv"
    attributes = []
    if convolution:
        spatial = tuple(int(extent) for extent in y.shape[2:] if isinstance(extent, int))
        blocks, groups = len(layer.read_bounds), layer.groups // (layer.groups_per_read or 1)
        conversions = len(chip.scheme.signs)
        shapes = {
            "block_shape": (0, groups, blocks, conversions * layer.columns // groups, -1),
            "output_shape": (0, layer.columns, *spatial),
            "input_shape": (0, groups, blocks, 1, -1),
        }
        attributes = [node.attributes[name] for name in CONV_ATTRIBUTES[:4]]
        attributes.append(ir.AttrInt64("blocks", groups * blocks))
        attributes += [ir.AttrInt64s(name, shapes[name]) for name in conv_attributes(chip) if name in shapes]
    operator = ("ChipConv" if convolution else "ChipMatMul") + variant + ("Signed" if layer.signed_input else "")
    return new_node(operator, [x, *constants], node.name or "", attributes, domain=CROSSBAR_DOMAIN)


def _constants(graph: ir.Graph, node: ir.Node, layer: MappedLayer, chip: Chip, program: LayerProgram) -> list[ir.Value]:
    """The constants of a layer as initializers `<layer>.pair`, `.index` and so on."""
    convolution = node.op_type == "CrossbarConv"
    scheme = chip.scheme

    def laid_out(cells: Floats, beside: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
        return _conv_blocks(layer, cells, node, beside) if convolution else _matmul_blocks(layer, cells)

    pair, index = laid_out(scheme.net(program.targets), scheme.net(idle_target(chip)))
    scale = count_scale(program.weight_range, program.input_range, chip, layer.signed_input) * program.gain
    shift = np.zeros(layer.columns, np.float32) if program.bias is None else program.bias / scale
    factor = np.float32(1) if program.input_factor is None else program.input_factor
    digital = {"gain": dac_gain(program.input_range * factor, chip, layer.signed_input), "shift": shift, "scale": scale}
    constants: dict[str, npt.NDArray[Any]] = {"pair": pair, "index": index}
    for key, value in digital.items():
        array = np.asarray(value, np.float32)
        # Of a convolution channels and columns come before the spatial axes.
        tail = (1,) * len(node.attributes["kernel_shape"].as_ints()) if convolution and array.ndim else ()
        constants[key] = array.reshape(array.shape + tail)
    blocks = len(layer.read_bounds)
    if sums_inputs(chip):
        one = np.ones((1, 1, 1), np.float32)
        ones, _ = laid_out(np.ones((1, layer.rows, layer.groups), np.float32), one)
        together = layer.groups_per_read or 1  # which have the same inputs, and so one sum
        constants["ones"] = ones[::together] if convolution else ones
    if chip.adc.sense == "voltage":
        cells, _ = laid_out(scheme.together(program.targets), scheme.together(idle_target(chip)))
        if convolution:
            totals = cells.sum(axis=tuple(range(1, cells.ndim)), dtype=np.float32)
            constants["totals"] = totals.reshape(layer.groups // (layer.groups_per_read or 1), blocks, -1, 1)
        else:
            constants["totals"] = cells.sum(axis=1)
    return [add_constant(graph, f"{layer.name}.{key}", array) for key, array in constants.items()]


def _matmul_blocks(layer: MappedLayer, cells: Floats) -> tuple[Floats, npt.NDArray[np.int64]]:
    """pair [blocks, block rows, conversions x columns] and the input row of every word line [blocks, block rows].

    cells: what conversions see [conversions, rows, columns].
    """
    bounds = layer.read_bounds
    height = max(stop - start for start, stop in bounds)
    pair = np.zeros((len(bounds), height, len(cells), cells.shape[2]), np.float32)
    for block, (start, stop) in enumerate(bounds):
        pair[block, : stop - start] = cells[:, start:stop].transpose(1, 0, 2)
    starts = np.array([start for start, _ in bounds])[:, None]
    rows = np.minimum(starts + np.arange(height), layer.rows - 1)
    return pair.reshape(len(bounds), height, -1), rows


def _conv_blocks(
    layer: MappedLayer, cells: Floats, node: ir.Node, idle: Floats
) -> tuple[Floats, npt.NDArray[np.int64]]:
    """pair [groups x blocks x conversions x columns, channels a block, *kernel] and the input channel of every block's
    every input.

    Blocks that share a channel (flat split) each take it whole; cells outside a block are zero. Groups that are driven
    together are one, with idle cells between them.

    cells: what conversions see [conversions, rows, columns]. idle: what they see of a weight of 0 [conversions, 1, 1].
    """
    bounds, size, together = layer.read_bounds, layer.kernel_size, layer.groups_per_read or 1
    channels, columns, sets = layer.rows // size, cells.shape[2] // layer.groups, layer.groups // together
    first = [start // size for start, _ in bounds]
    width = max(-(-stop // size) - begin for begin, (_, stop) in zip(first, bounds, strict=True))
    conversions = len(cells)
    targets = cells.reshape(conversions, layer.rows, sets, together, columns).transpose(2, 0, 3, 4, 1)
    pair = np.zeros((sets, len(bounds), conversions, together, columns, together, width * size), np.float32)
    for block, (start, stop) in enumerate(bounds):
        offset = start - first[block] * size
        rows = slice(offset, offset + stop - start)
        pair[:, block, ..., rows] = idle.reshape(-1, 1, 1, 1, 1)
        for group in range(together):
            pair[:, block, :, group, :, group, rows] = targets[:, :, group, :, start:stop]
    index = np.minimum(np.array(first)[:, None] + np.arange(width), channels - 1)
    in_groups = channels * np.arange(layer.groups).reshape(sets, 1, together, 1)
    index = (in_groups + index[None, :, None, :]).reshape(-1)
    return pair.reshape(-1, together * width, *node.attributes["kernel_shape"].as_ints()), index
