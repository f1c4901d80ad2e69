"""Give constants of a network new values, such as trained ones."""

from collections.abc import Mapping

import numpy as np
import onnx_ir as ir


def set_constants(model: ir.Model, values: Mapping[str, object]) -> ir.Model:
    """A copy of `model` with the initializers named in `values` set to them (NumPy or JAX arrays, same shapes)."""
    model = model.clone()
    for name, array in values.items():
        model.graph.initializers[name].const_value = ir.tensor(np.asarray(array), name=name)
    return model
