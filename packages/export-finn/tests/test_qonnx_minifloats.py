"""Minifloats in QONNX: ``FloatQuant`` gives in qonnx's executor what the model computes."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import quant_core.quant as q
import quant_nn as qnn
from quant_core.components import ConstScaling
from quant_core.export import capture, check, verify

OCP_E5M2: dict[str, Any] = {"inf_values": ("00",), "nan_values": ("01", "10", "11")}
FORMATS: tuple[dict[str, Any], ...] = (
    {},
    {"nan_values": ("111",)},
    {"exponent_bit_width": 5, "mantissa_bit_width": 2, **OCP_E5M2},
    {"exponent_bit_width": 5, "mantissa_bit_width": 2, **OCP_E5M2, "saturating": False},
    {"nan_values": ("111",), "saturating": False},
    {"exponent_bias": 8},
    {"exponent_bit_width": 2, "mantissa_bit_width": 1},
    {"exponent_bit_width": 3, "mantissa_bit_width": 2},
)
MODES = ("ROUND", "FLOOR", "CEIL", "TO_ZERO")
PER_CHANNEL = torch.tensor([[0.3], [1.7], [5.0], [33.0]])


class Activations(nn.Module):
    """One input through each quantizer."""

    def __init__(self) -> None:
        super().__init__()
        scales: tuple[dict[str, Any], ...] = (
            {"scaling_init": 1.9},
            {
                "scaling_init": PER_CHANNEL,
                "scaling_per_output_channel": True,
                "per_channel_broadcastable_shape": (4, 1),
            },
        )
        self.quantizers = nn.ModuleList(
            qnn.QuantIdentity(
                act_quant=q.Fp8e4m3ActPerTensorFloat, scaling_impl=ConstScaling, rounding_mode=mode, **numbers, **scale
            )
            for numbers, mode, scale in itertools.product(FORMATS, MODES, scales)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [quantizer(x) for quantizer in self.quantizers]


def values() -> Tensor:
    random = torch.Generator().manual_seed(0)
    return torch.randn((2, 4, 200), generator=random) * torch.exp2(
        torch.randint(-12, 6, (2, 4, 200), generator=random).float()
    )


def test_activations_of_every_format_and_mode_are_equal_to_the_bit(write: Callable[..., Any]) -> None:
    model, x = Activations(), values()
    found = write("qonnx", model, x)
    assert found.kinds == ["FloatQuant"] * len(model.quantizers)
    for ours, theirs in zip(model(x), found.outputs(x), strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs)


@pytest.mark.parametrize(
    "name", ["Fp8e4m3OCPWeightPerTensorFloat", "Fp8e5m2WeightPerChannelFloat", "Fp8e4m3FNUZWeight"]
)
def test_a_network_equals_the_model_and_survives_cleanup(name: str, write: Callable[..., Any]) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        qnn.QuantIdentity(act_quant=q.Fp8e4m3OCPActPerTensorFloat, collect_stats_steps=1),
        qnn.QuantConv2d(3, 4, 3, weight_quant=getattr(q, name)),
        qnn.QuantReLU(act_quant=q.Fp8e5m2ActPerTensorFloat, collect_stats_steps=1),
        nn.Flatten(),
        qnn.QuantLinear(64, 5, weight_quant=getattr(q, name)),
    )
    x = torch.randn(2, 3, 6, 6)
    model(x)
    model.eval()
    found = write("qonnx", model, x)
    assert found.kinds.count("FloatQuant") == 4
    verification = verify(found.program, found.artifact, (x,))
    assert verification.equal, str(verification)
    assert verification.compared == 2
    for cleaned, plain in zip(found.outputs(x, model=found.clean()), found.outputs(x), strict=True):
        np.testing.assert_array_equal(cleaned, plain)
    stored = found.initializers["1.weight"]
    np.testing.assert_array_equal(stored, model[1].quant_weight().value.detach().numpy())
    (weight,) = [node for node in found.nodes("FloatQuant") if node.input[0] == "1.weight"]
    assert all(found.initializers[name].shape == () for name in weight.input[2:])


def test_the_operands_and_attributes_are_those_of_the_format(write: Callable[..., Any]) -> None:
    model = qnn.QuantIdentity(act_quant=q.Fp8e5m2OCPAct, saturating=False)
    found = write("qonnx", model, torch.ones(1, 4))
    (node,) = found.nodes("FloatQuant")
    assert [float(found.initializers[name]) for name in node.input[1:]] == [1.0, 5.0, 2.0, 15.0, 57344.0]
    assert found.attributes(node) == {
        "has_inf": 1,
        "has_nan": 1,
        "has_subnormal": 1,
        "saturation": 0,
        "rounding_mode": b"ROUND",
    }


def test_an_unscaled_quantizer_has_a_datatype(write: Callable[..., Any]) -> None:
    found = write("qonnx", qnn.QuantIdentity(act_quant=q.Fp8e4m3Act), torch.ones(1, 4))
    inferred = found.inferred()
    assert inferred.get_tensor_datatype(inferred.graph.output[0].name).name == "FLOAT<4,3,7>"


def test_a_trace_finds_a_weight_and_an_activation_that_are_one_number_off(write: Callable[..., Any]) -> None:
    model = qnn.QuantIdentity(act_quant=q.Fp8e4m3Act)
    x = torch.tensor([[0.013, 0.26, 100.0, 300.0]])
    found = write("qonnx", model, x)
    rows = found.artifact.trace([x]).rows
    assert [row.equal for row in rows] == [True]
    off = found.artifact.trace([x])
    for index in range(4):
        shifted = dict(off.values)
        (name,) = shifted
        shifted[name] = shifted[name].clone()
        shifted[name][0, index] *= 1.125
        wrong = type(off)(outputs=off.outputs, values=shifted, program=off.program, inputs=off.inputs)
        assert wrong.first_divergence is not None
        assert 0.5 <= (wrong.first_divergence.steps or 0) <= 2.5


def test_numbers_without_subnormal_ones_are_refused_where_they_are_computed() -> None:
    model = qnn.QuantIdentity(act_quant=q.Fp8e4m3Act, has_subnormal=False)
    report = check(capture(model, (torch.ones(1, 4),)), "qonnx")
    assert [str(refusal) for refusal in report.refusals] == [
        "quant::float with has_subnormal=False\n"
        "  at act_quant (quant_nn.QuantIdentity)\n"
        "  readers of QONNX compute with subnormal numbers, whatever the file says\n"
        "  Set has_subnormal=True on this layer."
    ]


def test_finn_refuses_minifloats_and_names_who_takes_them() -> None:
    model = qnn.QuantLinear(
        4, 2, weight_quant=q.Fp8e4m3WeightPerTensorFloat, input_quant=q.Fp8e4m3Act, input_saturating=True
    )
    report = check(capture(model, (torch.ones(1, 4),)), "finn")
    kinds = {(refusal.op, refusal.actual) for refusal in report.refusals}
    assert kinds >= {("quant::float", "the role weight"), ("quant::float", "the role activation")}
    assert all("or export to a target that takes it (qonnx" in refusal.fix for refusal in report.refusals[:2])
