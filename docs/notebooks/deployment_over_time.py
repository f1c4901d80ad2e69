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
# # Deployment over time
#
# Phase-change devices drift. A package is programmed to virtual chips, which are measured after an hour, a month and a
# year, as they are and with the digital side making up for the drift.

# %%
import cimc

data = cimc.load_data("digits")

# %% [markdown]
# Trained in float32 here, which is quickest; `policy` left out trains on the arrays.

# %%
options = cimc.TrainingOptions(policy=cimc.Policy("float"), epochs=2, steps_per_epoch=100, lr=0.004)
trained = cimc.train(cimc.compile(cimc.example_model(), "hermes"), data, options=options)
package = cimc.export(trained, "hermes")
package

# %%
times = ["1h", "30d", "1y"]
plain = cimc.deploy(package, data, chips=4, at=times)
plain

# %%
corrected = cimc.deploy(package, data, chips=4, at=times, compensate="global")
corrected

# %%
cimc.plot_deployment({"as they are": plain, "one scale a layer": corrected})
