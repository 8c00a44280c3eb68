"""How long a training step of an LSTM and of a GRU takes: float torch, Brevitas and ours in one run, on one thread, as ratios.

    python benchmarks/recurrent.py [--rounds 7] [--no-compile] [--no-memory]

Timings on a shared machine are noisy: the variants take turns, and the shortest of the rounds is compared. Brevitas, which has no
GRU, is left out where it is not installed. Memory is what a forward pass keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from quant_rnn import QuantGRU, QuantLSTM

SIZES = {"T=64 B=32 I=64 H=128": (64, 32, 64, 128), "T=128 B=8 I=32 H=64": (128, 8, 32, 64)}
KINDS = {"LSTM": ("io", "gate_acc", "sigmoid", "tanh", "cell_state"), "GRU": ("io", "gate_acc", "sigmoid", "tanh")}
OURS: dict[str, type[nn.Module]] = {"LSTM": QuantLSTM, "GRU": QuantGRU}
FLOAT: dict[str, type[nn.Module]] = {"LSTM": nn.LSTM, "GRU": nn.GRU}

Step = Callable[[], None]


def training_step(layer: Callable[[Tensor], Any], x: Tensor, parameters: list[nn.Parameter]) -> Step:
    optimizer = torch.optim.SGD(parameters, lr=1e-4)

    def step() -> None:
        optimizer.zero_grad()
        layer(x)[0].square().mean().backward()
        optimizer.step()

    return step


def kept(layer: nn.Module, x: Tensor) -> int:
    """Bytes of all tensors that autograd keeps after a forward pass, each memory once."""
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        found[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x)
    own = {parameter.untyped_storage().data_ptr() for parameter in layer.parameters()}
    return sum(size for start, size in found.items() if start not in own)


def collecting_for(kind: str, steps: int) -> dict[str, int]:
    """The options of a layer that collects statistics for so many calls of each quantizer."""
    return {f"{name}_collect_stats_steps": steps for name in KINDS[kind]}


def shortest(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - start)
    return {name: min(found) for name, found in times.items()}


def variants(kind: str, size: tuple[int, int, int, int], compiled: bool) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The layers, settled, and what is called of them."""
    inputs, hidden = size[2:]
    soon, never = collecting_for(kind, 2), collecting_for(kind, 10**9)
    layers: dict[str, nn.Module] = {
        "float": FLOAT[kind](inputs, hidden),
        "ours": OURS[kind](inputs, hidden, **soon),
        "ours collecting": OURS[kind](inputs, hidden, **never),
    }
    if kind == "LSTM" and find_spec("brevitas") is not None:
        from brevitas.nn import QuantLSTM as TheirLSTM

        layers["Brevitas"] = TheirLSTM(inputs, hidden, **soon)
        layers["Brevitas collecting"] = TheirLSTM(inputs, hidden, **never)
    called: dict[str, Any] = dict(layers)
    if compiled:
        layers["ours compiled"] = OURS[kind](inputs, hidden, **soon)
    for layer in layers.values():
        layer(torch.randn(4, 2, inputs))
    if compiled:
        called["ours compiled"] = torch.compile(layers["ours compiled"], fullgraph=True)
    return layers, called


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for kind in KINDS:
        for name, size in SIZES.items():
            layers, called = variants(kind, size, not options.no_compile)
            x = torch.randn(*size[:3])
            steps = {key: training_step(called[key], x, list(layer.parameters())) for key, layer in layers.items()}
            found = shortest(steps, options.rounds)
            print(f"{kind}, {name}: float {found['float'] * 1e3:.1f} ms")
            for key, seconds in found.items():
                print(f"  {key:20} {seconds / found['float']:6.1f} times float")
            if not options.no_memory:
                for key in ("ours", "ours collecting"):
                    print(f"  memory {key:20} {kept(layers[key], x) / kept(layers['float'], x):6.2f} times float")


if __name__ == "__main__":
    main()
