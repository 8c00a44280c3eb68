"""How long a training step of each layer takes, and how much memory: float torch, Brevitas and ours in one run, as ratios.

    python benchmarks/layers.py [--layers QuantLinear ...] [--rounds 7] [--device cpu]

A step is forward and backward, with 4-bit weights or 8-bit activations whose scales are learned already, on one thread. The peak
is what is allocated on top of parameters and inputs at the worst moment of the step. Timings on a shared machine are noisy: the
variants take turns, and the median of the rounds is compared. Brevitas is left out where it is not installed.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor, nn

from training import medians


@dataclass(frozen=True, kw_only=True)
class Case:
    """One layer of realistic size.

    Attributes:
        layer: its name in quant_nn and in Brevitas.
        plain: the layer of torch that it stands for.
        args: its arguments.
        shape: the shape of its input.
        options: keyword arguments of the quantized layers.
        indices: for an input of integers, how many there are.
        entered: whether the input of the quantized layers comes from a quantizer, which is timed with them.
        wrap: what the layer is called through, where it does not take one tensor.
    """

    layer: str
    plain: Callable[..., nn.Module]
    args: tuple[Any, ...]
    shape: tuple[int, ...]
    options: dict[str, Any] = field(default_factory=dict)
    indices: int | None = None
    entered: bool = False
    wrap: Callable[[nn.Module], nn.Module] = field(default=lambda layer: layer)

    def input(self, device: str) -> Tensor:
        """An input that asks for its gradient where it can."""
        if self.indices is not None:
            return torch.randint(0, self.indices, self.shape, device=device)
        return torch.randn(self.shape, device=device, requires_grad=True)


_W4 = {"weight_bit_width": 4}
_A8 = {"collect_stats_steps": 1}
_IMAGES = (64, 16, 16, 16)
_JOINED = {"input_collect_stats_steps": 1, "output_collect_stats_steps": 1}


class Plus(nn.Module):
    """The float sum of a tensor with itself, as the joining layers below compute it."""

    def forward(self, x: Tensor) -> Tensor:
        """``x + x``."""
        return x + x


class Joined(nn.Module):
    """A concatenating layer, given one tensor twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """``layer([x, x])``."""
        out: Tensor = self.layer([x, x])
        return out


class Cat(nn.Module):
    """The float concatenation of a tensor with itself."""

    def forward(self, x: Tensor) -> Tensor:
        """``[x, x]`` along the channels."""
        return torch.cat([x, x], 1)


class Attention(nn.Module):
    """Attention of a sequence to itself."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """The first of what the layer returns."""
        out: Tensor = self.layer(x, x, x)[0]
        return out


class Scaled(nn.Module):
    """The float ``x · weight + bias`` of each channel."""

    def __init__(self, channels: int, bias: bool) -> None:
        super().__init__()
        self.shape = (1, channels, 1, 1)
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """``x · weight + bias``."""
        return x * self.weight.view(self.shape) + self.bias.view(self.shape)


class Doubled(nn.Module):
    """A joining layer, given one tensor twice."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """``layer(x, x)``."""
        out: Tensor = self.layer(x, x)
        return out


CASES = (
    Case(layer="QuantLinear", plain=nn.Linear, args=(512, 512), shape=(256, 512), options=_W4),
    Case(layer="QuantConv1d", plain=nn.Conv1d, args=(64, 64, 5), shape=(16, 64, 256), options=_W4),
    Case(layer="QuantConv2d", plain=nn.Conv2d, args=(32, 64, 3), shape=(16, 32, 32, 32), options=_W4),
    Case(layer="QuantConv3d", plain=nn.Conv3d, args=(8, 16, 3), shape=(2, 8, 16, 16, 16), options=_W4),
    Case(layer="QuantConvTranspose1d", plain=nn.ConvTranspose1d, args=(64, 64, 4, 2), shape=(16, 64, 128), options=_W4),
    Case(
        layer="QuantConvTranspose2d", plain=nn.ConvTranspose2d, args=(32, 32, 4, 2), shape=(8, 32, 16, 16), options=_W4
    ),
    Case(layer="QuantConvTranspose3d", plain=nn.ConvTranspose3d, args=(8, 8, 2, 2), shape=(2, 8, 8, 8, 8), options=_W4),
    Case(layer="QuantEmbedding", plain=nn.Embedding, args=(5000, 64), shape=(64, 32), options=_W4, indices=5000),
    Case(layer="QuantIdentity", plain=nn.Identity, args=(), shape=(64, 16, 32, 32), options=_A8),
    Case(layer="QuantReLU", plain=nn.ReLU, args=(), shape=(64, 16, 32, 32), options=_A8),
    Case(layer="QuantTanh", plain=nn.Tanh, args=(), shape=(64, 16, 32, 32), options=_A8),
    Case(layer="QuantSigmoid", plain=nn.Sigmoid, args=(), shape=(64, 16, 32, 32), options=_A8),
    Case(
        layer="QuantHardTanh",
        plain=nn.Hardtanh,
        args=(),
        shape=(64, 16, 32, 32),
        options={"min_val": -1.0, "max_val": 1.0},
    ),
    Case(layer="QuantEltwiseAdd", plain=Plus, args=(), shape=(64, 16, 32, 32), options=_JOINED, wrap=Doubled),
    Case(layer="QuantCat", plain=Cat, args=(), shape=(64, 16, 32, 32), options=_JOINED, wrap=Joined),
    Case(layer="QuantScaleBias", plain=Scaled, args=(16, True), shape=(64, 16, 32, 32), options=_W4),
    Case(
        layer="TruncAvgPool2d",
        plain=nn.AvgPool2d,
        args=(2,),
        shape=(64, 16, 32, 32),
        options={"return_quant_tensor": True},
        entered=True,
    ),
    Case(
        layer="TruncAdaptiveAvgPool2d",
        plain=nn.AdaptiveAvgPool2d,
        args=(4,),
        shape=(64, 16, 32, 32),
        options={"return_quant_tensor": True},
        entered=True,
    ),
    Case(layer="QuantUpsamplingNearest2d", plain=nn.UpsamplingNearest2d, args=(None, 2), shape=_IMAGES, entered=True),
    Case(layer="QuantUpsamplingBilinear2d", plain=nn.UpsamplingBilinear2d, args=(None, 2), shape=_IMAGES, entered=True),
    Case(layer="QuantUpsample", plain=nn.Upsample, args=(None, 2), shape=_IMAGES, entered=True),
    Case(layer="QuantMaxPool2d", plain=nn.MaxPool2d, args=(2,), shape=_IMAGES, entered=True),
    Case(layer="QuantDropout", plain=nn.Dropout, args=(0.5,), shape=_IMAGES, entered=True),
    Case(layer="HadamardClassifier", plain=nn.Linear, args=(512, 512), shape=(256, 512)),
    Case(layer="QuantMultiheadAttention", plain=nn.MultiheadAttention, args=(64, 4), shape=(64, 8, 64), wrap=Attention),
)


def variants(case: Case, device: str) -> Iterator[tuple[str, nn.Module]]:
    """The layer of each library that has it."""
    plain = case.plain(*case.args)
    yield "float", (case.wrap(plain) if isinstance(plain, nn.MultiheadAttention) else plain).to(device)
    for name, module in (("ours", "quant_nn"), ("brevitas", "brevitas.nn")):
        if find_spec(module.partition(".")[0]) is None:
            continue
        layers: Any = import_module(module)
        try:
            layer = case.wrap(getattr(layers, case.layer)(*case.args, **case.options))
        except Exception:
            if name == "ours":  # Brevitas lacks some, and cannot build others without more packages
                raise
            continue
        if case.entered:
            entry = layers.QuantIdentity(bit_width=4, return_quant_tensor=True, **_A8)
            yield name, nn.Sequential(entry, layer).to(device)
        else:
            yield name, layer.to(device)


def step_of(net: nn.Module, x: Tensor) -> Callable[[], None]:
    """Forward and backward, with the gradients of the step before thrown away."""

    def step() -> None:
        net.zero_grad()
        x.grad = None
        out = net(x)
        out = getattr(out, "value", out)
        out.backward(torch.ones_like(out)) if out.requires_grad else None
        if x.is_cuda:
            torch.cuda.synchronize()

    return step


def peak(step: Callable[[], None], device: str) -> int:
    """The most bytes that are allocated at once during a step, beyond those before it."""
    if device.startswith("cuda"):
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    allocated = most = 0
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    for event in sorted(events, key=lambda event: event.start_ns()):
        allocated += event.nbytes()
        most = max(most, allocated)
    return most


def _fails(step: Callable[[], None]) -> str:
    """Why a step cannot be taken; empty where it can."""
    try:
        step()
    except Exception as error:  # whatever another library says
        return f"{type(error).__name__}: {str(error).splitlines()[0]}"
    return ""


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", nargs="+", default=[case.layer for case in CASES])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    for case in CASES:
        if case.layer not in options.layers:
            continue
        torch.manual_seed(0)
        nets = dict(variants(case, options.device))
        steps = {name: step_of(net, case.input(options.device)) for name, net in nets.items()}
        if "brevitas" in steps and (failure := _fails(steps["brevitas"])):
            print(f"{case.layer:22} brevitas  {failure}")
            del steps["brevitas"]
        seconds = medians(steps, options.rounds, options.repeats)
        for name, step in steps.items():
            most = peak(step, options.device)
            if name == "float":
                base = most
            print(
                f"{case.layer:22} {name:9} {seconds[name] * 1e3:8.2f} ms {seconds[name] / seconds['float']:6.2f} × float  "
                f"peak {most / 2**20:8.2f} MiB {most / max(base, 1):5.2f} × float"
            )


if __name__ == "__main__":
    main()
