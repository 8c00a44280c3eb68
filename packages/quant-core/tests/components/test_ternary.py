"""Two and three values: the quantizers, their presets, what becomes of them in a program, and what is refused."""

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quant_core.components import BinaryQuant, ConstScaling, ParameterScaling, TernaryQuant
from quant_core.errors import ConfigurationError, QuantError, UnusedAttributeError
from quant_core.export import capture
from quant_core.proxies import ActQuantProxyFromInjector, QuantProxy, WeightQuantProxyFromInjector
from quant_core.quant import (
    Int8ActPerTensorFloat,
    Int8WeightPerTensorFloat,
    NoneActQuant,
    NoneWeightQuant,
    SignedBinaryActPerTensorConst,
    SignedBinaryWeightPerTensorConst,
    SignedTernaryActPerTensorConst,
    SignedTernaryWeightPerTensorConst,
    Uint8ActPerTensorFloat,
)
from quant_core.tensor import QuantTensor


class Layer(nn.Module):
    output_channel_dim = 0

    def __init__(self, quantizer: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor([[0.3, -0.04, 0.06, -2.0], [0.0, 0.051, -0.05, 0.2]]))
        self.weight_quant: QuantProxy = WeightQuantProxyFromInjector(self, quantizer, "weight_")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight_quant(self.weight)
        return nn.functional.linear(x, weight if isinstance(weight, torch.Tensor) else weight.value)


class Activation(nn.Module):
    def __init__(self, quantizer: Any) -> None:
        super().__init__()
        self.act_quant: QuantProxy = ActQuantProxyFromInjector(self, quantizer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.act_quant(x)
        return out if isinstance(out, torch.Tensor) else out.value


@pytest.mark.parametrize("quantizer", [SignedBinaryWeightPerTensorConst, SignedTernaryWeightPerTensorConst])
def test_a_scale_for_each_output_channel(quantizer: Any) -> None:
    """The mean magnitude of each channel is the scale with the smallest squared error of a binary weight."""
    statistic = {"scaling_impl_type": "stats", "scaling_stats_op": "ave", "scaling_per_output_channel": True}
    layer = Layer(quantizer.let(**statistic))
    assert torch.equal(layer.weight_quant.scale(), layer.weight.abs().mean(1, keepdim=True))
    fixed = Layer(quantizer.let(scaling_per_output_channel=True))
    assert torch.equal(fixed.weight_quant.scale(), torch.full((2, 1), 0.1))


@given(st.lists(st.floats(-4, 4, width=32), min_size=1), st.floats(0.125, 0.875, width=32))
def test_three_values_by_the_threshold(values: list[float], threshold: float) -> None:
    x = torch.tensor(values)
    quant = TernaryQuant(ConstScaling(0.5), threshold)
    value, scale, zero_point, bits = quant(x)
    assert (scale.item(), zero_point.item(), bits.item()) == (0.5, 0, 2)
    wanted = [0.0 if abs(v) <= threshold * 0.5 else (0.5 if v > 0 else -0.5) for v in values]
    assert value.tolist() == wanted
    assert torch.equal(quant(value)[0], value)


def test_the_gradients_of_ternary_values() -> None:
    scaling = ParameterScaling(0.5)
    x = torch.tensor([-3.0, 0.1, 0.4], requires_grad=True)
    TernaryQuant(scaling, 0.5)(x)[0].backward(torch.tensor([1.0, 2.0, 4.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [0.5, 0.0, 2.0]
    assert scaling.value.grad is not None
    assert scaling.value.grad.item() == -1 + 4


def test_ternary_values_start_late_and_compile() -> None:
    torch._dynamo.reset()
    quant = TernaryQuant(ConstScaling(1.0), 0.5, quant_delay_steps=1)
    x = torch.tensor([0.7])
    assert quant(x)[0].item() == pytest.approx(0.7)
    assert torch.compile(quant, fullgraph=True, backend="aot_eager")(x)[0].item() == 1


PRESETS = {
    "binary weight": (SignedBinaryWeightPerTensorConst, 1, False, {-1, 1}),
    "ternary weight": (SignedTernaryWeightPerTensorConst, 2, True, {-1, 0, 1}),
    "binary by tensor_quant": (Int8WeightPerTensorFloat.let(tensor_quant=BinaryQuant), 1, False, {-1, 1}),
    "ternary by tensor_quant": (
        Int8WeightPerTensorFloat.let(tensor_quant=TernaryQuant, threshold=0.05),
        2,
        True,
        {-1, 0, 1},
    ),
}


@pytest.mark.parametrize("case", PRESETS)
def test_weights(case: str) -> None:
    """What is left over from the quantizer that is replaced, such as its bits and narrow range, does not stand in the way."""
    quantizer, bits, has_zero, levels = PRESETS[case]
    layer = Layer(quantizer)
    quantized = layer.weight_quant(layer.weight)
    assert isinstance(quantized, QuantTensor)
    assert quantized.is_valid
    assert set(quantized.int().unique().tolist()) == levels
    assert quantized.bit_width.item() == bits
    assert quantized.zero_on_grid == has_zero
    program = capture(layer, (torch.ones(1, 4),))
    (captured,) = program.quantizers
    assert (captured.role, captured.bit_width) == ("weight", bits)
    assert captured.integers is not None
    assert torch.equal(captured.integers, quantized.int())
    assert torch.equal(program.run(torch.ones(1, 4)), layer(torch.ones(1, 4)))


@pytest.mark.parametrize(
    ("quantizer", "op", "levels"),
    [
        (SignedBinaryActPerTensorConst, "quant::binary", [-1, -1, 1, 1, 1]),
        (SignedTernaryActPerTensorConst, "quant::int", [-1, 0, 0, 0, 1]),
        (
            SignedTernaryActPerTensorConst.let(tensor_quant=TernaryQuant, threshold=0.1),
            "quant::ternary",
            [-1, -1, 0, 1, 1],
        ),
    ],
)
def test_activations(quantizer: Any, op: str, levels: list[int]) -> None:
    x = torch.tensor([-3.0, -0.3, 0.0, 0.3, 0.6])
    layer = Activation(quantizer)
    assert layer(x).tolist() == levels
    program = capture(layer, (x,))
    assert [found.op for found in program.quantizers] == [op]
    assert program.run(x).tolist() == levels


def test_nothing_is_quantized_by_none() -> None:
    layer, x = Layer(NoneWeightQuant), torch.ones(1, 4)
    assert layer.weight_quant(layer.weight) is layer.weight
    assert not layer.weight_quant.is_quant_enabled
    assert not layer.weight_quant.learns_bit_width
    assert list(layer.state_dict()) == ["weight"]
    assert capture(layer, (x,)).quantizers == ()
    relu = ActQuantProxyFromInjector(nn.Identity(), NoneActQuant.let(act_impl=nn.ReLU))
    assert relu(torch.tensor([-1.0, 1.0])).tolist() == [0, 1]


REFUSED: dict[str, tuple[Any, type[QuantError], str]] = {
    "threshold": (
        lambda: TernaryQuant(ConstScaling(1.0), 1.0),
        ConfigurationError,
        "threshold=1.0 is not a share of the scale\n"
        "  what lies below threshold · scale becomes 0, and what lies above becomes the scale\n"
        "  Use a number between 0 and 1, such as 0.5, which rounds to the nearest.",
    ),
    "unsigned ternary": (
        lambda: TernaryQuant(ConstScaling(1.0), 0.5, signed=False),
        ConfigurationError,
        "ternary quantization cannot be unsigned\n"
        "  its three values are −scale, 0 and +scale, got signed=False\n"
        "  Set signed=True, or use an unsigned integer quantizer of 2 bits.",
    ),
    "unsigned binary weight": (
        lambda: Layer(Int8WeightPerTensorFloat.let(tensor_quant=BinaryQuant, signed=False)),
        ConfigurationError,
        "binary quantization cannot be unsigned\n"
        "  at Layer: weight_tensor_quant of Int8WeightPerTensorFloat\n"
        "  its two values are −scale and +scale, got signed=False\n"
        "  Set signed=True, or use an unsigned integer quantizer of 2 bits.",
    ),
    "unsigned binary activation": (
        lambda: Activation(Uint8ActPerTensorFloat.let(tensor_quant=BinaryQuant)),
        ConfigurationError,
        "binary quantization cannot be unsigned\n"
        "  at Activation: tensor_quant of Uint8ActPerTensorFloat\n"
        "  its two values are −scale and +scale, got signed=False\n"
        "  Set signed=True, or use an unsigned integer quantizer of 2 bits.",
    ),
    "narrow binary": (
        lambda: Layer(Int8WeightPerTensorFloat.let(tensor_quant=BinaryQuant, narrow_range=True)),
        ConfigurationError,
        "weight_narrow_range=True has no effect on BinaryQuant\n"
        "  at Layer\n"
        "  BinaryQuant does not take narrow_range; it is False there\n"
        "  Leave weight_narrow_range out, or choose a tensor_quant that takes it.",
    ),
    "bits of binary": (
        lambda: Activation(Int8ActPerTensorFloat.let(tensor_quant=BinaryQuant, bit_width=4)),
        UnusedAttributeError,
        "option 'bit_width' has no effect\n"
        "  at Activation\n"
        "  'bit_width' is known to ConstBitWidth, but nothing reads it as Int8ActPerTensorFloat is configured\n"
        "  Leave bit_width out, or choose components and options that read it.",
    ),
    "the grid of none": (
        lambda: Layer(NoneWeightQuant).weight_quant.scale(),
        ConfigurationError,
        "NoneWeightQuant has no grid\n"
        "  at Layer\n"
        "  its tensor_quant is None, so that nothing is quantized\n"
        "  Ask only where is_quant_enabled is true, or pass another quantizer as weight_quant.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    make, kind, message = REFUSED[case]
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == message
