"""Extensions of the dialect: captured as the plugin's op, decomposed into core ops, taken by every target."""

import sys
from importlib.metadata import EntryPoint
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from quant_core.errors import SpecError
from quant_core.export import capture, export
from quant_core.ops import quantize_int
from quant_core.plugins import API_VERSION, Op, Registry, hookimpl

_library = torch.library.Library("mine", "FRAGMENT")
_library.define("shifted(Tensor x, Tensor scale, *, float shift) -> Tensor")


def shifted(x: Tensor, scale: Tensor, *, shift: float) -> Tensor:
    """The body of the op, and its decomposition."""
    return torch.ops.quant.int(
        x + shift,
        scale,
        torch.zeros_like(scale),
        torch.full_like(scale, 4.0),
        signed=True,
        narrow_range=False,
        rounding_mode="ROUND",
    )


_library.impl("shifted", shifted, "CompositeExplicitAutograd")
torch.library.register_fake("mine::shifted", lambda x, scale, *, shift: torch.empty_like(x), lib=_library)


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.ops.mine.shifted(x, self.scale, shift=0.25) * 2


def registry_of(decomposition: str, monkeypatch: pytest.MonkeyPatch) -> Registry:
    @hookimpl
    def quant_ops() -> list[Op]:
        return [Op(name="mine::shifted", summary="", op="mine_ops:op", decomposition=f"mine_ops:{decomposition}")]

    module = ModuleType("mine_ops")
    module.QUANT_API_VERSION = API_VERSION
    module.quant_ops = quant_ops
    module.op = torch.ops.mine.shifted
    module.shifted = shifted
    module.wrong = lambda x, scale, *, shift: x.sum()
    monkeypatch.setitem(sys.modules, "mine_ops", module)
    return Registry([EntryPoint("mine", "mine_ops", "quant")])


def test_an_extension_becomes_core_ops_and_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = Shifted(), torch.randn(3, 4)
    program = capture(model, (x,), plugins=registry_of("shifted", monkeypatch))
    operations = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert operations == ["aten.add.Tensor", "quant.int.default", "aten.mul.Tensor"]
    (quantizer,) = program.quantizers
    assert (quantizer.bit_width, quantizer.scale.item()) == (4, 0.5)
    assert torch.equal(program.run(x), model(x))
    assert torch.equal(program.run(x), quantize_int(x + 0.25, model.scale, 0, 4, signed=True) * 2)


def test_without_its_plugin_the_op_is_refused(plugins: Registry) -> None:
    from quant_core.export import check

    program = capture(Shifted(), (torch.randn(3),), plugins=plugins)
    (refusal,) = check(program, "listing", plugins=plugins).refusals
    assert refusal.op == "mine.shifted.default"


def test_a_decomposition_of_another_shape_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SpecError) as caught:
        capture(Shifted(), (torch.randn(3),), plugins=registry_of("wrong", monkeypatch))
    assert str(caught.value) == (
        "the decomposition of mine.shifted.default does not give what the op gives\n"
        "  at shifted\n"
        "  it must return one tensor of the shape of the op's result\n"
        "  Report this to the authors of the plugin that registers the op."
    )


def test_programs_without_extensions_are_not_rebuilt(net: nn.Module, x: Tensor, plugins: Registry) -> None:
    assert export(net, (x,), target="listing", plugins=plugins).verification.equal
