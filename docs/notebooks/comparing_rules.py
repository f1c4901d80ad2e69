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
# # Comparing rules
#
# What decides when a device is written: every step (naive), when an accumulator says so (mixed precision), or by the
# sign of the gradient. Accuracy against writes per device, on synthetic digits.

# %%
from matplotlib import pyplot as plt

import cimc

data = cimc.load_data("digits")
compiled = cimc.compile(cimc.example_model(), "brram-256x64")

# %%
trained = {}
for rule in ("mixed-precision", "naive", "sign"):
    options = cimc.TrainingOptions(policy=cimc.Policy(rule), epochs=1, steps_per_epoch=100, lr=0.004)
    trained[rule] = cimc.train(compiled, data, options=options)
    figures = trained[rule].figures
    print(f"{rule}: {figures['accuracy']:.2%}, {figures['updates_per_weight_mean']:.3g} updates per weight")

# %% [markdown]
# One picture of all, with matplotlib alone. `cimc.plot_training` draws a single run.

# %%
figure, axis = plt.subplots(figsize=(5, 3.4), layout="constrained")
for rule, result in trained.items():
    axis.plot(result.figures["updates_per_weight_mean"], 100 * result.figures["accuracy"], "o", label=rule)
axis.set(xscale="log", xlabel="updates per weight", ylabel="test accuracy (%)")
axis.legend(frameon=False)
figure

# %%
cimc.plot_training(trained["mixed-precision"])
