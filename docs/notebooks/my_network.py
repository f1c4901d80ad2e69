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
# # My network
#
# A PyTorch module onto the arrays, and its trained weights back into its state dict. Needs PyTorch:
# `pip install 'cimc[torch]'`.

# %%
import numpy as np
import torch
from torch import nn

import cimc


class Network(nn.Module):
    """A convolution with batch normalisation, and a layer of classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 5, stride=2)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6 * 12 * 12, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Scores of the classes [N, 10] of images [N, 1, 28, 28]."""
        return self.fc(torch.relu(self.norm(self.conv(images))).flatten(1))


torch.manual_seed(0)
module = Network()

# %% [markdown]
# `from_torch` exports the module by `torch.onnx` with every parameter under its own name: layers are called after their
# modules.

# %%
network = cimc.from_torch(module, torch.zeros(1, 1, 28, 28))
compiled = cimc.compile(network, "brram-256x64")
compiled

# %%
data = cimc.load_data("digits")
trained = cimc.train(compiled, data, options=cimc.TrainingOptions(epochs=1, steps_per_epoch=60, lr=0.005))
trained

# %% [markdown]
# Back into the module. It computes what `evaluate` with `exact` computes, image by image.

# %%
module.load_state_dict(cimc.to_torch_state(trained, module, network=network))
module.eval()
images = torch.tensor(np.asarray(next(iter(data.test.inputs.values())), np.float32)) * data.preprocess.scale
with torch.no_grad():
    classes = module(images.reshape(-1, 1, 28, 28)).argmax(1).numpy()
accuracy = float(np.mean(classes == data.test.labels))
exact = cimc.evaluate(trained, data, exact=True)
print(f"the module {accuracy:.2%}, cimc in float32 {exact['accuracy']:.2%}")
assert accuracy == exact["accuracy"]

# %% [markdown]
# The same as a file for any ONNX runtime, without PyTorch.

# %%
plain = cimc.weights(trained, network)
print([(tensor.name, list(tensor.dims)) for tensor in plain.graph.initializer][:4])
