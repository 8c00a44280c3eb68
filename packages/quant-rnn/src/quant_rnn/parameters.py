"""The float parameters of a recurrent layer: the names, the shapes and the initial values that torch.nn gives them."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """What the shapes of the parameters depend on.

    Attributes:
        inputs: features of the input of the first layer, ``I``.
        hidden: features of the hidden state, ``H``.
        outputs: features of the output of one direction: ``H``, or the size that it is projected to.
        gates: how many gates are stacked, ``G``.
        layers: layers on top of each other.
        directions: 1, or 2 where the sequence is also read from its end.
        bias: whether there are biases.
        shared_input: whether both directions have the input weights of the first one.
    """

    inputs: int
    hidden: int
    outputs: int
    gates: int
    layers: int
    directions: int
    bias: bool
    shared_input: bool

    def shapes(self, layer: int, direction: int) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Name and shape of each parameter of one direction of one layer, in the order of torch.nn.

        >>> sizes = Sizes(inputs=3, hidden=4, outputs=4, gates=4, layers=1, directions=1, bias=False, shared_input=False)
        >>> list(sizes.shapes(0, 0))
        [('weight_ih_l0', (16, 3)), ('weight_hh_l0', (16, 4))]
        """
        rows = self.gates * self.hidden
        inputs = self.inputs if layer == 0 else self.outputs * self.directions
        end = suffix(layer, direction)
        if direction == 0 or not self.shared_input:
            yield f"weight_ih{end}", (rows, inputs)
        yield f"weight_hh{end}", (rows, self.outputs)
        if self.bias:
            yield f"bias_ih{end}", (rows,)
            yield f"bias_hh{end}", (rows,)
        if self.outputs != self.hidden:
            yield f"weight_hr{end}", (self.outputs, self.hidden)


def suffix(layer: int, direction: int) -> str:
    """``_l0``, ``_l0_reverse``, ``_l1``, …

    >>> suffix(1, 1)
    '_l1_reverse'
    """
    return f"_l{layer}{'_reverse' if direction else ''}"


def register(module: nn.Module, sizes: Sizes, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
    """Give a module the parameters, with values that :func:`reset` draws."""
    for layer in range(sizes.layers):
        for direction in range(sizes.directions):
            for name, shape in sizes.shapes(layer, direction):
                module.register_parameter(name, nn.Parameter(torch.empty(shape, device=device, dtype=dtype)))
    reset(module, sizes)


def reset(module: nn.Module, sizes: Sizes) -> None:
    """Draw the parameters from the uniform distribution over ``±1/√H``, one after the other, as torch.nn does."""
    bound = 1.0 / math.sqrt(sizes.hidden)
    for layer in range(sizes.layers):
        for direction in range(sizes.directions):
            for name, _ in sizes.shapes(layer, direction):
                nn.init.uniform_(module.get_parameter(name), -bound, bound)
