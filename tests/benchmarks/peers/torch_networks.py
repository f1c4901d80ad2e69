"""The measured networks in PyTorch, layer for layer those of models/build.py, and their random data."""

import torch
from torch import nn

IMAGES = 6400
SHAPES = {"lenet5": (1, 28, 28), "vgg8": (3, 32, 32), "resnet18": (3, 32, 32)}


class Block(nn.Module):
    """Basic residual block."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.short = nn.Sequential()
        if stride > 1:
            self.short = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(y)) + self.short(x))


def build(name: str) -> nn.Module:
    """The network with PyTorch's own random weights."""
    torch.manual_seed(0)
    if name == "lenet5":
        return nn.Sequential(
            *(nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(256, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10)),
        )
    return {"vgg8": _vgg8, "resnet18": _resnet18}[name]()


def _vgg8() -> nn.Module:
    layers: list[nn.Module] = []
    inputs = 3
    for index, outputs in enumerate((32, 32, 64, 64, 128, 128), 1):
        layers += [nn.Conv2d(inputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        if index % 2 == 0:
            layers.append(nn.MaxPool2d(2))
        inputs = outputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(2048, 128), nn.ReLU(), nn.Linear(128, 10))


def _resnet18() -> nn.Module:
    layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU()]
    inputs = 64
    for stage, outputs in enumerate((64, 128, 256, 512), 1):
        for block in (1, 2):
            layers.append(Block(inputs, outputs, 2 if stage > 1 and block == 1 else 1))
            inputs = outputs
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))


def data(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Images in [0, 1) and labels."""
    return torch.rand(IMAGES, *SHAPES[name]), torch.randint(0, 10, (IMAGES,))


def runner(model: nn.Module, optimizer: torch.optim.Optimizer | None, network: str, batch: int):
    """Steps of training, or of inference without an optimiser."""
    images, labels = data(network)
    loss_of = nn.CrossEntropyLoss()

    def train(steps: int) -> int:
        for step in range(steps):
            chosen = torch.arange(step * batch, (step + 1) * batch) % IMAGES
            assert optimizer is not None
            optimizer.zero_grad()
            loss_of(model(images[chosen]), labels[chosen]).backward()
            optimizer.step()
        return steps

    def infer(steps: int) -> int:
        with torch.no_grad():
            for _ in range(steps):
                model(images[:batch])
        return steps

    model.train(optimizer is not None)
    return infer if optimizer is None else train
