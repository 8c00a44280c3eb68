"""Functional calls are found with their source lines, and graph mode makes modules of them."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.errors import CaptureError, ConfigurationError, InputError
from quant_nn import Rule, functional_calls, quantize


class Block(nn.Module):
    """A residual block with everything that module replacement cannot reach."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.conv(x))
        y = self.act(y + x)
        y = torch.cat([y, x], dim=1)
        return F.max_pool2d(y.flip(0), 2) * 2.0


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.block = Block()
        self.drop = 0.5
        self.head = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.block(x)
        x = F.adaptive_avg_pool2d(x, 1).flatten(1)
        return self.head(F.dropout(x, self.drop, self.training)).tanh()


X = torch.linspace(-1, 1, 192).reshape(1, 3, 8, 8)


def line_of(cls: type, text: str) -> str:
    lines, start = inspect.getsourcelines(cls)
    return f"{inspect.getsourcefile(cls)}:{start + next(i for i, line in enumerate(lines) if text in line)}"


def test_calls_are_found_with_their_source_lines() -> None:
    found = [(call.op, call.path, call.source, call.module, call.rewritten) for call in functional_calls(Net(), (X,))]
    assert found == [
        ("relu", "block", line_of(Block, "F.relu"), "nn.ReLU", True),
        ("add", "block", line_of(Block, "y + x"), "quant_nn.EltwiseAdd", True),
        ("cat", "block", line_of(Block, "torch.cat"), "quant_nn.Cat", True),
        ("max_pool2d", "block", line_of(Block, "F.max_pool2d"), "nn.MaxPool2d", False),
        ("mul", "block", line_of(Block, "* 2.0"), None, False),
        ("adaptive_avg_pool2d", "", line_of(Net, "adaptive_avg_pool2d"), "nn.AdaptiveAvgPool2d", True),
        ("tanh", "", line_of(Net, "tanh"), "nn.Tanh", True),
    ]


def test_the_report_names_them() -> None:
    conversion = quantize(Net(), Rule(types=("Conv2d", "Linear")), inputs=(X,))
    lines = str(conversion).splitlines()
    start = lines.index("7 calls that no rule reaches")
    assert lines[start + 1 : start + 3] == [
        f"   {line_of(Block, 'F.relu')}, in block: y = F.relu(self.conv(x))",
        "     relu: use nn.ReLU, or quantize with graph=True",
    ]
    assert "     mul: there is no module for it" in lines
    assert quantize(Net(), Rule(types="Linear")).calls == ()


def test_calls_within_layers_of_torch_are_their_own_affair() -> None:
    net = nn.Sequential(nn.MultiheadAttention(4, 1), nn.LSTM(4, 4))
    x = torch.randn(3, 4)

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention, self.lstm = net

        def forward(self, x: Tensor) -> Tensor:
            return self.lstm(self.attention(x, x, x)[0])[0]

    assert functional_calls(Recurrent(), (x,)) == ()


def test_a_transformer_layer_of_torch_is_made_of_layers() -> None:
    """Torch adds and rectifies between its layers: those calls are in its source."""
    calls = functional_calls(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), (torch.randn(2, 3, 8),))
    assert [call.op for call in calls] == ["add", "relu", "add"]
    assert all(call.module is None and not call.rewritten for call in calls)


def net_of(forward: Any, **layers: nn.Module) -> nn.Module:
    """A model of one function and its layers."""
    kind = type("Made", (nn.Module,), {"forward": forward})
    net: nn.Module = kind()
    for name, layer in layers.items():
        net.add_module(name, layer)
    return net


@pytest.mark.parametrize(
    ("forward", "path"),
    [
        (lambda self, x: F.relu6(self.conv(x)), "relu6"),
        (lambda self, x: torch.add(input=self.conv(x), other=x), "eltwiseadd"),
        (lambda self, x: torch.cat(tensors=(self.conv(x), x), axis=1), "cat"),
        (lambda self, x: F.relu(input=self.conv(x)), "relu"),
        (lambda self, x: self.conv(x).mean((-1, -2)), "adaptiveavgpool2d"),
        (lambda self, x: torch.mean(self.conv(x), dim=[2, 3], keepdim=True), "adaptiveavgpool2d"),
        (lambda self, x: F.dropout(self.conv(x), 0.5, training=self.training), "dropout"),
    ],
)
def test_arguments_may_be_named(forward: Any, path: str) -> None:
    torch.manual_seed(0)
    net = net_of(forward, conv=nn.Conv2d(3, 3, 3, padding=1))
    expected = copy.deepcopy(net).eval()(X)
    conversion = quantize(net, Rule(types="Conv2d", options={"weight_quant": None}), graph=True, inputs=(X,))
    assert path in {one.path for one in conversion.left} | {one.path for one in conversion.replaced}
    assert conversion.calls == ()
    assert torch.equal(conversion.model.eval()(X), expected)


@pytest.mark.parametrize(
    ("forward", "op"),
    [
        (lambda self, x: self.conv(x) + 1.0, "add"),
        (lambda self, x: torch.add(self.conv(x), x, alpha=2), "add"),
        (lambda self, x: self.conv(x).mean(1), "mean"),
        (lambda self, x: self.conv(x).mean((1, 2)), "mean"),
    ],
)
def test_what_no_module_computes_is_not_advertised(forward: Any, op: str) -> None:
    net = net_of(forward, conv=nn.Conv2d(3, 3, 3, padding=1))
    for graph in (False, True):
        (call,) = quantize(copy.deepcopy(net), Rule(types="Conv2d"), graph=graph, inputs=(X,)).calls
        assert (call.op, call.module, call.rewritten) == (op, None, False)


def test_calls_that_graph_mode_leaves_have_the_lines_of_the_model() -> None:
    calls = quantize(Net(), Rule(types="Conv2d"), graph=True, inputs=(X,)).calls
    assert [(call.op, call.path, call.source) for call in calls] == [
        ("max_pool2d", "block", line_of(Block, "F.max_pool2d")),
        ("mul", "block", line_of(Block, "* 2.0")),
    ]


def test_dropout_that_is_never_active_is_no_dropout() -> None:
    net = net_of(lambda self, x: F.dropout(self.conv(x), 0.5, training=False), conv=nn.Conv2d(3, 3, 1))
    failure = refused(CaptureError, net, graph=True, inputs=(X,))
    assert failure.what == "the model computes something else in training mode than in eval mode"


class Optional(nn.Module):
    """An input that is not given."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor, mask: Tensor | None = None, power: int = 1) -> Tensor:
        y = F.relu(self.conv(x)) ** power
        return y if mask is None else y * mask


def test_inputs_that_are_not_given_have_their_defaults() -> None:
    net = Optional()
    model = quantize(net, Rule(types=("Conv2d", "ReLU")), graph=True, inputs=(X,)).model
    model.eval()
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), model(X))
    with pytest.raises(TypeError):
        model(X, X)
    masked = quantize(net, Rule(types=("Conv2d", "ReLU")), graph=True, inputs=(X, X)).model
    assert not torch.equal(masked.eval()(X, X), model(X))


def test_layers_within_layers_of_torch_are_replaced_in_the_graph_alone() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8)
    net = net_of(
        lambda self, x: F.relu(self.encoder(x)),
        encoder=nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
    ).eval()
    expected, kinds = net(x), [type(module) for module in net.modules()]
    model = quantize(net, Rule(types="Linear", options={"weight_bit_width": 2}), graph=True, inputs=(x,)).model
    assert [type(module) for module in net.modules()] == kinds
    assert torch.equal(net(x), expected)
    assert not torch.allclose(model(x), F.relu(expected), atol=1e-3)


def test_graph_mode_computes_the_same_and_leaves_the_model_as_it_is() -> None:
    torch.manual_seed(0)
    net = Net()
    expected, modules = copy.deepcopy(net).eval()(X), list(net.modules())
    rule = Rule(types="EltwiseAdd", options={"input_quant": None, "output_quant": None})
    conversion = quantize(net, rule, graph=True, inputs=(X,))
    model = conversion.model
    assert list(net.modules()) == modules
    assert net.training
    assert model.training
    assert torch.equal(model.eval()(X), expected)
    assert model.head.weight is net.head.weight
    assert [one.path for one in conversion.replaced] == ["block.eltwiseadd"]
    assert {one.path for one in conversion.left} >= {"block.relu", "block.cat", "adaptiveavgpool2d", "dropout", "tanh"}
    assert [call.op for call in conversion.calls] == ["max_pool2d", "mul"]


def test_graph_mode_reaches_functions_with_rules() -> None:
    torch.manual_seed(0)
    rules = [
        Rule(types=("Conv2d", "Linear"), options={"weight_bit_width": 4}),
        Rule(types="ReLU", options={"bit_width": 4}),
        Rule(types=("EltwiseAdd", "Cat"), options={"input_bit_width": 6, "output_quant": None}),
    ]
    model: Any = quantize(Net(), rules, graph=True, inputs=(X,)).model
    assert isinstance(model.block.eltwiseadd, qnn.QuantEltwiseAdd)
    assert isinstance(model.block.cat, qnn.QuantCat)
    assert isinstance(model.block.relu, qnn.QuantReLU)
    assert isinstance(model.block.act, qnn.QuantReLU)
    model(X).sum().backward()
    assert model.block.cat.input_quant.scale().numel() == 1  # one for all operands
    expected = model.eval()(X)
    assert torch.equal(copy.deepcopy(model)(X), expected)
    assert torch.equal(pickle.loads(pickle.dumps(model))(X), expected)
    assert torch.equal(torch.compile(model, fullgraph=True, backend="eager")(X), expected)


def test_a_dry_run_in_graph_mode_gives_the_model_back() -> None:
    net = Net()
    conversion = quantize(net, Rule(types="EltwiseAdd"), graph=True, inputs=(X,), dry_run=True)
    assert conversion.model is net
    assert [one.path for one in conversion.replaced] == ["block.eltwiseadd"]


def test_dropout_follows_the_mode() -> None:
    torch.manual_seed(0)
    model = quantize(Net(), Rule(types="Linear"), graph=True, inputs=(X,)).model
    assert isinstance(model.dropout, nn.Dropout)
    assert not torch.equal(model(X), model(X))
    model.eval()
    assert torch.equal(model(X), model(X))


class Branching(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return x
        return -x


class TwoFaced(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if self.training else x


def refused(error: type[Exception], model: nn.Module, **options: Any) -> Any:
    with pytest.raises(error) as caught:
        quantize(model, Rule(names="*", optional=True), **options)
    return caught.value


def test_what_cannot_be_traced() -> None:
    failure = refused(CaptureError, Branching(), graph=True, inputs=(X,))
    assert failure.what == "the model cannot be traced"
    assert failure.where == line_of(Branching, "x.sum()")
    assert failure.why.startswith("TraceError: symbolically traced variables cannot be used as inputs to control flow")
    assert failure.fix == (
        "Graph mode takes code whose path does not depend on values. Change this line, or write modules in place of the "
        "functions of this model and convert without graph mode."
    )


@pytest.mark.parametrize("training", [True, False])
def test_two_modes(training: bool) -> None:
    model = TwoFaced().train(training)
    failure = refused(CaptureError, model, graph=True, inputs=(X,))
    assert model.training == training
    assert failure.what == "the model computes something else in training mode than in eval mode"
    assert failure.why == "the two graphs differ from 'output' on, and a graph has one path for both"
    assert failure.fix == "Use modules that know their mode, such as nn.Dropout, in place of `if self.training`."


def test_hooks_on_what_is_made_of_others() -> None:
    net = Net()
    net.block.register_forward_hook(lambda *call: None)
    failure = refused(CaptureError, net, graph=True, inputs=(X,))
    assert (failure.what, failure.where) == ("a module that is made of others has a hook", "block")
    kept = Net()
    kept.block.conv.register_forward_hook(lambda *call: None)
    assert len(quantize(kept, Rule(types="Conv2d"), graph=True, inputs=(X,)).model.block.conv._forward_hooks) == 1


def test_graph_mode_needs_inputs_that_fit() -> None:
    failure = refused(ConfigurationError, Net(), graph=True)
    assert (failure.what, failure.fix) == ("graph=True needs example inputs", "Pass inputs=(x,) as well.")
    failure = refused(InputError, Net(), graph=True, inputs=(X[:, :1],))
    assert failure.what == "the example inputs do not fit the model"


class Remembering(nn.Module):
    """Its code runs once, when it is traced, and gives something else then."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return x * self.calls


def test_a_graph_that_computes_something_else() -> None:
    failure = refused(CaptureError, Remembering(), graph=True, inputs=(X,))
    assert failure.what == "the graph does not compute what the model computes"
    assert failure.why == "for the example inputs they differ by up to 2"


def test_a_value_that_is_changed_in_place_and_used_again() -> None:
    def forward(self: Any, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        F.relu(y, inplace=True)
        return y

    failure = refused(CaptureError, net_of(forward, conv=nn.Conv2d(3, 3, 1)), graph=True, inputs=(X,))
    assert failure.fix == (
        "Some code of the model was run once, when it was traced, or changes a value in place that is used again; convert "
        "without graph mode."
    )
