"""Training speed of LeNet-5 at batch 64: all converters and noise on, beside plain float PyTorch.

    python -m tests.benchmarks.training_speed [--rounds 7] [--threads N] [--batch-size 64] [--chip brram-256x64]

Both train the same network on the same random images in the same process, in turn; the table gives minimum, median and
maximum of images/s over the rounds, and of the ratio round by round. Needs torch (any CPU build; tried with 2.13),
which nothing else here needs. What is not equal: PyTorch has no converters, no noise and no devices.
"""

import argparse
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

STEPS = 100
IMAGES = 6400


def cimc_trainer(chip_name: str, batch_size: int) -> Callable[[], None]:
    """A function that trains LeNet-5 for STEPS steps on its arrays (mixed precision, defaults)."""
    import jax.numpy as jnp

    from cimc.compiler import compile_model
    from cimc.data import Dataset
    from runtime.network import load_network
    from runtime.state import build_system, initial_state
    from runtime.train import TrainingOptions, start, train

    artifact = compile_model(Path(__file__).parents[2] / "models" / "lenet5.onnx", chip_name, verify=False).artifact
    system = build_system(load_network(artifact.network), artifact.mapping, artifact.chip)
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (IMAGES, 1, 28, 28), np.uint8)
    labels = random.integers(0, 10, IMAGES).astype(np.int32)
    # One test image: the evaluation that ends an epoch costs next to nothing.
    data = Dataset("random", images, labels, images[:1], labels[:1], synthetic=True, classes=10)
    options = TrainingOptions(epochs=10**6, steps_per_epoch=10**6, batch_size=batch_size)
    run = start(system, initial_state(system), options)
    done = 0

    class EnoughError(Exception):
        pass

    def go() -> None:
        nonlocal run, done
        goal = done + STEPS

        def stop(now: object, total: int) -> None:
            nonlocal run, done
            if now.step >= goal:  # type: ignore[attr-defined]
                run, done = now, goal  # type: ignore[assignment]
                raise EnoughError

        try:
            train(system, run, options, data, progress=stop)
        except EnoughError:
            jnp.asarray(run.loss_sum).block_until_ready()

    return go


def torch_trainer(batch_size: int, threads: int) -> Callable[[], None]:
    """A function that trains the same network for STEPS steps in plain float PyTorch (AdamW)."""
    import torch
    from torch import nn

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
    )
    optimizer = torch.optim.AdamW(model.parameters(), 0.002)
    images = torch.rand(IMAGES, 1, 28, 28)
    labels = torch.randint(0, 10, (IMAGES,))
    loss_of = nn.CrossEntropyLoss()

    def go() -> None:
        for step in range(STEPS):
            batch = torch.arange(step * batch_size, (step + 1) * batch_size) % IMAGES
            optimizer.zero_grad()
            loss_of(model(images[batch]), labels[batch]).backward()
            optimizer.step()

    return go


def main() -> None:
    """Run both in turn and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--chip", default="brram-256x64")
    options = parser.parse_args()
    trainers = {
        f"cimc, {options.chip}": cimc_trainer(options.chip, options.batch_size),
        "PyTorch, float": torch_trainer(options.batch_size, options.threads),
    }
    speeds: dict[str, list[float]] = {name: [] for name in trainers}
    for trainer in trainers.values():
        trainer()
    for _ in range(options.rounds):
        for name, trainer in trainers.items():
            began = time.perf_counter()
            trainer()
            speeds[name].append(STEPS * options.batch_size / (time.perf_counter() - began))
    ours, theirs = (np.array(values) for values in speeds.values())
    print(f"LeNet-5, batch {options.batch_size}, {options.threads} threads, {options.rounds} rounds of {STEPS} steps")
    for name, values in (*speeds.items(), ("ratio", list(ours / theirs))):
        low, middle, high = np.min(values), np.median(values), np.max(values)
        print(f"{name:24} min {low:9.2f}  median {middle:9.2f}  max {high:9.2f}")


if __name__ == "__main__":
    main()
