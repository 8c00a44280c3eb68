"""What a layer says that its accumulator holds, proven with extreme inputs in integer arithmetic.

Every layer with a weight is linear in its input: its matrix of integers is read off by its Jacobian, and the largest sum of a row
is reached by the input whose integers are at the end of their range that the sign of each factor asks for. Sums are of int64.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_nn as qnn
from quant_core.errors import InputError
from quant_core.ops import integer_range
from quant_core.quant import Int8ActPerTensorFloat, Int8Bias, Int8WeightPerChannelFloat
from quant_core.tensor import QuantTensor, accumulator_bit_width
from quant_nn.samples import SAMPLES

MULTIPLYING = [
    name
    for name, sample in SAMPLES.items()
    if sample.family == "weight" and sample.indices is None and "input quantizer" not in name
]
every_layer = pytest.mark.parametrize("name", MULTIPLYING)


def grid(shape: tuple[int, ...], *, bits: int, signed: bool, zero_point: int = 0) -> QuantTensor:
    """An input of zeros on a grid."""
    return QuantTensor(
        torch.zeros(shape),
        torch.tensor(0.25),
        torch.tensor(float(zero_point)),
        torch.tensor(float(bits)),
        signed=signed,
        symmetric=zero_point == 0,
    )


def matrix_of(layer: Any, x: QuantTensor) -> Tensor:
    """The integer factors of each output element, ``(outputs, inputs)``."""
    weight = layer.quant_weight()
    integers = weight.int(float_datatype=True).double()
    how = {"output_size": None} if isinstance(layer, qnn.QuantConvTranspose) else {}
    jacobian = torch.autograd.functional.jacobian(
        lambda q: layer._operation(q, integers, None, **how), torch.zeros(x.shape, dtype=torch.float64), vectorize=True
    )
    return jacobian.reshape(-1, x.value.numel()).long()


def extremes(matrix: Tensor, x: QuantTensor) -> tuple[int, int]:
    """The smallest and the largest sum of products, each from an input that reaches it."""
    low, high = (int(bound) for bound in integer_range(float(x.bit_width), signed=x.signed, narrow_range=False))
    zero_point = int(x.zero_point)
    reached = []
    for sign in (-1, 1):
        inputs = torch.where(matrix * sign > 0, high - zero_point, low - zero_point)  # one input for each output
        sums = (matrix * inputs).sum(1)
        reached.append(int((sign * sums).max()) * sign)
    return reached[0], reached[1]


def holds(bit_width: Tensor, low: int, high: int, *, signed: bool) -> bool:
    smallest, largest = integer_range(float(bit_width), signed=signed, narrow_range=False)
    return bool(smallest <= low and high <= largest)


GRIDS = [
    {"bits": 8, "signed": True},
    {"bits": 8, "signed": False},
    {"bits": 2, "signed": True},
    {"bits": 4, "signed": False, "zero_point": 9},
    {"bits": 4, "signed": True, "zero_point": 7},
]


@every_layer
@pytest.mark.parametrize("on", GRIDS, ids=lambda on: "-".join(map(str, on.values())))
@pytest.mark.parametrize("narrow", [True, False])
def test_extreme_inputs_reach_what_the_layer_says_and_never_more(name: str, on: dict[str, Any], narrow: bool) -> None:
    torch.manual_seed(0)
    sample = SAMPLES[name]
    layer: Any = sample.build(weight_narrow_range=narrow)
    torch.nn.init.normal_(layer.weight)
    x = grid(sample.shapes[0], **on)
    said = layer.accumulator(x)
    low, high = extremes(matrix_of(layer, x), x)
    assert (int(said.low), int(said.high)) == (min(low, 0), max(high, 0))
    assert said.signed
    assert holds(said.bit_width, low, high, signed=said.signed)
    assert not holds(said.bit_width - 1, low, high, signed=said.signed) or said.bit_width == 1
    by_shapes = accumulator_bit_width(x, layer.quant_weight(), terms=layer._terms())
    assert by_shapes >= said.bit_width


@every_layer
@pytest.mark.parametrize("on", GRIDS, ids=lambda on: "-".join(map(str, on.values())))
def test_the_bits_of_the_output_hold_for_any_weight(name: str, on: dict[str, Any]) -> None:
    sample = SAMPLES[name]
    layer: Any = sample.build(bias_quant=None, weight_narrow_range=False, weight_bit_width=3)
    x = grid(sample.shapes[0], **on)
    for sign in (-1.0, 1.0):
        torch.nn.init.constant_(layer.weight, sign)  # all integers at one end of their range
        weight = layer.quant_weight()
        low, high = extremes(matrix_of(layer, x), x)
        assert holds(accumulator_bit_width(x, weight, terms=layer._terms()), low, high, signed=True)


@every_layer
def test_the_output_is_the_accumulator_at_the_product_of_the_scales(name: str) -> None:
    torch.manual_seed(0)
    sample = SAMPLES[name]
    layer: Any = sample.build(**sample.on_accumulator, weight_quant=Int8WeightPerChannelFloat)
    torch.nn.init.normal_(layer.weight)
    entry = qnn.QuantIdentity(bit_width=5, collect_stats_steps=1, return_quant_tensor=True)
    x = entry(*sample.inputs())
    out = layer(x)
    assert out.is_valid
    weight = layer.quant_weight()
    assert torch.equal(out.scale.flatten().unique(), (x.scale * weight.scale).flatten().unique())
    how = {"output_size": None} if isinstance(layer, qnn.QuantConvTranspose) else {}
    sums = layer._operation(x.int().double(), weight.int().double(), None, **how)
    scale = (x.scale * weight.scale).flatten()
    bias = layer.bias_quant(layer.bias, layer._accumulator_scale(x, weight)).int().double()
    assert torch.equal(out.int().double(), sums + bias.reshape(layer._channel_shape(out)))
    said = layer.accumulator(x)
    assert said.scale.flatten().unique().tolist() == scale.unique().tolist()
    assert said.low <= out.int().min()
    assert out.int().max() <= said.high
    assert said.bit_width <= out.bit_width


@settings(max_examples=30, deadline=None)
@given(
    st.integers(2, 8),
    st.integers(2, 8),
    st.integers(1, 6),
    st.integers(1, 4),
    st.integers(1, 3),
    st.sampled_from([1, 2, 4]),
    st.integers(0, 1000),
)
@example(bits=2, weight_bits=2, kernel=5, stride=1, dilation=3, groups=1, seed=0)
def test_transposed_convolutions_of_any_shape(
    bits: int, weight_bits: int, kernel: int, stride: int, dilation: int, groups: int, seed: int
) -> None:
    torch.manual_seed(seed)
    layer: Any = qnn.QuantConvTranspose1d(
        4, 4, kernel, stride, groups=groups, dilation=dilation, bias=False, weight_bit_width=weight_bits
    )
    x = grid((1, 4, 20), bits=bits, signed=True)  # longer than any of the kernels
    low, high = extremes(matrix_of(layer, x), x)
    said = layer.accumulator(x)
    assert (int(said.low), int(said.high)) == (min(low, 0), max(high, 0))
    assert holds(accumulator_bit_width(x, layer.quant_weight(), terms=layer._terms()), low, high, signed=True)


def test_the_bias_counts_and_no_statistics_are_collected() -> None:
    layer = qnn.QuantLinear(
        1, 1, weight_bit_width=8, bias_quant=Int8Bias, input_quant=Int8ActPerTensorFloat, return_quant_tensor=True
    )
    with torch.no_grad():
        layer.weight.fill_(1.0)
        layer.bias.fill_(1000.0)
    before = {name: tensor.clone() for name, tensor in layer.state_dict().items()}
    said = layer.accumulator(torch.ones(1, 1))
    assert (int(said.low), int(said.high)) == (-128 * 127 + 127, 127 * 127 + 127)
    assert layer.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in layer.state_dict().items())


def test_an_accumulator_of_floats_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        qnn.QuantLinear(3, 2).accumulator(torch.zeros(1, 3))
    assert str(caught.value) == (
        "the accumulator has no scale\n"
        "  at QuantLinear(in_features=3, out_features=2, bias=True)\n"
        "  its scale is input scale · weight scale, and the input is a plain tensor\n"
        "  Set input_quant on this layer, or return_quant_tensor=True on the layer before it; a sum of two scales must be "
        "quantized again."
    )
