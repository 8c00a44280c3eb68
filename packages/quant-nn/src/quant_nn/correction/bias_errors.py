"""What bias correction asks of layers whose biases are terms of sums that no output shows, such as those of recurrent ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class BiasError:
    """What rounding the weights adds to the sums that a bias is a term of.

    Attributes:
        name: the name of the bias in the layer.
        bias: the bias, ``(O,)``.
        module: the layer, or the part of it whose calls tell.
        of_call: takes positional arguments and result of one call of ``module``; returns what rounding the weights has added to
            each sum, ``(Q(W) − W)·z``, added up over all positions, ``(O,)``, and how many positions there were.
    """

    name: str
    bias: nn.Parameter
    module: nn.Module
    of_call: Callable[[tuple[Any, ...], Any], tuple[Tensor, int]]


@runtime_checkable
class TellsBiasErrors(Protocol):
    """A layer whose biases :func:`~quant_nn.correction.correct_bias` corrects by what it is told here.

    >>> import torch
    >>> class Doubling(nn.Module):
    ...     '''Rounds 2.3 to 2 and adds a bias.'''
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.bias = nn.Parameter(torch.zeros(1))
    ...     def forward(self, x):
    ...         return 2 * x + self.bias
    ...     def bias_errors(self):
    ...         error = lambda args, out: ((2 - 2.3) * args[0].sum(0), len(args[0]))
    ...         return [BiasError(name="bias", bias=self.bias, module=self, of_call=error)]
    >>> from quant_nn.correction import correct_bias
    >>> layer = Doubling()
    >>> _ = correct_bias(layer, [torch.ones(4, 1)])
    >>> layer(torch.ones(1, 1))
    tensor([[2.3000]], grad_fn=<AddBackward0>)
    """

    def bias_errors(self) -> Sequence[BiasError]:
        """One for each bias; none where the layer has no bias."""
