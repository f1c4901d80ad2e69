"""The functions of a chip-exact network, as ONNX text: converters, planes of the inputs, reads, layers.

One layer is

    u = clip(round(x * gain))                    InputConverter
    planes of u, each read                       `cimc.planes`
    p = MVMs of all row blocks at once           a grouped Conv (a group is a row block) or a batched MatMul
    counted = code(p) - offset * sum of inputs   OutputConverter; of a voltage the code times the column's total
    d = sum over conversions, blocks and planes  each times what it counts
    y = (d + shift) * scale                      shift = bias / scale

The products are reshaped before they are scaled, because onnxruntime would otherwise fold the scale into the weights.
"""

from collections.abc import Sequence

import numpy as np

from cimc.chip import Chip
from cimc.planes import Planes, planes_of
from cimc.units import levels_per_product, reference_target

_HEADER = '<domain: "ai.cimc", opset_import: ["" : {opset}, "ai.cimc" : 1]>'

# `pair` holds what the conversions of weights see; `ones`, of chips whose devices hold an offset, adds up the inputs.
_READ_CONV = """
ReadConv{own} <{attributes}> (u, pair, channels{more}) => (d) {{
    lines = Gather <axis = 1> (u, channels)
    products = Conv <group: int = @blocks, kernel_shape: ints = @kernel_shape, strides: ints = @strides,
                     pads: ints = @pads, dilations: ints = @dilations> (lines, pair)
    block_shape = Constant <value_ints: ints = @block_shape> ()
    by_block = Reshape (products, block_shape)
    {convert}
    blocks_axis = Constant <value_ints = [2]> ()
    summed = ReduceSum <keepdims = 0> (counted, blocks_axis)
    {weigh}
    output_shape = Constant <value_ints: ints = @output_shape> ()
    d = Reshape (weighed, output_shape)
}}"""

# The sum of the inputs of every read, [.., blocks, 1, ..] as its products.
_CONV_INPUTS = (
    "summed_inputs = Conv <group: int = @blocks, kernel_shape: ints = @kernel_shape, strides: ints = @strides, "
    "pads: ints = @pads, dilations: ints = @dilations> (lines, ones)",
    "input_shape = Constant <value_ints: ints = @input_shape> ()",
    "inputs = Reshape (summed_inputs, input_shape)",
)
_MATMUL_INPUTS = ("summed_inputs = MatMul (vectors, ones)", "inputs = Squeeze (summed_inputs, vector_axis)")

_READ_MATMUL = """
ReadMatMul{own} (u, pair, rows{more}) => (d) {{
    lines = Gather <axis = -1> (u, rows)
    vector_axis = Constant <value_ints = [-2]> ()
    vectors = Unsqueeze (lines, vector_axis)
    products = MatMul (vectors, pair)
    by_block = Squeeze (products, vector_axis)
    {convert}
    blocks_axis = Constant <value_ints = [-2]> ()
    summed = ReduceSum <keepdims = 0> (counted, blocks_axis)
    {weigh}
    d = Identity (weighed)
}}"""

_LAYER = """
{name} {attributes} (x, pair, index, gain, shift, scale{more}) => (y) {{
    u = ai.cimc.InputConverter{own} (x, gain)
    {phases}
    shifted = Add (d, shift)
    y = Mul (shifted, scale)
}}"""

CONV_ATTRIBUTES = ("kernel_shape", "strides", "pads", "dilations", "blocks", "block_shape", "output_shape")
_INPUT_SHAPE = "input_shape"  # of the sums of inputs, where they are needed


def conv_attributes(chip: Chip) -> tuple[str, ...]:
    """The attributes of a convolution layer of that chip."""
    return (*CONV_ATTRIBUTES, _INPUT_SHAPE) if sums_inputs(chip) else CONV_ATTRIBUTES


def further_inputs(chip: Chip) -> tuple[str, ...]:
    """What layers of that chip have beside pair, index, gain, shift and scale."""
    return (*(("ones",) if sums_inputs(chip) else ()), *(("totals",) if chip.adc.sense == "voltage" else ()))


def sums_inputs(chip: Chip) -> bool:
    """Whether an offset is subtracted that grows with the inputs."""
    return chip.scheme.offset_uS != 0


def function_texts(chip: Chip, opset: int, variant: str = "") -> list[str]:
    """The functions with the chip's converters in them; an ideal converter passes values on.

    variant: what their names end in, of a layer's own converters.
    """
    header = _HEADER.format(opset=opset)
    # Layers with signed inputs have converters of their own where the chip has other codes for them.
    differs = chip.input.bits is not None and chip.top_input(True) != chip.top_input(False)
    texts = []
    for signed in (False, True):
        suffix = variant + ("Signed" if signed else "")
        own = variant + ("Signed" if signed and differs else "")
        if not signed or differs:
            texts += [_input_converter(chip, signed, own), _output_converter(chip, signed, own)]
            texts += _reads(chip, signed, own)
        texts += _layers(chip, signed, suffix, own)
    return [header + text for text in texts]


def _layers(chip: Chip, signed: bool, suffix: str, own: str) -> list[str]:
    names = conv_attributes(chip)
    attributes = "<" + ", ".join(names) + ">"
    call = f"ReadConv{own} <" + ", ".join(f"{name}: {_kind(name)} = @{name}" for name in names) + ">"
    planes, more = planes_of(chip, signed), "".join(f", {name}" for name in further_inputs(chip))
    return [
        _LAYER.format(name=name + suffix, attributes=attributes, own=own, phases=_phases(planes, read, more), more=more)
        for name, attributes, read in (("ChipConv", attributes, call), ("ChipMatMul", "", f"ReadMatMul{own}"))
    ]


def _kind(attribute: str) -> str:
    return "int" if attribute == "blocks" else "ints"


def _phases(planes: Planes, read: str, more: str) -> str:
    """The reads of all planes of `u`, and their sum `d`."""
    lines, parts = [], ["u"]
    if planes.two_phase:
        lines += [
            "zero = Constant <value_float = 0.0> ()",
            "positive = Max (u, zero)",
            "negated = Neg (u)",
            "negative = Max (negated, zero)",
        ]
        parts = ["positive", "negative"]
    elif planes.sign_bit:
        lines += [
            "zero = Constant <value_float = 0.0> ()",
            "below = Less (u, zero)",
            "sign = Cast <to = 1> (below)",
            *_scaled("lift", "sign", planes.sign_bit),
            "lifted = Add (u, lift)",
        ]
        parts = ["lifted"]
    applied = []
    for part in parts:
        for place, width in enumerate(planes.widths[:-1]):
            digit = f"{part}_{place}"
            lines += [
                *_scaled(f"{digit}_shifted", part, 2.0**-width),
                f"{digit}_rest = Floor ({digit}_shifted)",
                *_scaled(f"{digit}_back", f"{digit}_rest", 2**width),
                f"{digit} = Sub ({part}, {digit}_back)",
            ]
            applied.append(digit)
            part = f"{digit}_rest"
        applied.append(part)
    if planes.sign_bit:
        applied.append("sign")
    lines += [f"d_{plane} = ai.cimc.{read} ({name}, pair, index{more})" for plane, name in enumerate(applied)]
    terms = [f"d_{plane}" for plane in range(len(applied))]
    return _join([*lines, *_weighted_sum("d", terms, planes.weights)])


def _scaled(name: str, value: str, factor: float) -> list[str]:
    return [f"{name}_factor = Constant <value_float = {float(factor)!r}> ()", f"{name} = Mul ({value}, {name}_factor)"]


def _weighted_sum(name: str, terms: Sequence[str], weights: Sequence[float]) -> list[str]:
    """Lines of `cimc.scheme.weighted_sum`, in the same order."""
    lines: list[str] = []
    total = ""
    for index, (term, weight) in enumerate(zip(terms, weights, strict=True)):
        if abs(weight) != 1:
            lines += _scaled(f"{name}_scaled_{index}", term, float(np.float32(abs(weight))))
            term = f"{name}_scaled_{index}"
        last = index == len(terms) - 1
        result = name if last else f"{name}_to_{index}"
        if not total:
            operator = "Identity" if weight > 0 else "Neg"
            if operator == "Identity" and not last:
                total = term
                continue
            lines.append(f"{result} = {operator} ({term})")
        else:
            lines.append(f"{result} = {'Add' if weight > 0 else 'Sub'} ({total}, {term})")
        total = result
    return lines


def _reads(chip: Chip, signed: bool, own: str) -> list[str]:
    """The reads of one plane, of convolutions and of products."""
    more = "".join(f", {name}" for name in further_inputs(chip))
    attributes, counted = ", ".join(conv_attributes(chip)), _join(_counted(chip, own))
    return [
        text.format(
            own=own, attributes=attributes, more=more, convert=counted, weigh=_join(_weighed(chip, signed, own, axis))
        )
        for text, axis in ((_READ_CONV, 2), (_READ_MATMUL, -1))
    ]


def _counted(chip: Chip, own: str) -> list[str]:
    """Codes of the products, by conversion; see `runtime.crossbar.conversions`."""
    converter = f"ai.cimc.OutputConverter{own}"
    if chip.adc.sense == "voltage":
        return ["means = Div (by_block, totals)", f"codes = {converter} (means)", "counted = Mul (codes, totals)"]
    return [f"counted = {converter} (by_block)"]


def _weighed(chip: Chip, signed: bool, own: str, axis: int) -> list[str]:
    """The sum over the conversions, which lie along that axis, less the offset."""
    scheme = chip.scheme
    parts = [f"part_{index}" for index in range(len(scheme.signs))]
    split = [f"{', '.join(parts)} = Split <axis = {axis}, num_outputs = {len(parts)}> (summed)"]
    lines = split if len(parts) > 1 else ["part_0 = Identity (summed)"]
    if not scheme.offset_uS:
        return [*lines, *_weighted_sum("weighed", parts, scheme.signs)]
    lines += [*_weighted_sum("with_offset", parts, scheme.signs), *(_CONV_INPUTS if axis == 2 else _MATMUL_INPUTS)]
    exact_uS = scheme.offset_uS
    if scheme.reference is not None:
        exact_uS -= scheme.reference.times * scheme.reference.target_uS
        lines += [
            *_scaled("reference_current", "inputs", float(reference_target(chip))),
            f"reference_code = ai.cimc.OutputConverter{own} (reference_current)",
            "reference_sum = ReduceSum <keepdims = 0> (reference_code, blocks_axis)",
            *_scaled("reference", "reference_sum", scheme.reference.times),
            "referred = Sub (with_offset, reference)",
        ]
    else:
        lines.append("referred = Identity (with_offset)")
    exact = float(np.float32(exact_uS * levels_per_product(chip, signed)))
    return [
        *lines,
        "input_sum = ReduceSum <keepdims = 0> (inputs, blocks_axis)",
        *_scaled("exact", "input_sum", exact),
        "weighed = Sub (referred, exact)",
    ]


def _join(lines: Sequence[str]) -> str:
    return "\n    ".join(lines)


def _input_converter(chip: Chip, signed: bool, own: str) -> str:
    if chip.input.bits is None:
        return f"InputConverter{own} (x, gain) => (u) {{ u = Mul (x, gain) }}"
    top = float(chip.top_input(signed))
    return f"""InputConverter{own} (x, gain) => (u) {{
        scaled = Mul (x, gain)
        rounded = Round (scaled)
        low = Constant <value_float = {-top}> ()
        high = Constant <value_float = {top}> ()
        u = Clip (rounded, low, high)
    }}"""


def _output_converter(chip: Chip, signed: bool, own: str) -> str:
    if chip.adc.bits is None:
        return f"OutputConverter{own} (product) => (code) {{ code = Identity (product) }}"
    level = repr(float(np.float32(levels_per_product(chip, signed))))
    top = float(chip.top_code(signed))
    return f"""OutputConverter{own} (product) => (code) {{
        per_product = Constant <value_float = {level}> ()
        level = Mul (product, per_product)
        rounded = Round (level)
        low = Constant <value_float = {-top if chip.bipolar(signed) else 0.0}> ()
        high = Constant <value_float = {top}> ()
        code = Clip (rounded, low, high)
    }}"""
