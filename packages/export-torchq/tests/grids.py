"""Layers on grids that need no data, and what the targets make of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from typing import Any

import torch
from torch import Tensor, nn

import quant_nn as qnn
from export_torchq.engines import ENGINES
from quant_core.export import Artifact, Program, Verification, capture, compare, lower
from quant_core.plugins import Registry
from quant_core.quant import Int8ActPerTensorFixedPoint, Int8WeightPerTensorFixedPoint, Int32Bias


class Act(Int8ActPerTensorFixedPoint):
    """A scale of 2^-5 that needs no data."""

    scaling_impl_type = "const"
    scaling_init = 4.0


EXACT: dict[str, Any] = {"weight_quant": Int8WeightPerTensorFixedPoint, "bias_quant": Int32Bias}
"""Layers whose arithmetic is exact: scales are powers of two, and biases are on the grid of the accumulator."""
ALONE = Registry([EntryPoint("export-torchq", "export_torchq.plugin", "quant")])
"""This package without others, whose targets would be offered as remedies."""


PRESENT = [engine for engine in ENGINES if engine in torch.backends.quantized.supported_engines]


class Lowered:
    """A model, and what a target made of it."""

    def __init__(self, model: nn.Module, program: Program, artifact: Artifact) -> None:
        self.model = model
        self.program = program
        self.artifact: Any = artifact

    def compared(self, *inputs: Tensor) -> Verification:
        return compare(self.model, self.program, self.artifact, inputs)


def lowered(target: str, model: nn.Module, *inputs: Tensor, shapes: Any = None, **options: Any) -> Lowered:
    program = capture(model.eval(), inputs, dynamic_shapes=shapes)
    return Lowered(model, program, lower(program, target, plugins=ALONE, **options))


def with_each_engine(model: nn.Module, *inputs: Tensor) -> Iterator[tuple[str, Lowered]]:
    """What ``torchq`` makes of a model, which is captured once, for each engine that this build of torch has."""
    program = capture(model.eval(), inputs)
    for engine in PRESENT:
        yield engine, Lowered(model, program, lower(program, "torchq", plugins=ALONE, engine=engine))


class Called(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *given: Tensor) -> Tensor:
        return self.function(*given)


class Middle(nn.Module):
    """A function of values on a grid, and the rounding of its result."""

    def __init__(self, function: Callable[..., Tensor], entry: Any = Act, out: Any = Act) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(entry, return_quant_tensor=True)
        self.out = qnn.QuantIdentity(out)
        self.layer = function if isinstance(function, nn.Module) else Called(function)

    def forward(self, *values: Tensor) -> Tensor:
        rounded: Tensor = self.out(self.layer(*(self.entry(value) for value in values)))
        return rounded


def values(*shape: int, seed: int = 0) -> Tensor:
    """Multiples of 2^-10: between two levels of :class:`Act`, also on the border, but never so near to it that floats decide."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return torch.round(drawn * 1024) / 1024
