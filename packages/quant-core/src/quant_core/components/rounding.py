"""Rounding that is more than a function of one number: at random, or learned.

What only depends on the number is a ``rounding_mode``. A module given as ``rounding_impl`` takes its place: it gets ``x/scale +
zero_point`` and returns whole numbers, with the gradient that it wants. That is where a learned rounding goes as well.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_core.ops import round_ste, straight_through

_WORD = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
_RESOLUTION = 2.0**-24


class StochasticRounding(nn.Module):
    """``⌊x⌋ + [u < x − ⌊x⌋]`` with ``u`` uniform in [0, 1): up with the probability of the fraction, right on average.

    It draws in training mode only. In eval mode, and whenever a model is exported, it rounds to the nearest integer, ties to
    even.

    Args:
        seed: with a seed, the numbers depend on the seed, the count of calls and the place in the tensor alone. They are the
            same in eager mode and compiled, on every device, and go on where a checkpoint left off, because it holds the
            count. Two quantizers with one seed draw the same numbers. Without a seed they come from torch's generator, which
            ``torch.manual_seed`` sets.

    Gradient: ``∂out/∂x = 1``.

    Raises:
        ConfigurationError: when ``seed`` is not a whole number.

    Gupta et al., "Deep learning with limited numerical precision", ICML 2015, section 3.

    >>> rounding = StochasticRounding(seed=0)
    >>> round(rounding(torch.full((10_000,), 0.3)).mean().item(), 2)
    0.3
    >>> rounding.eval()(torch.full((3,), 0.3))
    tensor([0., 0., 0.])
    """

    draws: Tensor

    def __init__(self, seed: int | None = None) -> None:
        super().__init__()
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise ConfigurationError(
                f"seed={seed!r} is not a seed",
                why="the random numbers are computed from a whole number",
                fix="Use a whole number, or leave it out to draw from torch's generator.",
            )
        self.seed = seed
        if seed is not None:
            self.register_buffer("draws", torch.tensor(0, dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        """``x``: float tensor of any shape; returns whole numbers in the same shape and dtype."""
        if not self.training or torch.compiler.is_exporting():
            return round_ste(x)
        exact = x.detach()
        below = torch.floor(exact)
        return straight_through(x, below + (self._uniform(exact) < exact - below))

    def _uniform(self, x: Tensor) -> Tensor:
        if self.seed is None:
            return torch.rand_like(x)
        with torch.no_grad():
            key = _mix(self.draws * _GOLDEN + self.seed)
            self.draws.add_(1)
            place = torch.arange(x.numel(), dtype=torch.int64, device=x.device)
            return ((_mix(place.mul_(_GOLDEN).add_(key)) >> 8).to(x.dtype) * _RESOLUTION).reshape(x.shape)

    def extra_repr(self) -> str:
        """The seed."""
        return f"seed={self.seed}"


def _mix(word: Tensor) -> Tensor:
    """Scatter the lower 32 bits of an int64 tensor: a bijection whose output bits each depend on all input bits.

    The multipliers are those of the ``lowbias32`` hash, found by search (Wellons, "Prospecting for hash functions", 2018).
    """
    word = word & _WORD
    word = ((word ^ (word >> 16)) * 0x7FEB352D) & _WORD
    word = ((word ^ (word >> 15)) * 0x846CA68B) & _WORD
    return word ^ (word >> 16)
