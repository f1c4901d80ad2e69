"""Quantisers of QONNX, as Brevitas and hls4ml write them, become standard operators: no runtime knows their domain.

Quant (qonnx.custom_op.general) rounds x / scale + zero point to a number of bits and scales it back.
"""

import numpy as np
import onnx_ir as ir
from onnx_ir.passes import common

from passes.graph_edit import constant
from passes.lowering.expand import Builder, Rule, expand
from passes.lowering.upgrade_opset import UpgradeOpset

_DOMAINS = ("qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general")
_ROUNDINGS = {"ROUND": "Round", "CEIL": "Ceil", "FLOOR": "Floor"}


def expand_qonnx(model: ir.Model) -> ir.Model:
    """`model` with all quantisers expanded that have constant scales and bits; brought to opset 21 if there are any."""
    if any(node.domain in _DOMAINS for node in model.graph):
        model = UpgradeOpset()(model).model
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
        expand(model, _RULES)
    return model


def _quant(build: Builder) -> list[ir.Value] | None:
    """Quant(x, scale, zero point, bits)."""
    attributes = build.node.attributes
    scale, zero, bits = (constant(build.needed(place)) for place in (1, 2, 3))
    rounding = attributes.get_string("rounding_mode", "ROUND").upper()
    if scale is None or zero is None or bits is None or bits.size != 1 or rounding not in _ROUNDINGS:
        return None
    signed, narrow = attributes.get_int("signed", 1), attributes.get_int("narrow", 0)
    count = 2.0 ** float(bits.item())
    low = -count / 2 + narrow if signed else 0.0
    high = count / 2 - 1 if signed else count - 1 - narrow
    if signed and count == 2:
        return None if np.any(zero) else _bipolar(build)
    scale, zero = scale.astype(np.float32), zero.astype(np.float32)
    x, axis = build.needed(0), _axis(scale)
    if rounding == "ROUND" and count <= 2**16 and axis is not None and np.all(zero == zero.flat[0]) and _whole(zero):
        # With the range cut at whole levels first, the levels of 8 or 16 bits are those of fewer bits.
        kind = np.dtype(f"{'' if signed else 'u'}int{8 if count <= 2**8 else 16}")
        limits = [build.constant(np.subtract(limit, zero, dtype=np.float32) * scale) for limit in (low, high)]
        inside = build("Min", build("Max", x, limits[0]), limits[1])
        vector = build.constant(scale.reshape(-1 if scale.size > 1 else ()))
        points = build.constant(np.full(scale.size if scale.size > 1 else (), zero.flat[0]).astype(kind))
        levels = build("QuantizeLinear", inside, vector, points, axis=axis)
        return [build("DequantizeLinear", levels, vector, points, axis=axis)]
    steps, shift = build.constant(scale), build.constant(zero)
    level = build("Clip", build("Add", build("Div", x, steps), shift), build.constant(low), build.constant(high))
    return [build("Mul", build("Sub", build(_ROUNDINGS[rounding], level), shift), steps)]


def _bipolar(build: Builder) -> list[ir.Value]:
    """BipolarQuant(x, scale): the scale, with the sign of x."""
    positive = build("GreaterOrEqual", build.needed(0), build.constant(0.0))
    return [build("Mul", build("Where", positive, build.constant(1.0), build.constant(-1.0)), build.needed(1))]


def _axis(scale: np.ndarray) -> int | None:
    """The axis along which the scale differs, counted from the end; None: several."""
    axes = [axis - scale.ndim for axis, size in enumerate(scale.shape) if size > 1] or [-1]
    return axes[0] if len(axes) == 1 else None


def _whole(zero: np.ndarray) -> bool:
    return bool(np.all(zero == np.round(zero)))


_RULES: dict[tuple[str, str], Rule] = {
    (domain, name): rule
    for domain in _DOMAINS
    for name, rule in (("Quant", _quant), ("IntQuant", _quant), ("BipolarQuant", _bipolar))
}
