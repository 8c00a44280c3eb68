"""A ReLU in front of an unsigned quantizer is computed in the quantizer's own pass, with the same result."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import ConstScaling, ConstZeroPoint, IntQuant, ParameterScaling, StatsFromParameterScaling
from quant_core.errors import ConfigurationError
from quant_core.inject import Injector
from quant_core.proxies import ActQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat, Uint8ActPerTensorFloat


class PlainReLU(nn.ReLU):
    """A ReLU that the proxy does not know, because a subclass may compute something else."""


class PlainForward(IntQuant):
    """A subclass whose ``forward`` takes the tensor alone."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return super().forward(x)


def proxies(**options: object) -> tuple[ActQuantProxyFromInjector, ActQuantProxyFromInjector]:
    folded, apart = (
        ActQuantProxyFromInjector(nn.Identity(), Uint8ActPerTensorFloat.let(act_impl=kind, **options))
        for kind in (nn.ReLU, PlainReLU)
    )
    assert (folded._rectify, apart._rectify) == (True, False)
    return folded, apart


def run(proxy: ActQuantProxyFromInjector, x: Tensor, incoming: Tensor) -> list[Tensor]:
    leaf = x.clone().requires_grad_()
    proxy.zero_grad()
    out = proxy(leaf)
    out.value.backward(incoming)
    grads = [torch.zeros(()) if p.grad is None else p.grad.clone() for p in proxy.parameters()]
    return [out.value.detach(), out.scale.detach(), leaf.grad, *grads]


numbers = st.one_of(
    st.floats(-4, 4, width=32, allow_subnormal=False), st.sampled_from([0.0, -0.0, 0.5, 1.0, 4.0, 9.0, -9.0])
)


@settings(deadline=None)
@given(
    st.lists(st.tuples(numbers, numbers), min_size=1, max_size=12),
    st.integers(2, 8),
    st.booleans(),
    st.sampled_from([ConstScaling, ParameterScaling]),
)
def test_folded_equals_apart_in_value_and_gradient(
    pairs: list[tuple[float, float]], bits: int, narrow: bool, scaling: type[nn.Module]
) -> None:
    # In float64 sums over many elements are as good as exact, and the residual is kept in full.
    x, incoming = (torch.tensor(part, dtype=torch.float64) for part in zip(*pairs, strict=True))
    folded, apart = proxies(bit_width=bits, narrow_range=narrow, scaling_impl=scaling, scaling_init=1.0)
    for one, other in zip(run(folded, x, incoming), run(apart, x, incoming), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("training", [True, False])
def test_folded_equals_apart_while_collecting_and_afterwards(training: bool) -> None:
    pair = proxies(collect_stats_steps=2, bit_width=4)
    generator = torch.Generator().manual_seed(0)
    for _ in range(4):
        x, incoming = torch.randn(2, 64, generator=generator, dtype=torch.float64).unbind()
        for proxy in pair:
            proxy.train(training)
        results = [run(proxy, x, incoming) for proxy in pair]
        for one, other in zip(*results, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


CASES: dict[str, tuple[type[Injector], bool]] = {
    "unsigned": (Uint8ActPerTensorFloat.let(act_impl=nn.ReLU), True),
    "a module": (Uint8ActPerTensorFloat.let(act_impl=nn.ReLU()), True),
    "signed": (Int8ActPerTensorFloat.let(act_impl=nn.ReLU), False),
    "a zero-point": (
        Uint8ActPerTensorFloat.let(act_impl=nn.ReLU, zero_point_impl=ConstZeroPoint, zero_point_init=3),
        False,
    ),
    "a zero-point of 0 that is not constant": (
        Uint8ActPerTensorFloat.let(act_impl=nn.ReLU, zero_point_impl=ConstZeroPoint, zero_point_init=0),
        False,
    ),
    "a delay": (Uint8ActPerTensorFloat.let(act_impl=nn.ReLU, quant_delay_steps=1), False),
    "a subclass": (Uint8ActPerTensorFloat.let(act_impl=PlainReLU), False),
    "a forward of its own": (Uint8ActPerTensorFloat.let(act_impl=nn.ReLU, tensor_quant=PlainForward), False),
    "another function": (Uint8ActPerTensorFloat.let(act_impl=nn.Sigmoid), False),
    "no function": (Uint8ActPerTensorFloat, False),
}


@pytest.mark.parametrize("case", CASES)
def test_when_it_is_folded_and_that_the_result_is_the_same(case: str) -> None:
    quantizer, folds = CASES[case]
    proxy = ActQuantProxyFromInjector(nn.Identity(), quantizer).eval()
    assert proxy._rectify is folds
    x = torch.linspace(-2.0, 2.0, 33)
    function = nn.Identity() if proxy.act_impl is None else proxy.act_impl
    kept = x.clone()
    assert torch.equal(proxy(x).value, proxy.tensor_quant(function(x))[0])
    assert torch.equal(x, kept)


@pytest.mark.parametrize("options", [{"act_impl": nn.Hardtanh, "inplace": True}, {"act_impl": nn.ReLU(inplace=True)}])
def test_a_function_that_would_change_its_input_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError) as refused:
        ActQuantProxyFromInjector(nn.Identity(), Uint8ActPerTensorFloat.let(**options))
    assert str(refused.value) == (
        "inplace=True would change the input of the layer\n"
        "  at Identity\n"
        "  the quantizer makes a new tensor, and a quantized input is immutable\n"
        "  Leave inplace out."
    )


def test_a_scaling_that_reads_its_input_reads_the_rectified_one() -> None:
    layer = nn.Linear(1, 1)
    layer.output_channel_dim = 0
    folded, apart = (
        ActQuantProxyFromInjector(layer, _of_each_input(kind)).eval()(torch.tensor([-8.0, 1.0]))
        for kind in (nn.ReLU, PlainReLU)
    )
    assert folded.scale.item() == pytest.approx(1 / 255)
    assert torch.equal(folded.value, apart.value)


def _of_each_input(act_impl: type[nn.Module]) -> type[Injector]:
    return Uint8ActPerTensorFloat.let(act_impl=act_impl, scaling_impl=StatsFromParameterScaling)
