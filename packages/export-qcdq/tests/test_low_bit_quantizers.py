"""Quantizers that are not plain integers of fixed bits: each is written, and computes the same."""

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


WEIGHTS: dict[str, dict[str, Any]] = {
    "ternary": {"weight_quant": q.SignedTernaryWeightPerTensorConst},
    "by_threshold": {"weight_tensor_quant": TernaryQuant, "weight_threshold": 0.3},
    "decoupled": {"weight_quant": q.Int4WeightPerTensorFloatDecoupled},
    "decoupled_per_channel": {"weight_quant": q.Int8WeightPerChannelFloatDecoupled},
    "normalized": {"weight_quant": q.Int8WeightNormL2PerChannelFixedPoint},
    "aware": bounded(q.Int8AccumulatorAwareWeightQuant),
    "aware_without_mean": bounded(q.Int8AccumulatorAwareZeroCenterWeightQuant),
    "learned_bits": {"weight_bit_width_impl": ParameterBitWidth, "weight_bit_width": 5},
    "random_rounding": {"weight_rounding_impl": StochasticRounding(seed=0)},
    "dpu": {"weight_rounding_mode": "DPU"},
    "none": {"weight_quant": q.NoneWeightQuant},
}


class Weights(nn.Module):
    """A convolution with each quantizer of weights, side by side."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.input = qnn.QuantIdentity(return_quant_tensor=True)
        self.convs = nn.ModuleDict({name: qnn.QuantConv2d(3, 4, 3, **options) for name, options in WEIGHTS.items()})
        self.train()(X)
        self.eval()

    def forward(self, x: Tensor) -> Any:
        x = self.input(x)
        return tuple(conv(x) for conv in self.convs.values())


class Activations(nn.Module):
    """Quantizers of activations, one after the other."""

    def __init__(self) -> None:
        super().__init__()
        decoupled = q.Int8ActPerTensorFloat.let(
            tensor_quant=DecoupledIntQuant, pre_scaling_impl=ConstScaling(1.0), scaling_impl=ConstScaling(1.5)
        )
        self.none = qnn.QuantIdentity(q.NoneActQuant)
        self.learned = qnn.QuantIdentity(bit_width_impl=ParameterBitWidth, bit_width=6)
        self.decoupled = qnn.QuantIdentity(decoupled)
        self.clamped = qnn.ClampQuantAccumulator(bit_width=8)
        self.conv = qnn.QuantConv2d(3, 4, 3, input_quant=decoupled, bias=False, return_quant_tensor=True)
        self.ternary = qnn.QuantIdentity(q.SignedTernaryActPerTensorConst)
        self.train()(X)
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.ternary(self.clamped(self.conv(self.decoupled(self.learned(self.none(x))))).value)


@pytest.fixture(scope="module")
def weights(write: Callable[..., Any]) -> Any:
    return write(Weights(), X)


def test_weights_are_written_and_compute_the_same(weights: Any) -> None:
    assert check(weights.program, "qcdq").ok
    assert verify(weights.program, weights.artifact, (X,), reference=weights.model(X)).equal


def test_weights_are_stored_as_their_integers(weights: Any) -> None:
    nodes = weights.nodes("DequantizeLinear")
    stored = [weights.operand(node, 0) for node in nodes if node.input[0] in weights.initializers]
    x = weights.model.input(X)
    wanted = [conv.quant_weight(x).int().numpy() for name, conv in weights.model.convs.items() if name != "none"]
    assert len(stored) == len(wanted) == len(WEIGHTS) - 1
    for weight in wanted:
        assert any(np.array_equal(weight, found) and found.dtype == np.int8 for found in stored)


def test_activations_are_written_and_compute_the_same(write: Callable[..., Any]) -> None:
    file = write(Activations(), X)
    assert check(file.program, "qcdq").ok
    assert verify(file.program, file.artifact, (X,), reference=file.model(X)).equal


def accumulated(layer: nn.Module) -> nn.Module:
    net = nn.Sequential(
        qnn.QuantIdentity(return_quant_tensor=True),
        qnn.QuantConv2d(3, 4, 3, bias=False, return_quant_tensor=True),
        layer,
        qnn.QuantReLU(bit_width=4),
    )
    net(X)
    return net.eval()


EXACT: dict[str, Callable[[], nn.Module]] = {
    "binary weights": lambda: Net(weight_quant=q.SignedBinaryWeightPerTensorConst),
    "binary weights by tensor_quant": lambda: Net(weight_tensor_quant=BinaryQuant),
    "binary activations": lambda: Net(q.SignedBinaryActPerTensorConst),
    "ternary activations by threshold": lambda: Net(
        q.SignedTernaryActPerTensorConst.let(tensor_quant=TernaryQuant, threshold=0.2)
    ),
    "a shift": lambda: accumulated(qnn.TruncQuantAccumulator()),
    "a shift by statistics": lambda: accumulated(qnn.TruncQuantAccumulator(trunc_quant=q.ShiftRoundSaturateTo8bit)),
    "rounding of activations": lambda: Net(q.SignedTernaryActPerTensorConst.let(rounding_mode="DPU")),
}


class Cases(nn.Module):
    """All of them side by side, so that there is one file for each target."""

    def __init__(self) -> None:
        super().__init__()
        self.case = nn.ModuleDict({name: build() for name, build in EXACT.items()})

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(case(x) for case in self.case.values())


@pytest.mark.parametrize("target", ["qcdq", "qop"])
def test_what_quantizelinear_cannot_say_is_exact(target: str) -> None:
    model = Cases().eval()
    program = capture(model, (X,))
    assert len(program.outputs) == len(EXACT)
    report = verify(program, lower(program, target), (X,), reference=model(X))
    assert report.equal, report


def test_saturation_at_16_bits_is_taken_from_the_opset_on_that_has_them() -> None:
    model = accumulated(qnn.ClampQuantAccumulator())
    program = capture(model, (X,))
    (refusal,) = check(program, "qcdq").refusals
    assert (refusal.actual, refusal.where) == ("bit_width=16", "2.clamp_quant (quant_nn.ClampQuantAccumulator)")
    assert verify(program, lower(program, "qcdq", opset_version=21), (X,), reference=model(X)).equal
