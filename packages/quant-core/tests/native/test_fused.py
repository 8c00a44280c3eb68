"""The commonest quantizers in one function: the numbers and the gradients of their steps one after the other."""

import copy
import shutil
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quant_core.components import (
    AbsMax,
    ConstBitWidth,
    IntQuant,
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
    PowerOfTwoRestriction,
    Scaling,
)
from quant_core.ops import quantize_int

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="this machine has no C compiler")

FUSED = "_ByThresholdBackward"


def learned(threshold: float | list[float] = 1.0, minimum: float | None = None) -> ParameterScaling:
    """A threshold per tensor, or per channel of ``(N, C, L)``; its sign is that of the number."""
    start = torch.tensor(threshold)
    start = start.reshape(-1, 1) if start.dim() else start
    scaling = ParameterScaling(torch.ones_like(start), scaling_min_val=minimum)
    with torch.no_grad():
        scaling.value.copy_(start)
    return scaling


def unsigned(scaling: Scaling, **options: Any) -> IntQuant:
    return IntQuant(scaling, ConstBitWidth(4), signed=False, **options)


def node(value: Tensor) -> str:
    return type(value.grad_fn).__name__


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**20),
    st.sampled_from([1.3, -0.7, 0.01, 0.0, [0.4, -2.0, 1.1]]),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
    st.booleans(),
)
def test_numbers_and_gradients_are_those_of_the_steps(
    seed: int, threshold: float | list[float], bits: int, signed: bool, rectify: bool
) -> None:
    x = torch.randn(2, 3, 700, generator=torch.Generator().manual_seed(seed))
    rectify = rectify and not signed
    one, other = learned(threshold, minimum=0.05), learned(threshold, minimum=0.05)
    together, apart = x.clone().requires_grad_(), x.clone().requires_grad_()
    value, scale, zero_point, bit_width = IntQuant(one, ConstBitWidth(bits), signed=signed)(together, rectify=rectify)
    assert node(value) == FUSED
    wanted_scale = IntQuant(other, ConstBitWidth(bits), signed=signed).grid(apart)[0]
    wanted = quantize_int(apart, wanted_scale, 0, bits, signed=signed, rectify=rectify)
    assert torch.equal(value, wanted)
    assert torch.equal(scale, wanted_scale)
    assert (zero_point.item(), bit_width.item()) == (0.0, float(bits))
    g = torch.sin(torch.arange(x.numel())).view_as(x)
    ((value * g).sum() + (3 * scale).sum()).backward()
    ((wanted * g).sum() + (3 * wanted_scale).sum()).backward()
    assert together.grad is not None
    assert apart.grad is not None
    assert one.value.grad is not None
    assert other.value.grad is not None
    assert torch.equal(together.grad, apart.grad)
    assert torch.equal(one.value.grad, other.value.grad)


def test_a_gradient_of_the_scale_alone_reaches_the_threshold() -> None:
    scaling = learned(-3.0)
    x = torch.ones(4, requires_grad=True)
    unsigned(scaling)(x)[1].backward()
    assert scaling.value.grad is not None
    assert scaling.value.grad.item() == pytest.approx(-1 / 15)
    assert x.grad is None


def test_an_input_without_gradient_still_moves_the_threshold() -> None:
    scaling = learned(1.0)
    unsigned(scaling)(torch.tensor([5.0]))[0].backward()
    assert scaling.value.grad is not None
    assert scaling.value.grad.item() == 1.0


def test_a_threshold_that_is_frozen_is_none_to_learn() -> None:
    scaling = learned()
    scaling.value.requires_grad_(False)
    x = torch.tensor([0.3, 9.0], requires_grad=True)
    value = unsigned(scaling)(x)[0]
    assert node(value) != FUSED
    value.sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [1.0, 0.0]


def test_statistics_are_collected_first() -> None:
    quant = unsigned(ParameterFromRuntimeStatsScaling(AbsMax(), collect_stats_steps=2))
    x = torch.tensor([1.0, 3.0], requires_grad=True)
    names = [node(quant(x)[0]) for _ in range(4)]
    assert [name == FUSED for name in names] == [False, False, True, True]
    assert node(quant.eval()(x)[0]) == FUSED


@pytest.mark.parametrize(
    "quant",
    [
        unsigned(ParameterScaling(1.0, restrict_scaling_impl=PowerOfTwoRestriction())),
        unsigned(learned(), quant_delay_steps=1),
        unsigned(learned(), clamp_gradient="pass"),
    ],
    ids=["power of two", "delay", "gradient that passes"],
)
def test_others_take_their_steps_one_by_one(quant: IntQuant) -> None:
    assert node(quant(torch.ones(3, requires_grad=True))[0]) != FUSED


def test_a_component_that_is_replaced_counts() -> None:
    quant = unsigned(learned(3.0))
    x = torch.tensor([0.9], requires_grad=True)
    assert quant(x)[0].item() == pytest.approx(0.8)
    quant.bit_width_impl = ConstBitWidth(2)
    assert quant(x)[0].item() == 1.0
    quant.scaling_impl = learned(1.5)
    assert quant(x)[0].item() == 1.0
    assert quant(x)[1].item() == 0.5


def test_a_copy_has_a_threshold_of_its_own() -> None:
    quant = unsigned(learned(3.0))
    twin = copy.deepcopy(quant)
    with torch.no_grad():
        twin.scaling_impl.value.fill_(1.5)
    x = torch.tensor([0.9], requires_grad=True)
    assert node(twin(x)[0]) == FUSED
    assert (quant(x)[1].item(), twin(x)[1].item()) == pytest.approx((0.2, 0.1))
