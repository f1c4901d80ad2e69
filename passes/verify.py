"""Compare two networks by running both in onnxruntime."""

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import onnxruntime

from cimc.errors import CimcError
from passes.messages import one_line

_ERRORS_ONLY = 3


Arrays = list[npt.NDArray[np.generic]]


def largest_difference(reference: ir.Model, lowered: ir.Model, batch: int = 2, seed: int = 0) -> float:
    """The largest absolute difference between the outputs of both networks on the same random inputs in [0, 1).

    The inputs have the sizes of `reference`, with `batch` for a first size that is not static.

    Raises:
        CimcError: another size than the first is not static, an input is not float32, or onnxruntime cannot run one.
    """
    feeds = random_inputs(reference, batch, seed)
    return difference(run(reference, feeds), run(lowered, feeds))


def random_inputs(
    model: ir.Model, batch: int, seed: int, input_range: tuple[float, float] = (0.0, 1.0)
) -> dict[str, npt.NDArray[np.float32]]:
    """Uniform random inputs within `input_range` by name. Raises CimcError for sizes that are not static."""
    random = np.random.default_rng(seed)
    low, high = (np.float32(limit) for limit in input_range)
    return {
        value.name or "": low + (high - low) * random.random(_sizes(value, batch), dtype=np.float32)
        for value in model.graph.inputs
        if not value.is_initializer()
    }


def difference(expected: Arrays, computed: Arrays) -> float:
    """The largest absolute difference of two lists of outputs. Raises CimcError when their sizes differ."""
    if [array.shape for array in expected] != [array.shape for array in computed]:
        raise CimcError("the lowered network computes outputs of other sizes than the network; report this as a fault")
    differences = [np.abs(a.astype(np.float64) - b.astype(np.float64)) for a, b in zip(expected, computed, strict=True)]
    return float(np.max([one.max(initial=0.0) for one in differences], initial=0.0))


def run(model: ir.Model, feeds: dict[str, npt.NDArray[np.float32]]) -> Arrays:
    """The outputs of `model` on `feeds`, computed by onnxruntime on the CPU.

    Raises:
        CimcError: onnxruntime cannot load or run the model.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    content = ir.to_proto(model).SerializeToString()
    try:
        session = onnxruntime.InferenceSession(content, options, ["CPUExecutionProvider"])
        results = session.run(None, feeds)
    # onnxruntime's exception types share no base class of their own.
    except Exception as error:
        raise CimcError(f"onnxruntime cannot run the network: {one_line(error)}; export the network again") from None
    return [np.asarray(result) for result in results]


def _sizes(value: ir.Value, batch: int) -> tuple[int, ...]:
    if value.dtype != ir.DataType.FLOAT:
        raise CimcError(f"input '{value.name}' is not float32; export the network with float32 inputs")
    sizes = None if value.shape is None else [size if isinstance(size, int) else None for size in value.shape]
    if sizes and sizes[0] is None:
        sizes[0] = batch
    if sizes is None or None in sizes:
        raise CimcError(
            f"input '{value.name}' has a size that is not static; give it static sizes, only the batch may vary"
        )
    return tuple(size for size in sizes if size is not None)
