"""Digital operators in JAX, one function an ONNX operator (opset 21), looked up by name in `OPERATORS`.

Each takes the node's inputs (None where one is left out) and its attributes, and returns its output, or a tuple of its
outputs. Inputs that shape the result (axes, target shapes) arrive as NumPy arrays, because they must be known when the
network is traced. Batch normalisation and dropout, which differ in training, are executed in `runtime.network`.
"""

from runtime.operators.elementwise import ELEMENTWISE
from runtime.operators.indexing import INDEXING
from runtime.operators.kinds import Operators
from runtime.operators.pooling import POOLING
from runtime.operators.products import PRODUCTS
from runtime.operators.quantization import QUANTIZATION
from runtime.operators.reductions import REDUCTIONS
from runtime.operators.resize import RESIZE
from runtime.operators.shapes import SHAPES

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
