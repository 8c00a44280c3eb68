"""Folding is exact up to rounding, for every layer and side; and what cannot be folded stays, with a reason."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import quant_nn as qnn
from quant_core.errors import InputError
from quant_core.quant import Int8ActPerTensorFloat
from quant_nn import fold_batch_norms

LAYERS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any], tuple[int, ...]]] = {
    "linear": (nn.Linear, {}, (5, 6)),
    "conv1d": (nn.Conv1d, {"kernel_size": 3, "stride": 2}, (5, 6, 9)),
    "conv2d": (nn.Conv2d, {"kernel_size": (3, 2), "groups": 2}, (3, 6, 7, 7)),
    "depthwise": (nn.Conv2d, {"kernel_size": 3, "groups": 6, "padding_mode": "reflect", "padding": 1}, (3, 6, 7, 7)),
    "conv3d": (nn.Conv3d, {"kernel_size": 2, "groups": 3}, (2, 6, 4, 4, 4)),
    "transposed1d": (nn.ConvTranspose1d, {"kernel_size": 3, "stride": 2, "groups": 3}, (4, 6, 5)),
    "transposed2d": (nn.ConvTranspose2d, {"kernel_size": 3, "padding": 1}, (2, 6, 5, 5)),
    "transposed3d": (nn.ConvTranspose3d, {"kernel_size": 2, "groups": 2}, (2, 6, 3, 3, 3)),
}
NORMS = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d, 5: nn.BatchNorm3d}


def trained_norm(axes: int, channels: int, **options: Any) -> nn.Module:
    norm = NORMS[axes](channels, **options)
    for tensor in (*norm.parameters(), norm.running_mean):
        nn.init.normal_(tensor)
    nn.init.uniform_(norm.running_var, 0.1, 3.0)
    return norm


def layer_of(name: str, bias: bool = True) -> tuple[nn.Module, Tensor]:
    kind, options, shape = LAYERS[name]
    return kind(6, 12, bias=bias, **options), torch.randn(shape)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("affine", [True, False], ids=["affine", "plain"])
@pytest.mark.parametrize("name", LAYERS)
def test_behind_a_layer(name: str, affine: bool, bias: bool) -> None:
    torch.manual_seed(0)
    layer, x = layer_of(name, bias)
    net = nn.Sequential(layer, trained_norm(x.dim(), 12, affine=affine)).double()
    x = x.double()
    expected = copy.deepcopy(net).eval()(x)
    weight = layer.weight
    folding = fold_batch_norms(net, (x,))
    assert net[0] is layer
    assert layer.weight is weight
    assert isinstance(net[1], nn.Identity)
    assert net.training
    torch.testing.assert_close(net(x), expected, rtol=1e-12, atol=1e-12)
    (folded,) = folding.folded
    assert (folded.norm, folded.layer, folded.side) == ("1", "0", "behind")
    assert folded.relative < 1e-12
    assert folding.left == ()


@pytest.mark.parametrize("name", [name for name in LAYERS if not name.startswith("transposed")])
def test_before_a_layer(name: str) -> None:
    torch.manual_seed(0)
    layer, x = layer_of(name)
    net = nn.Sequential(trained_norm(x.dim(), 6), layer).double()
    expected = copy.deepcopy(net).eval()(x.double())
    (folded,) = fold_batch_norms(net, (x.double(),)).folded
    assert (folded.norm, folded.layer, folded.side) == ("0", "1", "before")
    torch.testing.assert_close(net(x.double()), expected, rtol=1e-11, atol=1e-11)


def test_before_and_behind_one_layer() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(trained_norm(2, 6), nn.Linear(6, 4), trained_norm(2, 4)).double()
    x = torch.randn(8, 6, dtype=torch.float64)
    expected = copy.deepcopy(net).eval()(x)
    folding = fold_batch_norms(net, (x,))
    assert {(one.norm, one.side) for one in folding.folded} == {("0", "before"), ("2", "behind")}
    torch.testing.assert_close(net(x), expected, rtol=1e-11, atol=1e-11)


def test_the_error_of_each_layer_is_that_of_its_dtype() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), trained_norm(4, 4), nn.ReLU(), nn.Conv2d(4, 4, 3, bias=False), trained_norm(4, 4)
    )
    x = torch.randn(2, 1, 9, 9)
    expected = copy.deepcopy(net).eval()(x)
    folding = fold_batch_norms(net, (x,))
    torch.testing.assert_close(net.eval()(x), expected)
    assert all(0 <= one.relative < 1e-5 for one in folding.folded)
    assert str(folding).splitlines()[0] == "2 folded, 0 left"
    assert str(folding).splitlines()[1].startswith("+  1 behind 0: error ")


def test_a_quantized_layer_takes_it_over_and_its_scale_starts_again() -> None:
    torch.manual_seed(0)
    layer = qnn.QuantConv2d(2, 4, 3, bias=False, weight_bit_width=8, weight_scaling_impl_type="parameter_from_stats")
    net = nn.Sequential(layer, trained_norm(4, 4))
    x = torch.randn(2, 2, 8, 8)
    expected = copy.deepcopy(net).eval()(x)
    (folded,) = fold_batch_norms(net, (x,)).folded
    assert torch.equal(layer.quant_weight().scale, layer.weight.detach().abs().max() / 127)
    assert 1e-6 < folded.relative < 0.03
    torch.testing.assert_close(net.eval()(x), expected, rtol=0, atol=folded.error * 1.001)


def test_a_shared_pair_is_folded_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), trained_norm(2, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.layer(torch.relu(self.norm(self.layer(x)))))

    net, x = Twice(), torch.randn(3, 4)
    expected = copy.deepcopy(net).eval()(x)
    assert len(fold_batch_norms(net, (x,)).folded) == 1
    torch.testing.assert_close(net(x), expected, rtol=1e-4, atol=1e-5)


class Net(nn.Module):
    """One layer, one normalization, and what stands between them or beside."""

    def __init__(self, norm: nn.Module, layer: nn.Module, compute: Callable[..., Tensor]) -> None:
        super().__init__()
        self.norm, self.layer, self.compute = norm, layer, compute

    def forward(self, x: Tensor) -> Tensor:
        return self.compute(x, self.layer, self.norm)


def tied() -> Net:
    net = Net(nn.BatchNorm1d(4), nn.Linear(4, 4), lambda x, layer, norm: norm(layer(x)))
    net.other = nn.Linear(4, 4)
    net.other.weight = net.layer.weight
    return net


def hooked() -> Net:
    net = Net(nn.BatchNorm1d(4), nn.Linear(4, 4), lambda x, layer, norm: norm(layer(x)))
    net.norm.register_forward_hook(lambda *call: None)
    return net


REASONS: dict[str, tuple[Callable[[], Net], tuple[int, ...], str]] = {
    "used elsewhere": (
        lambda: Net(nn.BatchNorm1d(4), nn.Linear(4, 4), lambda x, layer, norm: norm(y := layer(x)) + y),
        (3, 4),
        "what it normalizes is used elsewhere as well, or comes from no layer; "
        "before the model (Net), which has no weight that could take it",
    ),
    "padding": (
        lambda: Net(nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3, padding=1), lambda x, layer, norm: layer(norm(x))),
        (3, 4, 5, 5),
        "what it normalizes is used elsewhere as well, or comes from no layer; "
        "layer (Conv2d) pads with zeros, which the normalization would have changed",
    ),
    "batches": (
        lambda: Net(
            nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 4), lambda x, layer, norm: norm(layer(x))
        ),
        (3, 4),
        "it has no running statistics: it normalizes by those of each batch",
    ),
    "axes": (
        lambda: Net(nn.BatchNorm1d(3), nn.Linear(4, 4), lambda x, layer, norm: norm(layer(x))),
        (2, 3, 4),
        "the channels of layer (Linear) are on the last axis, and those of the normalization on axis 1",
    ),
    "tied": (tied, (3, 4), "the parameters of layer (Linear) are shared with another module"),
    "rounded": (
        lambda: Net(
            nn.BatchNorm1d(4),
            qnn.QuantLinear(4, 4, output_quant=Int8ActPerTensorFloat),
            lambda x, layer, norm: norm(layer(x)),
        ),
        (3, 4),
        "what it normalizes is rounded already, by layer.output_quant; fold before that quantizer is there",
    ),
    "hooks": (hooked, (3, 4), "it has hooks, which nothing would call any more"),
    "parametrized": (
        lambda: Net(
            nn.BatchNorm1d(4),
            parametrizations.weight_norm(nn.Linear(4, 4)),
            lambda x, layer, norm: norm(layer(x)),
        ),
        (3, 4),
        "the weight of layer (ParametrizedLinear) is computed, so that it cannot be changed",
    ),
    "no layer": (
        lambda: Net(nn.BatchNorm1d(4), nn.ReLU(), lambda x, layer, norm: norm(layer(x))),
        (3, 4),
        "layer (ReLU), which has no weight that could take it",
    ),
    "another call": (
        lambda: Net(nn.BatchNorm1d(4), nn.Linear(4, 4), lambda x, layer, norm: norm(layer(x)) + layer(x + 1)),
        (3, 4),
        "layer computes more than what this normalization is for",
    ),
}


@pytest.mark.parametrize("case", REASONS)
def test_what_cannot_be_folded_stays_and_says_why(case: str) -> None:
    make, shape, reason = REASONS[case]
    net = make()
    state = copy.deepcopy(net.state_dict())
    folding = fold_batch_norms(net, (torch.randn(shape),))
    assert folding.folded == ()
    (left,) = folding.left
    assert left.norm == "norm"
    assert reason in left.reason
    assert not isinstance(net.norm, nn.Identity)
    assert all(torch.equal(one, state[key]) for key, one in net.state_dict().items())


def test_a_normalization_in_the_code_of_the_model_is_told_by_its_place() -> None:
    class Function(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.norm = nn.Linear(4, 4), nn.BatchNorm1d(4)

        def forward(self, x: Tensor) -> Tensor:
            return F.batch_norm(self.layer(x), self.norm.running_mean, self.norm.running_var)

    lines = str(fold_batch_norms(Function(), (torch.randn(3, 4),))).splitlines()
    assert lines == ["0 folded, 1 left", "   the model: it is no layer of its own, but a call in one"]


def test_a_failure_changes_nothing() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    state = copy.deepcopy(net.state_dict())
    with pytest.raises(InputError):
        fold_batch_norms(net, (torch.zeros(2, 3), torch.zeros(1)))
    assert all(torch.equal(one, state[key]) for key, one in net.state_dict().items())
    assert isinstance(net[1], nn.BatchNorm1d)
