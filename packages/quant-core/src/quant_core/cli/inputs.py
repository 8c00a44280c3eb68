"""Example inputs from shapes on the command line: ``1x3x32x32``, ``1,16:int64``."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from torch import Tensor

_FLOATS = ("float32", "float64", "float16", "bfloat16")
_INTEGERS = ("int64", "int32", "int16", "int8", "uint8")
_SHAPE = re.compile(r"(\d+(?:[x,]\d+)*)?(?::(\w+))?")


class InputShape(click.ParamType):
    """A shape such as ``1x3x32x32``, with a dtype after a colon where it is not float32."""

    name = "SHAPE"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[tuple[int, ...], str]:
        """Parse it; a usage error for anything else."""
        text = str(value)
        match = _SHAPE.fullmatch(text)
        if match is None or not text:
            self.fail(f"{text!r} is not a shape; write, for example, 1x3x32x32 or 1x16:int64.", param, ctx)
        sizes, dtype = match.group(1) or "", match.group(2) or "float32"
        if dtype not in (*_FLOATS, *_INTEGERS, "bool"):
            known = ", ".join((*_FLOATS, *_INTEGERS, "bool"))
            self.fail(f"{dtype!r} is not a dtype; write one of {known}.", param, ctx)
        return tuple(int(size) for size in re.split("[x,]", sizes)) if sizes else (), dtype


def example_input(shape: tuple[int, ...], dtype: str, seed: int) -> Tensor:
    """A reproducible tensor: normally distributed floats, or integers 0 and 1.

    >>> example_input((2,), "int64", 0).dtype
    torch.int64
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    kind: torch.dtype = getattr(torch, dtype)
    if kind.is_floating_point:
        return torch.randn(shape, generator=generator).to(kind)
    return torch.randint(0, 2, shape, generator=generator).to(kind)
