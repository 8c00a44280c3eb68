"""Small quantized networks out of proxies alone, and a target to lower them to."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quant_core.export import Artifact, Note, Program, Refusal, Trace
from quant_core.inject import Injector
from quant_core.plugins import API_VERSION, Capabilities, QuantSupport, Registry, Target, hookimpl
from quant_core.proxies import ActQuantProxyFromInjector, BiasQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias, Int8WeightPerTensorFloat, Uint8ActPerTensorFloat


class Activation(nn.Module):
    """An activation quantizer."""

    def __init__(self, quantizer: type[Injector] = Int8ActPerTensorFloat, **options: Any) -> None:
        super().__init__()
        self.act_quant = ActQuantProxyFromInjector(self, quantizer.let(**options))

    def forward(self, x: Tensor) -> Any:
        return self.act_quant(x)


class Linear(nn.Linear):
    """A linear layer with a quantized weight, and a quantized bias where its input has a scale."""

    output_channel_dim = 0

    def __init__(
        self, inputs: int, outputs: int, weight: type[Injector] = Int8WeightPerTensorFloat, **options: Any
    ) -> None:
        super().__init__(inputs, outputs)
        self.weight_quant = WeightQuantProxyFromInjector(self, weight.let(**options))
        self.bias_quant = BiasQuantProxyFromInjector(self, Int8Bias)

    def forward(self, x: Any) -> Tensor:
        weight = self.weight_quant(self.weight)
        bias = self.bias_quant(self.bias, x.scale * weight.scale.reshape(-1)).value
        return nn.functional.linear(x.value, weight.value, bias)


class Net(nn.Module):
    """Two linear layers at 4 bits."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = Activation()
        self.first = Linear(6, 5, bit_width=4)
        self.relu = Activation(Uint8ActPerTensorFloat, act_impl=nn.ReLU, bit_width=4)
        self.second = Linear(5, 3, bit_width=4, scaling_per_output_channel=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.relu(self.first(self.entry(x))))


class Listing(Artifact):
    """A list of the quantizers as JSON; runs by running the program."""

    def __init__(self, program: Program, error: float = 0.0, at: str | None = None) -> None:
        super().__init__("listing", program.signature)
        self.program = program
        self.error = error
        self.at = at

    def content(self) -> bytes:
        rows = [{"name": q.name, "role": q.role, "bits": q.bit_width} for q in self.program.quantizers]
        return json.dumps(rows).encode()

    def trace(self, inputs: list[Any]) -> Trace:
        values: dict[str, Tensor] = {}
        outputs = _Faulty(self.program, values, self.error, self.at).outputs(inputs)
        return Trace(outputs=outputs, values=values, program=self.program, inputs=inputs)


class _Faulty(torch.fx.Interpreter):
    """Runs a program, and adds an error after the quantizer of a given name (or to the output)."""

    def __init__(self, program: Program, values: dict[str, Tensor], error: float, at: str | None) -> None:
        super().__init__(program.exported.graph_module)
        self.program = program
        self.values = values
        self.error = error
        self.at = at

    def outputs(self, inputs: list[Any]) -> list[Any]:
        given = iter(inputs)
        names = [node.name for node in self.program.graph.find_nodes(op="placeholder")]
        constants = self.program.constants
        leaves = list(self.run(*(constants[name] if name in constants else next(given) for name in names)))
        return [leaf + self.error for leaf in leaves] if self.at == "output" else leaves

    def run_node(self, n: torch.fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in {q.name for q in self.program.quantizers if q.role == "activation"}:
            value = value + self.error if n.name == self.at else value
            self.values[n.name] = value
        return value


def lower(program: Program, error: float = 0.0, at: str | None = None) -> Listing:
    """The exporter of the target ``listing``."""
    return Listing(program, error, at)


def rules(program: Program) -> Iterable[Refusal | Note]:
    """The rules of the target ``ruled``: one thing that it refuses, and one to know of."""
    yield Note(where="the model", what="it is small")
    yield Refusal(where="the model", op="forward", actual="no name", constraint="ruled takes names", fix="Give it one.")


def crash(program: Program) -> Listing:
    """The exporter of a target that declares what it cannot do."""
    raise KeyError("node")


def _plugin() -> ModuleType:
    support = QuantSupport(bit_widths={2, 3, 4, 8}, signed={True, False}, zero_point="zero")
    capabilities = Capabilities(
        quant={"quant::int weight": support, "quant::int activation": support, "quant::int bias": support}
    )
    strict = Capabilities(
        quant={
            "quant::int weight": QuantSupport(
                bit_widths={8}, narrow_range={False}, granularity={"per_tensor"}, scale="power_of_two"
            ),
            "quant::int activation": QuantSupport(bit_widths={8}, signed={True}, scale="power_of_two"),
        },
        aten={"linear.default"},
    )

    @hookimpl
    def quant_targets() -> list[Target]:
        def target(name: str, exporter: str, takes: Capabilities, rules: str | None = None) -> Target:
            return Target(
                name=name,
                summary="for tests",
                exporter=f"listing_target:{exporter}",
                suffix=".json",
                capabilities=takes,
                runtime="torch",
                rules=rules,
            )

        return [
            target("listing", "lower", capabilities),
            target("strict", "lower", strict),
            target("crashing", "crash", capabilities),
            target("ruled", "lower", Capabilities(), "listing_target:rules"),
        ]

    module = ModuleType("listing_target")
    module.QUANT_API_VERSION = API_VERSION
    module.quant_targets = quant_targets
    module.lower = lower
    module.crash = crash
    module.rules = rules
    return module


@pytest.fixture
def plugins(monkeypatch: pytest.MonkeyPatch) -> Registry:
    """A registry with the targets ``listing``, ``strict``, ``crashing`` and ``ruled``."""
    import sys

    monkeypatch.setitem(sys.modules, "listing_target", _plugin())
    return Registry([EntryPoint("listing", "listing_target", "quant")])


@pytest.fixture
def net() -> Net:
    """A trained enough network: its statistics have seen three batches."""
    torch.manual_seed(0)
    model = Net()
    for _ in range(3):
        model(torch.randn(4, 6))
    return model


@pytest.fixture
def x() -> Tensor:
    """An input of :func:`net`."""
    return torch.randn(4, 6, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def parts() -> dict[str, Callable[..., nn.Module]]:
    """The layers, to build other networks from."""
    return {"activation": Activation, "linear": Linear}


@pytest.fixture
def snapshot() -> Callable[[nn.Module], Any]:
    """Everything about a model that an export must leave as it was."""

    def take(model: nn.Module) -> Any:
        return (
            {name: value.clone() for name, value in model.state_dict().items()},
            [module.training for module in model.modules()],
            [parameter.requires_grad for parameter in model.parameters()],
            [id(parameter) for parameter in model.parameters()],
            [sorted(vars(module)) for module in model.modules()],
            sorted(type(module).__name__ for module in model.modules()),
        )

    return take


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An empty directory."""
    return tmp_path
