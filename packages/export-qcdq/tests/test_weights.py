"""Weights and biases: stored as the model's integers, read back as the model's values."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from onnx import TensorProto
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstZeroPoint
from quant_core.ops import integer_range
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias, Int16Bias, Int32Bias

FEATURES = 3


def grids() -> Iterator[dict[str, Any]]:
    """The options of a weight quantizer for each grid."""
    for bits, signed, narrow, channels in itertools.product(range(2, 9), *[(True, False)] * 3):
        low, high = (int(bound) for bound in integer_range(bits, signed=signed, narrow_range=narrow))
        integers = {
            "weight_bit_width": bits,
            "weight_signed": signed,
            "weight_narrow_range": narrow,
            "weight_scaling_per_output_channel": channels,
        }
        yield integers
        if not narrow:
            continue
        zero_point = [[low], [high], [high - 1]] if channels else high
        yield integers | {"weight_zero_point_impl": ConstZeroPoint, "weight_zero_point_init": zero_point}


class Linears(nn.Module):
    """One input through a linear layer for each grid."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.ModuleList(qnn.QuantLinear(5, FEATURES, **grid) for grid in grids())

    def forward(self, x: Tensor) -> list[Tensor]:
        return [linear(x) for linear in self.linear]


@pytest.fixture(scope="module")
def linears(write: Callable[..., Any]) -> Any:
    torch.manual_seed(0)
    return write(Linears(), torch.zeros(2, 5))


def test_weights_are_stored_as_the_integers_of_the_model(linears: Any) -> None:
    for index, linear in enumerate(linears.model.linear):
        weight = linear.quant_weight()
        stored = linears.initializers[f"linear.{index}.weight"]
        assert stored.dtype == (np.int8 if weight.signed else np.uint8)
        np.testing.assert_array_equal(stored, weight.int().numpy())
    assert linears.nodes("QuantizeLinear") == []


def test_weights_are_read_back_as_the_values_of_the_model(linears: Any) -> None:
    results = linears.results(torch.zeros(2, 5))
    for index, linear in enumerate(linears.model.linear):
        weight = linear.quant_weight().value.detach().numpy()
        np.testing.assert_array_equal(results[f"linear.{index}.weight/DQ"], weight)


def test_linear_layers_compute_what_the_model_computes(linears: Any) -> None:
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    for ours, theirs in zip(linears.model(x), linears.outputs(x), strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-5, atol=1e-6)


def test_a_zero_point_is_written_only_where_there_is_one(linears: Any) -> None:
    for index, linear in enumerate(linears.model.linear):
        (node,) = [node for node in linears.nodes("DequantizeLinear") if node.input[0] == f"linear.{index}.weight"]
        zero_point = linear.quant_weight().zero_point
        assert len(node.input) == (3 if bool(torch.any(zero_point != 0)) else 2)
        if len(node.input) == 3:
            stored = linears.operand(node, 2)
            assert stored.shape == linears.operand(node, 1).shape
            np.testing.assert_array_equal(stored, zero_point.reshape(stored.shape).numpy())


def test_each_rounding_mode_of_a_weight_is_kept(write: Callable[..., Any]) -> None:
    torch.manual_seed(8)
    modes = ("CEIL", "FLOOR", "TO_ZERO", "HALF_UP")
    layers = [qnn.QuantLinear(8, 8, bias=False, weight_bit_width=3, weight_rounding_mode=mode) for mode in modes]
    file = write(nn.Sequential(*layers), torch.zeros(1, 8))
    for index, layer in enumerate(layers):
        np.testing.assert_array_equal(file.initializers[f"{index}.weight"], layer.quant_weight().int().numpy())


CONVOLUTIONS = {
    "1d": (qnn.QuantConv1d, (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, 9)),
    "1d dilated": (qnn.QuantConv1d, (4, 6, 3), {"dilation": 2, "weight_scaling_per_output_channel": True}, (2, 4, 9)),
    "2d": (qnn.QuantConv2d, (4, 6, 3), {"padding": "same", "weight_bit_width": 4}, (2, 4, 5, 6)),
    "2d depthwise": (
        qnn.QuantConv2d,
        (4, 4, 3),
        {"groups": 4, "weight_scaling_per_output_channel": True},
        (2, 4, 5, 6),
    ),
    "2d reflecting": (qnn.QuantConv2d, (4, 6, 3), {"padding": 1, "padding_mode": "reflect"}, (2, 4, 5, 6)),
    "2d without bias": (qnn.QuantConv2d, (4, 6, (1, 3)), {"bias": False, "weight_bit_width": 2}, (2, 4, 5, 6)),
    "3d": (
        qnn.QuantConv3d,
        (2, 3, 2),
        {"weight_scaling_per_output_channel": True, "weight_bit_width": 5},
        (2, 2, 3, 4, 5),
    ),
}


class Convolutions(nn.Module):
    """Each of them on an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleDict()
        for name, (kind, sizes, options, _) in CONVOLUTIONS.items():
            bias = {} if options.get("bias") is False else {"bias_quant": Int8Bias}
            self.convs[name] = kind(*sizes, input_quant=Int8ActPerTensorFloat, **bias, **options)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        return tuple(conv(x) for conv, x in zip(self.convs.values(), inputs, strict=True))


def test_convolutions_compute_what_the_model_computes(write: Callable[..., Any]) -> None:
    torch.manual_seed(3)
    net, inputs = Convolutions(), tuple(torch.randn(shape) for *_, shape in CONVOLUTIONS.values())
    net(*inputs)
    file = write(net, *inputs)
    for (name, conv), ours, theirs in zip(net.convs.items(), net(*inputs), file.outputs(*inputs), strict=True):
        np.testing.assert_array_equal(file.initializers[f"convs.{name}.weight"], conv.quant_weight().int().numpy())
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-5, atol=1e-5, msg=name)


def test_a_bias_is_stored_as_int32_at_the_scale_of_the_accumulator(write: Callable[..., Any]) -> None:
    torch.manual_seed(4)
    kinds = list(itertools.product((Int8Bias, Int16Bias, Int32Bias), (False, True)))
    layers = [
        qnn.QuantLinear(
            5, 5, input_quant=Int8ActPerTensorFloat, bias_quant=quantizer, weight_scaling_per_output_channel=channels
        )
        for quantizer, channels in kinds
    ]
    net, x = nn.Sequential(*layers), torch.randn(2, 5)
    net(x)
    file = write(net, x)
    for index, (layer, (_, channels)) in enumerate(zip(layers, kinds, strict=True)):
        scale = layer.input_quant.scale() * layer.quant_weight().scale.reshape((-1,) if channels else ())
        stored = file.initializers[f"{index}.bias"]
        assert stored.dtype == np.int32
        np.testing.assert_array_equal(stored, layer.bias_quant(layer.bias, scale).int().numpy())
        np.testing.assert_array_equal(file.initializers[f"{index}.bias_scale"], scale.detach().numpy())
        (node,) = [node for node in file.nodes("DequantizeLinear") if node.input[0] == f"{index}.bias"]
        assert len(node.input) == 2
        assert not channels or [attribute.i for attribute in node.attribute if attribute.name == "axis"] == [0]


def test_a_bias_without_a_quantizer_stays_float(write: Callable[..., Any]) -> None:
    layer = qnn.QuantLinear(5, FEATURES)
    file = write(layer, torch.zeros(2, 5))
    (bias,) = [tensor for tensor in file.onnx.graph.initializer if tensor.name == "bias"]
    assert bias.data_type == TensorProto.FLOAT
    np.testing.assert_array_equal(file.initializers["bias"], layer.bias.detach().numpy())


def test_a_weight_without_a_quantizer_stays_float(write: Callable[..., Any]) -> None:
    layer = qnn.QuantLinear(5, FEATURES, weight_quant=None)
    file = write(layer, torch.zeros(2, 5))
    assert {node.op_type for node in file.onnx.graph.node} == {"Gemm"}
    np.testing.assert_array_equal(file.initializers["weight"], layer.weight.detach().numpy())
