"""aihwkit's Tiki-Taka v2 and mixed precision: LeNet-5, real MNIST, soft-bounds devices, perfect converters.

To stand beside what `tests.benchmarks.policies` prints. Needs aihwkit in the same environment (`pip install aihwkit`),
which is not one of the project's dependencies.

    python -m tests.benchmarks.aihwkit_policies --data-dir DIR [--states 10] [--epochs 4] [--seeds 0 1 2]

aihwkit's presets of these algorithms for soft-bounds devices (`TTv2ReRamSBPreset`, `MixedPrecisionReRamSBPreset`), with
devices of so many states without spread and perfect converters; tanh, batch 8 and SGD at rate 0.05 as in arXiv
2510.02516; and the same training of PyTorch's own layers.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from aihwkit.nn.conversion import convert_to_analog
from aihwkit.optim import AnalogSGD
from aihwkit.simulator.configs import SoftBoundsDevice
from aihwkit.simulator.presets import MixedPrecisionReRamSBPreset, TTv2ReRamSBPreset
from torch import nn

from cimc.data.load import load
from cimc.dataset import Dataset, Samples
from tests.benchmarks.runs import spread

METHODS = ("float", "mixed precision", "Tiki-Taka v2")


def tensors(samples: Samples) -> tuple[torch.Tensor, torch.Tensor]:
    """Images [samples, 1, 28, 28] from 0 to 1, and labels."""
    (images,), labels = samples.inputs.values(), samples.labels_of()
    return torch.from_numpy(images / np.float32(255)), torch.from_numpy(np.asarray(labels, np.int64))


def lenet5() -> nn.Sequential:
    """LeNet-5 as in models/, with tanh."""
    return nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)),
    )


def config_of(method: str, states: int) -> Any:
    """aihwkit's configuration of a method."""

    def device() -> SoftBoundsDevice:
        alike = dict.fromkeys(("dw_min_dtod", "up_down_dtod", "w_max_dtod", "w_min_dtod", "dw_min_std"), 0.0)
        return SoftBoundsDevice(w_min=-1.0, w_max=1.0, dw_min=2.0 / states, **alike)

    if method == "mixed precision":
        config: Any = MixedPrecisionReRamSBPreset()
        config.device.device = device()
    else:
        config = TTv2ReRamSBPreset()
        config.device.unit_cell_devices = [device(), device()]
    config.forward.is_perfect = config.backward.is_perfect = True
    return config


def train(method: str, data: Dataset, seed: int, options: argparse.Namespace) -> tuple[float, float]:
    """Accuracy on all test images after a training, and its seconds."""
    torch.manual_seed(seed)
    random, model = np.random.default_rng(seed), lenet5()
    if method != "float":
        model = convert_to_analog(model, config_of(method, options.states))
    optimizer = AnalogSGD(model.parameters(), lr=options.lr)
    optimizer.regroup_param_groups(model)
    (images, labels), (test, wanted) = tensors(data.train), tensors(data.test)
    loss_of, begun = nn.CrossEntropyLoss(), time.perf_counter()
    model.train()
    for _ in range(options.epochs):
        order = torch.from_numpy(random.permutation(len(images)))
        for chosen in order.split(options.batch_size):
            optimizer.zero_grad()
            loss_of(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
    seconds = time.perf_counter() - begun
    model.eval()
    with torch.no_grad():
        said = torch.cat([model(part).argmax(1) for part in test.split(1000)])
    return 100 * float((said == wanted).float().mean()), seconds


def main() -> None:
    """Train by every method and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, required=True)
    parser.add_argument("--states", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--lr", type=float, default=0.05)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    data = load("mnist", options.data_dir)
    print("| states | method | accuracy % | seconds |\n|---|---|---|---|")
    for method in options.methods:
        done = [train(method, data, seed, options) for seed in options.seeds]
        accuracies, seconds = zip(*done, strict=True)
        print(f"| {options.states} | {method} | {spread(accuracies)} | {np.mean(seconds):.0f} |", flush=True)


if __name__ == "__main__":
    main()
