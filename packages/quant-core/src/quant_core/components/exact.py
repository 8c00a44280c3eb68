"""Fixed numbers that a conversion to half precision leaves as they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

from torch import Tensor, nn

from quant_core.ops.integer_levels import compute_dtype


class ExactBuffers(nn.Module):
    """Base of components with fixed numbers: ``model.half()`` and ``model.bfloat16()`` move them, and do not round them.

    Attributes:
        exact: the names of the buffers.

    >>> import torch
    >>> class Fixed(ExactBuffers):
    ...     exact = ("number",)
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.register_buffer("number", torch.tensor(70000.0))
    >>> Fixed().half().number.item()
    70000.0
    """

    exact: tuple[str, ...] = ()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        before = {name: getattr(self, name) for name in self.exact}
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for name, tensor in before.items():
            converted = getattr(self, name)
            if compute_dtype(converted) != converted.dtype:
                setattr(self, name, tensor.to(converted.device))
        return self
