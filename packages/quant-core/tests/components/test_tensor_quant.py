"""Tensor quantizers: scale from threshold, delays, binary values, and what they refuse."""

from collections.abc import Callable

import pytest
import torch
import torch._dynamo.testing

from quant_core.components import (
    BinaryQuant,
    ClampedBinaryQuant,
    ConstBitWidth,
    ConstScaling,
    ConstZeroPoint,
    IntQuant,
    PrescaledIntQuant,
    QuantDelay,
)
from quant_core.errors import ConfigurationError, InputError, QuantError


@pytest.mark.parametrize(
    ("signed", "narrow", "largest"), [(True, False, 128), (True, True, 127), (False, False, 255), (False, True, 254)]
)
def test_the_scale_is_the_threshold_over_the_largest_integer(signed: bool, narrow: bool, largest: int) -> None:
    quant = IntQuant(ConstScaling(2.0), ConstBitWidth(8), signed=signed, narrow_range=narrow)
    value, scale, zero_point, bit_width = quant(torch.tensor([100.0, -100.0]))
    assert scale.item() == pytest.approx(2.0 / largest)
    assert (zero_point.item(), bit_width.item()) == (0, 8)
    assert value.max().item() == pytest.approx(2.0 if not signed or narrow else 2.0 * 127 / 128)


def test_a_zero_point_shifts_the_range() -> None:
    quant = IntQuant(ConstScaling(255.0), ConstBitWidth(8), signed=False, zero_point_impl=ConstZeroPoint(100))
    value, scale, zero_point, _ = quant(torch.tensor([-1000.0, -3.2, 0.0, 1000.0]))
    assert value.tolist() == [-100, -3, 0, 155]
    assert (scale.item(), zero_point.item()) == (1, 100)


def test_rectifying_in_one_pass_equals_a_relu_in_front() -> None:
    quant = IntQuant(ConstScaling(1.0), ConstBitWidth(4), signed=False)
    results = []
    for function in (lambda x: quant(x, rectify=True)[0], lambda x: quant(torch.relu(x))[0]):
        x = torch.randn(1000, generator=torch.Generator().manual_seed(0)).requires_grad_()
        y = function(x)
        y.backward(torch.arange(1000.0))
        results.append((y.detach(), x.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


def test_quantization_starts_after_the_delay_and_counts_training_steps_only() -> None:
    quant = IntQuant(ConstScaling(1.0), ConstBitWidth(2), signed=True, quant_delay_steps=2)
    x = torch.tensor([0.3])
    seen = [quant(x)[0].item()]
    quant.eval()
    seen += [quant(x)[0].item(), quant(x)[0].item()]
    quant.train()
    seen += [quant(x)[0].item(), quant(x)[0].item()]
    assert seen == pytest.approx([0.3, 0.3, 0.3, 0.3, 0.5])


def test_a_delay_survives_a_checkpoint_and_compiles_once() -> None:
    torch._dynamo.reset()
    quant = IntQuant(ConstScaling(1.0), ConstBitWidth(2), signed=True, quant_delay_steps=2)
    quant(torch.tensor([0.3]))
    resumed = IntQuant(ConstScaling(1.0), ConstBitWidth(2), signed=True, quant_delay_steps=2)
    resumed.load_state_dict(quant.state_dict())
    counter = torch._dynamo.testing.CompileCounter()
    compiled = torch.compile(resumed, fullgraph=True, backend=counter)
    assert [compiled(torch.tensor([0.3]))[0].item() for _ in range(3)] == pytest.approx([0.3, 0.5, 0.5])
    assert counter.frame_count == 1


def test_clamped_binary_stops_the_gradient_beyond_the_scale() -> None:
    for kind, gradient in ((BinaryQuant, [0.1, 0.1]), (ClampedBinaryQuant, [0.1, 0.0])):
        x = torch.tensor([0.04, -0.6], requires_grad=True)
        value, _, zero_point, bit_width = kind(ConstScaling(0.1))(x)
        value.sum().backward()
        assert value.tolist() == pytest.approx([0.1, -0.1])
        assert x.grad.tolist() == pytest.approx(gradient)
        assert (zero_point.item(), bit_width.item()) == (0, 1)


REFUSALS: list[tuple[Callable[[], object], type[QuantError], str]] = [
    (
        lambda: IntQuant(ConstScaling(1.0), ConstBitWidth(1), signed=True),
        ConfigurationError,
        "bit_width=1 is too small for an integer quantizer\n"
        "  an integer quantizer needs at least 2 bits, got 1\n"
        "  Use BinaryQuant for one bit, or set bit_width to 2 or more.",
    ),
    (
        lambda: ConstBitWidth(2.5),
        ConfigurationError,
        "bit_width=2.5 is not a bit width\n"
        "  a constant bit width is a whole number from 1 to 32\n"
        "  Set bit_width to a number such as 4 or 8.",
    ),
    (
        lambda: PrescaledIntQuant(ConstBitWidth(8), signed=None),
        ConfigurationError,
        "signed=None is neither True nor False\n  the sign decides the integer range\n  Set signed to True or False.",
    ),
    (
        lambda: BinaryQuant(ConstScaling(1.0), signed=False),
        ConfigurationError,
        "binary quantization cannot be unsigned\n"
        "  its two values are −scale and +scale, got signed=False\n"
        "  Set signed=True, or use an unsigned integer quantizer of 2 bits.",
    ),
    (
        lambda: ConstZeroPoint(0.5),
        ConfigurationError,
        "zero_point_init=0.5 is not an integer\n"
        "  a zero-point is the integer that stands for 0, so that 0 is represented exactly\n"
        "  Round it, for example to the number of steps between the lowest level and 0.",
    ),
    (
        lambda: ConstBitWidth(33),
        ConfigurationError,
        "bit_width=33 is not a bit width\n"
        "  a constant bit width is a whole number from 1 to 32\n"
        "  Set bit_width to a number such as 4 or 8.",
    ),
    (
        lambda: IntQuant(ConstScaling(1.0), ConstBitWidth(4), signed=False, zero_point_impl=ConstZeroPoint(16)),
        ConfigurationError,
        "zero_point_init is out of range\n"
        "  the integers lie from 0 to 15, the zero-points from 16 to 16\n"
        "  Choose zero-points among the integers of the quantizer.",
    ),
    (
        lambda: IntQuant(ConstScaling(1.0), ConstBitWidth(4), signed=True)(torch.tensor([1, 2])),
        InputError,
        "a tensor of torch.int64 cannot be quantized\n"
        "  quantization rounds real numbers, and the result has the dtype of the tensor\n"
        "  Convert it first: x.float(), for images usually x.float() / 255.",
    ),
    (
        lambda: QuantDelay(-1),
        ConfigurationError,
        "quant_delay_steps=-1 is not a number of steps\n"
        "  quantization starts after a whole number of training steps, at least 0\n"
        "  Use 0 to quantize from the first step.",
    ),
    (
        lambda: IntQuant(ConstScaling(1.0, (1, 3, 1, 1)), ConstBitWidth(4), signed=True)(torch.zeros(2, 4, 5, 5)),
        InputError,
        "a scale of shape (1, 3, 1, 1) does not fit a tensor of shape (2, 4, 5, 5)\n"
        "  each axis of the scale is 1 or the size of the tensor's axis, counted from the last\n"
        "  Check which axis holds the channels: (1, C, 1, 1) for images, (1, C) after a linear layer.",
    ),
]


@pytest.mark.parametrize(("call", "kind", "message"), REFUSALS)
def test_bad_options_and_tensors_are_refused(call: Callable[[], object], kind: type[QuantError], message: str) -> None:
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == message
