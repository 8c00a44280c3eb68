"""How long a training step of each recurrent layer takes: float torch, Brevitas and ours in one run, on one thread, as ratios.

    python benchmarks/recurrent.py [--kinds LSTM GRU] [--rounds 7] [--no-compile] [--no-memory]

The variants take turns, and the shortest of the rounds is compared, in processor time, so that other programs of a shared machine
count little. Brevitas, which has no GRU and no projections, is left out where it is not installed. Memory is what a forward pass
keeps for the backward pass.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from quant_rnn import QuantGRU, QuantLSTM, QuantRNN

SIZES = {"T=64 B=32 I=64 H=128": (64, 32, 64, 128), "T=128 B=8 I=32 H=64": (128, 8, 32, 64)}


class Kind(NamedTuple):
    """A layer, and what it is compared with.

    Attributes:
        ours: the class of the layer.
        plain: that of torch.
        quantizers: which of its quantizers collect statistics.
        options: options of both, for a number of hidden features.
        own: options that torch does not have.
        theirs: the name of the layer of Brevitas, if it has one with these options.
    """

    ours: type[nn.Module]
    plain: type[nn.Module]
    quantizers: tuple[str, ...]
    options: Callable[[int], dict[str, Any]] = lambda hidden: {}
    own: Mapping[str, Any] = {}
    theirs: str | None = None


_LSTM = ("io", "gate_acc", "sigmoid", "tanh", "cell_state")
KINDS = {
    "LSTM": Kind(QuantLSTM, nn.LSTM, _LSTM, theirs="QuantLSTM"),
    "coupled LSTM": Kind(QuantLSTM, nn.LSTM, _LSTM, own={"coupled_input_forget_gates": True}, theirs="QuantLSTM"),
    "projected LSTM": Kind(QuantLSTM, nn.LSTM, _LSTM, lambda hidden: {"proj_size": hidden // 4}),
    "GRU": Kind(QuantGRU, nn.GRU, ("io", "gate_acc", "sigmoid", "tanh")),
    "RNN": Kind(QuantRNN, nn.RNN, ("io", "gate_acc"), theirs="QuantRNN"),
    "ReLU RNN": Kind(QuantRNN, nn.RNN, ("io", "gate_acc"), lambda hidden: {"nonlinearity": "relu"}, theirs="QuantRNN"),
}

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


def collecting_for(kind: Kind, steps: int) -> dict[str, int]:
    """The options of a layer that collects statistics for so many calls of each quantizer."""
    return {f"{name}_collect_stats_steps": steps for name in kind.quantizers}


def shortest(steps: dict[str, Step], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.process_time()
            step()
            times[name].append(time.process_time() - start)
    return {name: min(found) for name, found in times.items()}


def variants(
    kind: Kind, size: tuple[int, int, int, int], compiled: bool
) -> tuple[dict[str, nn.Module], dict[str, Any]]:
    """The layers, settled, and what is called of them."""
    inputs, hidden = size[2:]
    both = kind.options(hidden)
    options = {**both, **kind.own}
    soon, never = collecting_for(kind, 2), collecting_for(kind, 10**9)
    layers: dict[str, nn.Module] = {
        "float": kind.plain(inputs, hidden, **both),
        "ours": kind.ours(inputs, hidden, **options, **soon),
        "ours collecting": kind.ours(inputs, hidden, **options, **never),
    }
    if kind.theirs is not None and find_spec("brevitas") is not None:
        from brevitas import nn as theirs

        layers["Brevitas"] = getattr(theirs, kind.theirs)(inputs, hidden, **options, **soon)
        layers["Brevitas collecting"] = getattr(theirs, kind.theirs)(inputs, hidden, **options, **never)
    called: dict[str, Any] = dict(layers)
    if compiled:
        layers["ours compiled"] = kind.ours(inputs, hidden, **options, **soon)
    for layer in layers.values():
        layer(torch.randn(4, 2, inputs))
    if compiled:
        called["ours compiled"] = torch.compile(layers["ours compiled"], fullgraph=True)
    return layers, called


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--no-memory", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
    for kind in options.kinds:
        for name, size in SIZES.items():
            layers, called = variants(KINDS[kind], size, not options.no_compile)
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
