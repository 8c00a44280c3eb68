"""``--input 1x3x32x32``: example inputs, described by their shape and drawn from a seeded generator."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from quant_core.cli.errors import ArgumentError
from quant_core.errors import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

DTYPES: Final = (
    "float32",
    "float64",
    "float16",
    "bfloat16",
    "int64",
    "int32",
    "int16",
    "int8",
    "uint8",
    "bool",
)

_FORM: Final = re.compile(r"(?:(?P<name>[A-Za-z_]\w*)=)?(?P<shape>\d+(?:[x,]\d+)*)(?::(?P<dtype>\w+))?")


@dataclass(frozen=True, kw_only=True)
class InputSpec:
    """One example input.

    Attributes:
        shape: its shape, every size 1 or more.
        dtype: one of :data:`DTYPES`.
        name: the keyword that it is passed by; ``None`` for a positional input.
    """

    shape: tuple[int, ...]
    dtype: str = "float32"
    name: str | None = None

    def draw(self, generator: Any) -> Tensor:
        """A tensor of this shape and dtype.

        Floats are standard normal. Integers and booleans are 0 or 1, which are valid indices for every table.

        Args:
            generator: a ``torch.Generator``.

        Raises:
            ArgumentError: when there is no memory for it.
        """
        import torch

        dtype = getattr(torch, self.dtype)
        try:
            if dtype.is_floating_point:
                return torch.randn(self.shape, generator=generator).to(dtype)
            return torch.randint(0, 2, self.shape, generator=generator).to(dtype)
        except (RuntimeError, TypeError) as failure:  # TypeError for sizes beyond 64 bits
            raise ArgumentError(
                f"an example input of shape {'x'.join(map(str, self.shape))} is too large",
                where="--input",
                why=f"it has {math.prod(self.shape):.3g} elements, and there is no memory for them",
                fix="Give a smaller shape; a batch of 1 or 2 is enough to export.",
            ) from failure


def parse_input(text: str) -> InputSpec:
    """Read ``[NAME=]SHAPE[:DTYPE]``, with ``x`` or commas between the sizes.

    Raises:
        ArgumentError: when the text is not of this form, a size is 0, or the dtype is unknown.

    >>> parse_input("1x3x32x32")
    InputSpec(shape=(1, 3, 32, 32), dtype='float32', name=None)
    >>> parse_input("mask=1,16:int64")
    InputSpec(shape=(1, 16), dtype='int64', name='mask')
    """
    match = _FORM.fullmatch(text.strip())
    if match is None:
        raise ArgumentError(
            f"{text!r} is not an input",
            where="--input",
            why="an input is [NAME=]SHAPE[:DTYPE], with sizes separated by x or commas",
            fix="Write, for example, --input 1x3x32x32, --input 1x16:int64 or --input mask=1x16:bool.",
        )
    shape = tuple(int(size) for size in re.split("[x,]", match["shape"]))
    dtype = match["dtype"] or "float32"
    if 0 in shape:
        raise ArgumentError(
            f"{text!r} holds a size of 0",
            where="--input",
            why="an example input without elements shows nothing of what the model computes",
            fix="Give every axis a size of 1 or more.",
        )
    if dtype not in DTYPES:
        raise ArgumentError(
            f"{text!r} has the unknown dtype {dtype!r}",
            where="--input",
            why=f"a dtype is one of {', '.join(DTYPES)}",
            fix=did_you_mean(dtype, DTYPES),
        )
    return InputSpec(shape=shape, dtype=dtype, name=match["name"])


def parse_inputs(texts: Sequence[str]) -> tuple[InputSpec, ...]:
    """Read all inputs.

    Raises:
        ArgumentError: when there is none, one cannot be read, or two have one name.
    """
    if not texts:
        raise ArgumentError(
            "no example input",
            where="--input",
            why="the model is captured, and compared with the artifact, on example inputs",
            fix="Give the shape of each input of the model, for example --input 1x3x32x32.",
        )
    specs = tuple(parse_input(text) for text in texts)
    names = [spec.name for spec in specs if spec.name is not None]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ArgumentError(
            f"the input {twice!r} is given twice",
            where="--input",
            why="a keyword input has one value",
            fix=f"Leave one of the two --input {twice}=… out.",
        )
    return specs


def draw_inputs(specs: Sequence[InputSpec], *, seed: int) -> tuple[tuple[Tensor, ...], dict[str, Tensor]]:
    """The positional and the keyword inputs. Law: equal specs and seeds give equal tensors.

    Raises:
        ArgumentError: when there is no memory for one of them.

    >>> args, kwargs = draw_inputs([parse_input("2x3"), parse_input("index=4:int64")], seed=0)
    >>> args[0].shape, sorted(kwargs), kwargs["index"].dtype
    (torch.Size([2, 3]), ['index'], torch.int64)
    """
    import torch

    generator = torch.Generator().manual_seed(seed)
    drawn = [(spec.name, spec.draw(generator)) for spec in specs]
    return tuple(x for name, x in drawn if name is None), {name: x for name, x in drawn if name is not None}
