"""Values that are concatenated have one scale from where they come from, and are rounded once."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError
from quant_core.tensor import QuantTensor
from quant_nn import Rule, quantize

ACT = "Int8ActPerTensorFloat"
RULES = [
    Rule(types="Conv2d", options={"output_quant": ACT}),
    Rule(types="Cat", options={"input_quant": ACT, "output_quant": None}, shared=True),
]
X = torch.linspace(-1, 2, 128).reshape(2, 1, 8, 8)


class Branches(nn.Module):
    """Two joins with an operand in common, and a third one on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Conv2d(1, 2, 1) for _ in range(3))
        self.four, self.five = nn.Conv2d(4, 2, 1), nn.Conv2d(1, 2, 1)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        one = self.relu(self.one(x))
        first = torch.cat([one, self.two(x)], 1)
        second = torch.cat([self.three(x), one], 1)
        third = torch.cat([self.four(first), self.five(x)], 1)
        return first + second + third


def test_joins_with_an_operand_in_common_have_one_quantizer() -> None:
    torch.manual_seed(0)
    model: Any = quantize(Branches(), RULES, graph=True, inputs=(X,)).model
    assert model.one.output_quant is model.two.output_quant
    assert model.one.output_quant is model.three.output_quant
    assert model.four.output_quant is model.five.output_quant
    assert model.four.output_quant is not model.one.output_quant
    assert set(model.one.output_quant.owners) >= {model.one, model.two, model.three}
    assert all(join.input_quant is None for join in (model.cat, model.cat_1, model.cat_2))


def test_what_is_joined_lies_on_one_grid() -> None:
    torch.manual_seed(0)
    rules = [RULES[0], Rule(types="Conv2d", options={"return_quant_tensor": True}), RULES[1]]
    model: Any = quantize(Branches(), rules, graph=True, inputs=(X,)).model
    for _ in range(3):
        model(X)
    again = copy.deepcopy(model).eval()
    assert torch.equal(again(X), model.eval()(X))
    seen: list[Any] = []
    model.cat.register_forward_hook(lambda module, args, out: seen.extend((*args[0], torch.cat(args[0], 1))))
    model(X)
    scale = model.one.output_quant.scale()
    assert len(seen) == 3
    assert all(isinstance(one, QuantTensor) and one.is_valid and torch.equal(one.scale, scale) for one in seen)


def test_an_operand_that_comes_from_no_layer_leaves_the_join_as_it_is() -> None:
    class Beside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.conv(x), x], 1)

    model: Any = quantize(Beside(), RULES, graph=True, inputs=(X,)).model
    assert model.cat.input_quant is not None
    assert model.conv.output_quant is not model.cat.input_quant


@pytest.mark.parametrize(
    "move",
    [
        lambda y: y[:, :1],
        lambda y: y.chunk(2, 1)[0],
        lambda y: torch.split(y, 1, dim=1)[1],
        lambda y: y.transpose(2, 3).unsqueeze(1).squeeze(1),
        lambda y: torch.relu(y).permute(0, 1, 3, 2),
    ],
)
def test_what_moves_values_stands_between(move: Any) -> None:
    class Moved(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([move(self.one(x)), self.two(x)], 1)

    model: Any = quantize(Moved(), RULES, graph=True, inputs=(X,)).model
    assert model.one.output_quant is model.two.output_quant
    assert model.cat.input_quant is None


def test_sharing_needs_a_graph() -> None:
    with pytest.raises(ConfigurationError) as caught:
        quantize(nn.Sequential(qnn.Cat()), RULES[1])
    assert str(caught.value).splitlines() == [
        "a quantizer is shared with layers that are not known",
        "  at 0, by rule 1",
        "  shared=True takes what comes before a layer from the graph of the model",
        "  Pass graph=True and inputs=(x,), or leave shared out.",
    ]
