"""Train a LeNet with 4-bit weights and activations and 8-bit biases on scikit-learn's digits, export it, verify it.

    python examples/train_lenet.py [--epochs 30] [--output exported]

The network goes to every installed target that takes it; what the others refuse is said. Exit code 1 when it does not reach 95 %
test accuracy, or when an exported file does not compute what the network computes.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import QuantError, UnsupportedError
from quant_core.export import Exported, export
from quant_core.plugins import registry
from quant_core.quant import Int8Bias

BITS = 4
WANTED_ACCURACY = 0.95


class LeNet(nn.Module):
    """LeNet-5 for 16×16 images: ``(N, 1, 16, 16)`` → ``(N, 10)``."""

    def __init__(self) -> None:
        super().__init__()
        options = {"weight_bit_width": BITS, "bias_quant": Int8Bias}
        self.entry = qnn.QuantIdentity(bit_width=8, return_quant_tensor=True)
        self.conv1 = qnn.QuantConv2d(1, 6, 5, padding=2, **options)
        self.relu1 = qnn.QuantReLU(bit_width=BITS, return_quant_tensor=True)
        self.conv2 = qnn.QuantConv2d(6, 16, 5, **options)
        self.relu2 = qnn.QuantReLU(bit_width=BITS, return_quant_tensor=True)
        self.linear1 = qnn.QuantLinear(64, 120, **options)
        self.relu3 = qnn.QuantReLU(bit_width=BITS, return_quant_tensor=True)
        self.linear2 = qnn.QuantLinear(120, 84, **options)
        self.relu4 = qnn.QuantReLU(bit_width=BITS, return_quant_tensor=True)
        self.linear3 = qnn.QuantLinear(84, 10, **options)

    def forward(self, images: Tensor) -> Tensor:
        """Class scores of a batch of images."""
        x = F.max_pool2d(self.relu1(self.conv1(self.entry(images))), 2)  # (N, 6, 8, 8)
        x = F.max_pool2d(self.relu2(self.conv2(x)), 2)  # (N, 16, 2, 2)
        x = self.relu3(self.linear1(x.flatten(1)))
        return self.linear3(self.relu4(self.linear2(x)))


def digits() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Training images and labels, test images and labels; a quarter is held back for the test."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16  # (1797, 1, 8, 8), from 0 to 1
    images = F.interpolate(images, size=16, mode="bilinear")
    labels = torch.tensor(data.target)
    train, test = train_test_split(torch.arange(len(labels)), test_size=0.25, random_state=0, stratify=labels)
    return images[train], labels[train], images[test], labels[test]


def train(net: LeNet, images: Tensor, labels: Tensor, epochs: int, batch: int = 64) -> None:
    """Adam with a one-cycle learning rate."""
    optimizer = torch.optim.Adam(net.parameters())
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    net.train()
    for _ in track(range(epochs), description="training"):
        for picked in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(net(images[picked]), labels[picked]).backward()
            optimizer.step()
            schedule.step()


def accuracy(net: LeNet, images: Tensor, labels: Tensor) -> float:
    """The share of images that are classified correctly."""
    net.eval()
    with torch.no_grad():
        return float((net(images).argmax(1) == labels).float().mean())


def exported(net: LeNet, images: Tensor, target: str, path: Path) -> Exported:
    """The network in a file for batches of any size, or for that of the images where a target needs fixed shapes."""
    try:
        return export(net, (images,), target=target, path=path, dynamic_shapes="batch")
    except UnsupportedError:
        return export(net, (images,), target=target, path=path)


def row(target: str, done: Exported) -> tuple[str, ...]:
    """One line of the table."""
    verified = done.verification
    difference = "not verified" if verified is None else f"{verified.max_difference:.2g}"
    runtime = registry().target(target).item.runtime or "none"
    return (
        target,
        str(done.path),
        f"{done.artifact.size / 1024:.1f} KiB",
        runtime,
        difference,
        f"{done.seconds:.1f} s",
    )


def main() -> int:
    """Train, export, verify; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--output", type=Path, default=Path("exported"))
    options = parser.parse_args()
    console = Console()
    torch.set_num_threads(1)  # batches as small as these gain nothing from more
    torch.manual_seed(0)
    start = time.perf_counter()
    images, labels, test_images, test_labels = digits()
    net = LeNet()
    train(net, images, labels, options.epochs)
    reached = accuracy(net, test_images, test_labels)
    console.print(f"test accuracy {reached:.1%} after {time.perf_counter() - start:.0f} s, W{BITS}A{BITS}, 8-bit bias")

    options.output.mkdir(parents=True, exist_ok=True)
    table = Table("target", "file", "size", "runtime", "largest difference", "time", box=None)
    failed = reached < WANTED_ACCURACY
    for name, registered in registry().targets.items():
        path = options.output / f"lenet_{name}{registered.item.suffix}"
        try:
            done = exported(net, test_images[:64], name, path)
        except UnsupportedError as error:
            table.add_row(name, "refused: " + error.what.removeprefix(f"target '{name}' "))
        except QuantError as error:
            failed = True
            console.print(f"{name}: {type(error).__name__}: {error}", style="red")
        else:
            table.add_row(*row(name, done))
    console.print(table)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
