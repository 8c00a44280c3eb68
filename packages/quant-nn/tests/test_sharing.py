"""Quantizers shared between layers, and networks whose branches meet on one grid."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.export import capture
from quant_core.quant import Int8Bias
from quant_core.tensor import QuantTensor


def entry(**options: Any) -> qnn.QuantIdentity:
    return qnn.QuantIdentity(**{"bit_width": 4, "collect_stats_steps": 2, "return_quant_tensor": True, **options})


class Residual(nn.Module):
    """Two branches that end in one quantizer; the sum stays quantized, and so gives the scale of a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = entry()
        self.conv = qnn.QuantConv2d(4, 4, 3, padding=1, weight_bit_width=4, bias_quant=Int8Bias)
        self.requantize = entry()
        self.shortcut = qnn.QuantIdentity(act_quant=self.requantize.act_quant, return_quant_tensor=True)
        self.last = qnn.QuantConv2d(4, 2, 1, weight_bit_width=4, bias_quant=Int8Bias, return_quant_tensor=True)

    def branches(self, x: Tensor) -> tuple[QuantTensor, QuantTensor]:
        start: Any = self.entry(x)
        return self.requantize(self.conv(start)), self.shortcut(start)  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        body, shortcut = self.branches(x)
        return self.last(body + shortcut).value


class Concatenation(Residual):
    """The same with the branches side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.last = qnn.QuantConv2d(8, 2, 1, weight_bit_width=4, bias_quant=Int8Bias, return_quant_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.cat(list(self.branches(x)), 1)).value  # type: ignore[arg-type]


class Joined(nn.Module):
    """Branches of different quantizers, put on one grid where they meet, from the first step on."""

    def __init__(self, join: Callable[..., nn.Module], channels: int) -> None:
        super().__init__()
        self.entry = entry()
        self.left = qnn.QuantConv2d(4, 4, 3, padding=1, weight_bit_width=4, bias_quant=Int8Bias)
        self.right = qnn.QuantReLU(bit_width=4, collect_stats_steps=2, return_quant_tensor=True)
        self.join = join(output_quant=None, input_bit_width=5, input_collect_stats_steps=2, return_quant_tensor=True)
        self.last = qnn.QuantConv2d(channels, 2, 1, weight_bit_width=4, bias_quant=Int8Bias, return_quant_tensor=True)

    def forward(self, x: Tensor) -> Tensor:
        start = self.entry(x)
        branches = [self.left(start), self.right(start)]
        joined = self.join(branches) if isinstance(self.join, qnn.QuantCat) else self.join(*branches)
        return self.last(joined).value


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "residual": (Residual, 2),  # steps until the shared scale is learned
    "concatenation": (Concatenation, 2),
    "sum on one grid": (lambda: Joined(qnn.QuantEltwiseAdd, 4), 0),
    "concatenation on one grid": (lambda: Joined(qnn.QuantCat, 8), 0),
}


def image(seed: int) -> Tensor:
    return torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(seed))


def trained(name: str) -> nn.Module:
    torch.manual_seed(0)
    make, collecting = NETWORKS[name]
    net = make()
    if collecting:  # each call has a scale of its own meanwhile
        for seed in range(collecting):
            net.branches(image(seed))  # type: ignore[operator]
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    for seed in range(4):
        optimizer.zero_grad()
        net(image(seed)).square().mean().backward()
        optimizer.step()
    return net


@pytest.mark.parametrize("name", NETWORKS)
def test_branches_that_share_a_quantizer_train_compile_copy_and_are_captured(name: str) -> None:
    net, x = trained(name), image(9)
    torch._dynamo.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(
        name == "residual"
    ):  # to trace a backward pass takes as long again, and one of them tells
        assert torch.allclose(compiled(x), net(x), atol=1e-5)
    twin = copy.deepcopy(net)
    assert torch.equal(twin(x), net(x))
    other = NETWORKS[name][0]()
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.eval()(x), net.eval()(x))
    assert torch.equal(capture(net, (x,)).run(x), net(x))


def test_the_scale_of_a_shared_activation_quantizer_is_one_parameter() -> None:
    net = trained("residual")
    assert isinstance(net, Residual)
    assert net.shortcut.act_quant is net.requantize.act_quant
    names = [name for name, _ in net.named_parameters() if "requantize" in name or "shortcut" in name]
    assert names == ["requantize.act_quant.tensor_quant.scaling_impl.value"]
    body, shortcut = net.branches(image(3))
    assert torch.equal(body.scale, shortcut.scale)


def test_a_shared_weight_quantizer_has_one_scale_for_all_weights() -> None:
    torch.manual_seed(0)
    first = qnn.QuantConv2d(3, 8, 3, weight_bit_width=4)
    others = [
        qnn.QuantConvTranspose2d(8, 3, 3, weight_quant=first.weight_quant),
        qnn.QuantLinear(8, 4, weight_quant=first.weight_quant),
        qnn.QuantEmbedding(5, 8, weight_quant=first.weight_quant),
        qnn.QuantScaleBias(8, bias=True, weight_quant=first.weight_quant),
    ]
    layers: list[Any] = [first, *others]
    largest = max(float(layer.weight.detach().abs().max()) for layer in layers)
    for layer in layers:
        weight = layer.quant_weight()
        assert weight.bit_width == 4
        assert float(weight.scale.detach()) == pytest.approx(largest / 7)
    assert first.weight_quant.owners == tuple(layers)
    twins: Any = copy.deepcopy(nn.ModuleList(layers))
    assert twins[0].weight_quant.owners == tuple(twins)


def test_a_bit_width_is_shared_by_sharing_its_module() -> None:
    shared = qnn.QuantReLU(bit_width=5).act_quant.tensor_quant.bit_width_impl
    layers = [
        qnn.QuantReLU(bit_width_impl=shared, return_quant_tensor=True),
        qnn.QuantIdentity(bit_width_impl=shared, return_quant_tensor=True),
    ]
    for layer in layers:
        assert layer.act_quant.tensor_quant.bit_width_impl is shared
        assert layer(torch.rand(4)).bit_width == 5


PER_CHANNEL: dict[str, Any] = {
    "input_scaling_per_output_channel": True,
    "input_per_channel_broadcastable_shape": (1, 3, 1),
    "input_collect_stats_steps": 1,
    "output_quant": None,
    "return_quant_tensor": True,
}


@pytest.mark.parametrize("collecting", [True, False])
def test_operands_quantized_per_channel_are_on_one_grid(collecting: bool) -> None:
    torch.manual_seed(0)
    add, cat = qnn.QuantEltwiseAdd(**PER_CHANNEL), qnn.QuantCat(**PER_CHANNEL)
    x, y, longer = (torch.randn(size, 3, 5) * torch.tensor([[0.5], [1.0], [3.0]]) for size in (2, 2, 4))
    if not collecting:
        add(x, y)
        cat([x, longer], 0)
    total, joined = add(x, y), cat([x, longer], 0)
    assert total.is_valid
    assert joined.is_valid
    assert total.scale.shape == (1, 3, 1)
    assert len(joined.scale.unique()) == len(total.scale.unique()) == 3
    assert total.bit_width == 9
    compiled = torch.compile(add, fullgraph=True, backend="eager")
    assert torch.equal(compiled(x, y).int(), add(x, y).int())
