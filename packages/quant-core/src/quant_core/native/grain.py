"""How the kernels see a tensor and its scale."""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn

from quant_core.tracing import is_traced

_KINDS: Final = (Tensor, nn.Parameter)


def grain_of(x: Tensor, scale: Tensor) -> tuple[int, int, int] | None:
    """``(outer, channels, inner)``, or ``None`` where the kernels do not take the two tensors.

    They take plain float32 tensors on the CPU that are dense: contiguous, or channels-last with one scale. The scale has one
    element, or more along one axis.

    >>> grain_of(torch.ones(2, 3, 4, 4), torch.ones(1, 3, 1, 1)), grain_of(torch.ones(5), torch.tensor(1.0))
    ((2, 3, 16), (1, 1, 5))
    """
    if is_traced() or not (_is_readable(x) and _is_readable(scale) and scale.is_contiguous()):
        return None
    if scale.numel() == 1:
        dense = x.is_contiguous() or (x.dim() == 4 and x.is_contiguous(memory_format=torch.channels_last))
        return (1, 1, x.numel()) if dense else None
    if not x.is_contiguous():
        return None
    axes = [axis for axis, size in enumerate(scale.shape, x.dim() - scale.dim()) if size > 1]
    if len(axes) != 1:
        return None
    (axis,) = axes
    return math.prod(x.shape[:axis]), x.shape[axis], math.prod(x.shape[axis + 1 :])


def has_values(x: Tensor) -> bool:
    """Whether a tensor is one with memory of its own, not a subclass, and nobody looks on who would miss what a kernel does.

    >>> has_values(torch.ones(1))
    True
    """
    return type(x) in _KINDS and not is_traced()


def is_plain(x: Tensor) -> bool:
    """Whether the kernels can read a tensor: float32, on the CPU, with memory of its own.

    >>> is_plain(torch.ones(1)), is_plain(torch.ones(1, dtype=torch.float64))
    (True, False)
    """
    return not is_traced() and _is_readable(x)


def _is_readable(x: Tensor) -> bool:
    return type(x) in _KINDS and x.dtype == torch.float32 and x.is_cpu and not x.is_neg()
