"""``values`` gives the numbers of ``forward``, and a call that somebody watches is a call of the module."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook

from quant_core.proxies import (
    ActQuantProxyFromInjector,
    BiasQuantProxyFromInjector,
    QuantProxy,
    WeightQuantProxyFromInjector,
)
from quant_core.quant import (
    Int8ActPerTensorFloat,
    Int8Bias,
    Int8WeightPerChannelFloat,
    Int8WeightPerTensorFloat,
    Uint8ActPerTensorFloat,
)
from quant_core.tensor import QuantTensor

LAYER = nn.Linear(5, 3)
SCALE = torch.tensor(0.01)
PROXIES: dict[str, tuple[Callable[[], QuantProxy], tuple[Tensor, ...]]] = {
    "weight": (lambda: WeightQuantProxyFromInjector(LAYER, Int8WeightPerTensorFloat), (LAYER.weight,)),
    "weight per channel": (lambda: WeightQuantProxyFromInjector(LAYER, Int8WeightPerChannelFloat), (LAYER.weight,)),
    "bias": (lambda: BiasQuantProxyFromInjector(LAYER, Int8Bias), (LAYER.bias, SCALE)),
    "activation": (
        lambda: ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat),
        (torch.linspace(-1, 1, 11, requires_grad=True),),
    ),
    "ReLU": (
        lambda: ActQuantProxyFromInjector(nn.Identity(), Uint8ActPerTensorFloat.let(act_impl=nn.ReLU)),
        (torch.linspace(-1, 1, 11, requires_grad=True),),
    ),
}
every_proxy = pytest.mark.parametrize("name", PROXIES)


def plain(found: QuantTensor | Tensor) -> Tensor:
    return found.value if isinstance(found, QuantTensor) else found


@every_proxy
@pytest.mark.parametrize("enabled", [True, False])
def test_they_are_the_numbers_of_forward(name: str, enabled: bool) -> None:
    make, inputs = PROXIES[name]
    proxies = make(), make()
    outcomes = []
    for proxy, compute in zip(proxies, (proxies[0].values, lambda *x: plain(proxies[1](*x))), strict=True):
        proxy.disable_quant = not enabled
        for _ in range(3):  # where statistics are collected both follow them
            value = compute(*inputs)
        outcomes.append((value, torch.autograd.grad(value.square().sum(), inputs[0])[0], proxy.state_dict()))
    (value, gradient, state), (wanted, wanted_gradient, wanted_state) = outcomes
    assert torch.equal(value, wanted)
    assert torch.equal(gradient, wanted_gradient)
    assert state.keys() == wanted_state.keys()
    assert all(torch.equal(state[key], wanted_state[key]) for key in state)


@every_proxy
def test_hooks_see_what_forward_gives(name: str) -> None:
    make, inputs = PROXIES[name]
    proxy, seen = make(), list[Any]()
    proxy.register_forward_hook(lambda module, args, out: seen.append(out))
    proxy.register_forward_pre_hook(lambda module, args: seen.append(args))
    found = proxy.values(*inputs)
    assert len(seen) == 2
    assert isinstance(seen[1], QuantTensor)
    assert torch.equal(found, seen[1].value)


def test_a_hook_on_all_modules_sees_it_too() -> None:
    make, inputs = PROXIES["activation"]
    proxy, seen = make(), list[nn.Module]()
    handle = register_module_forward_hook(lambda module, args, out: seen.append(module))
    proxy.values(*inputs)
    handle.remove()
    assert proxy in seen


def test_a_forward_of_a_subclass_or_of_one_proxy_is_what_counts() -> None:
    class Doubled(ActQuantProxyFromInjector):
        def forward(self, x: Tensor | QuantTensor) -> Tensor:
            return 2 * plain(super().forward(x))

    x = torch.tensor([0.25, -1.0])
    quantized = ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat)
    assert torch.equal(Doubled(nn.Identity(), Int8ActPerTensorFloat).values(x), 2 * quantized.values(x))
    quantized.forward = lambda x: 3 * x  # type: ignore[method-assign]
    assert torch.equal(quantized.values(x), 3 * x)
