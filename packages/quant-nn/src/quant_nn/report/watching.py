"""Seeing which grid plain tensors lie on, while a model runs.

A layer that is not asked for a ``QuantTensor`` returns the value of one: a tensor that lies on a grid and does not say so. The
mode remembers it, and applies the rules of :class:`~quant_core.tensor.QuantTensor` to what is computed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from quant_core.errors import QuantError
from quant_core.tensor import QuantTensor
from quant_core.tensor.dispatch import HANDLERS, dispatch

Listener = Callable[[Any, tuple[Any, ...], Mapping[str, Any], Any], None]
"""What is told of each function of torch, its arguments and its result."""


class Grids(TorchFunctionMode):
    """The grids of the tensors of one run; nothing that is computed changes.

    Args:
        listener: told of each function of torch that is called.
    """

    def __init__(self, listener: Listener) -> None:
        super().__init__()
        self._listener = listener
        self._known: dict[int, QuantTensor] = {}  # by identity; the quantized tensor keeps its value alive

    def note(self, quantized: Any) -> None:
        """Remember the grid of a tensor."""
        if isinstance(quantized, QuantTensor):
            self._known[id(quantized.value)] = quantized

    def of(self, x: Any) -> QuantTensor | None:
        """A tensor with its grid; ``None`` where it has none."""
        if isinstance(x, QuantTensor):
            return x
        found = self._known.get(id(x))
        return found if found is not None and found.value is x else None

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Compute the function, and the grid of its result."""
        given = kwargs or {}
        out = func(*args, **given)
        self._listener(func, args, given, out)
        if isinstance(out, Tensor) and id(out) in self._known and args and out is args[0]:
            del self._known[id(out)]  # changed in place
        elif func in HANDLERS:
            self._follow(func, args, given, out)
        return out

    def _follow(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        results = out if isinstance(out, list | tuple) else (out,)
        for result in results:
            self.note(result)
        if any(map(_is_quantized, results)):
            return
        given: Any = pytree.tree_map(self._with_grid, (args, kwargs), is_leaf=_is_quantized)
        if not any(map(_is_quantized, pytree.tree_leaves(given, is_leaf=_is_quantized))):
            return
        try:
            found = dispatch(func, *given)
        except (QuantError, RuntimeError, TypeError):
            return  # the rule does not take these arguments; the result is as plain as it looks
        found = found if isinstance(found, list | tuple) else (found,)
        for quantized, plain in zip(found, results, strict=True):
            if isinstance(quantized, QuantTensor) and torch.equal(quantized.value, plain):
                self.note(quantized.replace(value=plain))

    def _with_grid(self, x: Any) -> Any:
        found = self.of(x)
        return x if found is None else found


def _is_quantized(x: Any) -> bool:
    return isinstance(x, QuantTensor)
