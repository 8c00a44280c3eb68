"""Activation quantizers: the integers in the file are those of the model, on every grid that the target declares."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import ConstScaling, ConstZeroPoint
from quant_core.ops import integer_range
from quant_core.tensor import QuantTensor

CHANNELS = 4
# Thresholds whose scales are no powers of two, so that divisions round.
PER_CHANNEL = [[0.3], [1.7], [5.0], [33.0]]


def grids() -> Iterator[dict[str, Any]]:
    """The options of a quantizer for each grid; zero-points lie at both ends of the full ranges and inside of them."""
    for bits, signed, narrow in itertools.product(range(2, 9), (True, False), (True, False)):
        low, high = (int(bound) for bound in integer_range(bits, signed=signed, narrow_range=narrow))
        integers = {"bit_width": bits, "signed": signed, "narrow_range": narrow, "scaling_impl": ConstScaling}
        whole = integers | {"scaling_init": 1.9}
        channels = integers | {
            "scaling_init": torch.tensor(PER_CHANNEL),
            "scaling_per_output_channel": True,
            "per_channel_broadcastable_shape": (CHANNELS, 1),
        }
        yield whole
        yield channels
        if narrow:
            continue
        yield whole | {"zero_point_impl": ConstZeroPoint, "zero_point_init": high}
        each = [[low], [low + 1], [high - 1], [high]]
        yield channels | {"zero_point_impl": ConstZeroPoint, "zero_point_init": each}


class Activations(nn.Module):
    """One input through each quantizer."""

    def __init__(self) -> None:
        super().__init__()
        self.identity = nn.ModuleList(qnn.QuantIdentity(return_quant_tensor=True, **grid) for grid in grids())
        self.relu = nn.ModuleList(
            qnn.QuantReLU(return_quant_tensor=True, bit_width=bits, scaling_impl=ConstScaling, scaling_init=1.9)
            for bits in range(2, 9)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [quantizer(x).value for quantizer in (*self.identity, *self.relu)]

    def results(self, x: Tensor) -> list[QuantTensor]:
        """What each quantizer gives, in the order of the outputs."""
        return [quantizer(x) for quantizer in (*self.identity, *self.relu)]


@pytest.fixture(scope="module")
def activations(write: Callable[..., Any]) -> Any:
    return write(Activations(), torch.zeros(2, CHANNELS, 3))


def written_integers(file: Any, x: Tensor) -> list[np.ndarray]:
    """The integers that each output is dequantized from."""
    values = file.values(x)
    sources = {node.output[0]: node.input[0] for node in file.nodes("DequantizeLinear")}
    return [values[sources[output.name]] for output in file.onnx.graph.output]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-40, 40, width=32), min_size=24, max_size=24))
def test_the_integers_are_those_of_the_model(activations: Any, numbers: list[float]) -> None:
    x = torch.tensor(numbers).reshape(2, CHANNELS, 3)
    for result, integers in zip(activations.model.results(x), written_integers(activations, x), strict=True):
        expected = result.int().numpy()
        assert integers.dtype == (np.int8 if result.signed else np.uint8)
        # ONNX adds the zero-point after rounding, so that a value halfway between two levels may go to either of them.
        level = (x / result.scale + result.zero_point).double()
        halfway = (((level - level.floor() - 0.5).abs() < 1e-4) & (result.zero_point != 0)).numpy()
        np.testing.assert_array_equal(integers[~halfway], expected[~halfway])
        assert np.abs(integers.astype(int) - expected)[halfway].max(initial=0) <= 1


def test_the_outputs_are_those_of_the_model(activations: Any) -> None:
    x = torch.linspace(-40, 40, 24).reshape(2, CHANNELS, 3) + 0.0123
    for ours, theirs in zip(activations.model(x), activations.outputs(x), strict=True):
        torch.testing.assert_close(torch.from_numpy(theirs), ours, rtol=1e-6, atol=1e-6)


def test_clip_stands_only_where_the_range_is_smaller_than_the_type(activations: Any) -> None:
    producers = {node.output[0]: node for node in activations.onnx.graph.node}
    for output, quantizer in zip(activations.onnx.graph.output, activations.program.quantizers, strict=True):
        clip = producers[producers[output.name].input[0]]
        assert (clip.op_type == "Clip") == (quantizer.bit_width < 8 or quantizer.narrow_range), quantizer.where
        if clip.op_type == "Clip":
            bounds = integer_range(quantizer.bit_width, signed=quantizer.signed, narrow_range=quantizer.narrow_range)
            low, high = (activations.operand(clip, index) for index in (1, 2))
            assert (low, high) == bounds
            assert low.dtype == high.dtype == (np.int8 if quantizer.signed else np.uint8)


def test_the_range_of_the_integers_is_used_to_both_ends(activations: Any) -> None:
    x = torch.linspace(-400, 400, 24).reshape(2, 3, CHANNELS).transpose(1, 2).contiguous()
    for integers, quantizer in zip(written_integers(activations, x), activations.program.quantizers, strict=True):
        bounds = integer_range(quantizer.bit_width, signed=quantizer.signed, narrow_range=quantizer.narrow_range)
        assert (integers.min(), integers.max()) == bounds, quantizer.where


def test_a_zero_point_per_channel_beside_a_scale_per_tensor_is_written_per_channel(write: Callable[..., Any]) -> None:
    grid = {"zero_point_impl": ConstZeroPoint, "zero_point_init": [[-8], [0], [3], [7]]}
    net = qnn.QuantIdentity(bit_width=4, scaling_impl=ConstScaling, scaling_init=1.9, **grid)
    x = torch.linspace(-2, 2, 24).reshape(2, CHANNELS, 3)
    file = write(net, x)
    (node,) = file.nodes("QuantizeLinear")
    assert [file.operand(node, index).shape for index in (1, 2)] == [(CHANNELS,), (CHANNELS,)]
    torch.testing.assert_close(torch.from_numpy(file.outputs(x)[0]), net(x), rtol=1e-6, atol=1e-6)


def test_a_rectifier_keeps_its_zero_where_the_zero_point_is_not_the_lowest_level(write: Callable[..., Any]) -> None:
    relu = qnn.QuantReLU(scaling_impl=ConstScaling, scaling_init=1.9, zero_point_impl=ConstZeroPoint, zero_point_init=7)
    file = write(relu, torch.zeros(5))
    x = torch.tensor([-2.0, -0.04, 0.0, 0.04, 1.0])
    torch.testing.assert_close(torch.from_numpy(file.outputs(x)[0]), relu(x), rtol=1e-6, atol=1e-6)
