"""A rule: what becomes of the grid in some operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

import torch
from torch import Tensor
from torch.nn import functional

Result = Literal["kept", "changed", "plain"]
"""What a rule gives: the same grid (which moves along), another grid, or a plain tensor."""

Handler = Callable[[str, Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""``(name, function, args, kwargs)`` → the result, or ``NotImplemented`` for a plain tensor."""

NAMESPACES: Final = (torch, Tensor, functional, torch._C._nn)
"""Where torch keeps the operations that a rule can name."""


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What becomes of the grid in some operations.

    Attributes:
        name: what the operations do.
        result: what they give.
        operations: their names in ``torch``, ``torch.Tensor`` and ``torch.nn.functional``; ``torch.x``,
            ``Tensor.x`` and ``functional.x`` stand for the one in that place only.
        states: the rule in words, with its conditions; where they are not met the result is a plain tensor.
        handler: computes it; ``None`` for a plain tensor.
    """

    name: str
    result: Result
    operations: tuple[str, ...]
    states: str
    handler: Handler | None


def spellings(operation: str) -> list[Callable[..., Any]]:
    """All functions that an operation's name stands for.

    >>> [function.__name__ for function in spellings("functional.unfold")]
    ['unfold']
    >>> len(spellings("flatten"))
    2
    """
    place, _, name = operation.rpartition(".")
    namespaces = {"": NAMESPACES, "torch": (torch,), "Tensor": (Tensor,), "functional": (functional,)}[place]
    found = (getattr(namespace, name, None) for namespace in namespaces)
    return list(dict.fromkeys(function for function in found if callable(function)))
