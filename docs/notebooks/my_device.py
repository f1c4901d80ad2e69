# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # My device
#
# A chip is a description in TOML: here a built-in one gets another memory cell, and the cell gets more read noise step
# by step, to see what the network bears.

# %%
import numpy as np
from onnx import TensorProto, helper, numpy_helper

import cimc

data = cimc.load_data("digits")
chip = cimc.load_chip("brram-256x64")
print(f"{chip.name}: {chip.cell.conductance_min_uS} to {chip.cell.conductance_max_uS} uS, {chip.array.rows} rows")

# %% [markdown]
# A network of one layer is enough, written here with the `onnx` package.

# %%
random = np.random.default_rng(0)
constants = {
    "w": random.normal(0, 0.05, (784, 10)).astype(np.float32),
    "b": np.zeros(10, np.float32),
}
graph = helper.make_graph(
    [
        helper.make_node("Flatten", ["image"], ["flat"], "flatten"),
        helper.make_node("Gemm", ["flat", "w", "b"], ["scores"], "fc"),
    ],
    "one-layer",
    [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 28, 28])],
    [helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", 10])],
    [numpy_helper.from_array(array, name) for name, array in constants.items()],
)
network = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)

# %% [markdown]
# The device of another chip in the place of the cell: `device` takes the name of a built-in device (`cimc devices`
# lists them) or the path of a TOML file of yours. What `cimc.fit_device` finds in measurements is such a file.

# %%
options = cimc.TrainingOptions(epochs=1, steps_per_epoch=60, lr=0.01)
for device in (None, "pcm-hermes"):
    compiled = cimc.compile(network, "brram-256x64", device=device)
    trained = cimc.train(compiled, data, options=options)
    print(f"{device or 'the own cell of the chip'}: {trained.figures['accuracy']:.2%}")

# %% [markdown]
# Single values: `settings` of `load_chip` changes any key of the file, with its unit in the key.

# %%
for noise in (0.0, 1.0, 4.0):
    noisy = cimc.load_chip("brram-256x64", settings={"cell": {"read_noise_uS": noise}})
    trained = cimc.train(cimc.compile(network, noisy), data, options=options)
    print(f"read noise {noise} uS: {trained.figures['accuracy']:.2%}")
