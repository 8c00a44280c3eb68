"""From projections to heads and back: ``(L, N, E) ↔ (N, H, L, D)`` with ``E = H · D``."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def split_heads(x: Tensor, heads: int, batch_first: bool) -> Tensor:
    """``(N, H, L, D)`` of ``(L, N, E)``, of ``(N, L, E)`` with ``batch_first``, or of ``(L, E)``; a view.

    >>> split_heads(torch.zeros(5, 2, 12), 3, False).shape
    torch.Size([2, 3, 5, 4])
    """
    split: Tensor = x.unflatten(-1, (heads, x.shape[-1] // heads))
    if x.dim() == 2:
        return split.transpose(0, 1).unsqueeze(0)
    return split.transpose(1, 2) if batch_first else split.permute(1, 2, 0, 3)


def join_heads(x: Any, batched: bool, batch_first: bool) -> Any:
    """The inverse of :func:`split_heads`; ``(L, E)`` unless ``batched``. Takes tensors and quantized ones.

    >>> join_heads(torch.zeros(2, 3, 5, 4), True, True).shape
    torch.Size([2, 5, 12])
    """
    if not batched:
        return x.squeeze(0).transpose(0, 1).flatten(-2)
    return (x.transpose(1, 2) if batch_first else x.permute(2, 0, 1, 3)).flatten(-2)


def with_added_keys(x: Tensor, bias: Tensor | None, zeros: bool) -> Tensor:
    """Keys or values ``(N, H, S, D)`` with one learned ``(1, 1, E)``, one of zeros, or both, behind them.

    >>> with_added_keys(torch.zeros(2, 3, 5, 4), torch.ones(1, 1, 12), True).shape
    torch.Size([2, 3, 7, 4])
    """
    if bias is not None:
        batch, heads, _, size = x.shape
        learned = bias.reshape(1, heads, 1, size).expand(batch, -1, -1, -1)
        x = torch.cat([x, learned.to(x.dtype)], dim=-2)
    return F.pad(x, (0, 0, 0, 1)) if zeros else x
