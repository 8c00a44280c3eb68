"""Quantized activations."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from quant_core.quant import Int8ActPerTensorFloat, Uint8ActPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_nn.options import split_options
from quant_nn.weight_layer import Quantizer, build_proxy


class QuantActivation(nn.Module):
    """Base of the quantized activations: ``y = Q_act(f(Q_in(x)))`` for a function ``f`` of one tensor.

    Args:
        act_quant: quantizer of the result, or the proxy of another activation to share, or ``None``.
        input_quant: quantizer of the input.
        return_quant_tensor: return a ``QuantTensor`` (with its scale) instead of a plain tensor.
        **options: options of the activation quantizer by their name, of the input quantizer with the prefix ``input_``.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
    """

    act_impl: type[nn.Module] | None = None

    def __init__(
        self,
        act_quant: Quantizer,
        input_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        found = split_options(type(self), options, {"input_": input_quant, "": act_quant})
        self.return_quant_tensor = return_quant_tensor
        self.input_quant = build_proxy(self, input_quant, "input_", found["input_"])
        if self.act_impl is not None and isinstance(act_quant, type):
            found[""]["act_impl"] = self.act_impl
        self.act_quant = build_proxy(self, act_quant, "", found[""])
        self.float_impl = (self.act_impl or nn.Identity)() if act_quant is None else None

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:
        """Float tensor or ``QuantTensor`` of any shape; returns the same shape."""
        x = input if self.input_quant is None else self.input_quant(input)
        function: Any = self.float_impl if self.act_quant is None else self.act_quant
        out = function(x)
        return out if self.return_quant_tensor or not isinstance(out, QuantTensor) else out.value


class QuantIdentity(QuantActivation):
    """``y = Q_act(x)``: quantizes what passes; by default to signed integers of 8 bits.

    Arguments as :class:`QuantActivation`.

    >>> import torch
    >>> QuantIdentity(bit_width=4, return_quant_tensor=True)(torch.tensor([0.5, -1.0])).int()
    tensor([ 4, -8], dtype=torch.int8)
    """

    def __init__(
        self,
        act_quant: Quantizer = Int8ActPerTensorFloat,
        input_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(act_quant, input_quant, return_quant_tensor, **options)


class QuantReLU(QuantActivation):
    """``y = Q_act(max(x, 0))``; by default to unsigned integers of 8 bits. Arguments as :class:`QuantActivation`.

    >>> import torch
    >>> QuantReLU(bit_width=4, return_quant_tensor=True)(torch.tensor([-1.0, 0.5, 1.5])).int()
    tensor([ 0,  5, 15], dtype=torch.uint8)
    """

    act_impl = nn.ReLU

    def __init__(
        self,
        act_quant: Quantizer = Uint8ActPerTensorFloat,
        input_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(act_quant, input_quant, return_quant_tensor, **options)
