"""Folding while training: without quantizers it is the normalization, with them the folded weight is what is quantized."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError
from quant_core.export import capture
from quant_nn import finish_folding, fold_while_training, freeze_statistics

LAYERS: dict[str, tuple[Any, dict[str, Any], tuple[int, ...], Any]] = {
    "linear": (qnn.QuantLinear, {}, (7, 4), nn.BatchNorm1d),
    "conv1d": (qnn.QuantConv1d, {"kernel_size": 3, "groups": 2}, (5, 4, 9), nn.BatchNorm1d),
    "conv2d": (qnn.QuantConv2d, {"kernel_size": 3, "padding": 1}, (3, 4, 6, 6), nn.BatchNorm2d),
    "transposed2d": (
        qnn.QuantConvTranspose2d,
        {"kernel_size": 2, "stride": 2, "groups": 2},
        (3, 4, 5, 5),
        nn.BatchNorm2d,
    ),
}


def net_and_input(name: str, **options: Any) -> tuple[nn.Sequential, Tensor]:
    torch.manual_seed(0)
    kind, own, shape, norm = LAYERS[name]
    net = nn.Sequential(kind(4, 6, **own, **options), norm(6)).double()
    nn.init.normal_(net[1].weight)
    nn.init.normal_(net[1].bias)
    return net, torch.randn(shape, dtype=torch.float64)


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("name", LAYERS)
def test_without_quantizers_it_trains_as_layer_and_normalization(name: str, bias: bool, momentum: Any) -> None:
    """Outputs, gradients, steps and statistics, in both modes."""
    net, x = net_and_input(name, bias=bias, weight_quant=None)
    net[1].momentum = momentum
    folded = copy.deepcopy(net)
    assert len(fold_while_training(folded, (x,)).folded) == 1
    for model in (net, folded):
        optimizer = torch.optim.SGD([one for one in model.parameters() if one.requires_grad], lr=0.01)
        for _ in range(3):
            optimizer.zero_grad()
            model(x).tanh().sum().backward()
            optimizer.step()
    norm = folded[0].parametrizations.weight[0].norm
    close = {"rtol": 1e-9, "atol": 1e-11}
    torch.testing.assert_close(folded(x), net(x), **close)
    for one, other in zip(norm.state_dict().values(), net[1].state_dict().values(), strict=True):
        torch.testing.assert_close(one, other, **close)
    torch.testing.assert_close(folded[0].parametrizations.weight.original, net[0].weight, **close)
    torch.testing.assert_close(folded.eval()(x), net.eval()(x), **close)


@pytest.mark.parametrize("name", LAYERS)
def test_the_folded_weight_is_what_is_quantized(name: str) -> None:
    net, x = net_and_input(name, weight_bit_width=3)
    fold_while_training(net, (x,))
    for _ in range(5):
        net(x)
    fold = net[0].parametrizations.weight[0]
    expected = fold(net[0].parametrizations.weight.original)
    quantized = net.eval()[0].quant_weight()
    assert torch.equal(net[0].weight, expected)
    torch.testing.assert_close(quantized.scale, expected.abs().max() / 3)
    assert (quantized.value - expected).abs().max() <= quantized.scale / 2 * (1 + 1e-9)


def test_finished_layers_are_plain_and_compute_the_same() -> None:
    net, x = net_and_input("conv2d", bias=False, weight_bit_width=4)
    weight = net[0].weight
    fold_while_training(net, (x,))
    for _ in range(3):
        net(x).sum().backward()
    expected = net.eval()(x)
    assert capture(net, (x,)).quantizers[0].bit_width == 4
    assert finish_folding(net) == ["0"]
    assert type(net[0]) is qnn.QuantConv2d
    assert net[0].weight is weight
    assert [key for key, _ in net.named_parameters()] == ["0.weight", "0.bias"]
    assert not net[0]._forward_pre_hooks
    assert not net[0]._forward_hooks
    torch.testing.assert_close(net(x), expected)
    net.train()(x).sum().backward()
    assert net[0].bias.grad is not None


def test_frozen_statistics_make_both_modes_equal() -> None:
    net, x = net_and_input("conv2d", weight_bit_width=4)
    fold_while_training(net, (x,))
    net(x)
    assert not torch.equal(net(x), net.eval()(x))
    freeze_statistics(net)
    before = net[0].parametrizations.weight[0].norm.running_mean.clone()
    assert torch.equal(net.train()(x), net.eval()(x))
    assert torch.equal(net[0].parametrizations.weight[0].norm.running_mean, before)
    freeze_statistics(net, False)
    net.train()(x)
    assert not torch.equal(net[0].parametrizations.weight[0].norm.running_mean, before)


def test_a_checkpoint_resumes_to_the_bit() -> None:
    net, x = net_and_input("conv2d", weight_bit_width=4)
    fold_while_training(net, (x,))
    again = copy.deepcopy(net)
    net(x)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again(x), net(x))
    assert torch.equal(again.eval()(x), net.eval()(x))


def test_a_compiled_training_step_is_the_same() -> None:
    net, x = net_and_input("conv2d", weight_bit_width=4)
    fold_while_training(net, (x,))
    other = copy.deepcopy(net)
    assert torch.equal(torch.compile(other, fullgraph=True, backend="eager")(x), net(x))
    assert all(torch.equal(one, net.state_dict()[key]) for key, one in other.state_dict().items())


def test_a_failed_call_leaves_no_batch_behind() -> None:
    net, x = net_and_input("conv2d", weight_bit_width=4)
    fold_while_training(net, (x,))
    net[0].output_quant = nn.Linear(99, 1).double()  # does not fit
    with pytest.raises(RuntimeError):
        net(x)
    assert net[0].parametrizations.weight[0].batch is None


def test_what_is_left() -> None:
    net = nn.Sequential(
        nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.BatchNorm1d(4), qnn.QuantLinear(4, 4), nn.ReLU()
    )
    folding = fold_while_training(net, (torch.randn(3, 4),))
    assert folding.folded == ()
    assert [one.reason for one in folding.left] == [
        "0 (Linear) quantizes no weight",
        "it stands before 4, whose output says nothing of its statistics",
    ]


def test_nothing_to_finish_or_freeze() -> None:
    with pytest.raises(ConfigurationError) as caught:
        finish_folding(nn.Linear(2, 2))
    assert str(caught.value).splitlines() == [
        "the model has no layer whose folding could be finished",
        "  no layer folds a batch normalization while it is trained",
        "  Call quant_nn.fold_while_training(model, inputs) first.",
    ]
    with pytest.raises(ConfigurationError, match="whose statistics could be frozen"):
        freeze_statistics(nn.Linear(2, 2))
