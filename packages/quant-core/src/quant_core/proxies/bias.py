"""The proxy between a layer's bias and its quantizer."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from quant_core.components.tensor_quant.base import Quantized
from quant_core.errors import InputError
from quant_core.proxies.proxy import QuantProxy
from quant_core.tensor import QuantTensor


class BiasQuantProxyFromInjector(QuantProxy):
    """Quantizes a bias at the scale of the accumulator that it is added to, or at a scale of its own.

    ``forward(bias, accumulator_scale)`` takes the ``(O,)`` bias and ``input scale · weight scale``, a tensor with one element or
    with ``O``; it returns a :class:`~quant_core.tensor.QuantTensor`, or the bias as it is when nothing is quantized. A quantizer
    with a scale of its own does not read the accumulator's, which may be ``None`` then: the layer needs no quantized input.

    Attributes:
        requires_input_scale: whether the scale is that of the accumulator: the ``forward`` of ``tensor_quant`` asks for a
            ``scale``.
    """

    kind = "bias"
    requires_input_scale = True

    def _take(self, built: Mapping[str, Any]) -> None:
        quant = self.tensor_quant
        self.requires_input_scale = quant is None or "scale" in inspect.signature(quant.forward).parameters
        self.rebuilds_on_load = not self.requires_input_scale  # its scale may start from the bias

    def forward(self, bias: Tensor, accumulator_scale: Tensor | None) -> QuantTensor | Tensor:
        """The quantized bias.

        Raises:
            InputError: when there is no scale to take, because the input or the weight is not quantized.
        """
        return self._on_grid(bias, accumulator_scale)

    def _computed(self, bias: Tensor, accumulator_scale: Tensor | None) -> Quantized | Tensor:
        found: Quantized
        if not self.is_quant_enabled:
            return bias
        if not self.requires_input_scale:
            found = self.tensor_quant(bias)
            return found
        if accumulator_scale is None:
            raise InputError(
                "the bias cannot be quantized without the scale of the layer's input",
                where=type(self.owners[0]).__name__,
                why="its scale is input scale · weight scale, and one of them is not quantized, or the input per channel",
                fix="Set input_quant on this layer, or return_quant_tensor=True on the layer before it.",
            )
        scale = accumulator_scale.reshape(() if accumulator_scale.numel() == 1 else (-1,))
        found = self.tensor_quant(bias, scale)
        return found
