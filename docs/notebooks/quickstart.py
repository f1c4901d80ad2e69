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
# # Quickstart
#
# From an ONNX network to virtual chips: compile, train on the arrays, export to an inference chip, program chips. Half
# a minute on a laptop, with synthetic digits that are embedded in the package.
#
# As a notebook: `jupytext --to ipynb quickstart.py`, or open this file in Jupyter with jupytext installed.

# %%
import cimc

data = cimc.load_data("digits")

# %% [markdown]
# `compile` lowers the network to crossbar layers, cuts them into arrays and counts their cost. A result as the last
# line of a cell shows itself as a table.

# %%
compiled = cimc.compile(cimc.example_model(), "brram-256x64")
compiled

# %% [markdown]
# Training runs on the arrays, with their converters and their noise; an accumulator decides which devices are written.

# %%
options = cimc.TrainingOptions(epochs=2, steps_per_epoch=100, lr=0.004)
trained = cimc.train(compiled, data, options=options)
trained

# %%
cimc.plot_training(trained)

# %% [markdown]
# What the arrays make of the test set, and the same weights in float32.

# %%
on_arrays = cimc.evaluate(trained, data)
exact = cimc.evaluate(trained, data, exact=True)
print(f"on arrays {on_arrays['accuracy']:.2%}, in float32 {exact['accuracy']:.2%}")

# %% [markdown]
# The weights are remapped to an inference chip, and virtual chips are programmed with them, each with its own errors.

# %%
package = cimc.export(trained, "hermes")
chips = cimc.deploy(package, data, chips=5)
chips

# %%
cimc.plot_deployment(chips)
