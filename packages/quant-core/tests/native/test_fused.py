"""The commonest quantizers in one function: the numbers and the gradients of their steps one after the other."""

import copy
import shutil
from contextlib import nullcontext
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from quant_core.components import (
    AbsMax,
    AbsPercentile,
    ConstBitWidth,
    IntQuant,
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
    PerChannel,
    PerTensor,
    PowerOfTwoRestriction,
    Scaling,
    Statistic,
)
from quant_core.errors import InputError
from quant_core.native import kernels
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


def collecting(q: float = 99.0, minimum: float | None = 0.05, momentum: float | None = 0.1) -> Scaling:
    return ParameterFromRuntimeStatsScaling(
        AbsPercentile(q), 2, scaling_stats_momentum=momentum, scaling_min_val=minimum
    )


@settings(max_examples=80, deadline=None)
@given(
    st.integers(0, 2**20),
    st.sampled_from([(700,), (2, 3, 70), (3, 5, 7, 4)]),
    st.sampled_from([99.999, 97.0, 100.0]),
    st.sampled_from([2, 4, 8]),
    st.booleans(),
    st.booleans(),
    st.sampled_from([0.1, 1.0, None]),
)
def test_collecting_a_percentile_gives_the_numbers_and_gradients_of_the_steps(
    seed: int, shape: tuple[int, ...], q: float, bits: int, signed: bool, rectify: bool, momentum: float | None
) -> None:
    generator = torch.Generator().manual_seed(seed)
    one, other = collecting(q, momentum=momentum), collecting(q, momentum=momentum)
    rectify = rectify and not signed
    for _ in range(2):
        x = torch.randn(shape, generator=generator)
        x = x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x
        together, apart = x.clone().requires_grad_(), x.clone().requires_grad_()
        value, scale, *_ = IntQuant(one, ConstBitWidth(bits), signed=signed)(together, rectify=rectify)
        assert node(value) == "_ByPercentileBackward"
        seen = torch.relu(apart) if rectify else apart
        wanted_scale = IntQuant(other, ConstBitWidth(bits), signed=signed).grid(seen)[0]
        wanted = quantize_int(seen, wanted_scale, 0, bits, signed=signed)
        assert torch.equal(value, wanted)
        assert torch.equal(scale, wanted_scale)
        assert value.stride() == wanted.stride()
        g = torch.sin(torch.arange(x.numel())).view_as(x)
        ((value * g).sum() + (3 * scale).sum()).backward()
        ((wanted * g).sum() + (3 * wanted_scale).sum()).backward()
        assert together.grad is not None
        assert apart.grad is not None
        assert torch.allclose(together.grad, apart.grad, rtol=1e-5, atol=1e-6)
        assert all(torch.equal(mine, other.state_dict()[key]) for key, mine in one.state_dict().items())


@pytest.mark.parametrize("order", ["ascending", "descending", "equal", "shuffled"])
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("threads", [1, 3])
def test_the_nth_largest_is_that_of_a_sorted_tensor(order: str, rectify: bool, threads: int) -> None:
    library, before = kernels(), torch.get_num_threads()
    assert library is not None
    x = torch.linspace(-3, 2, 200_001)
    x = {"ascending": x, "descending": x.flip(0), "equal": x.sign(), "shuffled": (x * 7919).sin()}[order].contiguous()
    ranked = x.clamp(min=0) if rectify else x.abs()
    threshold, scale = torch.empty(()), torch.empty(())
    try:
        torch.set_num_threads(threads)
        for nth in (1, 2, 63, library.most_ranked):
            index, element = library.nth_largest(x, nth, threshold, scale, 0.0, 7.0, rectify=rectify)
            assert threshold == ranked.sort(descending=True).values[nth - 1] == ranked[index] == abs(element)
            assert int((ranked[:index] >= ranked[index]).sum() + (ranked[index:] > ranked[index]).sum()) == nth - 1
    finally:
        torch.set_num_threads(before)


def test_collecting_from_a_tensor_without_gradient() -> None:
    quant = unsigned(collecting(100.0))
    value, scale, *_ = quant(torch.tensor([1.0, 3.0]))
    assert (value.requires_grad, scale.requires_grad, scale.item()) == (False, False, pytest.approx(0.2))
    with torch.no_grad():
        assert not quant(torch.tensor([1.0, 3.0], requires_grad=True))[0].requires_grad


def test_a_gradient_of_the_collected_scale_alone_reaches_the_element() -> None:
    x = torch.tensor([0.5, -3.0, 1.0], requires_grad=True)
    IntQuant(collecting(100.0), ConstBitWidth(4), signed=True)(x)[1].backward()
    assert x.grad is not None
    assert x.grad.tolist() == pytest.approx([0, -1 / 8, 0])


def test_the_element_is_found_again_when_saved_tensors_are_laid_out_anew() -> None:
    x = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    found = []
    anew = torch.autograd.graph.saved_tensors_hooks(lambda kept: kept.contiguous(), lambda kept: kept)
    for hooks in (nullcontext(), anew):
        leaf = x.clone().requires_grad_()
        with hooks:
            value, scale, *_ = IntQuant(collecting(100.0), ConstBitWidth(4), signed=True)(leaf)
            assert node(value) == "_ByPercentileBackward"
        (value.square().sum() + 100 * scale).backward()
        assert leaf.grad is not None
        found.append(leaf.grad)
    assert torch.equal(*found)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_is_not_collected(bad: float) -> None:
    quant = unsigned(collecting(100.0))
    before = copy.deepcopy(quant.state_dict())
    with pytest.raises(InputError, match=f"the statistic of step 1 is {bad}"):
        quant(torch.tensor([1.0, bad], requires_grad=True))
    assert all(torch.equal(part, before[name]) for name, part in quant.state_dict().items())


@pytest.mark.parametrize(
    "statistic",
    [AbsMax(), AbsPercentile(50.0), AbsPercentile(99.0, PerChannel(0))],
    ids=["another statistic", "far from the largest", "per channel"],
)
def test_other_statistics_take_their_steps_one_by_one(statistic: Statistic) -> None:
    shape = (4, 1) if statistic.granularity != PerTensor() else ()
    quant = unsigned(ParameterFromRuntimeStatsScaling(statistic, scaling_shape=shape))
    assert node(quant(torch.randn(4, 100, requires_grad=True))[0]) != "_ByPercentileBackward"
