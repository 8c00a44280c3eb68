"""What fits multi-head attention: its sizes, and the shapes of its inputs and masks."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from quant_core.errors import ConfigurationError, InputError
from quant_nn.attention_masks import check_mask


def check_attention_sizes(embed_dim: int, num_heads: int, dropout: float, *, where: str) -> None:
    """The features are split evenly among the heads, and dropout is a probability.

    Raises:
        ConfigurationError: when they cannot be, or it is none.

    >>> check_attention_sizes(16, 4, 0.1, where="QuantMultiheadAttention")
    """
    if embed_dim < 1 or num_heads < 1 or embed_dim % num_heads != 0:
        raise ConfigurationError(
            f"embed_dim={embed_dim} cannot be split into num_heads={num_heads}",
            where=where,
            why="both are positive, and each head has embed_dim / num_heads features",
            fix="Make embed_dim a multiple of num_heads.",
        )
    if not 0.0 <= dropout <= 1.0:
        raise ConfigurationError(
            f"dropout={dropout!r} is no probability",
            where=where,
            why="it is the share of the attention weights that is dropped, from 0 to 1",
            fix="Use a number such as 0.1.",
        )


def check_attention_inputs(
    layer: nn.MultiheadAttention, query: torch.Size, key: torch.Size, value: torch.Size, *, where: str
) -> tuple[int, int, int]:
    """The size of the batch, and the lengths of queries and keys.

    Raises:
        InputError: when the shapes of the three inputs do not fit the layer or each other.
    """
    axes = len(query)
    batch, position = (0, 1) if layer.batch_first else (1, 0)
    if axes not in (2, 3) or not axes == len(key) == len(value):
        reason = "all have three axes, or all two without a batch"
    elif (query[-1], key[-1], value[-1]) != (layer.embed_dim, layer.kdim, layer.vdim):
        reason = f"the last axes are embed_dim={layer.embed_dim}, kdim={layer.kdim} and vdim={layer.vdim}"
    elif key[:-1] != value[:-1]:
        reason = "each key has a value, so that only their last axes may differ"
    elif axes == 3 and query[batch] != key[batch]:
        reason = f"axis {batch} holds the batch, of one size"
    elif axes == 3:
        return query[batch], query[position], key[position]
    else:
        return 1, query[0], key[0]
    order = "(N, L, E), (N, S, kdim), (N, S, vdim)" if layer.batch_first else "(L, N, E), (S, N, kdim), (S, N, vdim)"
    raise InputError(
        f"query {tuple(query)}, key {tuple(key)} and value {tuple(value)} do not fit this layer",
        where=where,
        why=f"they are {order}: {reason}",
        fix=f"Check the order of the axes; the layer has batch_first={layer.batch_first}.",
    )


def check_attention_masks(
    layer: nn.MultiheadAttention,
    attn_mask: Tensor | None,
    key_padding_mask: Tensor | None,
    is_causal: bool,
    sizes: tuple[int, int, int],
    *,
    batched: bool,
    where: str,
) -> None:
    """Masks fit a batch of ``(N, L, S)``, or one query sequence without a batch.

    Raises:
        InputError: when they do not, or there is none to which the hint ``is_causal`` could apply.
    """
    batch, length, source = sizes
    if is_causal and attn_mask is None:
        raise InputError(
            "is_causal=True without attn_mask",
            where=where,
            why="it is a hint that attn_mask is the causal mask, as in torch, and makes none",
            fix="Pass attn_mask=nn.Transformer.generate_square_subsequent_mask(L) as well.",
        )
    if attn_mask is not None:
        shapes = ((length, source), (batch * layer.num_heads, length, source))
        check_mask("attn_mask", attn_mask, shapes, "(L, S) or (N·num_heads, L, S)", where=where)
    if key_padding_mask is not None:
        padding = (batch, source) if batched else (source,)
        axes = "(N, S)" if batched else "(S,) without a batch"
        check_mask("key_padding_mask", key_padding_mask, (padding,), axes, where=where)
