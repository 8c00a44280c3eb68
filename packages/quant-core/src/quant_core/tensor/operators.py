"""Python's operators on quantized tensors.

Python looks operators up on the class, past ``__getattr__``; so each stands here, and hands itself to the dispatcher
as the method of ``torch.Tensor`` that it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from torch import Tensor


def _operator(name: str) -> Callable[..., Any]:
    function = getattr(Tensor, name)

    def method(self: TensorOperators, *args: Any) -> Any:
        return self.dispatch(function, (self, *args), {})

    method.__name__ = name
    method.__doc__ = f"``{name}`` of a tensor, by its rule."
    return method


class TensorOperators:
    """The operators of ``torch.Tensor``, each given to :attr:`dispatch` with its operands.

    Augmented assignments are left to Python, which makes ``x += y`` of an immutable object ``x = x + y``.

    Attributes:
        dispatch: ``(function, args, kwargs)`` → the result by the rule of the function. It is set by
            :mod:`quant_core.tensor.dispatch`, which knows the subclass.
    """

    dispatch: ClassVar[Callable[..., Any]]

    __add__ = _operator("__add__")
    __radd__ = _operator("__radd__")
    __sub__ = _operator("__sub__")
    __rsub__ = _operator("__rsub__")
    __mul__ = _operator("__mul__")
    __rmul__ = _operator("__rmul__")
    __truediv__ = _operator("__truediv__")
    __rtruediv__ = _operator("__rtruediv__")
    __floordiv__ = _operator("__floordiv__")
    __rfloordiv__ = _operator("__rfloordiv__")
    __mod__ = _operator("__mod__")
    __rmod__ = _operator("__rmod__")
    __pow__ = _operator("__pow__")
    __rpow__ = _operator("__rpow__")
    __matmul__ = _operator("__matmul__")
    __rmatmul__ = _operator("__rmatmul__")
    __neg__ = _operator("__neg__")
    __pos__ = _operator("__pos__")
    __abs__ = _operator("__abs__")
    __eq__ = _operator("__eq__")
    __ne__ = _operator("__ne__")
    __lt__ = _operator("__lt__")
    __le__ = _operator("__le__")
    __gt__ = _operator("__gt__")
    __ge__ = _operator("__ge__")
    __bool__ = _operator("__bool__")
    __float__ = _operator("__float__")
    __int__ = _operator("__int__")
    __getitem__ = _operator("__getitem__")
    __setitem__ = _operator("__setitem__")
    __hash__ = object.__hash__
