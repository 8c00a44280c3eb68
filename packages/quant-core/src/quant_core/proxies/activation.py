"""The proxy between an activation and its quantizer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from quant_core.components import TensorQuant
from quant_core.components.tensor_quant.base import Quantized
from quant_core.errors import ConfigurationError
from quant_core.proxies.proxy import QuantProxy
from quant_core.tensor import QuantTensor


class ActQuantProxyFromInjector(QuantProxy):
    """Applies the activation function, if there is one, and quantizes its result.

    The activation function comes from the injector as ``act_impl``: a module, or a class of one. A ReLU in front of an unsigned
    quantizer is computed in the quantizer's own pass, which spares the copy of its output that the backward pass would keep.

    ``forward(x)`` takes a float tensor or a :class:`~quant_core.tensor.QuantTensor` and returns a ``QuantTensor``, or the plain
    result of the activation function when ``disable_quant`` is set.
    """

    kind = "activation"
    act_impl: nn.Module | None
    roots: Mapping[str, bool] = {**QuantProxy.roots, "act_impl": False}

    def _take(self, built: Mapping[str, Any]) -> None:
        self._refuse_in_place(built.get("act_impl"))
        self._install("act_impl", built.get("act_impl"))
        self._rectify = type(self.act_impl) is nn.ReLU and _rectifies(self.tensor_quant)

    def _refuse_in_place(self, act_impl: nn.Module | None) -> None:
        """What comes in may be the value of a quantized tensor, which never changes."""
        if getattr(act_impl, "inplace", False):
            raise ConfigurationError(
                f"{self.prefix}inplace=True would change the input of the layer",
                where=type(self.owners[0]).__name__,
                why="the quantizer makes a new tensor, and a quantized input is immutable",
                fix=f"Leave {self.prefix}inplace out.",
            )

    def forward(self, x: Tensor | QuantTensor) -> QuantTensor | Tensor:
        """The quantized activation."""
        return self._on_grid(x)

    def _computed(self, x: Tensor | QuantTensor) -> Quantized | Tensor:
        value = x.value if isinstance(x, QuantTensor) else x
        rectified = self.is_quant_enabled and self._rectify
        if not rectified and self.act_impl is not None:
            value = self.act_impl(value)
        if not self.is_quant_enabled:
            return value
        found: Quantized = self.tensor_quant(value, rectify=True) if rectified else self.tensor_quant(value)
        return found

    def scale(self) -> Tensor:
        """The scale that eval mode would use now."""
        return self._eval_grid(torch.zeros(()))[0]

    def zero_point(self) -> Tensor:
        """The zero-point that eval mode would use now."""
        return self._eval_grid(torch.zeros(()))[1]

    def bit_width(self) -> Tensor:
        """The bit width, a 0-dim tensor."""
        return self._eval_grid(torch.zeros(()))[2]


def _rectifies(tensor_quant: object) -> bool:
    """Whether it takes ``rectify``; a subclass that writes its own ``forward(x)`` does not, whatever it inherits."""
    if not isinstance(tensor_quant, TensorQuant) or not tensor_quant.rectifies:
        return False
    return "rectify" in inspect.signature(tensor_quant.forward).parameters
