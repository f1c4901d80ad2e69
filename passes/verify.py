"""Compare two networks by running both in onnxruntime."""

import hashlib
import math

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir
import onnxruntime

from cimc.errors import CimcError
from passes.check_file import MOST_ELEMENTS
from passes.messages import one_line

_FATAL_ONLY = 4
_LARGE = 4096  # bytes
OPEN_SIZE = 3


Arrays = list[npt.NDArray[np.generic]]
Feeds = dict[str, npt.NDArray[np.generic]]


def random_inputs(model: ir.Model, batch: int, seed: int, input_range: tuple[float, float] = (0.0, 1.0)) -> Feeds:
    """Random inputs by name: floats uniform within `input_range`, integers 0 or 1 (they may index), booleans.

    The first open size of an input is the batch; others, such as the length of a cache that grows, are `OPEN_SIZE`.

    Raises:
        CimcError: sizes are not known, or an input is of another type.
    """
    random = np.random.default_rng(seed)
    low, high = (np.float32(limit) for limit in input_range)
    feeds: dict[str, npt.NDArray[np.generic]] = {}
    for value in model.graph.inputs:
        if value.is_initializer():
            continue
        sizes = _sizes(value, batch)
        if value.dtype == ir.DataType.FLOAT:
            feeds[value.name or ""] = low + (high - low) * random.random(sizes, dtype=np.float32)
        else:
            assert value.dtype is not None
            low_integer, high_integer = _integers(value)
            integers = random.integers(low_integer, high_integer + 1, sizes)
            feeds[value.name or ""] = integers.astype(value.dtype.numpy())
    return feeds


def differences(expected: Arrays, computed: Arrays) -> list[float]:
    """The largest absolute difference of each output. Raises CimcError when their sizes differ."""
    if [array.shape for array in expected] != [array.shape for array in computed]:
        raise CimcError("the lowered network computes outputs of other sizes than the network; report this as a fault")
    return [_difference(a, b) for a, b in zip(expected, computed, strict=True)]


def _difference(expected: npt.NDArray[np.generic], computed: npt.NDArray[np.generic]) -> float:
    """The largest absolute difference; equal infinities (masked scores) and two NaN do not differ."""
    a, b = expected.astype(np.float64), computed.astype(np.float64)
    with np.errstate(invalid="ignore"):
        return float(np.max(np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b)), initial=0.0))


def rms_share(expected: Arrays, computed: Arrays) -> float:
    """The root mean square of the difference as a share of the output's; of the outputs of floats, the largest."""
    shares = [0.0]
    for one, other in zip(expected, computed, strict=True):
        if one.dtype.kind == "f":
            a, b = one.astype(np.float64), other.astype(np.float64)
            known = np.isfinite(a) & np.isfinite(b)
            power = float(np.sum(np.square(a[known])))
            if power > 0:
                shares.append(math.sqrt(np.sum(np.square(a[known] - b[known])) / power))
    return max(shares)


def run(model: ir.Model, feeds: Feeds, *, optimise: bool = False) -> Arrays:
    """The outputs of `model` on `feeds`, computed by onnxruntime on the CPU, which shares the weights with `model`.

    optimise: with operators fused and reordered, and so rounded otherwise.

    Raises:
        CimcError: onnxruntime cannot load or run the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # waiting threads would burn a core
    # Without it sums of products of 8-bit integers saturate at 16 bits, on processors without instructions for them.
    options.add_session_config_entry("session.x64quantprecision", "1")
    # For one run, folded and packed copies of the weights cost more than they save.
    level = onnxruntime.GraphOptimizationLevel
    options.graph_optimization_level = level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    content, weights = _without_weights(model)
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        results = session.run(None, {**feeds, **weights})
    # onnxruntime's exception types share no base class of their own.
    except Exception as error:
        raise CimcError(f"onnxruntime cannot run the network: {one_line(error)}; export the network again") from None
    return [np.asarray(result) for result in results]


def digest(model: ir.Model) -> bytes:
    """SHA-256 of a network with its weights: of equal networks the same."""
    content, weights = _without_weights(model)
    found = hashlib.sha256(content)
    for array in weights.values():
        found.update(array.reshape(-1).view(np.uint8).data)
    return found.digest()


def _without_weights(model: ir.Model) -> tuple[bytes, Feeds]:
    """The serialized model with its large constants as inputs instead, and their arrays by name."""
    taken = {value.name for value in (*model.graph.inputs, *model.graph.outputs)}
    tensors: dict[ir.Value, ir.TensorProtocol] = {
        value: value.const_value
        for value in model.graph.initializers.values()
        if value.const_value is not None and value.const_value.nbytes >= _LARGE and value.name not in taken
    }
    try:
        for value, tensor in tensors.items():
            nowhere = ir.ExternalTensor(
                "", 0, 0, tensor.dtype, shape=value.shape or ir.Shape(()), name=value.name or ""
            )
            value.const_value = nowhere  # not written into the file
        proto = ir.to_proto(model)
    finally:
        for value, tensor in tensors.items():
            value.const_value = tensor
    kept = [one for one in proto.graph.initializer if one.data_location != onnx.TensorProto.EXTERNAL]
    del proto.graph.initializer[:]
    proto.graph.initializer.extend(kept)
    weights = {}
    for value, tensor in tensors.items():
        name, sizes = value.name or "", list(tensor.shape.numpy())
        proto.graph.input.append(onnx.helper.make_tensor_value_info(name, int(tensor.dtype), sizes))
        weights[name] = np.ascontiguousarray(tensor.numpy())
    return proto.SerializeToString(), weights


def _integers(value: ir.Value) -> tuple[int, int]:
    """The range of random integers: 0 or 1, because they may index; as lengths of sequences 1 to the longest."""
    for use in value.uses():
        if use.node.op_type in ("LSTM", "GRU", "RNN") and use.idx == 4:
            x = use.node.inputs[0]
            longest = x.shape[0] if x is not None and x.shape is not None and len(x.shape) else 1
            return 1, longest if isinstance(longest, int) else 1
    return 0, 1


def _sizes(value: ir.Value, batch: int) -> tuple[int, ...]:
    kind = value.dtype
    if kind != ir.DataType.FLOAT and (kind is None or not (kind.is_integer() or kind == ir.DataType.BOOL)):
        raise CimcError(f"input '{value.name}' is not float32 or integer; export the network with such inputs")
    if value.shape is None:
        raise CimcError(f"the sizes of input '{value.name}' are not known; give them with --shape")
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    if None in sizes:  # on any axis: recurrent networks have the batch second
        sizes[sizes.index(None)] = batch
    known = tuple(OPEN_SIZE if size is None else size for size in sizes)
    if math.prod(known) > MOST_ELEMENTS:
        raise CimcError(f"input '{value.name}' is too large to compare on; compile it with --no-verify")
    return known
