"""The chip-exact network, a package's model.onnx: crossbar layers as converters, array reads, sums and scales.

Runs in any ONNX runtime. Noise-free: each array column gives clip(round(level)) of the programmed targets. One layer is

    u = clip(round(x * gain))                    InputConverter
    p = MVMs of all row blocks at once           a grouped Conv (a group is a row block) or a batched MatMul
    d = sum over blocks (code(p+) - code(p-))    OutputConverter and PairSum
    y = (d + shift) * scale                      shift = bias / scale

with u and the conductances such that every product below the ADC's range is exact in float32, in any order of addition.
The products are reshaped before they are scaled, because onnxruntime would otherwise fold the scale into the weights.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from cimc.chip import Chip
from cimc.mapping import MappedLayer, Mapping
from cimc.operators import CROSSBAR_DOMAIN, CROSSBAR_OPERATORS
from cimc.program import LayerProgram, Program
from cimc.units import count_scale, dac_gain, idle_target, levels_per_product
from passes.crossbar_functions import crossbar_layers
from passes.graph_edit import add_constant, new_node, owner
from passes.set_constants import set_constants

_HEADER = '<domain: "ai.cimc", opset_import: ["" : {opset}, "ai.cimc" : 1]>'

_READ_CONV = """
ReadConv <kernel_shape, strides, pads, dilations, blocks, block_shape, output_shape> (u, pair, channels) => (d) {
    lines = Gather <axis = 1> (u, channels)
    products = Conv <group: int = @blocks, kernel_shape: ints = @kernel_shape, strides: ints = @strides,
                     pads: ints = @pads, dilations: ints = @dilations> (lines, pair)
    block_shape = Constant <value_ints: ints = @block_shape> ()
    by_block = Reshape (products, block_shape)
    codes = ai.cimc.OutputConverter (by_block)
    blocks_axis = Constant <value_ints = [2]> ()
    summed = ReduceSum <keepdims = 0> (codes, blocks_axis)
    plus, minus = Split <axis = 2, num_outputs = 2> (summed)
    difference = Sub (plus, minus)
    output_shape = Constant <value_ints: ints = @output_shape> ()
    d = Reshape (difference, output_shape)
}"""

_READ_MATMUL = """
ReadMatMul (u, pair, rows) => (d) {
    lines = Gather <axis = -1> (u, rows)
    vector_axis = Constant <value_ints = [-2]> ()
    vectors = Unsqueeze (lines, vector_axis)
    products = MatMul (vectors, pair)
    by_block = Squeeze (products, vector_axis)
    codes = ai.cimc.OutputConverter (by_block)
    blocks_axis = Constant <value_ints = [-2]> ()
    summed = ReduceSum <keepdims = 0> (codes, blocks_axis)
    plus, minus = Split <axis = -1, num_outputs = 2> (summed)
    d = Sub (plus, minus)
}"""

_TWO_PHASES = """
    zero = Constant <value_float = 0.0> ()
    positive = Max (u, zero)
    negated = Neg (u)
    negative = Max (negated, zero)
    d_positive = ai.cimc.{read} (positive, pair, index)
    d_negative = ai.cimc.{read} (negative, pair, index)
    d = Sub (d_positive, d_negative)"""

_LAYER = """
{name} {attributes} (x, pair, index, gain, shift, scale) => (y) {{
    u = ai.cimc.InputConverter (x, gain)
    {phases}
    shifted = Add (d, shift)
    y = Mul (shifted, scale)
}}"""

_CONV_ATTRIBUTES = ("kernel_shape", "strides", "pads", "dilations", "blocks", "block_shape", "output_shape")


def chip_network(model: ir.Model, mapping: Mapping, chip: Chip, program: Program) -> ir.Model:
    """The network of one programmed chip, from the lowered network; a new model with the program's constants.

    Args:
        model: a network lowered by `passes.pipeline.lower`; not changed.
        mapping: its mapping on `chip`.
        chip: the chip.
        program: targets and scales of every crossbar layer, and digital constants.
    """
    model = set_constants(model, program.digital)
    graph = model.graph
    for name, nodes in crossbar_layers(model).items():
        layer = mapping.layer(name)
        constants = _constants(graph, nodes[0], layer, chip, program.layers[name])
        for node in nodes:
            replacement = _chip_node(node, layer, constants, len(chip.scheme.signs))
            ir.convenience.replace_nodes_and_values(
                owner(node), node, [node], [replacement], node.outputs, replacement.outputs
            )
    for identifier in [key for key in model.functions if key[1] in CROSSBAR_OPERATORS]:
        del model.functions[identifier]
    for text in _function_texts(chip, model.opset_imports[""]):
        function = ir.from_proto(onnx.parser.parse_function(text))
        model.functions[function.identifier()] = function
    unused = [name for name, value in graph.initializers.items() if not value.uses() and not value.is_graph_output()]
    for name in unused:
        del graph.initializers[name]
    return model


def _chip_node(node: ir.Node, layer: MappedLayer, constants: list[ir.Value], devices: int) -> ir.Node:
    """The chip's form of a node that uses a crossbar layer."""
    x, y = node.inputs[0], node.outputs[0]
    assert x is not None
    assert y.shape is not None
    convolution = node.op_type == "CrossbarConv"
    attributes = []
    if convolution:
        spatial = tuple(int(extent) for extent in y.shape[2:] if isinstance(extent, int))
        blocks, groups = len(layer.read_bounds), layer.groups // (layer.groups_per_read or 1)
        attributes = [node.attributes[name] for name in _CONV_ATTRIBUTES[:4]]
        attributes += [
            ir.AttrInt64("blocks", groups * blocks),
            ir.AttrInt64s("block_shape", (0, groups, blocks, devices * layer.columns // groups, -1)),
            ir.AttrInt64s("output_shape", (0, layer.columns, *spatial)),
        ]
    operator = ("ChipConv" if convolution else "ChipMatMul") + ("Signed" if layer.signed_input else "")
    return new_node(operator, [x, *constants], node.name or "", attributes, domain=CROSSBAR_DOMAIN)


def _constants(graph: ir.Graph, node: ir.Node, layer: MappedLayer, chip: Chip, program: LayerProgram) -> list[ir.Value]:
    """The constants of a layer as initializers `<layer>.pair`, `.index` and so on."""
    convolution = node.op_type == "CrossbarConv"
    pair, index = (
        _conv_blocks(layer, program, node, idle_target(chip)) if convolution else _matmul_blocks(layer, program)
    )
    scale = count_scale(program.weight_range, program.input_range, chip) * program.gain
    shift = np.zeros(layer.columns, np.float32) if program.bias is None else program.bias / scale
    factor = np.float32(1) if program.input_factor is None else program.input_factor
    digital = {"gain": dac_gain(program.input_range * factor, chip), "shift": shift, "scale": scale}
    constants: dict[str, npt.NDArray[Any]] = {"pair": pair, "index": index}
    for key, value in digital.items():
        array = np.asarray(value, np.float32)
        # Of a convolution channels and columns come before the spatial axes.
        tail = (1,) * len(node.attributes["kernel_shape"].as_ints()) if convolution and array.ndim else ()
        constants[key] = array.reshape(array.shape + tail)
    return [add_constant(graph, f"{layer.name}.{key}", array) for key, array in constants.items()]


def _matmul_blocks(layer: MappedLayer, program: LayerProgram) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """pair [blocks, block rows, 2 columns] and the input row of every word line [blocks, block rows]."""
    bounds = layer.read_bounds
    height = max(stop - start for start, stop in bounds)
    pair = np.zeros((len(bounds), height, len(program.targets), layer.columns), np.float32)
    for block, (start, stop) in enumerate(bounds):
        pair[block, : stop - start] = program.targets[:, start:stop].transpose(1, 0, 2)
    starts = np.array([start for start, _ in bounds])[:, None]
    rows = np.minimum(starts + np.arange(height), layer.rows - 1)
    return pair.reshape(len(bounds), height, -1), rows


def _conv_blocks(
    layer: MappedLayer, program: LayerProgram, node: ir.Node, idle: np.float32
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """pair [groups x blocks x 2 columns, channels a block, *kernel] and the input channel of every block's every input.

    Blocks that share a channel (flat split) each take it whole; cells outside a block are zero. Groups that are driven
    together are one, with idle cells between them.
    """
    bounds, size, together = layer.read_bounds, layer.kernel_size, layer.groups_per_read or 1
    channels, columns, sets = layer.rows // size, layer.columns // layer.groups, layer.groups // together
    first = [start // size for start, _ in bounds]
    width = max(-(-stop // size) - begin for begin, (_, stop) in zip(first, bounds, strict=True))
    devices = len(program.targets)
    targets = program.targets.reshape(devices, layer.rows, sets, together, columns).transpose(2, 0, 3, 4, 1)
    pair = np.zeros((sets, len(bounds), devices, together, columns, together, width * size), np.float32)
    for block, (start, stop) in enumerate(bounds):
        offset = start - first[block] * size
        rows = slice(offset, offset + stop - start)
        pair[:, block, ..., rows] = idle
        for group in range(together):
            pair[:, block, :, group, :, group, rows] = targets[:, :, group, :, start:stop]
    index = np.minimum(np.array(first)[:, None] + np.arange(width), channels - 1)
    in_groups = channels * np.arange(layer.groups).reshape(sets, 1, together, 1)
    index = (in_groups + index[None, :, None, :]).reshape(-1)
    return pair.reshape(-1, together * width, *node.attributes["kernel_shape"].as_ints()), index


def _function_texts(chip: Chip, opset: int) -> list[str]:
    """The functions with the chip's converters in them; an ideal converter passes values on."""
    header = _HEADER.format(opset=opset)
    conv_attributes = "<" + ", ".join(_CONV_ATTRIBUTES) + ">"
    conv_call = "ReadConv <" + ", ".join(f"{name}: {_kind(name)} = @{name}" for name in _CONV_ATTRIBUTES) + ">"
    phases = {True: _TWO_PHASES, False: "    d = ai.cimc.{read} (u, pair, index)"}
    layers = [
        _LAYER.format(name=name + suffix, attributes=attributes, phases=phases[signed].format(read=read))
        for name, attributes, read in (("ChipConv", conv_attributes, conv_call), ("ChipMatMul", "", "ReadMatMul"))
        for suffix, signed in (("", False), ("Signed", True))
    ]
    converters = [_input_converter(chip), _output_converter(chip)]
    return [header + text for text in [*converters, _READ_CONV, _READ_MATMUL, *layers]]


def _kind(attribute: str) -> str:
    return "int" if attribute == "blocks" else "ints"


def _input_converter(chip: Chip) -> str:
    if chip.input.bits is None:
        return "InputConverter (x, gain) => (u) { u = Mul (x, gain) }"
    top = float(2**chip.input.bits - 1)
    return f"""InputConverter (x, gain) => (u) {{
        scaled = Mul (x, gain)
        rounded = Round (scaled)
        low = Constant <value_float = {-top}> ()
        high = Constant <value_float = {top}> ()
        u = Clip (rounded, low, high)
    }}"""


def _output_converter(chip: Chip) -> str:
    if chip.adc.bits is None:
        return "OutputConverter (product) => (code) { code = Identity (product) }"
    level = repr(float(np.float32(levels_per_product(chip))))
    return f"""OutputConverter (product) => (code) {{
        per_product = Constant <value_float = {level}> ()
        level = Mul (product, per_product)
        rounded = Round (level)
        low = Constant <value_float = 0.0> ()
        high = Constant <value_float = {float(2**chip.adc.bits - 1)}> ()
        code = Clip (rounded, low, high)
    }}"""
