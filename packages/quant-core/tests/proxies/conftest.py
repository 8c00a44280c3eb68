"""Layers as small as they can be: a float layer, and the proxy of its weight."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quant_core.inject import Injector
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.quant import Int8WeightPerTensorFloat
from quant_core.tensor import QuantTensor


class WeightedLayer(nn.Linear):
    """``y = x · Q(W)ᵀ + b``."""

    output_channel_dim = 0

    def __init__(
        self,
        weight_quant: type[Injector] | WeightQuantProxyFromInjector = Int8WeightPerTensorFloat,
        sizes: tuple[int, int] = (3, 2),
    ) -> None:
        super().__init__(*sizes)
        if isinstance(weight_quant, WeightQuantProxyFromInjector):
            weight_quant.add_owner(self)
            self.weight_quant = weight_quant
        else:
            self.weight_quant = WeightQuantProxyFromInjector(self, weight_quant, "weight_")

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_quant(self.weight)
        return nn.functional.linear(x, weight.value if isinstance(weight, QuantTensor) else weight, self.bias)


@pytest.fixture
def weighted() -> Callable[..., WeightedLayer]:
    torch.manual_seed(0)
    return WeightedLayer
