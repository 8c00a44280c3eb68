"""What the targets do not take, and how they say so."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import quant_nn as qnn
from export_torchq import engines
from export_torchq.rules import DEPARTURE
from quant_core.errors import ConfigurationError, QuantError, UnknownNameError, UnsupportedError
from quant_core.export import capture, check, lower

from .grids import ALONE, EXACT, Act, Called, Middle, lowered

IMAGE = torch.zeros(2, 4, 8, 8)


def message(kind: type[QuantError], call: Callable[[], object]) -> str:
    with pytest.raises(kind) as caught:
        call()
    return str(caught.value)


def refusals(target: str, net: nn.Module, **options: Any) -> list[str]:
    report = check(capture(net.eval(), (IMAGE,)), target, plugins=ALONE, options=options)
    return [str(refusal) for refusal in report.refusals]


def identity(x: Tensor) -> Tensor:
    return x


@pytest.mark.parametrize("target", ["torchq", "pt2e"])
def test_more_than_8_bits(target: str) -> None:
    widths = "2 to 8" if target == "torchq" else "8"
    assert refusals(target, Middle(identity, Act.let(bit_width=9), Act)) == [
        "quant::int with bit_width=9\n"
        "  at entry.act_quant (quant_nn.QuantIdentity)\n"
        f"  {target} supports bit_width {widths} for activations\n"
        "  Set bit_width=8 on this layer."
    ]
    layer = qnn.QuantConv2d(4, 3, 3, weight_bit_width=10, **EXACT)
    assert refusals(target, Middle(layer)) == [
        "quant::int with bit_width=10\n"
        "  at layer.weight_quant (quant_nn.QuantConv2d)\n"
        f"  {target} supports bit_width 2 to 8 for weights\n"
        "  Set weight_bit_width=8 on this layer."
    ]


@pytest.mark.parametrize("target", ["torchq", "pt2e"])
def test_a_scale_for_each_channel_of_activations(target: str) -> None:
    act = qnn.QuantIdentity(
        Act,
        scaling_impl_type="parameter",
        scaling_init=1.0,
        scaling_per_output_channel=True,
        per_channel_broadcastable_shape=(1, 4, 1, 1),
    )
    assert refusals(target, act) == [
        "quant::int with a per_channel scale\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        f"  {target} supports per_tensor scales for activations\n"
        "  Set scaling_per_output_channel=False on this layer."
    ]


@pytest.mark.parametrize("target", ["torchq", "pt2e"])
def test_another_rounding(target: str) -> None:
    assert refusals(target, qnn.QuantIdentity(Act, rounding_mode="FLOOR")) == [
        "quant::int with rounding_mode='FLOOR'\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        f"  {target} supports rounding_mode ROUND for activations\n"
        "  Set rounding_mode='ROUND' on this layer."
    ]


def test_activations_of_few_bits_are_for_torchq_alone() -> None:
    net = qnn.QuantIdentity(Act, bit_width=4)
    assert refusals("torchq", net) == []
    assert refusals("pt2e", net) == [
        "quant::int with bit_width=4\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  pt2e supports bit_width 8 for activations\n"
        "  Set bit_width=8 on this layer, or export to a target that takes it (torchq)."
    ]


@pytest.mark.parametrize("target", ["torchq", "pt2e"])
def test_a_value_changed_in_place_that_is_used_elsewhere(target: str) -> None:
    def both(x: Tensor) -> Tensor:
        y = x + 1
        part = y[:, :1]
        return torch.relu_(y) + part

    assert refusals(target, Middle(both)) == [
        "aten.relu_.default with a value that is changed in place and used elsewhere\n"
        f"  at layer ({Called.__module__}.Called)\n"
        f"  {target} takes operations that give new values\n"
        "  Use the operation that gives a new value (inplace=False), or a copy of the operand: x.clone()."
    ]


def test_an_engine_that_there_is_not() -> None:
    program = capture(Middle(identity).eval(), (IMAGE,))
    present = ", ".join(name for name in engines.ENGINES if name in torch.backends.quantized.supported_engines)
    text = (
        "engine='cuda' is not known\n"
        "  the engines of torch's quantized operators are x86, fbgemm, onednn, qnnpack\n"
        f"  Use one that this build has: {present}."
    )
    assert message(ConfigurationError, lambda: lower(program, "torchq", engine="cuda")) == text
    assert message(ConfigurationError, lambda: check(program, "torchq", options={"engine": "cuda"})) == text


def test_an_engine_that_this_build_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines.torch.backends.quantized.__class__, "supported_engines", ["none", "qnnpack"])
    assert message(ConfigurationError, lambda: engines.engine_of("fbgemm")) == (
        f"engine='fbgemm' is not part of this build of torch {torch.__version__}\n"
        "  it was built with qnnpack\n"
        "  Use one that this build has: qnnpack."
    )


def test_a_flavor_that_there_is_not() -> None:
    program = capture(Middle(identity).eval(), (IMAGE,))
    assert message(ConfigurationError, lambda: lower(program, "pt2e", flavor="arm")) == (
        "flavor='arm' is not known\n"
        "  the flavors are 'x86', 'xnnpack'\n"
        "  Use 'x86' for torch.compile on x86 CPUs, or 'xnnpack' for ExecuTorch."
    )


def test_an_option_that_there_is_not() -> None:
    program = capture(Middle(identity).eval(), (IMAGE,))
    assert "target 'pt2e' has no option 'flavour'" in message(
        UnknownNameError, lambda: lower(program, "pt2e", flavour="x86")
    )


@pytest.mark.skipif(
    "qnnpack" not in torch.backends.quantized.supported_engines, reason="this build of torch lacks qnnpack"
)
def test_float_biases_on_qnnpack() -> None:
    layer = qnn.QuantConv2d(4, 3, 3, weight_quant=EXACT["weight_quant"])
    with torch.no_grad():
        assert layer.bias is not None
        layer.bias.fill_(0.1)
    assert refusals("torchq", Middle(layer), engine="qnnpack") == [
        "aten.conv2d.default with a bias between the integers of its accumulator\n"
        "  at layer (quant_nn.QuantConv2d)\n"
        "  engine qnnpack adds biases that are whole multiples of input scale times weight scale\n"
        "  Set bias_quant=Int32Bias on this layer, or use engine x86, fbgemm or onednn, which add biases of floats."
    ]


@pytest.mark.parametrize("target", ["torchq", "pt2e"])
def test_float64(target: str) -> None:
    program = capture(Middle(identity).double().eval(), (IMAGE.double(),))
    assert f"target {target!r} cannot lower quantizers of float64" in message(
        UnsupportedError, lambda: lower(program, target)
    )


def test_what_will_become_of_the_format_is_said_once() -> None:
    layers = nn.Sequential(Middle(identity), Middle(qnn.QuantConv2d(4, 3, 3, **EXACT)))
    report = check(capture(layers.eval(), (IMAGE,)), "torchq", plugins=ALONE)
    assert [note.what for note in report.notes] == [DEPARTURE]
    assert "pt2e" in DEPARTURE
    assert [note.what for note in lowered("torchq", layers, IMAGE).artifact.notes] == [DEPARTURE]
    assert not check(capture(layers.eval(), (IMAGE,)), "pt2e", plugins=ALONE).notes
