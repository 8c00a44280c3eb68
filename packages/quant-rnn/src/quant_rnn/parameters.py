"""The float parameters of a recurrent layer: the names, the shapes and the initial values that torch.nn gives them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from quant_core.errors import ConfigurationError


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

    @property
    def products(self) -> int:
        """How many products are added up for one step of one sequence."""
        projection = self.outputs * self.hidden if self.outputs != self.hidden else 0
        features = self.inputs + (self.layers - 1) * self.outputs * self.directions  # what all layers read
        gates = self.gates * self.hidden * (features + self.layers * self.outputs)
        return self.directions * (gates + self.layers * projection)


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


def check_options(
    layer: str, sizes: Mapping[str, Any], *, dropout: float, proj_size: int, shares_without_need: bool
) -> None:
    """The options of a recurrent layer are possible, and none of them is without effect.

    Args:
        layer: its type, for errors.
        sizes: by name, each a whole number of at least 1.
        dropout: a probability.
        proj_size: features of a projected output, less than the hidden ones; 0 for none.
        shares_without_need: whether input weights are to be shared and there is one direction.

    Raises:
        ConfigurationError: when they are not.
    """
    for name, number in sizes.items():
        _check_whole(layer, name, number)
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float)) or not 0 <= dropout <= 1:
        raise ConfigurationError(
            f"dropout={dropout!r} is no probability",
            where=layer,
            why="it is the share of outputs that are set to zero between layers, from 0 to 1",
            fix="Use a number such as 0.2.",
        )
    if dropout > 0 and sizes["num_layers"] == 1:
        raise ConfigurationError(
            f"dropout={dropout!r} has no effect",
            where=layer,
            why="it acts between layers, and num_layers is 1",
            fix="Leave dropout out, or set num_layers to 2 or more.",
        )
    if isinstance(proj_size, bool) or not isinstance(proj_size, int) or not 0 <= proj_size < sizes["hidden_size"]:
        raise ConfigurationError(
            f"proj_size={proj_size!r} is out of range",
            where=layer,
            why=f"the output is projected to fewer features than hidden_size={sizes['hidden_size']}, or not (0)",
            fix=f"Use a number from 0 to {sizes['hidden_size'] - 1}.",
        )
    if shares_without_need:
        raise ConfigurationError(
            "shared_input_hidden_weights=True has no effect",
            where=layer,
            why="two directions share the weights of their input, and bidirectional is False",
            fix="Set bidirectional=True, or leave shared_input_hidden_weights out.",
        )


def _check_whole(layer: str, name: str, number: Any) -> None:
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise ConfigurationError(
            f"{name}={number!r} is no size",
            where=layer,
            why="it is a whole number, at least 1",
            fix=f"Set {name} to a positive integer.",
        )
