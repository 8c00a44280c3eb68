"""Masks of attention: what fits, and how several become one.

Inside of the layers a bool mask is true where a key takes part, as :func:`torch.nn.functional.scaled_dot_product_attention` has
it. :class:`torch.nn.MultiheadAttention` has it the other way round. Float masks are added to the scores by both.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from quant_core.errors import InputError
from quant_core.ops.shapes import broadcasts_to


def masked_scores(scores: Tensor, mask: Tensor | None, is_causal: bool) -> Tensor:
    """Scores ``(..., L, S)`` with ``−∞`` where a key takes no part, or with a float mask added.

    >>> masked_scores(torch.zeros(2, 2), None, True)
    tensor([[0., -inf],
            [0., 0.]])
    """
    if is_causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is None:
        return scores
    if mask.dtype == torch.bool:
        return scores.masked_fill(~mask, float("-inf"))
    return scores + mask.to(scores.dtype)


def check_mask(name: str, mask: Tensor, shapes: tuple[tuple[int, ...], ...], axes: str, *, where: str) -> None:
    """A mask is bool or float, and has one of the shapes.

    Args:
        name: the name of the argument.
        mask: the mask.
        shapes: the shapes that it may have.
        axes: what the axes of these shapes are.
        where: the layer.

    Raises:
        InputError: when it is or has not.
    """
    _check_dtype(name, mask, where)
    if tuple(mask.shape) not in shapes:
        raise InputError(
            f"{name} of shape {tuple(mask.shape)} does not fit",
            where=where,
            why=f"it has the shape {axes}, here {' or '.join(str(shape) for shape in shapes)}",
            fix="Check the lengths of queries and keys, and batch_first.",
        )


def check_broadcast_mask(mask: Tensor | None, shape: tuple[int, ...], is_causal: bool, *, where: str) -> None:
    """A mask broadcasts to the shape ``(..., L, S)`` of the scores, and stands alone.

    Raises:
        InputError: when it is neither bool nor float, does not broadcast, or ``is_causal`` is set as well.
    """
    if mask is None:
        return
    if is_causal:
        raise InputError(
            "attn_mask and is_causal are both given",
            where=where,
            why="is_causal stands for a mask of its own",
            fix="Leave is_causal out, and let attn_mask hold the causal mask as well.",
        )
    _check_dtype("attn_mask", mask, where)
    if not broadcasts_to(mask.shape, torch.Size(shape)):
        raise InputError(
            f"attn_mask of shape {tuple(mask.shape)} does not fit",
            where=where,
            why=f"it broadcasts to the shape (..., L, S) of the scores, here {shape}",
            fix="Check the lengths of queries and keys.",
        )


def merged_mask(attn_mask: Tensor | None, key_padding_mask: Tensor | None, *, heads: int, extra: int) -> Tensor | None:
    """The two masks of :class:`torch.nn.MultiheadAttention` as one that broadcasts to ``(N, H, L, S + extra)``.

    Args:
        attn_mask: ``(L, S)`` or ``(N·H, L, S)``; bool, true where a key takes *no* part, or float.
        key_padding_mask: ``(N, S)``, likewise.
        heads: the number ``H`` of heads.
        extra: how many keys were added to those of the input; they take part.

    Returns:
        A bool mask, true where a key takes part, if all are bool; else a float mask.

    >>> merged_mask(torch.tensor([[False, True]]), torch.tensor([[True, False]]), heads=1, extra=0)
    tensor([[[[False, False]]]])
    """
    masks = []
    if attn_mask is not None:
        masks.append(attn_mask if attn_mask.dim() == 2 else attn_mask.unflatten(0, (-1, heads)))
    if key_padding_mask is not None:
        masks.append(key_padding_mask[:, None, None, :])
    if not masks:
        return None
    if all(mask.dtype == torch.bool for mask in masks):
        merged = ~(masks[0] if len(masks) == 1 else masks[0] | masks[1])
        added = torch.ones((*merged.shape[:-1], extra), dtype=torch.bool, device=merged.device) if extra else None
        return merged if added is None else torch.cat([merged, added], dim=-1)
    floats = [_additive(mask) for mask in masks]
    total = floats[0] if len(floats) == 1 else floats[0] + floats[1]
    return F.pad(total, (0, extra)) if extra else total


def _additive(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return mask
    return torch.zeros(mask.shape, device=mask.device).masked_fill(mask, float("-inf"))


def _check_dtype(name: str, mask: Tensor, where: str) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise InputError(
            f"{name} holds {mask.dtype}",
            where=where,
            why="a mask is bool, or holds floats that are added to the scores",
            fix=f"Convert it: {name}.bool().",
        )
