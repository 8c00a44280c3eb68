"""Quantized activations with a bounded result: hyperbolic tangent, sigmoid, and the straight line between two bounds."""

from __future__ import annotations

from typing import Any

from torch import nn

from quant_core.errors import ConfigurationError
from quant_core.quant import Int8ActPerTensorFloat, Int8ActPerTensorFloatMinMaxInit, Uint8ActPerTensorFloat
from quant_nn.activation import QuantActivation
from quant_nn.quantizers import Quantizer


class QuantTanh(QuantActivation):
    """``y = Q_act(tanh(Q_in(x)))``; by default to signed integers of 8 bits. Arguments as :class:`QuantActivation`.

    >>> import torch
    >>> QuantTanh(bit_width=4, return_quant_tensor=True)(torch.tensor([-9.0, 0.5, 9.0])).int()
    tensor([-8,  4,  7], dtype=torch.int8)
    """

    act_impl = nn.Tanh

    def __init__(
        self,
        act_quant: Quantizer = Int8ActPerTensorFloat,
        input_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(act_quant, input_quant, return_quant_tensor, **options)


class QuantSigmoid(QuantActivation):
    """``y = Q_act(1 / (1 + exp(−Q_in(x))))``; by default to unsigned integers of 8 bits. Arguments as :class:`QuantActivation`.

    >>> import torch
    >>> QuantSigmoid(bit_width=4, return_quant_tensor=True)(torch.tensor([-9.0, 0.0, 9.0])).int()
    tensor([ 0,  8, 15], dtype=torch.uint8)
    """

    act_impl = nn.Sigmoid

    def __init__(
        self,
        act_quant: Quantizer = Uint8ActPerTensorFloat,
        input_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(act_quant, input_quant, return_quant_tensor, **options)


class QuantHardTanh(QuantActivation):
    """``y = Q_act(clamp(Q_in(x), min_val, max_val))``; by default to signed integers of 8 bits.

    The scale is learned, and starts from the larger of the two bounds.

    Args:
        act_quant: quantizer of the result, which may read ``min_val`` and ``max_val``, or the proxy of another
            ``QuantHardTanh`` with the same bounds, or ``None``.
        input_quant: quantizer of the input.
        return_quant_tensor: return a ``QuantTensor`` (with its scale) instead of a plain tensor.
        min_val: the lower bound.
        max_val: the upper bound.
        **options: as :class:`QuantActivation`.

    Raises:
        ConfigurationError: when the bounds are no numbers, or the lower one is not below the upper one.
        UnusedAttributeError: for an option that nothing reads.

    >>> import torch
    >>> QuantHardTanh(min_val=-0.5, max_val=0.5, bit_width=4)(torch.tensor([-9.0, 0.24, 9.0])).detach()
    tensor([-0.5000,  0.2500,  0.4375])
    """

    act_impl = nn.Hardtanh

    def __init__(
        self,
        act_quant: Quantizer = Int8ActPerTensorFloatMinMaxInit,
        input_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        min_val: float = -1.0,
        max_val: float = 1.0,
        **options: Any,
    ) -> None:
        numbers = isinstance(min_val, int | float) and isinstance(max_val, int | float)
        if not (numbers and min_val < max_val):
            raise ConfigurationError(
                f"min_val={min_val!r} is not below max_val={max_val!r}",
                where=type(self).__name__,
                why="values are clamped between the two",
                fix="Use bounds such as min_val=-1.0 and max_val=1.0.",
            )
        bounds = {"min_val": min_val, "max_val": max_val}
        super().__init__(act_quant, input_quant, return_quant_tensor, bounds, **options)
        self.min_val, self.max_val = min_val, max_val

    def float_repr(self) -> str:
        """The bounds."""
        return f"min_val={self.min_val}, max_val={self.max_val}"
