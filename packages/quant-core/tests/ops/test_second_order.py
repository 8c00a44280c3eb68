"""Gradients of gradients: those of the fused quantizers are those of the plain operations that they stand for."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    AbsMax,
    AbsPercentile,
    ConstBitWidth,
    IntQuant,
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
    PerChannel,
    Statistic,
    StatsFromParameterScaling,
)
from quant_core.native import kernels
from quant_core.ops import quantize_binary, quantize_decoupled, quantize_int
from quant_core.ops.integer import _composed
from quant_core.ops.integer_gradients import quantize_with_gradient
from quant_core.ops.native_gradients import quantize_natively

needs_kernels = pytest.mark.skipif(kernels() is None, reason="this machine has no C compiler")


def random(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def second_order(function: Callable[..., Tensor], leaves: list[Tensor]) -> list[Tensor]:
    """The gradients of a loss, and the products of its Hessian with a vector."""
    leaves = [leaf.detach().clone().requires_grad_() for leaf in leaves]
    value = function(*leaves)
    loss = (value.pow(3) * torch.cos(torch.arange(value.numel(), dtype=value.dtype)).view_as(value)).sum()
    first = torch.autograd.grad(loss, leaves, create_graph=True, materialize_grads=True)
    along = sum((gradient * random(7, *gradient.shape).to(gradient)).sum() for gradient in first)
    assert isinstance(along, Tensor)
    return [*first, *torch.autograd.grad(along, leaves, materialize_grads=True)]


def assert_alike(found: list[Tensor], wanted: list[Tensor], relative: float = 2e-3) -> None:
    """Equal up to a share of the largest of all these numbers: sums over rounding errors that are kept with a few bits."""
    limit = relative * max(part.detach().abs().max().item() for part in wanted)
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).abs().max().item() <= limit


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**20),
    st.sampled_from(["torch"] if kernels() is None else ["native", "torch"]),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["ROUND", "FLOOR", "HALF_UP"]),
)
def test_of_integer_quantization(
    seed: int, path: str, masked: bool, per_channel: bool, shifted: bool, rectify: bool, rounding_mode: str
) -> None:
    rectify = rectify and masked and not shifted
    grain = (3, 1) if per_channel else ()
    x = random(seed, 2, 3, 40)
    scale = random(seed + 1, *grain).abs() * 0.3 + 0.1
    zero_point = [torch.full(grain, 2.0)] if shifted else []
    bounds = [torch.tensor(0.0), torch.tensor(6.0)] if masked else []  # learned, where they have a gradient

    def apply(function: Callable[..., Any], x: Tensor, scale: Tensor, *rest: Tensor, **options: Any) -> Tensor:
        shift, (low, high) = (rest[0] if shifted else 0), rest[-2:] if masked else (0.0, 6.0)
        found: Tensor = function(x, scale, shift, low, high, rounding_mode, **options)
        return found

    fused = {
        "native": lambda *leaves: apply(
            quantize_natively, *leaves, masked=masked, rectify=rectify, differentiable=True
        ),
        "torch": lambda *leaves: apply(quantize_with_gradient, *leaves, masked=masked, rectify=rectify),
    }[path]
    mode = "masked" if masked else "pass"
    plain = lambda *leaves: apply(_composed, *leaves, clamp_gradient=mode, rectify=rectify)  # noqa: E731
    leaves = [x, scale, *zero_point, *bounds]
    if path == "torch":  # which keeps all bits of double precision
        leaves = [leaf.double() for leaf in leaves]
    assert_alike(second_order(fused, leaves), second_order(plain, leaves), 1e-10 if path == "torch" else 2e-3)


@pytest.mark.parametrize("native", [pytest.param(True, marks=needs_kernels), False])
@pytest.mark.parametrize("signed", [True, False])
def test_of_a_constant_range(native: bool, signed: bool) -> None:
    """What the commonest quantizers go through where their parts are not fused."""
    low, high = (-4.0, 3.0) if signed else (0.0, 7.0)
    options: Any = {"masked": True, "rectify": not signed}
    functions: dict[bool, Callable[[Tensor, Tensor], Any]] = {
        True: lambda x, s: quantize_natively(x, s, 0, low, high, "ROUND", differentiable=True, **options),
        False: lambda x, s: quantize_with_gradient(x, s, 0, low, high, "ROUND", **options),
    }
    leaves = [random(0, 4, 50), torch.tensor(0.3)]
    leaves = leaves if native else [leaf.double() for leaf in leaves]
    plain = second_order(lambda x, s: _composed(x, s, 0, low, high, "ROUND", "masked", not signed), leaves)
    assert_alike(second_order(functions[native], leaves), plain, 2e-3 if native else 1e-10)


def scaling_of(kind: str) -> nn.Module:
    shape = (3, 1)
    if kind == "learned":
        scaling = ParameterScaling(torch.ones(shape))
        with torch.no_grad():
            scaling.value.copy_(torch.tensor([[0.7], [-1.2], [2.0]]))
        return scaling
    if kind == "collected":
        return ParameterFromRuntimeStatsScaling(AbsPercentile(97.0))
    statistic: Statistic = AbsMax(PerChannel(0) if kind == "largest per channel" else AbsMax().granularity)
    return StatsFromParameterScaling(statistic, nn.Linear(60, 3))


@needs_kernels
@pytest.mark.parametrize("kind", ["learned", "collected", "largest", "largest per channel"])
def test_of_the_quantizers_that_are_one_function(kind: str) -> None:
    passes = "largest" in kind
    quant = IntQuant(
        scaling_of(kind),  # type: ignore[arg-type]
        ConstBitWidth(4),
        signed=True,
        narrow_range=passes,
        clamp_gradient="pass" if passes else "masked",
    )
    apart = copy.deepcopy(quant)
    names = []

    def fused(x: Tensor, *parameters: Tensor) -> Tensor:
        value, scale, *_ = torch.func.functional_call(quant, dict(zip(names, parameters, strict=True)), (x,))
        return torch.cat([value.flatten(), scale.flatten()])

    def steps(x: Tensor, *parameters: Tensor) -> Tensor:
        apart._fused = None
        value, scale, *_ = torch.func.functional_call(apart, dict(zip(names, parameters, strict=True)), (x,))
        return torch.cat([value.flatten(), scale.flatten()])

    parameters = {name: p for name, p in quant.named_parameters() if kind == "learned"}
    names.extend(parameters)
    leaves = [random(1, 3, 60), *parameters.values()]
    assert_alike(second_order(fused, leaves), second_order(steps, leaves))


def test_of_binary_and_decoupled_quantization() -> None:
    x, scale = random(0, 3, 20), torch.tensor([[0.5], [0.7], [1.1]])
    for clamped in (False, True):
        found = second_order(lambda x, s, clamped=clamped: quantize_binary(x, s, clamped=clamped), [x, scale])
        assert all(torch.isfinite(part).all() for part in found)
        assert found[3].abs().sum() > 0
    found = second_order(
        lambda x, p, s: quantize_decoupled(x, p, s, 4, signed=True, clamp_gradient="masked"), [x, scale, scale * 1.5]
    )
    assert all(torch.isfinite(part).all() for part in found)


def test_of_a_captured_quantizer() -> None:
    x, scale = random(3, 2, 30), torch.tensor(0.2)
    zero, bits = torch.tensor(0.0), torch.tensor(3.0)

    def captured(x: Tensor, scale: Tensor) -> Tensor:
        return torch.ops.quant.int(x, scale, zero, bits, signed=True, narrow_range=False, rounding_mode="ROUND")  # type: ignore[no-any-return]

    eager = second_order(lambda x, s: quantize_int(x, s, 0, 3, signed=True), [x, scale])
    assert_alike(second_order(captured, [x, scale]), eager)
