"""From the threshold of a quantizer to its scale."""

from __future__ import annotations

from torch import Tensor


def scale_of(threshold: Tensor, integers: tuple[Tensor | float, Tensor | float], *, signed: bool) -> Tensor:
    """``threshold / m``, where ``m`` is the largest magnitude of the integer range ``lo … hi``: ``−lo`` if signed, else ``hi``.

    >>> import torch
    >>> scale_of(torch.tensor(1.0), (-8.0, 7.0), signed=True)
    tensor(0.1250)
    """
    low, high = integers
    return threshold / (-low if signed else high)
