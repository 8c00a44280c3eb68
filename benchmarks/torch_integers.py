"""8-bit ResNet-8 and MobileNetV1 in integers by Inductor on x86, beside the same networks of floats, compiled alike, in one run.

    python benchmarks/torch_integers.py [--network resnet8] [--rounds 20] [--threads 1] [--batch 32]

Rounds of the two alternate, so that other work on the machine meets both. The generated code is searched for onednn's operators
of integers, so that a figure never stands for something else.
"""

from __future__ import annotations

import argparse
import re
import statistics
import time
import warnings
from collections import Counter
from typing import Any

import torch
from models import Layers, float_layers, mobilenet, resnet8
from torch import Tensor, nn
from torch._inductor import config
from torch._inductor.utils import run_and_get_code

import quant_nn as qnn
from quant_core.export import export
from quant_core.quant import Int8ActPerTensorFloat

NETWORKS = {"resnet8": resnet8, "mobilenet": mobilenet}
_OPERATORS = re.compile(r"torch\.ops\.(onednn\.q\w+|mkldnn\.\w+|aten\.convolution)")


def integer_layers() -> Layers:
    """8 bits everywhere: weights per output channel, activations per tensor."""
    options: dict[str, Any] = {"weight_scaling_per_output_channel": True}
    return Layers(
        name="integers",
        conv=lambda *a, **k: qnn.QuantConv2d(*a, **options, **k),
        linear=lambda *a, **k: qnn.QuantLinear(*a, input_quant=Int8ActPerTensorFloat, **options, **k),
        relu=lambda: qnn.QuantReLU(bit_width=8),
        entry=lambda: qnn.QuantIdentity(bit_width=8),
    )


def compiled(module: Any, x: Tensor) -> tuple[Any, Counter[str]]:
    """A module compiled and frozen, and the operators in its code."""
    with warnings.catch_warnings(), config.patch(freezing=True), torch.no_grad():
        warnings.simplefilter("ignore")  # of the compiler about itself
        made = torch.compile(module)
        _, codes = run_and_get_code(made, x)
    return made, Counter(_OPERATORS.findall("\n".join(codes)))


def calibrated(net: nn.Module, x: Tensor) -> nn.Module:
    """A network whose scales and batch norms have seen data."""
    for _ in range(3):
        net(x)
    return net.eval()


def seconds(module: Any, x: Tensor) -> float:
    """One run."""
    with torch.no_grad():
        start = time.perf_counter()
        module(x)
        return time.perf_counter() - start


def measure(name: str, batch: int, rounds: int) -> str:
    """One row of the table."""
    torch.manual_seed(0)
    x = torch.randn(batch, 3, 32, 32)
    floats = calibrated(NETWORKS[name](float_layers()), x)
    network = calibrated(NETWORKS[name](integer_layers()), x)
    qnn.fold_batch_norms(network, (x,))
    artifact: Any = export(network, (x,), target="pt2e").artifact
    runs = [compiled(floats, x), compiled(artifact.exported.module(), x)]
    times: list[list[float]] = [[], []]
    for _ in range(rounds + 3):
        for (module, _), column in zip(runs, times, strict=True):
            column.append(seconds(module, x))
    slow, fast = (statistics.median(column[3:]) * 1e3 for column in times)
    integers = ", ".join(f"{count} {operator}" for operator, count in sorted(runs[1][1].items()))
    return f"| {name} | {slow:.2f} ms | {fast:.2f} ms | {slow / fast:.2f} | {integers} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=sorted(NETWORKS), action="append")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=32)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    print("| network | floats, compiled | integers, compiled | times faster | operators |")
    print("| --- | --- | --- | --- | --- |")
    for name in chosen.network or sorted(NETWORKS):
        print(measure(name, chosen.batch, chosen.rounds), flush=True)


if __name__ == "__main__":
    main()
