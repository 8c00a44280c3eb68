"""Weights and biases of QONNX: stored as the values of the model, behind a node of their own that changes none of them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from qonnx.core.onnx_exec import execute_onnx
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import BinaryQuant, ConstScaling, ConstZeroPoint
from quant_core.ops import integer_range
from quant_core.quant import (
    Int8ActPerTensorFloat,
    Int8Bias,
    Int16Bias,
    Int32Bias,
    SignedTernaryWeightPerTensorConst,
)

FEATURES = 3
BINARY: dict[str, Any] = {"weight_tensor_quant": BinaryQuant, "weight_narrow_range": False}


def grids() -> Iterator[dict[str, Any]]:
    """The options of a weight quantizer for each grid."""
    for bits, signed, narrow, channels in itertools.product(range(2, 9), *[(True, False)] * 3):
        if channels and bits % 2 == 0 and not (signed and narrow):
            continue
        low, high = (int(bound) for bound in integer_range(bits, signed=signed, narrow_range=narrow))
        integers = {
            "weight_bit_width": bits,
            "weight_signed": signed,
            "weight_narrow_range": narrow,
            "weight_scaling_per_output_channel": channels,
        }
        yield integers
        if narrow and bits in (2, 8):
            zero_point = [[low], [high], [high - 1]] if channels else high
            yield integers | {"weight_zero_point_impl": ConstZeroPoint, "weight_zero_point_init": zero_point}
    for mode in ("FLOOR", "CEIL", "TO_ZERO", "HALF_UP"):
        yield {"weight_bit_width": 3, "weight_rounding_mode": mode}
    for channels in (False, True):
        yield BINARY | {"weight_scaling_per_output_channel": channels}
    yield {"weight_quant": SignedTernaryWeightPerTensorConst}


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
    return write("qonnx", Linears(), torch.randn(2, 5))


def test_weights_are_the_values_of_the_model_before_and_after_their_node(linears: Any) -> None:
    values = execute_onnx(linears.wrapped(), {"x": np.zeros((2, 5), np.float32)}, return_full_exec_context=True)
    for index, linear in enumerate(linears.model.linear):
        weight = linear.quant_weight().value.detach().numpy().T
        np.testing.assert_array_equal(linears.initializers[f"linear.{index}.weight"], weight)
        np.testing.assert_array_equal(values[f"linear.{index}.weight_quant"], weight)


def test_linear_layers_compute_what_the_model_computes(linears: Any) -> None:
    x = torch.randn(2, 5, generator=torch.Generator().manual_seed(2))
    plain, clean = linears.outputs(x), linears.outputs(x, model=linears.clean())
    for ours, theirs, cleaned in zip(linears.model(x), plain, clean, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-6, atol=1e-6)
        np.testing.assert_array_equal(cleaned, theirs)


def test_nothing_is_rounded_again(linears: Any) -> None:
    assert {linears.attributes(node)["rounding_mode"] for node in linears.nodes("Quant")} == {b"ROUND"}


def test_binary_weights_are_bipolar_and_ternary_ones_narrow_integers_of_two_bits(linears: Any) -> None:
    assert len(linears.nodes("BipolarQuant")) == 2
    last = len(linears.model.linear) - 1
    (ternary,) = [node for node in linears.nodes("Quant") if node.input[0] == f"linear.{last}.weight"]
    assert linears.initializers[ternary.input[3]] == 2
    assert linears.attributes(ternary)["narrow"] == 1


LAYERS = {
    "linear": (qnn.QuantLinear, (6, 5), {}, (2, 6)),
    "linear over sequences": (qnn.QuantLinear, (6, 5), {}, (2, 3, 6)),
    "1d": (qnn.QuantConv1d, (4, 6, 3), {"stride": 2, "padding": 1}, (2, 4, 9)),
    "1d transposed": (qnn.QuantConvTranspose1d, (4, 6, 3), {"stride": 2}, (2, 4, 9)),
    "2d": (qnn.QuantConv2d, (4, 6, 3), {"padding": "same"}, (2, 4, 5, 6)),
    "2d depthwise": (qnn.QuantConv2d, (4, 4, 3), {"groups": 4}, (2, 4, 5, 6)),
    "2d transposed": (qnn.QuantConvTranspose2d, (4, 6, 3), {"stride": 2}, (2, 4, 5, 6)),
    "3d": (qnn.QuantConv3d, (2, 3, 2), {}, (2, 2, 3, 4, 5)),
    "3d transposed": (qnn.QuantConvTranspose3d, (2, 3, 2), {}, (2, 2, 3, 4, 5)),
}


class Together(nn.Module):
    """Each layer with an input of its own."""

    def __init__(self, channels: bool, bits: int) -> None:
        super().__init__()
        options: dict[str, Any] = {"weight_scaling_per_output_channel": channels, "weight_bit_width": bits}
        options |= {"bias_quant": Int8Bias, "input_quant": Int8ActPerTensorFloat, "input_bit_width": bits}
        self.layers = nn.ModuleList(kind(*sizes, **further, **options) for kind, sizes, further, _ in LAYERS.values())

    def forward(self, *inputs: Tensor) -> list[Tensor]:
        return [layer(x) for layer, x in zip(self.layers, inputs, strict=True)]


@pytest.mark.parametrize(("target", "bits", "channels"), [("qonnx", 2, True), ("qonnx", 8, False), ("finn", 3, True)])
def test_layers_compute_what_the_model_computes(
    write: Callable[..., Any], target: str, bits: int, channels: bool
) -> None:
    torch.manual_seed(3)
    net = Together(channels, bits)
    inputs = [torch.randn(shape) for *_, shape in LAYERS.values()]
    net(*inputs)
    file = write(target, net, *inputs)
    clean = file.outputs(*inputs, model=file.clean())
    for ours, theirs, cleaned in zip(net(*inputs), file.outputs(*inputs), clean, strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-5, atol=1e-5)
        # Sums may be cut in other places, for cleanup folds what is turned before it is added up.
        np.testing.assert_allclose(cleaned, theirs, rtol=1e-6, atol=1e-6)
    assert file.artifact.trace(inputs).first_divergence is None


def test_a_bias_has_a_scale_and_a_zero_point_of_one_shape(write: Callable[..., Any]) -> None:
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
    file = write("qonnx", net, x)
    values = file.artifact.trace([x]).values
    for index, (quantizer, channels) in enumerate(kinds):
        shapes = {file.initializers[f"{index}.bias_{part}"].shape for part in ("scale", "zero_point")}
        assert shapes == {(5,) if channels else (1,)}
        assert file.initializers[f"{index}.bias_bit_width"] == quantizer.bit_width
        layer = layers[index]
        scale = layer.input_quant.scale() * layer.quant_weight().scale.reshape((-1,) if channels else ())
        expected = layer.bias_quant(layer.bias, scale).value.detach().numpy()
        np.testing.assert_array_equal(values[f"_{index}_bias_dequantized"].numpy(), expected)


class Twice(nn.Module):
    """One layer called twice, and another one with the same weight."""

    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantIdentity(return_quant_tensor=True)
        self.layer = qnn.QuantLinear(4, 4, weight_bit_width=4)
        self.other = qnn.QuantLinear(4, 4, weight_bit_width=4)
        self.other.weight = self.layer.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.entry(self.layer(self.entry(self.layer(self.entry(x))))))


def test_each_layer_has_a_weight_node_of_its_own(write: Callable[..., Any]) -> None:
    torch.manual_seed(6)
    net, x = Twice(), torch.randn(3, 4)
    net(x)
    file = write("qonnx", net, x)
    weights = [node for node in file.nodes("Quant") if node.input[0] in file.initializers and "weight" in node.input[0]]
    assert len(weights) == 3
    assert len({node.input[0] for node in weights}) == 1  # the values are stored once
    assert len({node.name for node in file.onnx.graph.node}) == len(file.onnx.graph.node)
    wrapped = file.clean()
    for node in wrapped.get_nodes_by_op_type("Quant"):
        if wrapped.get_initializer(node.input[0]) is not None:
            assert not wrapped.is_fork_node(node)
    np.testing.assert_allclose(file.outputs(x)[0], net(x).detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_constant_scale_of_one_is_told_as_an_integer(write: Callable[..., Any]) -> None:
    net = qnn.QuantIdentity(bit_width=4, scaling_impl=ConstScaling, scaling_init=8.0)
    file = write("qonnx", net, torch.zeros(2, 3))
    assert file.initializers["act_quant.scale"] == 1
    assert file.inferred().get_tensor_datatype("output").name == "INT4"
