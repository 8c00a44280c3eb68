"""The proxy between a layer's weight and its quantizer."""

from __future__ import annotations

from torch import Tensor

from quant_core.proxies.proxy import QuantProxy
from quant_core.tensor import QuantTensor


class WeightQuantProxyFromInjector(QuantProxy):
    """Quantizes a weight; built again whenever a ``state_dict`` replaces the weight.

    ``forward(weight)`` takes a float tensor and returns a :class:`~quant_core.tensor.QuantTensor`, or the weight as it is when
    nothing is quantized.
    """

    kind = "weight"
    rebuilds_on_load = True

    def forward(self, weight: Tensor) -> QuantTensor | Tensor:
        """The quantized weight."""
        if not self.is_quant_enabled:
            return weight
        return self._wrap(self.tensor_quant(weight))

    def scale(self) -> Tensor:
        """The scale for the first owner's weight, broadcastable to it."""
        return self._grid(self._weight())[0]

    def zero_point(self) -> Tensor:
        """The zero-point for the first owner's weight."""
        return self._grid(self._weight())[1]

    def bit_width(self) -> Tensor:
        """The bit width, a 0-dim tensor."""
        return self._grid(self._weight())[2]

    def _weight(self) -> Tensor:
        weight = self.owners[0].weight  # not always a parameter: a parametrization computes it
        assert isinstance(weight, Tensor)
        return weight
