"""What calibration costs: each calibrator against NumPy written straight down, and a calibration pass against an evaluation pass.

    python benchmarks/calibration.py [--rounds 7] [--elements 2097152] [--bins 2048]

One thread. The two take turns, and the best of the rounds is compared. The right columns are ratios: how many times as fast as
NumPy, and how many times the plain pass. Networks whose pass takes less than a millisecond are calls of Python for the most part,
of which calibration has about twice as many.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import quant_nn as qnn
from quant_nn.calibration import Calibration, Calibrator, HistogramCalibrator, Levels, entropy, mse, percentile

Step = Callable[[], object]


def numpy_max(x: np.ndarray) -> float:
    return float(np.abs(x).max())


def numpy_histogram(x: np.ndarray, bins: int) -> tuple[np.ndarray, float]:
    magnitude = np.abs(x)
    counts, edges = np.histogram(magnitude, bins=bins, range=(0, float(magnitude.max())))
    return counts, float(edges[1])


def numpy_percentile(counts: np.ndarray, width: float, q: float = 99.99) -> float:
    share = np.cumsum(counts) / counts.sum()
    return float(np.searchsorted(share, q / 100) + 1) * width


def numpy_mse(counts: np.ndarray, width: float, low: int, high: int) -> float:
    middles = (np.arange(len(counts)) + 0.5) * width
    errors = []
    for cut in range(1, len(counts) + 1):
        step = cut * width / high
        rounded = np.clip(np.round(middles / step), low, high) * step
        errors.append((counts * (middles - rounded) ** 2).sum())
    return float(np.argmin(errors) + 1) * width


def numpy_entropy(counts: np.ndarray, width: float, levels: int) -> float:
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    found = []
    for cut in range(levels, len(counts) + 1):
        reference = counts[:cut].copy()
        cut_off = counts[cut:].sum()
        candidate = np.zeros(cut)
        bounds = np.arange(levels + 1) * cut // levels
        for start, stop in itertools.pairwise(bounds):
            part = counts[start:stop]
            filled = part > 0
            if filled.any():
                candidate[start:stop][filled] = part.sum() / filled.sum()
        if cut_off > 0 and reference[-1] == 0:
            candidate[-1] = 1.0
        reference[-1] += cut_off
        p, q = reference / reference.sum(), candidate / candidate.sum()
        kept = p > 0
        found.append((p[kept] * np.log(p[kept] / q[kept])).sum())
    return float(np.argmin(found) + levels) * width


def best(steps: list[Step], rounds: int) -> list[float]:
    """Milliseconds of each step, the best of the rounds; the first round warms up."""
    times = [float("inf")] * len(steps)
    for turn in range(rounds + 1):
        for index, step in enumerate(steps):
            start = time.perf_counter()
            step()
            if turn:
                times[index] = min(times[index], time.perf_counter() - start)
    return [1000 * seconds for seconds in times]


def calibrators(elements: int, bins: int, rounds: int) -> Table:
    """Each calibrator on one tensor, and each rule on its histogram, against NumPy."""
    x = torch.randn(elements, generator=torch.Generator().manual_seed(0))
    array = x.numpy()
    collected = HistogramCalibrator(bins=bins)
    collected.collect(x)
    histogram, levels = collected.histogram, Levels.of_bits(8, signed=True)
    counts, width = histogram.counts[0].numpy(), float(histogram.width)

    def ours(calibrator: Calibrator) -> Step:
        return lambda: calibrator.collect(x)

    rows: dict[str, tuple[Step, Step]] = {
        "max, one tensor": (ours(Calibrator()), lambda: numpy_max(array)),
        "histogram, one tensor": (ours(HistogramCalibrator(bins=bins)), lambda: numpy_histogram(array, bins)),
        "percentile rule": (lambda: percentile(histogram, None), lambda: numpy_percentile(counts, width)),
        "mse rule": (lambda: mse(histogram, levels), lambda: numpy_mse(counts, width, -128, 127)),
        "entropy rule": (lambda: entropy(histogram, levels), lambda: numpy_entropy(counts, width, 128)),
    }
    table = Table("calibrator", "ours, ms", "NumPy, ms", "times as fast", box=None)
    for name, (mine, theirs) in rows.items():
        times = best([mine, theirs], rounds)
        table.add_row(name, *(f"{ms:.3f}" for ms in times), f"{times[1] / times[0]:.1f}")
    return table


def act() -> nn.Module:
    return qnn.QuantReLU(return_quant_tensor=True)


def convolutions() -> tuple[nn.Module, Tensor]:
    """Convolutions of 3×3, each behind a quantizer."""
    layers: list[nn.Module] = [qnn.QuantIdentity(return_quant_tensor=True)]
    for channels, wider, stride in ((3, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [qnn.QuantConv2d(channels, wider, 3, stride, 1), act()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), qnn.QuantLinear(128, 10)]
    return nn.Sequential(*layers, *head), torch.randn(32, 3, 32, 32)


def depthwise() -> tuple[nn.Module, Tensor]:
    """Depthwise and pointwise convolutions in turns: few products for each element that is looked at."""
    layers: list[nn.Module] = [qnn.QuantIdentity(return_quant_tensor=True), qnn.QuantConv2d(3, 16, 3, 2, 1), act()]
    for channels, wider, stride in ((16, 32, 1), (32, 64, 2), (64, 64, 1), (64, 128, 2), (128, 128, 1)):
        layers += [qnn.QuantConv2d(channels, channels, 3, stride, 1, groups=channels), act()]
        layers += [qnn.QuantConv2d(channels, wider, 1), act()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), qnn.QuantLinear(128, 10)]
    return nn.Sequential(*layers, *head), torch.randn(16, 3, 64, 64)


def linear() -> tuple[nn.Module, Tensor]:
    """Linear layers of 512 features."""
    layers: list[nn.Module] = [qnn.QuantIdentity(return_quant_tensor=True), qnn.QuantLinear(256, 512), act()]
    return nn.Sequential(*layers, qnn.QuantLinear(512, 512), act(), qnn.QuantLinear(512, 10)), torch.randn(128, 256)


def passes(rounds: int, batches: int = 16) -> Table:
    """A pass over some batches while calibrating, against the same pass in evaluation."""
    table = Table("network", "evaluation, ms", "max, times that", "histograms, times that", box=None)
    for network in (convolutions, depthwise, linear):
        model, batch = network()
        model.eval()
        data = [batch] * batches

        def plain(model: nn.Module = model, data: list[Tensor] = data) -> None:
            with torch.no_grad():
                for images in data:
                    model(images)

        sessions = [Calibration(model, method) for method in ("max", "entropy")]
        collecting = [partial(session.collect, data, progress=False) for session in sessions]
        times = best([plain, *collecting], rounds)
        table.add_row(network.__name__, f"{times[0] / batches:.1f}", *(f"{ms / times[0]:.2f}" for ms in times[1:]))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--elements", type=int, default=2**21)
    parser.add_argument("--bins", type=int, default=2048)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    console.print(calibrators(options.elements, options.bins, options.rounds))
    console.print()
    console.print(passes(options.rounds))


if __name__ == "__main__":
    main()
