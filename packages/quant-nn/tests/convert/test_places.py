"""Rules for layers by where they stand in the graph: first, last, and behind others."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import ConfigurationError, UnknownNameError
from quant_nn import Rule, quantize, read_rules, recipe, write_rules

CONV = ("Conv2d", "Linear")
X = torch.linspace(-1, 1, 32).reshape(2, 1, 4, 4)


class Branches(nn.Module):
    """Registered in another order than they are called in; two layers take the input, and two give outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleList([nn.Linear(4, 2), nn.Linear(4, 3)])
        self.inner = nn.Conv2d(4, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.one, self.two = nn.Conv2d(1, 2, 1), nn.Conv2d(1, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        halves = [self.one(x), self.two(F.max_pool2d(x, 3, 1, 1))]
        y = F.relu(self.norm(self.inner(torch.cat(halves, 1))))
        y = y.mean((2, 3)).view(x.shape[0], -1)
        return self.heads[0](y), self.heads[1](y)


def with_eight_bits(rule: Rule, graph: bool = True) -> set[str]:
    rules = [Rule(types=CONV, options={"weight_bit_width": 2}), rule, Rule(types=("ReLU", "Cat"), optional=True)]
    model = quantize(Branches(), rules, graph=graph, inputs=(X,) if graph else None).model
    layers = {path: layer for path, layer in model.named_modules() if isinstance(layer, qnn.QuantWeightLayer)}
    assert len(layers) == 5
    return {path for path, layer in layers.items() if int(layer.quant_weight().bit_width) == 8}


EIGHT: dict[str, Any] = {"types": CONV, "options": {"weight_bit_width": 8}}


def test_all_branches_have_a_first_and_a_last_layer() -> None:
    assert with_eight_bits(Rule(**EIGHT, place="first")) == {"one", "two"}
    assert with_eight_bits(Rule(**EIGHT, place="last")) == {"heads.0", "heads.1"}


def test_without_a_graph_modules_have_the_order_of_the_model() -> None:
    assert with_eight_bits(Rule(**EIGHT, place="first"), graph=False) == {"heads.0"}
    assert with_eight_bits(Rule(**EIGHT, place="last"), graph=False) == {"two"}


def test_behind_a_type_with_nothing_between_but_what_no_quantized_layer_stands_for() -> None:
    assert with_eight_bits(Rule(**EIGHT, behind="Cat")) == {"inner"}
    assert with_eight_bits(Rule(**EIGHT, behind=nn.ReLU)) == {"heads.0", "heads.1"}
    net = nn.Sequential(nn.Linear(2, 2), nn.GELU(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    rules = [Rule(types="Linear", options={"weight_bit_width": 2}), Rule(types="ReLU")]
    rules.append(
        Rule(types="Linear", behind=("Conv2d", "torch.nn.Linear"), options={"input_quant": "Int8ActPerTensorFloat"})
    )
    model: Any = quantize(net, rules, graph=True, inputs=(torch.ones(1, 2),)).model
    assert [model.get_submodule(path).input_quant is not None for path in "024"] == [False, True, False]


def test_behind_takes_a_graph() -> None:
    with pytest.raises(ConfigurationError) as caught:
        quantize(Branches(), Rule(**EIGHT, behind="Cat"))
    assert str(caught.value).splitlines() == [
        "what stands before a layer is not known",
        "  at rule 1",
        "  behind takes it from the graph of the model",
        "  Pass graph=True and inputs=(x,), or leave behind out.",
    ]
    assert not quantize(Branches(), Rule(**EIGHT, behind="Cat", optional=True)).replaced


def test_behind_nothing() -> None:
    with pytest.raises(UnknownNameError) as caught:
        quantize(Branches(), Rule(types="Conv2d", behind="Tanh"), graph=True, inputs=(X,))
    assert str(caught.value).splitlines()[2] == "  rule 1: none of one, two, inner takes what Tanh gives"


@pytest.mark.parametrize("suffix", ["toml", "yaml"])
def test_it_is_written_to_files(suffix: str, tmp_path: Any) -> None:
    pytest.importorskip("yaml")
    rules = (Rule(types=CONV, behind=("Conv2d", nn.Linear), place="first"),)
    write_rules(rules, tmp_path / f"rules.{suffix}")
    assert read_rules(tmp_path / f"rules.{suffix}") == rules
    assert rules != (Rule(types=CONV, place="first"),)


def test_layers_behind_others_get_a_quantizer_of_their_input_for_finn() -> None:
    """As in the blocks of MobileNetV2 that change the size: the last convolution of one is before the first of the next."""
    layers = [
        nn.Conv2d(1, 2, 1),
        nn.BatchNorm2d(2),
        nn.ReLU6(),
        nn.Conv2d(2, 2, 1),
        nn.BatchNorm2d(2),
        nn.Conv2d(2, 2, 1),
    ]
    net = nn.Sequential(*layers)
    model: Any = quantize(net, recipe("w4a4_finn"), graph=True, inputs=(X,)).model
    convolutions = [model.get_submodule(path) for path in "035"]
    assert [conv.input_quant and int(conv.input_quant.bit_width()) for conv in convolutions] == [8, None, 4]
    without = [*recipe("w4a4_finn"), Rule(types="Conv2d", options={"input_quant": None})]
    model = quantize(net, without, graph=True, inputs=(X,)).model
    assert [model.get_submodule(path).input_quant for path in "035"] == [None, None, None]
