"""How long each named quantizer takes, forward and backward, against Brevitas's of the same name: one run, one thread, ratios.

    python benchmarks/quantizers.py [--names Int8ActPerTensorFloat ...] [--rounds 7] [--no-native]

Every quantizer gets 32×64×32×32 elements, as a weight, as an activation, as a bias of so many channels or as an accumulator,
in training and after statistics have been collected. Brevitas must be installed.

Timings on a shared machine are noisy: the two take turns, and the median of the rounds is compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

SHAPE = (32, 64, 32, 32)
Step = Callable[[], None]


def options(name: str, kind: str) -> dict[str, Any]:
    """What a quantizer must be told before it can be built, and that statistics are complete after one step."""
    if kind != "activation" or "BatchQuant" in name or name.endswith(("Const", "Act")):
        return {}
    if "MaxInit" in name:
        return {"max_val": 6.0, **({"min_val": -6.0} if "MinMax" in name else {})}
    return {"collect_stats_steps": 1}


def ours(name: str, kind: str) -> Step:
    """A step of the quantizer of that name from quant_core."""
    import quant_core.quant
    import quant_nn as qnn
    from quant_core.tensor import QuantTensor

    def grid(x: Tensor) -> QuantTensor:
        return QuantTensor(x, *numbers(), signed=True, training=True, symmetric=True)

    return step(
        getattr(quant_core.quant, name),
        kind,
        qnn,
        grid,
        of_bias=lambda layer, scale: layer.bias_quant(layer.bias, scale),
    )


def theirs(name: str, kind: str) -> Step:
    """A step of the quantizer of that name from Brevitas."""
    import brevitas.nn as bnn
    import brevitas.quant
    from brevitas.quant_tensor import IntQuantTensor

    def grid(x: Tensor) -> IntQuantTensor:
        return IntQuantTensor(x, *numbers(), torch.tensor(True), torch.tensor(True))

    def of_bias(layer: Any, scale: Tensor) -> Any:
        return layer.bias_quant(
            layer.bias, grid(torch.zeros(1)), IntQuantTensor(layer.weight, scale / 0.01, *numbers()[1:], True, True)
        )

    return step(getattr(brevitas.quant, name), kind, bnn, grid, of_bias)


def numbers() -> tuple[Tensor, Tensor, Tensor]:
    """The grid of an accumulator: scale, zero-point, bit width."""
    return torch.tensor(0.01), torch.tensor(0.0), torch.tensor(16.0)


def step(
    quantizer: Any, kind: str, layers: Any, grid: Callable[[Tensor], Any], of_bias: Callable[[Any, Tensor], Any]
) -> Step:
    """One forward and backward pass of a quantizer, built from the layers of one library."""
    name = quantizer.__name__
    generator = torch.Generator().manual_seed(0)
    x, grad = (torch.randn(SHAPE, generator=generator) for _ in range(2))
    quantize: Callable[[], Any]
    layer: Any
    if kind == "weight":
        layer = layers.QuantConv2d(SHAPE[1], SHAPE[0], SHAPE[2:], bias=False, weight_quant=quantizer)
        leaf = layer.weight
        aware = (grid(torch.zeros(1)),) if "Aware" in name else ()
        quantize = lambda: layer.quant_weight(*aware)  # noqa: E731
    elif kind == "bias":
        layer = layers.QuantLinear(1, x.numel(), bias_quant=quantizer, weight_quant=None)
        leaf, grad = layer.bias, grad.flatten()
        quantize = lambda: of_bias(layer, torch.tensor(0.0001))  # noqa: E731
    elif kind == "activation":
        layer = layers.QuantIdentity(act_quant=quantizer, return_quant_tensor=True, **options(name, kind))
        leaf = (x.flatten(2) if name.endswith("1d") else x).requires_grad_()
        grad = grad.view(leaf.shape)
        quantize = lambda: layer(leaf)  # noqa: E731
    else:
        layer = layers.TruncAvgPool2d(1, trunc_quant=quantizer, return_quant_tensor=True)
        leaf = ((x / 0.01).round() * 0.01).requires_grad_()
        quantize = lambda: layer(grid(leaf))  # noqa: E731
    layer.train()
    for _ in range(2):
        quantize()

    def run() -> None:
        leaf.grad = None
        out = quantize()
        (out.value if hasattr(out, "value") else out).backward(grad)

    return run


def medians(steps: list[Step], rounds: int) -> list[float]:
    """The median seconds of each, taken in turns."""
    times: list[list[float]] = [[] for _ in steps]
    for run in steps:
        run()
    for _ in range(rounds):
        for index, run in enumerate(steps):
            start = time.perf_counter()
            run()
            times[index].append(time.perf_counter() - start)
    return [statistics.median(found) for found in times]


def main() -> None:
    """Print a line for each quantizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-native", action="store_true", help="torch operations only")
    arguments = parser.parse_args()
    if arguments.no_native:
        os.environ["QUANT_NATIVE"] = "0"
    torch.set_num_threads(1)

    import brevitas.quant

    from quant_core.plugins import load_attribute, registry

    for name, registered in sorted(registry().quantizers.items()):
        if (arguments.names and name not in arguments.names) or not hasattr(brevitas.quant, name):
            continue
        proxy: Any = load_attribute(registered.item.quantizer).proxy_class
        kind = getattr(proxy, "kind", "")
        if name.startswith("None") or name == "IntBias" or kind == "":
            continue
        try:
            mine, other = medians([ours(name, kind), theirs(name, kind)], arguments.rounds)
        except Exception as error:  # one that cannot be built is a line as well
            print(f"{name:45} {type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        print(
            f"{name:45} {kind:11} ours {mine * 1e3:7.1f} ms   Brevitas {other * 1e3:7.1f} ms   {mine / other:5.2f} ours/Brevitas"
        )


if __name__ == "__main__":
    main()
