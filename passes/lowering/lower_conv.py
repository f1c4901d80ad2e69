"""Conv with constant weights becomes a crossbar layer, with all its sizes explicit."""

import onnx_ir as ir

from cimc.errors import CimcError
from cimc.window import Window
from passes.crossbar_functions import crossbar_bias, crossbar_conv, with_bias
from passes.graph_edit import float_constant, owner, replace_node, source_of
from passes.messages import describe


class LowerConv(ir.passes.InPlacePass):
    """Replace Conv nodes with a constant kernel (and bias, if any); others stay."""

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        """Lower all such nodes.

        Raises:
            CimcError: automatic padding needs a size that is not static, or groups and channels do not fit.
        """
        count = 0
        for node in model.graph:
            lowered = _lower(node) if node.op_type == "Conv" and not node.domain else None
            if lowered:
                replace_node(node, [lowered])
                count += 1
        return ir.passes.PassResult(model, modified=bool(count))


def _lower(node: ir.Node) -> ir.Node | None:
    x, kernel = node.inputs[:2]
    bias_value = node.inputs[2] if len(node.inputs) > 2 else None
    weight, bias = float_constant(kernel), float_constant(bias_value)
    if x is None or kernel is None or weight is None or (bias_value is not None and bias is None):
        return None
    window, groups = _window(node, x, weight.shape[2:]), node.attributes.get_int("group", 1)
    channels = x.shape[1] if x.shape is not None and len(x.shape) == weight.ndim else None
    per_group = channels if groups < 1 or not isinstance(channels, int) else channels / groups
    if groups < 1 or weight.shape[0] % groups or per_group not in (None, weight.shape[1]):
        sizes = "x".join(map(str, weight.shape))
        raise CimcError(
            f"{describe(node)} has {groups} groups, a kernel of {sizes} and {channels or 'unknown'} "
            f"channels, which do not fit; export the network again"
        )
    name = node.name or node.outputs[0].name or ""
    layer = crossbar_conv(owner(node), x, weight, name, window=window, groups=groups, source=kernel)
    if bias is None or bias_value is None:
        return layer
    return with_bias(layer, crossbar_bias(owner(node), layer, bias, source_of(bias_value)))


def _window(node: ir.Node, x: ir.Value, kernel_shape: tuple[int, ...]) -> Window:
    ones = (1,) * len(kernel_shape)
    strides = tuple(node.attributes.get_ints("strides", ones) or ones)
    dilations = tuple(node.attributes.get_ints("dilations", ones) or ones)
    mode = node.attributes.get_string("auto_pad", "NOTSET")
    pads = (0, 0) * len(kernel_shape)
    if mode == "NOTSET":
        pads = tuple(node.attributes.get_ints("pads", pads) or pads)
    elif mode in ("SAME_UPPER", "SAME_LOWER"):
        spatial = tuple(x.shape)[2:] if x.shape is not None else ()
        sizes = [size for size in spatial if isinstance(size, int)]
        if len(sizes) != len(kernel_shape):
            raise CimcError(
                f"{describe(node)} pads automatically, and the height and width of its input '{x.name}' are not known; "
                f"give the inputs of the network static sizes"
            )
        totals = [
            max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
            for size, stride, kernel, dilation in zip(sizes, strides, kernel_shape, dilations, strict=True)
        ]
        small, large = [total // 2 for total in totals], [total - total // 2 for total in totals]
        pads = tuple(small + large if mode == "SAME_UPPER" else large + small)
    return Window(tuple(kernel_shape), strides, pads, dilations)
