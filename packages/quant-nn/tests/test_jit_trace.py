"""``torch.jit.trace`` with its own check, which traces a second time without gradients and compares the two graphs."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.quant import Int8WeightPerChannelFloat, ShiftedUint8WeightPerTensorFloat

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: qnn.QuantLinear(8, 4), (2, 8)),
    "per channel": (lambda: qnn.QuantLinear(8, 4, weight_quant=Int8WeightPerChannelFloat), (2, 8)),
    "shifted": (lambda: qnn.QuantLinear(8, 4, weight_quant=ShiftedUint8WeightPerTensorFloat), (2, 8)),
    "convolution": (lambda: qnn.QuantConv2d(3, 4, 3), (1, 3, 5, 5)),
    "network": (lambda: nn.Sequential(qnn.QuantLinear(8, 4), qnn.QuantReLU(), qnn.QuantLinear(4, 2)), (2, 8)),
}


@pytest.fixture(params=LAYERS)
def layer_and_input(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor]:
    build, shape = LAYERS[request.param]
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    layer = build()
    layer(x)
    return layer.eval(), x


@pytest.mark.filterwarnings("ignore:`torch.jit.trace:DeprecationWarning")
@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # of shapes that are compared
def test_a_layer_with_weights_is_traced_and_passes_the_check(layer_and_input: tuple[nn.Module, Tensor]) -> None:
    layer, x = layer_and_input
    assert layer(x).requires_grad
    traced = torch.jit.trace(layer, x)
    for given in (x, -0.3 * x):
        assert torch.equal(traced(given), layer(given))
