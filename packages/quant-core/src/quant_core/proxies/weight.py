"""The proxy between a layer's weight and its quantizer."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from quant_core.components import InputGrid, StepCounter
from quant_core.components.tensor_quant.base import Quantized
from quant_core.proxies.proxy import QuantProxy
from quant_core.tensor import QuantTensor


class WeightQuantProxyFromInjector(QuantProxy):
    """Quantizes a weight; built again whenever a ``state_dict`` replaces the weight.

    ``forward(weight)`` takes a float tensor and returns a :class:`~quant_core.tensor.QuantTensor`, or the weight as it is when
    nothing is quantized. The layer may hand over its input as well, ``forward(weight, input)``: some quantizers bound the weight
    by the number of bits that it is multiplied with.
    """

    kind = "weight"
    rebuilds_on_load = True

    def forward(self, weight: Tensor, input: QuantTensor | Tensor | None = None) -> QuantTensor | Tensor:
        """The quantized weight."""
        return self._on_grid(weight, input)

    def _computed(self, weight: Tensor, input: QuantTensor | Tensor | None = None) -> Quantized | Tensor:
        if not self.is_quant_enabled:
            return weight
        quant = self.tensor_quant
        found: Quantized = (
            quant(weight, self._input_grid(input)) if getattr(quant, "takes_input", False) else quant(weight)
        )
        return found

    def scale(self) -> Tensor:
        """The scale for the first owner's weight, broadcastable to it."""
        return self._present_grid()[0]

    def zero_point(self) -> Tensor:
        """The zero-point for the first owner's weight."""
        return self._present_grid()[1]

    def bit_width(self) -> Tensor:
        """The bit width, a 0-dim tensor."""
        return self._present_grid()[2]

    def _present_grid(self) -> tuple[Tensor, Tensor, Tensor]:
        weight = self._weight()
        # Asking for a scale is no step of training: where steps are counted, eval mode answers.
        counts = self.training and any(isinstance(part, StepCounter) for part in self.modules())
        return self._eval_grid(weight) if counts else self._grid(weight)

    def _input_grid(self, input: QuantTensor | Tensor | None) -> InputGrid | None:
        """What is known of the input: from the tensor, or from the quantizer that the layer has for it."""
        if isinstance(input, QuantTensor):
            return InputGrid(input.bit_width, input.signed and input.symmetric)
        proxy: Any = getattr(self.owners[0], "input_quant", None)
        if proxy is None or not proxy.is_quant_enabled:
            return None
        return InputGrid(proxy.bit_width(), proxy.signed and proxy.symmetric)

    def _weight(self) -> Tensor:
        weight = self.owners[0].weight  # not always a parameter: a parametrization computes it
        assert isinstance(weight, Tensor)
        return weight
