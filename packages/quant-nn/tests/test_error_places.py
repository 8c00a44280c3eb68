"""An error inside a running model names the layer by its path."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import InputError


class Block(nn.Module):
    """Two layers of one type, whose paths tell them apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first = qnn.QuantLinear(4, 4, weight_bit_width=4)
        self.act = qnn.QuantReLU(bit_width=4)
        self.second = qnn.QuantLinear(4, 4, weight_bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.second(self.act(self.first(x)))
        return out


def _model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(Block(), nn.Sequential(Block(), Block()))


def test_an_infinite_weight_names_its_layer() -> None:
    model = _model()
    weight = model.get_parameter("1.0.second.weight")
    with torch.no_grad():
        weight[1, 2] = torch.inf
    with pytest.raises(InputError) as caught:
        model(torch.randn(2, 4))
    assert str(caught.value) == (
        "the weight has no finite statistic\n"
        "  at 1.0.second (QuantLinear)\n"
        "  a scale or zero-point would be computed from inf\n"
        "  Look for infinities and NaN in the weight, for example after a step with too large a learning rate."
    )


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_an_activation_that_is_not_finite_names_the_first_layer_that_saw_it(bad: float) -> None:
    model = _model()
    model.get_submodule("1.0.first").register_forward_hook(lambda layer, inputs, out: out + bad)
    with pytest.raises(InputError) as caught:
        model(torch.randn(2, 4))
    assert caught.value.where == "1.0.act (QuantReLU)"


def test_a_shared_quantizer_names_the_layer_that_called_it() -> None:
    first = qnn.QuantReLU()
    second = qnn.QuantReLU(act_quant=first.act_quant)
    model = nn.ModuleDict({"first": first, "second": second})

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.acts = model

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.acts["second"](self.acts["first"](x) * torch.inf)
            return out

    with pytest.raises(InputError) as caught:
        Net()(torch.ones(3))
    assert caught.value.where == "acts.second (QuantReLU)"


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


@pytest.mark.parametrize(
    ("layer", "x", "where"),
    [
        (lambda: qnn.QuantLinear(4, 2), torch.randn(2, 3), "0.1 (QuantLinear(in_features=4, out_features=2, bias=True))"),
        (lambda: qnn.QuantIdentity(), torch.ones(2, dtype=torch.int64), "0.1 (QuantIdentity)"),
        (lambda: qnn.QuantIdentity(), torch.ones(0, 4), "0.1 (QuantIdentity)"),
        (lambda: nn.Sequential(qnn.QuantIdentity(return_quant_tensor=True), InPlace()), torch.ones(4), "0.1.1 (InPlace)"),
    ],
    ids=["shape", "dtype", "empty", "in place"],
)  # fmt: skip
def test_what_a_layer_cannot_take_is_told_with_its_path(layer: Callable[[], nn.Module], x: Tensor, where: str) -> None:
    model = nn.Sequential(nn.Sequential(nn.Identity(), layer()))
    with pytest.raises(InputError) as caught:
        model(x)
    assert caught.value.where == where


@pytest.mark.parametrize(
    ("layer", "where"),
    [
        (lambda: qnn.QuantLinear(8, 2), "1 (QuantLinear(in_features=8, out_features=2, bias=True))"),
        (lambda: qnn.QuantReLU(), "1 (QuantReLU)"),
    ],
)
def test_what_a_recurrent_layer_returns_is_no_input(layer: Callable[[], nn.Module], where: str) -> None:
    with pytest.raises(InputError) as caught:
        nn.Sequential(nn.LSTM(4, 8), layer())(torch.randn(3, 2, 4))
    assert str(caught.value) == (
        "the input is a tuple, not a tensor\n"
        f"  at {where}\n"
        "  this layer takes one tensor; recurrent layers return their outputs with their states, attention with its weights\n"
        "  Take the tensor out of it, such as out[0], before this layer is called."
    )


@pytest.mark.parametrize("given", [None, 1.5, 2], ids=["None", "float", "int"])
@pytest.mark.parametrize("layer", [lambda: qnn.QuantReLU(), lambda: qnn.QuantConv1d(1, 1, 1)])
def test_what_is_no_tensor_is_no_input(layer: Callable[[], nn.Module], given: object) -> None:
    with pytest.raises(InputError) as caught:
        layer()(given)
    assert (caught.value.what, caught.value.why, caught.value.fix) == (
        f"the input is a {type(given).__name__}, not a tensor",
        "this layer takes one tensor of torch",
        "Convert it before: torch.from_numpy(x) of an array, torch.tensor(x) of a number.",
    )


def test_a_layer_that_is_called_alone_has_no_path() -> None:
    with pytest.raises(InputError) as caught:
        qnn.QuantReLU()(torch.tensor([torch.nan]))
    assert caught.value.where == "QuantReLU"
