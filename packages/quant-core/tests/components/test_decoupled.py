"""One scale to divide by and another to multiply with: laws, gradients, programs, and what is refused."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    ConstBitWidth,
    ConstScaling,
    DecoupledIntQuant,
    IntQuant,
    ParameterScaling,
    PowerOfTwoRestriction,
)
from quant_core.errors import ConfigurationError, InputError
from quant_core.export import capture
from quant_core.ops import integer_range, quantize_decoupled
from quant_core.proxies import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.quant import (
    Int4WeightPerTensorFloatDecoupled,
    Int8ActPerTensorFloat,
    Int8WeightPerChannelFloatDecoupled,
)
from quant_core.tensor import QuantTensor


class Layer(nn.Module):
    output_channel_dim = 0

    def __init__(self, quantizer: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 30, generator=torch.Generator().manual_seed(0)))
        self.weight_quant = WeightQuantProxyFromInjector(self, quantizer, "weight_")

    def quantized(self) -> QuantTensor:
        out = self.weight_quant(self.weight)
        assert isinstance(out, QuantTensor)
        return out

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.quantized().value)


@given(
    st.floats(0.25, 4, width=32),
    st.floats(0.25, 4, width=32),
    st.integers(2, 8),
    st.booleans(),
    st.booleans(),
    st.integers(0, 1000),
)
def test_divided_by_one_scale_and_multiplied_with_the_other(
    first: float, second: float, bits: int, signed: bool, narrow: bool, seed: int
) -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    quant = DecoupledIntQuant(ConstScaling(first), ConstScaling(second), ConstBitWidth(bits), signed, narrow)
    value, scale, _, _ = quant(x)
    low, high = integer_range(bits, signed=signed, narrow_range=narrow)
    pre_scale = first / (-low if signed else high)
    integers = (x / torch.tensor(pre_scale)).round().clamp(low, high)
    assert torch.equal(value, integers * scale)


@given(st.floats(0.25, 4, width=32), st.integers(2, 8), st.booleans(), st.integers(0, 1000))
def test_powers_of_two_are_divided_by_a_power_of_two(start: float, bits: int, signed: bool, seed: int) -> None:
    x = torch.randn(50, generator=torch.Generator().manual_seed(seed))
    first, second = (ConstScaling(start, restrict_scaling_impl=PowerOfTwoRestriction()) for _ in range(2))
    value, scale, _, _ = DecoupledIntQuant(first, second, ConstBitWidth(bits), signed)(x)
    assert torch.frexp(scale).mantissa == 0.5
    assert torch.equal(value, IntQuant(first, ConstBitWidth(bits), signed)(x)[0])


def test_with_equal_scales_it_is_plain_quantization() -> None:
    x = torch.randn(100, generator=torch.Generator().manual_seed(0))
    decoupled = DecoupledIntQuant(ConstScaling(1.0), ConstScaling(1.0), ConstBitWidth(4), signed=True)
    assert torch.equal(decoupled(x)[0], IntQuant(ConstScaling(1.0), ConstBitWidth(4), signed=True)(x)[0])


def test_each_scale_has_its_own_gradient() -> None:
    first, second = ParameterScaling(4.0), ParameterScaling(8.0)
    x = torch.tensor([1.2, -9.0], requires_grad=True)
    DecoupledIntQuant(first, second, ConstBitWidth(3), signed=True)(x)[0].backward(torch.tensor([1.0, 1.0]))
    assert x.grad is not None
    assert x.grad.tolist() == [2, 0]  # scale / pre_scale in range, nothing where it is clamped
    assert first.value.grad is not None
    assert second.value.grad is not None
    assert second.value.grad.item() == (1 - 4) / 4  # the sum of the integers over the largest one
    assert first.value.grad.item() == pytest.approx(-1.2 * 2 / 4)


@given(
    st.integers(0, 1000),
    st.sampled_from(["masked", "pass"]),
    st.sampled_from(["ROUND", "TO_ZERO"]),
    st.sampled_from([(), (4, 1)]),
    st.sampled_from([(), (4, 1)]),
)
def test_the_gradient_in_few_passes_is_that_of_the_chain(
    seed: int, clamp: Any, mode: str, first: tuple[int, ...], second: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(seed)
    start = [torch.randn(4, 20, generator=generator), torch.full(first, 0.2), torch.full(second, 0.5)]
    incoming = torch.randn(4, 20, generator=generator)
    results = []
    for bits in (4, torch.tensor(4.0)):  # a tensor may learn, and takes the chain
        x, pre_scale, scale = (leaf.clone().requires_grad_() for leaf in start)
        options: dict[str, Any] = {"signed": True, "rounding_mode": mode, "clamp_gradient": clamp}
        y = quantize_decoupled(x, pre_scale, scale, bits, **options)
        y.backward(incoming)
        results.append((y.detach(), x.grad, pre_scale.grad, scale.grad))
    assert torch.equal(results[0][0], results[1][0])
    for found, wanted in zip(*results, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("quantizer", [Int4WeightPerTensorFloatDecoupled, Int8WeightPerChannelFloatDecoupled])
def test_presets_learn_one_scale_and_start_from_the_weight(quantizer: Any) -> None:
    layer = Layer(quantizer)
    quantized = layer.quantized()
    assert quantized.is_valid
    assert [name for name, _ in layer.weight_quant.named_parameters()] == ["tensor_quant.scaling_impl.value"]
    with torch.no_grad():
        layer.weight.mul_(2.0)
    assert torch.equal(layer.quantized().int(), quantized.int())  # the pre-scale follows the weight
    assert torch.equal(layer.quantized().scale, quantized.scale)  # the scale does not
    layer.load_state_dict({"weight": layer.weight.detach()})
    assert torch.equal(layer.quantized().scale, quantized.scale * 2)


@pytest.mark.parametrize("quantizer", [Int4WeightPerTensorFloatDecoupled, Int8WeightPerChannelFloatDecoupled])
def test_captured_weights_are_the_same_integers_at_the_second_scale(quantizer: Any) -> None:
    layer = Layer(quantizer)
    with torch.no_grad():
        layer.get_parameter("weight_quant.tensor_quant.scaling_impl.value").mul_(1.37)
    x = torch.randn(2, 30, generator=torch.Generator().manual_seed(1))
    program = capture(layer, (x,))
    (weight,) = program.quantizers
    assert (weight.op, weight.role) == ("quant::int", "weight")
    assert weight.integers is not None
    assert weight.scale is not None
    assert torch.equal(weight.integers, layer.quantized().int())
    assert torch.equal(weight.scale, layer.quantized().scale)
    assert torch.equal(program.run(x), layer(x))


def test_an_activation_is_captured_as_operations_in_front_of_a_quantizer() -> None:
    chosen = Int8ActPerTensorFloat.let(
        tensor_quant=DecoupledIntQuant, pre_scaling_impl=ConstScaling(2.0), scaling_impl=ConstScaling(3.0), bit_width=4
    )
    proxy = ActQuantProxyFromInjector(nn.Identity(), chosen)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.act_quant = proxy

        def forward(self, x: Tensor) -> Tensor:
            out = self.act_quant(x)
            assert isinstance(out, QuantTensor)
            return out.value

    x = torch.randn(500, generator=torch.Generator().manual_seed(1)) * 2
    program = capture(Net(), (x,))
    assert [(found.op, found.bit_width) for found in program.quantizers] == [("quant::int", 4)]
    assert torch.equal(program.run(x), Net()(x))


@pytest.mark.parametrize("quantizer", [Int4WeightPerTensorFloatDecoupled, Int8WeightPerChannelFloatDecoupled])
def test_copies_checkpoints_and_graphs_agree(quantizer: Any) -> None:
    torch._dynamo.reset()
    layer, fresh = Layer(quantizer), Layer(quantizer)
    with torch.no_grad():
        layer.get_parameter("weight_quant.tensor_quant.scaling_impl.value").mul_(0.9)
    fresh.load_state_dict(layer.state_dict())
    x = torch.ones(1, 30)
    compiled = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), fresh, compiled):
        assert torch.equal(other(x), layer(x))


def test_it_starts_late() -> None:
    quant = DecoupledIntQuant(ConstScaling(1.0), ConstScaling(2.0), ConstBitWidth(2), signed=True, quant_delay_steps=1)
    x = torch.tensor([0.7])
    assert [quant(x)[0].item(), quant(x)[0].item()] == pytest.approx([0.7, 1.0])


def test_a_weight_of_zeros_gives_no_nan() -> None:
    layer = Layer(Int8WeightPerChannelFloatDecoupled)
    layer.load_state_dict({"weight": torch.zeros(4, 30)})
    out = layer(torch.ones(1, 30))
    out.sum().backward()
    assert torch.equal(out, torch.zeros(1, 4))
    assert layer.weight.grad is not None
    assert torch.isfinite(layer.weight.grad).all()


def test_what_is_refused() -> None:
    with pytest.raises(ConfigurationError) as caught:
        DecoupledIntQuant(ConstScaling(1.0), ConstScaling(1.0), ConstBitWidth(1), signed=True)
    assert str(caught.value) == (
        "bit_width=1 is too small for an integer quantizer\n"
        "  an integer quantizer needs at least 2 bits, got 1\n"
        "  Use BinaryQuant for one bit, or set bit_width to 2 or more."
    )
    quant = DecoupledIntQuant(ConstScaling(torch.ones(3)), ConstScaling(1.0), ConstBitWidth(4), signed=True)
    with pytest.raises(InputError) as shape:
        quant(torch.ones(2))
    assert str(shape.value) == (
        "a scale of shape (3,) does not fit a tensor of shape (2,)\n"
        "  each axis of the scale is 1 or the size of the tensor's axis, counted from the last\n"
        "  Check which axis holds the channels: (1, C, 1, 1) for images, (1, C) after a linear layer."
    )
