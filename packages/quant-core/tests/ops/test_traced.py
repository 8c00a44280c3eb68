"""Code that others look into, torch.func and torch.jit.trace among them, computes what eager code computes."""

import shutil
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jvp, vmap
from torch.fx.experimental.proxy_tensor import make_fx

from quant_core import native
from quant_core.components import (
    AbsMax,
    BinaryQuant,
    ConstBitWidth,
    ConstScaling,
    DecoupledIntQuant,
    IntQuant,
    LogFloatRestriction,
    ParameterScaling,
    StatsFromParameterScaling,
    TernaryQuant,
)
from quant_core.ops import quantize_int

QUANTIZERS: dict[str, Any] = {
    "learned threshold": lambda: IntQuant(ParameterScaling(0.8), ConstBitWidth(3), signed=True),
    "learned logarithm": lambda: IntQuant(
        ParameterScaling(0.8, restrict_scaling_impl=LogFloatRestriction()), ConstBitWidth(3), signed=True
    ),
    "largest": lambda: IntQuant(
        StatsFromParameterScaling(AbsMax(), nn.Linear(4, 3)), ConstBitWidth(4), signed=True, clamp_gradient="pass"
    ),
    "rounded down": lambda: IntQuant(ConstScaling(0.7), ConstBitWidth(4), signed=True, rounding_mode="FLOOR"),
    "binary": lambda: BinaryQuant(ParameterScaling(0.4)),
    "ternary": lambda: TernaryQuant(ParameterScaling(0.4), 0.5),
    "two scales": lambda: DecoupledIntQuant(ConstScaling(0.5), ParameterScaling(0.7), ConstBitWidth(3), signed=True),
}


pytestmark = [
    pytest.mark.filterwarnings(
        "ignore:`torch.jit.*` is deprecated:DeprecationWarning"
    ),  # of a trace, and within torch.func
]


@pytest.fixture(params=QUANTIZERS)
def quant(request: pytest.FixtureRequest) -> Any:
    return QUANTIZERS[request.param]()


def batch() -> Tensor:
    return torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))


def loss(quant: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    value = functional_call(quant, parameters, (x,))[0]
    return (value * torch.arange(1.0, 1 + value.numel()).view_as(value)).square().sum()


def eager_gradients(quant: nn.Module, x: Tensor) -> list[Tensor]:
    leaves = [x.clone().requires_grad_(), *quant.parameters()]
    return list(torch.autograd.grad(loss(quant, {}, leaves[0]), leaves))


def test_gradients_of_each_example(quant: Any) -> None:
    parameters = {name: p.detach() for name, p in quant.named_parameters()}
    of_parameters, of_x = vmap(grad(lambda p, x: loss(quant, p, x), argnums=(0, 1)), (None, 0))(parameters, batch())
    for index, x in enumerate(batch()):
        found = [of_x[index], *(of_parameters[name][index] for name in parameters)]
        for one, wanted in zip(found, eager_gradients(quant, x), strict=True):
            torch.testing.assert_close(one, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


def test_a_derivative_along_a_direction(quant: Any) -> None:
    x = batch()[0]
    out, along = jvp(lambda x: loss(quant, {}, x), (x,), (torch.ones_like(x),))
    wanted = eager_gradients(quant, x)[0]
    torch.testing.assert_close(out, loss(quant, {}, x), rtol=1e-5, atol=0)
    torch.testing.assert_close(along, wanted.sum(), rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))


class Value(nn.Module):
    """A trace returns tensors, not numbers."""

    def __init__(self, quant: nn.Module) -> None:
        super().__init__()
        self.quant = quant

    def forward(self, x: Tensor) -> Tensor:
        value: Tensor = self.quant(x)[0]
        return value


@pytest.mark.parametrize("gradients", [True, False])
def test_a_trace_computes_for_other_inputs(quant: Any, gradients: bool) -> None:
    with torch.set_grad_enabled(gradients):
        traced = torch.jit.trace(Value(quant), batch()[0])
        for x in batch()[1:]:
            torch.testing.assert_close(traced(x), quant(x)[0], rtol=1e-6, atol=0)


def test_a_mode_that_records_operations_sees_all_of_them(quant: Any) -> None:
    recorded = make_fx(Value(quant))(batch()[0])
    for x in batch()[1:]:
        torch.testing.assert_close(recorded(x), quant(x)[0], rtol=1e-6, atol=0)


@pytest.mark.parametrize("place", ["vmap", "meta", "inference", "double"])
def test_kernels_that_are_first_asked_for_in_a_strange_place_are_accepted(place: str) -> None:
    native.kernels.cache_clear()
    if place == "vmap":
        vmap(lambda x: x * (native.kernels() is None))(batch())
        assert native.kernels.cache_info().currsize == 1
    with torch.device("meta" if place == "meta" else "cpu"), torch.inference_mode(place == "inference"):
        torch.set_default_dtype(torch.float64 if place == "double" else torch.float32)
        try:
            assert (native.kernels() is None) == (shutil.which("cc") is None)
        finally:
            torch.set_default_dtype(torch.float32)


def test_the_default_device_is_not_that_of_the_kernels() -> None:
    x = batch().requires_grad_()
    with torch.device("meta"):
        quantize_int(x, torch.tensor(0.5, device="cpu"), 0, 3, signed=True).sum().backward()
    assert x.grad is not None
    assert x.grad.device.type == "cpu"
