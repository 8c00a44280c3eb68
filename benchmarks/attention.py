"""How long a training step of attention takes: float torch, ours and Brevitas in one run, on one thread, as ratios; and memory.

    python benchmarks/attention.py [--rounds 7] [--repeats 3] [--no-compile]

The layer attends a sequence to itself. "Ours, products in float" quantizes projections only, so that torch's fused kernel
computes the products; it is measured without the attention weights as an output, as is "float, fused". Timings on a shared
machine are noisy: the variants take turns, and the median of the rounds is compared. Memory is what the forward pass keeps for
the backward pass, as saved-tensor hooks see it. Brevitas is left out where it is not installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from training import Step, medians

SIZES = {"short": (32, 32, 64, 4), "long": (4, 256, 128, 8)}
"""Name → batch, length, embed_dim and num_heads."""
QUANTIZERS = ("in_proj_input", "q_scaled", "k_transposed", "v", "attn_output_weights", "out_proj_input")


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A layer in the steady state, and whether the attention weights are returned."""

    layer: nn.Module
    need_weights: bool = True

    def step(self, x: Tensor, model: Callable[..., Any] | None = None) -> Step:
        """One step of SGD on a fixed batch; the gradient of the input is computed, as within a network."""
        optimizer = torch.optim.SGD(self.layer.parameters(), lr=1e-6)
        call = self.layer if model is None else model

        def step() -> None:
            optimizer.zero_grad()
            leaf = x.detach().requires_grad_()
            call(leaf, leaf, leaf, need_weights=self.need_weights)[0].square().mean().backward()
            optimizer.step()

        return step

    def kept(self, x: Tensor) -> int:
        """Bytes that are kept for the backward pass, without parameters."""
        own = {parameter.untyped_storage().data_ptr() for parameter in self.layer.parameters()}
        sizes: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        leaf = x.detach().requires_grad_()
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            out = self.layer(leaf, leaf, leaf, need_weights=self.need_weights)
        found = sum(sizes.values())
        del out
        return found


def variants(embed_dim: int, heads: int, x: Tensor) -> dict[str, Variant]:
    """The layers, with statistics collected."""
    import quant_nn as qnn

    short: dict[str, Any] = {f"{name}_collect_stats_steps": 1 for name in QUANTIZERS}
    projections = {name: steps for name, steps in short.items() if "proj" in name}
    floats = dict.fromkeys(f"{name}_quant" for name in QUANTIZERS if "proj" not in name)
    found = {
        "float": Variant(layer=nn.MultiheadAttention(embed_dim, heads)),
        "ours": Variant(layer=qnn.QuantMultiheadAttention(embed_dim, heads, **short)),
        "float, fused": Variant(layer=nn.MultiheadAttention(embed_dim, heads), need_weights=False),
        "ours, products in float": Variant(
            layer=qnn.QuantMultiheadAttention(embed_dim, heads, **projections, **floats), need_weights=False
        ),
    }
    if find_spec("brevitas"):
        import brevitas.nn as bnn

        found["brevitas"] = Variant(layer=bnn.QuantMultiheadAttention(embed_dim, heads, **short))
    for variant in found.values():
        with torch.no_grad():
            variant.layer(x, x, x)
            variant.layer(x, x, x)
    return found


def report(name: str, how: str, seconds: dict[str, float], kept: dict[str, int]) -> None:
    for variant, found in seconds.items():
        base = seconds["float, fused" if variant in ("float, fused", "ours, products in float") else "float"]
        against = f"  {seconds['ours'] / found:5.2f} ours/this" if variant == "brevitas" else ""
        memory = f"  {kept[variant] / 2**20:6.1f} MiB kept" if variant in kept else ""
        print(f"{name:6} {how:8} {variant:24} {found * 1e3:8.1f} ms  {found / base:5.2f} × float{memory}{against}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for name, (batch, length, embed_dim, heads) in SIZES.items():
        torch.manual_seed(0)
        x = torch.randn(length, batch, embed_dim)
        built = variants(embed_dim, heads, x)
        kept = {variant: made.kept(x) for variant, made in built.items()}
        eager = {variant: made.step(x) for variant, made in built.items()}
        report(name, "eager", medians(eager, options.rounds, options.repeats), kept)
        if options.no_compile:
            continue
        compiled = {
            variant: made.step(x, torch.compile(made.layer, fullgraph=True))
            for variant, made in built.items()
            if variant != "brevitas"
        }
        report(name, "compiled", medians(compiled, options.rounds, options.repeats), {})


if __name__ == "__main__":
    main()
