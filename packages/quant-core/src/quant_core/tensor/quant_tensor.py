"""A tensor that knows the grid that it lies on.

A :class:`QuantTensor` holds the dequantized ``value`` together with ``scale``, ``zero_point`` and ``bit_width``, such that
``value = (integer − zero_point) · scale``. It is an ordinary immutable object, not a subclass of ``torch.Tensor``: torch hands
every operation on it to :mod:`quant_core.tensor.rules`, which says what becomes of the grid. It is a pytree node, so that it
goes through ``torch.compile(fullgraph=True)`` and ``torch.export``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from quant_core.ops import integer_range

Count = int  # the class has a method of that name
_TOLERANCE = 1e-2
_INTEGER_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


@dataclass(frozen=True, eq=False, repr=False)
class QuantTensor:
    """A dequantized value and its grid.

    Attributes:
        value: ``(integer − zero_point) · scale``, a float tensor of any shape.
        scale: positive, broadcastable to ``value``.
        zero_point: broadcastable to ``value``.
        bit_width: number of bits, a 0-dim tensor.
        signed: whether the integers can be negative.
        narrow_range: whether one level is left out.
        training: whether it was made in training mode.
        symmetric: whether ``zero_point`` is 0 by construction. Products and sums stay on a grid only then.
        zero_on_grid: whether the real number 0 is one of the levels (it is not for binary values). Padding with zeros and ReLU
            stay on the grid only then.

    >>> x = QuantTensor(torch.tensor([0.5, -1.0]), torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0), signed=True)
    >>> x.int(), x.is_valid
    (tensor([ 1, -2], dtype=torch.int8), True)
    >>> torch.flatten(x).scale
    tensor(0.5000)
    """

    value: Tensor
    scale: Tensor
    zero_point: Tensor
    bit_width: Tensor
    signed: bool
    narrow_range: bool = False
    training: bool = False
    symmetric: bool = False
    zero_on_grid: bool = True

    dispatch: ClassVar[Callable[..., Any]]  # set by quant_core.tensor.rules, which knows this class

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let the table of rules decide what becomes of the grid."""
        return cls.dispatch(func.__name__, func, args, kwargs or {})

    def int(self, float_datatype: bool = False) -> Tensor:
        """The integers, ``round(value / scale + zero_point)``.

        Args:
            float_datatype: give them in ``value``'s float dtype. Otherwise in the smallest of uint8, int8, int16, int32 and
                int64 that holds the range, which is looked up in ``bit_width``; while compiling, where that is not known,
                in int32.

        >>> QuantTensor(torch.tensor([7.5]), torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0), signed=False).int()
        tensor([15], dtype=torch.uint8)
        """
        wide = torch.float64 if self.value.dtype == torch.float64 else torch.float32
        integers = torch.round(self.value.detach().to(wide) / self.scale.detach() + self.zero_point.detach())
        return integers.to(self.value.dtype) if float_datatype else integers.to(self._integer_type())

    @property
    def is_valid(self) -> bool:
        """Whether the value lies on the grid (to a hundredth of a step), within the range, with finite positive scale."""
        if not bool(torch.all(torch.isfinite(self.scale) & (self.scale > 0))):
            return False
        levels = self.value.detach().double() / self.scale.detach() + self.zero_point.detach()
        integers = torch.round(levels)
        low, high = self.range()
        on_grid = (levels - integers).abs() <= _TOLERANCE
        return bool(torch.all(on_grid & (integers >= low) & (integers <= high)))

    def range(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest integer, 0-dim float64 tensors; ``−1`` and ``1`` for a binary tensor."""
        low, high = integer_range(self.bit_width.double(), signed=self.signed, narrow_range=self.narrow_range)
        low, high = (torch.as_tensor(bound, dtype=torch.float64) for bound in (low, high))
        return low, torch.where(self.bit_width == 1, torch.ones_like(high), high)

    def replace(self, **fields: Any) -> QuantTensor:
        """The same with some fields replaced."""
        return replace(self, **fields)

    def _integer_type(self) -> torch.dtype:
        if torch.compiler.is_compiling():
            return torch.int32
        low, high = (float(bound) for bound in self.range())
        return next(kind for kind in _INTEGER_TYPES if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)

    @property
    def shape(self) -> torch.Size:
        """The shape of the value."""
        return self.value.shape

    @property
    def ndim(self) -> Count:
        """The number of axes."""
        return self.value.ndim

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the value."""
        return self.value.dtype

    @property
    def device(self) -> torch.device:
        """The device of the value."""
        return self.value.device

    @property
    def requires_grad(self) -> bool:
        """Whether a gradient flows into the value."""
        return self.value.requires_grad

    def __len__(self) -> Count:
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self.unbind(0))

    def __bool__(self) -> bool:
        return bool(self.value)

    def __getattr__(self, name: str) -> Any:
        """Methods and properties of tensors that are not defined here, by their rule."""
        if name.startswith("__") or not hasattr(Tensor, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        method = getattr(Tensor, name)
        if not callable(method):
            return getattr(self.value, name)
        return _Bound(name, method, self)

    def __repr__(self) -> str:
        parts = ", ".join(
            f"{name}={getattr(self, name)}" for name in ("value", "scale", "zero_point", "bit_width", "signed")
        )
        return f"QuantTensor({parts})"


class _Bound:
    """A method of a tensor, bound to a quantized one."""

    __slots__ = ("function", "name", "owner")

    def __init__(self, name: str, function: Callable[..., Any], owner: QuantTensor) -> None:
        self.name = name
        self.function = function
        self.owner = owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.owner.dispatch(self.name, self.function, (self.owner, *args), kwargs)
