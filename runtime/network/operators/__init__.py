"""Digital operators in JAX, one function an ONNX operator (opset 21), looked up by name in `OPERATORS`.

Each takes the node's inputs (None where one is left out) and its attributes, and returns its output, or a tuple of its
outputs. Inputs that shape the result (axes, target shapes) arrive as NumPy arrays, because they must be known when the
network is traced. Batch normalisation and dropout, which differ in training, are not in the table
(`batch_norm_and_dropout.py`).
"""

from runtime.network.operators.elementwise import ELEMENTWISE
from runtime.network.operators.indexing import INDEXING
from runtime.network.operators.kinds import Operators
from runtime.network.operators.pooling import POOLING
from runtime.network.operators.products import PRODUCTS
from runtime.network.operators.quantization import QUANTIZATION
from runtime.network.operators.reductions import REDUCTIONS
from runtime.network.operators.resize import RESIZE
from runtime.network.operators.shapes import SHAPES

OPERATORS: Operators = {
    **ELEMENTWISE,
    **INDEXING,
    **POOLING,
    **PRODUCTS,
    **QUANTIZATION,
    **REDUCTIONS,
    **RESIZE,
    **SHAPES,
}
