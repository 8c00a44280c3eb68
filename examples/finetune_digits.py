"""Fine-tune a network with 2-bit weights and 8-bit activations on scikit-learn's digits, by the recipe of NVIDIA's toolkit.

    python examples/finetune_digits.py [--epochs 60] [--seed 0]

A float network is trained, quantized, and calibrated. Then it is trained on, for about a tenth of the original schedule, from one
hundredth of the original learning rate, along the falling half of a cosine down to one hundredth of that again. Ranges of
activations stay as calibration has set them. Exit code 1 when less than half of the accuracy that rounding cost comes back.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.datasets import load_digits
from torch import Tensor, nn

import quant_nn as qnn
from quant_nn.toolkit import QuantDescriptor

WEIGHT_BITS = 2
INPUT_BITS = 8
LEARNING_RATE = 0.1
HELD_BACK = 400
WANTED = 0.5
"""Of the accuracy that was lost."""


def float_network() -> nn.Sequential:
    """64 → 64 → 32 → 10."""
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def quantized_network() -> nn.Sequential:
    """The same with quantized inputs and weights; its state dict takes that of the float network."""
    descriptors = {
        "quant_desc_input": QuantDescriptor(
            num_bits=INPUT_BITS, unsigned=True
        ),  # images and what ReLU gives are not negative
        "quant_desc_weight": QuantDescriptor(num_bits=WEIGHT_BITS, axis=0),
    }
    return nn.Sequential(
        qnn.QuantLinear(64, 64, **descriptors),
        nn.ReLU(),
        qnn.QuantLinear(64, 32, **descriptors),
        nn.ReLU(),
        qnn.QuantLinear(32, 10, **descriptors),
    )


def digits() -> tuple[Tensor, Tensor]:
    """Images of 64 numbers from 0 to 1, and labels."""
    data = load_digits()
    return torch.tensor(data.data, dtype=torch.float32) / 16, torch.tensor(data.target)


def train(net: nn.Module, images: Tensor, labels: Tensor, epochs: int, rate: float, what: str, batch: int = 64) -> None:
    """Stochastic gradient descent, with a rate that follows a cosine down to one hundredth."""
    optimizer = torch.optim.SGD(net.parameters(), lr=rate, momentum=0.9)
    steps = epochs * -(-len(images) // batch)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps, eta_min=rate / 100)
    net.train()
    for _ in track(range(epochs), description=what, transient=True):
        for picked in torch.randperm(len(images)).split(batch):
            optimizer.zero_grad()
            F.cross_entropy(net(images[picked]), labels[picked]).backward()
            optimizer.step()
            schedule.step()


def accuracy(net: nn.Module, images: Tensor, labels: Tensor) -> float:
    """The share of images that are classified correctly."""
    net.eval()
    with torch.no_grad():
        return float((net(images).argmax(1) == labels).float().mean())


def run(epochs: int, seed: int) -> dict[str, float]:
    """The accuracy of the float network, after calibration, and after fine-tuning, on digits that were held back."""
    torch.manual_seed(seed)
    images, labels = digits()
    seen, test = (images[:-HELD_BACK], labels[:-HELD_BACK]), (images[-HELD_BACK:], labels[-HELD_BACK:])
    floats = float_network()
    train(floats, *seen, epochs, LEARNING_RATE, "float")

    net = quantized_network()
    net.load_state_dict(floats.state_dict())
    qnn.calibrate(net, seen[0].split(128), method="mse")
    calibrated = copy.deepcopy(net)
    train(net, *seen, max(epochs // 10, 1), LEARNING_RATE / 100, "fine-tuning")
    return {
        "float": accuracy(floats, *test),
        "calibrated": accuracy(calibrated, *test),
        "fine-tuned": accuracy(net, *test),
    }


def recovered(reached: dict[str, float]) -> float:
    """The share of the accuracy lost by rounding that came back."""
    lost = reached["float"] - reached["calibrated"]
    return (reached["fine-tuned"] - reached["calibrated"]) / lost if lost > 0 else 1.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, calibrate, fine-tune; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # batches as small as these gain nothing from more
    reached = run(options.epochs, options.seed)
    table = Table("network", "accuracy", box=None)
    for name, share in reached.items():
        table.add_row(name, f"{share:.1%}")
    Console().print(table)
    return int(recovered(reached) < WANTED)


if __name__ == "__main__":
    sys.exit(main())
