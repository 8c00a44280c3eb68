"""A layer as tests and tables build it: its arguments, what it takes, and the quantizer that stands in front of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import Int8ActPerTensorFloatMinMaxInit
from quant_core.tensor import QuantTensor

Family = Literal["weight", "activation", "join", "pass"]
"""What a layer does: multiplies by a weight, quantizes a function, joins several tensors, or hands on what comes in."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How one layer is built, and what it takes.

    Attributes:
        layer: its name in ``quant_nn``.
        family: what it does.
        shapes: the shapes of its inputs.
        args: its positional arguments.
        options: keyword arguments; statistics are collected for one step, so that a second call is in the steady state.
        on_accumulator: keyword arguments with which a quantized input gives a quantized output: a bias on the accumulator's
            grid, for example.
        float_type: the layer of torch that it stands for, which takes ``args`` as well.
        indices: for an input of integers, how many there are; ``None`` for float inputs.
        joined: whether the inputs are handed over as one list.
        takes_floats: whether it takes plain tensors; accumulators have to be quantized.
    """

    layer: str
    family: Family
    shapes: tuple[tuple[int, ...], ...]
    args: tuple[Any, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    on_accumulator: Mapping[str, Any] = field(default_factory=dict)
    float_type: type[nn.Module] | None = None
    indices: int | None = None
    joined: bool = False
    takes_floats: bool = True

    def build(self, **options: Any) -> nn.Module:
        """The layer, with further options."""
        built: nn.Module = getattr(qnn, self.layer)(*self.args, **{**self.options, **options})
        return built

    def inputs(self, seed: int = 0) -> tuple[Any, ...]:
        """Plain inputs, the same for each seed."""
        generator = torch.Generator().manual_seed(seed)
        if self.indices is not None:
            return tuple(torch.randint(0, self.indices, shape, generator=generator) for shape in self.shapes)
        return tuple(torch.randn(shape, generator=generator) for shape in self.shapes)


_ENTRY: Final[Mapping[str, Any]] = {"min_val": -2.0, "max_val": 2.0, "bit_width": 5, "return_quant_tensor": True}


class SampleNet(nn.Module):
    """A sample as it stands in a network: with an entry quantizer before it where its input shall be quantized.

    Args:
        sample: which layer.
        quantized: whether what it takes is quantized, and returned quantized where it can be.
    """

    def __init__(self, sample: Sample, *, quantized: bool) -> None:
        super().__init__()
        entering = (quantized or not sample.takes_floats) and sample.indices is None
        self.entry = qnn.QuantIdentity(act_quant=Int8ActPerTensorFloatMinMaxInit, **_ENTRY) if entering else None
        self.layer = sample.build(**(sample.on_accumulator if quantized else {}))
        self.joined = sample.joined

    def forward(self, *inputs: Tensor) -> Tensor:
        """The value of what the layer returns, of the first thing where there are several."""
        taken: list[Any] = [x if self.entry is None else self.entry(x) for x in inputs]
        out = self.layer(taken) if self.joined else self.layer(*taken)
        out = out[0] if isinstance(out, tuple) else out
        return out.value if isinstance(out, QuantTensor) else out
