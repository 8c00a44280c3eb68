"""How long a training step takes: float torch, Brevitas and ours in one run, on one thread, as ratios.

    python benchmarks/training.py [--networks lenet resnet8 mobilenet] [--rounds 7] [--no-compile]

The input is not quantized unless ``--quantize-input`` is given: a learned scale of the input makes the first convolution compute
the gradient of its input, which float torch never does and which costs more than all quantizers of a LeNet together.

Timings on a shared machine are noisy: the variants take turns, and the median of the rounds is compared. Brevitas is left out
where it is not installed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from importlib.util import find_spec

import torch
from models import NETWORKS, Layers, brevitas_layers, float_layers, our_layers
from torch import Tensor, nn

Step = Callable[[], None]


def training_step(net: nn.Module, batch: int) -> Step:
    """One step of SGD on a fixed random batch."""
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=1e-3)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(batch, 3, 32, 32, generator=generator)
    target = torch.randint(0, 10, (batch,), generator=generator)

    def step() -> None:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), target)
        loss.backward()
        optimizer.step()

    return step


def medians(steps: dict[str, Step], rounds: int, repeats: int) -> dict[str, float]:
    """The median seconds of each, taken in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step()
        step()
    for _ in range(rounds):
        for name, step in steps.items():
            start = time.perf_counter()
            for _ in range(repeats):
                step()
            times[name].append((time.perf_counter() - start) / repeats)
    return {name: statistics.median(found) for name, found in times.items()}


def build(network: str, layers: Layers, *, steady: bool) -> tuple[nn.Module, int]:
    """A network in training mode; steady means that its statistics have been collected."""
    make, batch = NETWORKS[network]
    torch.manual_seed(0)
    net = make(layers).train()
    if steady and layers.name != "float":
        with torch.no_grad():
            net(torch.randn(batch, 3, 32, 32))
            net(torch.randn(batch, 3, 32, 32))
    return net, batch


def eager(network: str, rounds: int, repeats: int, quantize_input: bool) -> None:
    """Eager steps: steady state and while collecting statistics."""
    variants: dict[str, tuple[Layers, bool]] = {
        "float": (float_layers(), True),
        "ours": (our_layers(collect_stats_steps=1, quantize_input=quantize_input), True),
        "ours, collecting": (our_layers(collect_stats_steps=10**6, quantize_input=quantize_input), False),
    }
    if find_spec("brevitas"):
        variants["brevitas"] = (brevitas_layers(collect_stats_steps=1, quantize_input=quantize_input), True)
        variants["brevitas, collecting"] = (
            brevitas_layers(collect_stats_steps=10**6, quantize_input=quantize_input),
            False,
        )
    steps = {}
    for name, (layers, steady) in variants.items():
        net, batch = build(network, layers, steady=steady)
        steps[name] = training_step(net, batch)
    found = medians(steps, rounds, repeats)
    for name, seconds in found.items():
        against = f"  {found['ours'] / seconds:5.2f} ours/this" if name != "ours" else ""
        print(
            f"{network:10} eager    {name:22} {seconds * 1e3:8.1f} ms  {seconds / found['float']:5.2f} × float{against}"
        )


def compiled(network: str, rounds: int, repeats: int, quantize_input: bool) -> None:
    """Steps compiled as a whole, without graph breaks, in the steady state; and how often they were compiled."""
    steps: dict[str, Step] = {}
    for layers in (float_layers(), our_layers(collect_stats_steps=1, quantize_input=quantize_input)):
        net, batch = build(network, layers, steady=True)
        steps[layers.name] = training_step(torch.compile(net, fullgraph=True), batch)
        steps[layers.name]()
    before = _compilations()
    found = medians(steps, rounds, repeats)
    ratio = found["ours"] / found["float"]
    again = _compilations() - before
    for name, seconds in found.items():
        print(f"{network:10} compiled {name:22} {seconds * 1e3:8.1f} ms  {seconds / found['float']:5.2f} × float")
    print(f"{network:10} compiled ratio {ratio:.2f}, compiled again {again} times")


def _compilations() -> int:
    from torch._dynamo.utils import counters

    return int(counters["stats"]["unique_graphs"])


def kept_bytes() -> None:
    """Bytes per element that one activation quantizer keeps for the backward pass, as saved-tensor hooks see them."""
    x = torch.randn(64, 16, 32, 32)
    libraries = [our_layers(collect_stats_steps=1, quantize_input=True)]
    if find_spec("brevitas"):
        libraries.append(brevitas_layers(collect_stats_steps=1, quantize_input=True))
    for layers in libraries:
        for kind in ("entry", "relu"):
            module = getattr(layers, kind)().train()
            module(x)
            module(x)
            sizes: dict[int, int] = {}

            def pack(tensor: Tensor, sizes: dict[int, int] = sizes) -> Tensor:
                sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                kept = module(x.clone().requires_grad_())
            print(f"memory     {layers.name:9} {kind:6} {sum(sizes.values()) / x.numel():5.2f} bytes per element")
            del kept


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true")
    parser.add_argument("--quantize-input", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    kept_bytes()
    for network in options.networks:
        eager(network, options.rounds, options.repeats, options.quantize_input)
        if not options.no_compile:
            compiled(network, options.rounds, options.repeats, options.quantize_input)


if __name__ == "__main__":
    main()
