"""Functions of torch as modules, so that rules can replace them: sums, concatenations and attention products.

A model that is written with them, in place of ``+``, ``torch.cat`` and ``F.scaled_dot_product_attention``, computes the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EltwiseAdd(nn.Module):
    """``y = a + b``, which rules make a :class:`QuantEltwiseAdd` of.

    >>> EltwiseAdd()(torch.tensor([1.0]), torch.tensor([2.0]))
    tensor([3.])
    """

    def forward(self, input: Tensor, other: Tensor) -> Tensor:
        """Two tensors of shapes that broadcast."""
        return input + other


class Cat(nn.Module):
    """``y = cat(x₁, x₂, …)``, which rules make a :class:`QuantCat` of.

    >>> Cat()([torch.zeros(1, 2), torch.zeros(1, 3)]).shape
    torch.Size([1, 5])
    """

    def forward(self, tensor_list: Sequence[Tensor], dim: int = 1) -> Tensor:
        """Tensors whose shapes are equal but for axis ``dim``."""
        return torch.cat(list(tensor_list), dim)


class ScaledDotProductAttention(nn.Module):
    """``F.scaled_dot_product_attention``, which rules make a :class:`QuantScaledDotProductAttention` of.

    >>> x = torch.zeros(1, 2, 3, 4)
    >>> ScaledDotProductAttention()(x, x, x).shape
    torch.Size([1, 2, 3, 4])
    """

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> Tensor:
        """``(..., L, E)``, ``(..., S, E)`` and ``(..., S, Ev)`` → ``(..., L, Ev)``, as the function of torch."""
        return F.scaled_dot_product_attention(
            query, key, value, attn_mask, dropout_p, is_causal, scale=scale, enable_gqa=enable_gqa
        )
