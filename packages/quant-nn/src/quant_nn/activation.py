"""Quantized activations."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor, nn

from quant_core.errors import ConfigurationError
from quant_core.proxies import ActQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat, Uint8ActPerTensorFloat
from quant_core.tensor import QuantTensor
from quant_nn.layer import QuantLayer, values_of
from quant_nn.options import split_options
from quant_nn.quantizers import Quantizer, build_proxy


class QuantActivation(QuantLayer):
    """Base of the quantized activations: ``y = Q_act(f(Q_in(x)))`` for a function ``f`` of one tensor.

    Args:
        act_quant: quantizer of the result, or the proxy of another activation to share, or ``None``.
        input_quant: quantizer of the input.
        return_quant_tensor: return a ``QuantTensor`` (with its scale) instead of a plain tensor.
        act_options: arguments of the function, which the quantizer may read as well.
        **options: options of the activation quantizer by their name, of the input quantizer with the prefix ``input_``.

    Raises:
        UnusedAttributeError: for an option that nothing reads.
        ConfigurationError: when a shared proxy applies another function, or the quantizer is none of activations.
    """

    act_impl: type[nn.Module] | None = None

    def __init__(
        self,
        act_quant: Quantizer,
        input_quant: Quantizer = None,
        return_quant_tensor: bool = False,
        act_options: Mapping[str, Any] = MappingProxyType({}),
        **options: Any,
    ) -> None:
        super().__init__()
        found = split_options(type(self), options, {"input_": input_quant, "": act_quant})
        self.return_quant_tensor = return_quant_tensor
        self.input_quant = build_proxy(self, input_quant, "input_", found["input_"])
        function = None if self.act_impl is None else self.act_impl(**act_options)
        if function is not None and isinstance(act_quant, type):
            found[""].update(act_options, act_impl=self.act_impl)
        self._check_shared(act_quant, function)
        self.act_quant = build_proxy(self, act_quant, "", found[""])
        self.float_impl = (function or nn.Identity()) if act_quant is None else None

    def _check_shared(self, act_quant: Quantizer, own: nn.Module | None) -> None:
        """A shared proxy computes the activation function of the layer that it came from."""
        if not isinstance(act_quant, ActQuantProxyFromInjector):
            return
        names = ["no function" if kind is None else str(kind).removesuffix("()") for kind in (act_quant.act_impl, own)]
        if names[0] != names[1]:
            raise ConfigurationError(
                f"the shared quantizer applies {names[0]}, this layer {names[1]}",
                where=type(self).__name__,
                why="the proxy of an activation holds its function as well",
                fix="Share it between layers of one type, or share the whole layer by calling it twice.",
            )

    def forward(self, input: Tensor | QuantTensor) -> Tensor | QuantTensor:
        """Float tensor or ``QuantTensor`` of any shape; returns the same shape.

        Raises:
            InputError: for a collection of tensors.
        """
        self._check_is_one(input)
        x = input if self.input_quant is None else self.input_quant(input)
        quantizer, function = self.act_quant, self.float_impl
        if quantizer is None:
            return self._hand_on(x if function is None else function(x))
        return quantizer(x) if self.return_quant_tensor else values_of(quantizer, x)

    def __repr__(self) -> str:
        """One line, also for the function of a layer that quantizes nothing."""
        return f"{type(self).__name__}({self.extra_repr()})"


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
