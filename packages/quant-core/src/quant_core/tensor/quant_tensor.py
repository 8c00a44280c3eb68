"""A tensor that knows the grid that it lies on.

A :class:`QuantTensor` holds the dequantized ``value`` together with ``scale``, ``zero_point`` and ``bit_width``, such
that ``value = (integer − zero_point) · scale``. It is an ordinary immutable object, not a subclass of
``torch.Tensor``: torch hands every operation on it to :mod:`quant_core.tensor.dispatch`, where a rule says what
becomes of the grid. It is a pytree node, so that it goes through ``torch.compile(fullgraph=True)`` and
``torch.export``.
"""

from __future__ import annotations

import builtins
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from quant_core.errors import InputError
from quant_core.ops import FloatFormat, integer_range
from quant_core.ops.minifloat import round_to_format, spacing
from quant_core.ops.shapes import broadcasts_to
from quant_core.tensor.operators import TensorOperators
from quant_core.tensor.origin import GridOrigin

_INTEGER_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
_SLACK = 0.01
_MOST_SLACK = 0.49
_BELONG_TO_THE_VALUE = ("backward", "data", "grad")


@dataclass(frozen=True, eq=False, repr=False)
class QuantTensor(TensorOperators):
    """A dequantized value and its grid: ``value = (integer − zero_point) · scale``, rounded to the dtype of ``value``.

    Methods, properties and operators of ``torch.Tensor`` work on it, and so do the functions of torch: each by its
    rule, see :data:`quant_core.tensor.RULES`. The four tensors are differentiable as far as they require gradients.

    Attributes:
        value: ``(integer − zero_point) · scale``, a float tensor of any shape.
        scale: positive, broadcastable to ``value``: one element per tensor, ``(C, 1, 1)`` per channel of an
            ``(N, C, H, W)`` value.
        zero_point: integer-valued (after a float bias: any), broadcastable to ``value``.
        bit_width: number of bits, one element.
        signed: whether the integers can be negative.
        narrow_range: whether one level is left out; see :func:`quant_core.ops.integer_range`.
        training: whether it was made in training mode; a note only, no rule reads it.
        symmetric: whether ``zero_point`` is 0 by construction. Products stay on a grid only then.
        zero_on_grid: whether the real number 0 is one of the levels (it is not for binary values). Padding with zeros
            and ReLU stay on the grid only then.
        origin: the quantizer that the grid comes from, where scale and zero-point are stored in it and still the same.
        float_format: of minifloats, which numbers ``value / scale`` may be; ``None`` for integers.

    Minifloats have no integers, so that :meth:`int` and :meth:`range` raise. What moves or selects values keeps them, and what
    computes new ones gives a plain tensor.

    Raises:
        InputError: by in-place operations and by ``out=``, because it is immutable.

    >>> x = QuantTensor(torch.tensor([0.5, -1.0]), torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0), signed=True)
    >>> x.int(), x.is_valid
    (tensor([ 1, -2], dtype=torch.int8), True)
    >>> torch.flatten(x).scale
    tensor(0.5000)
    >>> torch.exp(x)
    tensor([1.6487, 0.3679])
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
    origin: GridOrigin | None = None
    float_format: FloatFormat | None = None

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Let the table of rules decide what becomes of the grid."""
        return cls.dispatch(func, args, kwargs or {})

    def int(self, float_datatype: bool = False) -> Tensor:
        """The integers, ``round(value / scale + zero_point)``; no gradient.

        Exact as long as the dtype of ``value`` tells neighbouring levels apart: for ``|integer − zero_point|`` up to
        2²³ in float32, 1024 in float16 and 128 in bfloat16.

        Args:
            float_datatype: give them in the dtype of ``value``. Otherwise in the first of uint8, int8, int16, int32
                and int64 that holds the range of ``bit_width``, ``signed`` and ``narrow_range``; in a compiled or
                exported graph, where the number of bits is not known, in int32.

        Raises:
            InputError: for minifloats.

        >>> grid = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0)
        >>> QuantTensor(torch.tensor([7.5]), *grid, signed=False).int()
        tensor([15], dtype=torch.uint8)
        """
        self._refuse_minifloat()
        integers = torch.round(self._levels())
        return integers.to(self.value.dtype) if float_datatype else integers.to(self._integer_type())

    @property
    def is_valid(self) -> bool:
        """Whether this is what it says: finite, positive scale, broadcastable grid, integers within the range.

        A level may be off by ``0.01 + 4·eps·m`` steps, where ``eps`` is that of the dtype of ``value`` and ``m`` the largest
        ``|integer − zero_point|`` in it, because a sum of products is rounded at each addition; and by less than half a
        step. A minifloat may be off by ``0.01 + 2·eps·|number|`` steps from one number to the next.
        """
        grid = (self.scale, self.zero_point, self.bit_width)
        if self.bit_width.numel() != 1 or not all(
            part.numel() == 1 or broadcasts_to(part.shape, self.value.shape) for part in grid[:2]
        ):
            return False
        if not all(bool(torch.isfinite(part).all()) for part in (self.value, *grid)):
            return False
        levels = self._levels()
        if self.float_format is not None:
            return bool((self.scale > 0).all()) and self._is_minifloat(levels, self.float_format)
        integers = torch.round(levels)
        low, high = self.range()
        distances = (integers - self.zero_point.detach()).abs()
        largest = float(distances.max()) if distances.numel() else 0.0
        slack = min(_SLACK + 4 * torch.finfo(self.value.dtype).eps * largest, _MOST_SLACK)
        on_grid = (levels - integers).abs() <= slack
        positive = bool((self.scale > 0).all())
        return positive and bool((on_grid & (integers >= low) & (integers <= high)).all())

    def range(self) -> tuple[Tensor, Tensor]:
        """The smallest and the largest integer, 0-dim float64, no gradient; ``−1`` and ``1`` for one signed bit (binary).

        Raises:
            InputError: for minifloats.

        >>> x = QuantTensor(torch.zeros(1), torch.tensor(0.5), torch.tensor(0.0), torch.tensor(4.0), signed=True)
        >>> [int(bound) for bound in x.range()]
        [-8, 7]
        """
        self._refuse_minifloat()
        bits = self.bit_width.detach().to(torch.float64).reshape(())
        low, high = integer_range(bits, signed=self.signed, narrow_range=self.narrow_range)
        low = low if isinstance(low, Tensor) else torch.zeros_like(bits)
        return low, torch.where(bits == 1, torch.ones_like(high), high)

    def replace(self, **fields: Any) -> QuantTensor:
        """The same with some fields replaced."""
        return replace(self, **fields)

    @property
    def per_tensor(self) -> bool:
        """Whether one scale and one zero-point hold for all elements."""
        return self.scale.numel() == 1 and self.zero_point.numel() == 1

    @property
    def shape(self) -> torch.Size:
        """The shape of the value."""
        return self.value.shape

    @property
    def ndim(self) -> builtins.int:
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

    @property
    def T(self) -> Any:
        """The axes reversed; the grid is kept."""
        return self.permute(*reversed(builtins.range(self.ndim)))

    @property
    def mT(self) -> Any:
        """The last two axes exchanged; the grid is kept."""
        return self.transpose(-2, -1)

    def __len__(self) -> builtins.int:
        """The size of the first axis."""
        return len(self.value)

    def __iter__(self) -> Iterator[Any]:
        """The slices along the first axis, each on the grid."""
        return iter(self.unbind(0))

    def __getattr__(self, name: str) -> Any:
        """Methods and properties of tensors that are not defined here, by their rule."""
        if name.startswith("_") or not hasattr(Tensor, name):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        if name in _BELONG_TO_THE_VALUE:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}; take that of its .value")
        # Tensor.unflatten calls super(), which the compiler cannot follow from outside of the class.
        method = torch.unflatten if name == "unflatten" else getattr(Tensor, name)
        return _Bound(method, self) if callable(method) else getattr(self.value, name)

    def __repr__(self) -> str:
        """The four tensors, the sign, and the flags that differ from their default."""
        parts = [f"{name}={getattr(self, name)}" for name in ("value", "scale", "zero_point", "bit_width", "signed")]
        flags = [f"{name}=True" for name in ("narrow_range", "training", "symmetric") if getattr(self, name)]
        numbers = [] if self.float_format is None else [f"float_format={self.float_format}"]
        return (
            f"QuantTensor({', '.join(parts + flags + ([] if self.zero_on_grid else ['zero_on_grid=False']) + numbers)})"
        )

    def _levels(self) -> Tensor:
        return self.value.detach().to(torch.float64) / self.scale.detach() + self.zero_point.detach()

    def _refuse_minifloat(self) -> None:
        if self.float_format is not None:
            raise InputError(
                "minifloats have no integers",
                why=f"they are numbers of {self.float_format} times the scale, which are not equally far apart",
                fix="Read .value and .scale, or use an integer quantizer here.",
            )

    def _is_minifloat(self, levels: Tensor, float_format: FloatFormat) -> bool:
        numbers = round_to_format(levels, float_format)
        slack = _SLACK * spacing(numbers, float_format) + 2 * torch.finfo(self.value.dtype).eps * numbers.abs()
        return bool(((levels - numbers).abs() <= slack).all())

    def _integer_type(self) -> torch.dtype:
        if torch.compiler.is_compiling():
            return torch.int32
        low, high = (float(bound) for bound in self.range())
        kinds = (kind for kind in _INTEGER_TYPES if torch.iinfo(kind).min <= low and high <= torch.iinfo(kind).max)
        return next(kinds, torch.int64)


class _Bound:
    """A method of a tensor, bound to a quantized one."""

    __slots__ = ("function", "owner")

    def __init__(self, function: Callable[..., Any], owner: QuantTensor) -> None:
        self.function = function
        self.owner = owner

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.owner.dispatch(self.function, (self.owner, *args), kwargs)
