"""The start of a zero-point as a tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quant_core.errors import ConfigurationError


def numbers_of(zero_point_init: float | Sequence[float] | Tensor, *, why: str, fix: str) -> Tensor:
    """A copy of ``zero_point_init`` as a tensor of the default dtype.

    Args:
        zero_point_init: a number, nested numbers, or a tensor.
        why: what the numbers mean, for the message.
        fix: what to give instead.

    Raises:
        ConfigurationError: when it holds no real numbers, or as nested lists of different lengths.

    >>> numbers_of([1, 2], why="", fix="")
    tensor([1., 2.])
    """
    refused = ConfigurationError(f"zero_point_init={zero_point_init!r} is no number", why=why, fix=fix)
    if isinstance(zero_point_init, Tensor) and zero_point_init.is_complex():
        raise refused  # torch would drop the imaginary part
    try:
        return torch.as_tensor(zero_point_init, dtype=torch.get_default_dtype()).detach().clone()
    except (TypeError, ValueError, RuntimeError) as failure:  # of texts, None, and lists of lists of different lengths
        raise refused from failure
