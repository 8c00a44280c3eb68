"""Quantizers that are not plain integers of fixed bits: each is written, and computes the same, or is refused with its reason."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant_core.quant as q
import quant_nn as qnn
from quant_core.components import (
    BinaryQuant,
    ConstScaling,
    DecoupledIntQuant,
    ParameterBitWidth,
    StochasticRounding,
    TernaryQuant,
)
from quant_core.errors import UnsupportedError
from quant_core.export import capture, check, lower, verify

X = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """An input of 8 bits, a convolution with the quantizer in question, and an activation of 4 bits."""

    def __init__(self, act: Any = q.Uint8ActPerTensorFloat, **options: Any) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input = qnn.QuantIdentity(return_quant_tensor=True)
        self.conv = qnn.QuantConv2d(3, 4, 3, **options)
        self.act = (
            qnn.QuantReLU(act_quant=act, bit_width=4) if act is q.Uint8ActPerTensorFloat else qnn.QuantIdentity(act)
        )
        self(X)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(self.input(x)))


def bounded(quantizer: Any) -> dict[str, Any]:
    return {"weight_quant": quantizer, "weight_accumulator_bit_width": 16}


WRITTEN: dict[str, Callable[[], nn.Module]] = {
    "ternary weights": lambda: Net(weight_quant=q.SignedTernaryWeightPerTensorConst),
    "ternary weights by threshold": lambda: Net(weight_tensor_quant=TernaryQuant, weight_threshold=0.3),
    "ternary activations": lambda: Net(q.SignedTernaryActPerTensorConst),
    "decoupled weights": lambda: Net(weight_quant=q.Int4WeightPerTensorFloatDecoupled),
    "decoupled weights per channel": lambda: Net(weight_quant=q.Int8WeightPerChannelFloatDecoupled),
    "decoupled activations": lambda: Net(
        q.Int8ActPerTensorFloat.let(
            tensor_quant=DecoupledIntQuant, pre_scaling_impl=ConstScaling(1.0), scaling_impl=ConstScaling(1.5)
        )
    ),
    "normalized weights": lambda: Net(weight_quant=q.Int8WeightNormL2PerChannelFixedPoint),
    "aware weights": lambda: Net(**bounded(q.Int8AccumulatorAwareWeightQuant)),
    "aware weights without their mean": lambda: Net(**bounded(q.Int8AccumulatorAwareZeroCenterWeightQuant)),
    "learned bits of weights": lambda: Net(weight_bit_width_impl=ParameterBitWidth, weight_bit_width=5),
    "random rounding": lambda: Net(weight_rounding_impl=StochasticRounding(seed=0)),
    "rounding of the DPU": lambda: Net(weight_rounding_mode="DPU"),
    "no quantizer of weights": lambda: Net(weight_quant=q.NoneWeightQuant),
    "no quantizer of activations": lambda: Net(q.NoneActQuant),
}


@pytest.mark.parametrize("case", WRITTEN)
def test_it_is_written_and_computes_the_same(case: str) -> None:
    net = WRITTEN[case]()
    program = capture(net, (X,))
    report = check(program, "qcdq")
    assert report.ok, str(report)
    artifact = lower(program, "qcdq")
    assert verify(program, artifact, (X,), reference=net(X)).equal


@pytest.mark.parametrize(
    ("options", "levels"),
    [
        ({"weight_quant": q.SignedTernaryWeightPerTensorConst}, 3),
        ({"weight_quant": q.Int4WeightPerTensorFloatDecoupled}, 15),
        (bounded(q.Int8AccumulatorAwareWeightQuant), 255),
    ],
)
def test_the_weight_is_stored_as_its_integers(options: dict[str, Any], levels: int, write: Callable[..., Any]) -> None:
    net = Net(**options)
    file = write(net, X)
    stored = [file.operand(node, 0) for node in file.nodes("DequantizeLinear") if node.input[0] in file.initializers]
    (weight,) = (array for array in stored if array.dtype == np.int8)
    assert np.array_equal(weight, net.conv.quant_weight(net.input(X)).int().numpy())
    assert len(np.unique(weight)) <= levels


def accumulated(layer: nn.Module) -> nn.Module:
    net = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, 4, 3, bias=False, return_quant_tensor=True),
        layer,
        qnn.QuantReLU(bit_width=4),
    )
    net(X)
    return net.eval()


REFUSED: dict[str, tuple[Callable[[], nn.Module], str, str]] = {
    "binary weights": (lambda: Net(weight_quant=q.SignedBinaryWeightPerTensorConst), "quant::binary", "conv"),
    "binary weights by tensor_quant": (lambda: Net(weight_tensor_quant=BinaryQuant), "quant::binary", "conv"),
    "binary activations": (lambda: Net(q.SignedBinaryActPerTensorConst), "quant::binary", "act.act_quant"),
    "ternary activations by threshold": (
        lambda: Net(q.SignedTernaryActPerTensorConst.let(tensor_quant=TernaryQuant, threshold=0.2)),
        "quant::ternary",
        "act.act_quant",
    ),
    "a shift": (lambda: accumulated(qnn.TruncQuantAccumulator()), "quant::trunc", "2.trunc_quant"),
    "a shift by statistics": (
        lambda: accumulated(qnn.TruncQuantAccumulator(trunc_quant=q.ShiftRoundSaturateTo8bit)),
        "quant::trunc",
        "2.trunc_quant",
    ),
    "saturation at 16 bits": (lambda: accumulated(qnn.ClampQuantAccumulator()), "bit_width=16", "2.clamp_quant"),
    "rounding of activations": (
        lambda: Net(q.SignedTernaryActPerTensorConst.let(rounding_mode="DPU")),
        "rounding_mode='DPU'",
        "act.act_quant",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_it_is_refused_by_check_with_its_place_and_reason(case: str) -> None:
    make, reason, where = REFUSED[case]
    program = capture(make(), (X,))
    report = check(program, "qcdq")
    assert not report.ok
    (refusal,) = report.refusals
    assert reason in str(refusal)
    assert where in str(refusal)
    with pytest.raises(UnsupportedError) as caught:
        lower(program, "qcdq")
    assert reason in str(caught.value)


def test_saturation_at_bits_that_the_target_has_is_written() -> None:
    net = accumulated(qnn.ClampQuantAccumulator(bit_width=8))
    program = capture(net, (X,))
    assert check(program, "qcdq").ok
    assert verify(program, lower(program, "qcdq"), (X,), reference=net(X)).equal
