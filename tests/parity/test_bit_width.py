"""Learned bit widths against Brevitas's: numbers of bits, gradients, and the whole of a quantizer that learns them."""

from typing import Any

import brevitas.core.quant as bcq
import brevitas.nn as bnn
import torch
from brevitas.core import bit_width as bbw
from brevitas.core.function_wrapper import Identity
from brevitas.core.restrict_val import FloatRestrictValue, IntRestrictValue, PowerOfTwoRestrictValue
from brevitas.core.scaling import ConstScaling, IntScaling
from brevitas.core.zero_point import ZeroZeroPoint
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.components as c
import quant_nn as qnn

seeds = st.integers(0, 10_000)


def tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def result(bits: nn.Module, offset: float, *inputs: Tensor) -> tuple[float, float]:
    (parameter,) = bits.parameters()
    with torch.no_grad():
        parameter.fill_(offset)
    out = bits(*inputs)
    out.backward()
    assert parameter.grad is not None
    return out.item(), parameter.grad.item()


@settings(deadline=None)
@given(st.integers(2, 4), st.floats(-6, 6, width=32), st.sampled_from(["whole", "fraction"]))
def test_parameters(least: int, offset: float, kind: str) -> None:
    ours = {"whole": c.WholeBits, "fraction": c.FractionalBits}[kind]()
    theirs = {"whole": IntRestrictValue, "fraction": FloatRestrictValue}[kind]()
    found = result(c.ParameterBitWidth(8, least, restrict_bit_width_impl=ours), offset)
    assert found == result(bbw.BitWidthParameter(8, least, theirs), offset)


@given(st.sampled_from([2, 4, 8]), st.floats(-2, 2, width=32))
def test_powers_of_two(start: int, offset: float) -> None:
    ours = c.ParameterBitWidth(start, 2, restrict_bit_width_impl=c.PowerOfTwoBits())
    theirs = bbw.BitWidthParameter(start, 2, PowerOfTwoRestrictValue())
    assert ours.bit_width_offset.item() == theirs.bit_width_offset.item()
    assert ours().item() == theirs().item() == start
    (our_bits, our_grad), (their_bits, their_grad) = result(ours, offset), result(theirs, offset)
    assert our_bits == their_bits
    assert abs(our_grad - their_grad) <= 1e-6 * abs(their_grad)


@given(st.integers(0, 12), st.integers(6, 40), st.floats(0.015625, 10, width=32), st.booleans())
def test_bits_taken_off_an_accumulator(start: int, incoming: int, coefficient: float, negative: bool) -> None:
    ours = c.RemoveBitWidth(start, restrict_bit_width_impl=c.FractionalBits())
    theirs = bbw.RemoveBitwidthParameter(start)
    assert ours.bit_width_coeff.item() == theirs.bit_width_coeff.item()
    value = -coefficient if negative else coefficient
    assert result(ours, value) == result(theirs, value)
    ours.zero_grad(), theirs.zero_grad()
    bits = torch.tensor(float(incoming))
    clamped = result(c.MsbClampBitWidth(ours, 2, 24), value, bits)
    if 1 / coefficient <= incoming:
        assert clamped == result(bbw.MsbClampBitWidth(theirs, 2, 24), value, bits)
    else:  # there, taking off more bits than there are brings bits back
        assert clamped[0] == 2


@settings(max_examples=60, deadline=None)
@given(seeds, st.booleans(), st.booleans(), st.booleans(), st.floats(0, 5, width=32))
def test_the_gradient_through_scale_and_limits(
    seed: int, signed: bool, narrow: bool, fractional: bool, offset: float
) -> None:
    """Fractional bit widths have limits between two integers, in Brevitas as here."""
    ours = c.ParameterBitWidth(4, restrict_bit_width_impl=c.FractionalBits() if fractional else None)
    theirs = bbw.BitWidthParameter(4, 2, FloatRestrictValue() if fractional else IntRestrictValue())
    results = []
    for bits, quant in (
        (ours, c.IntQuant(c.ConstScaling(1.0), ours, signed=signed, narrow_range=narrow)),
        (
            theirs,
            bcq.RescalingIntQuant(
                int_quant=bcq.IntQuant(narrow, signed, Identity()),
                scaling_impl=ConstScaling(1.0, FloatRestrictValue()),
                int_scaling_impl=IntScaling(narrow, signed),
                zero_point_impl=ZeroZeroPoint(),
                bit_width_impl=theirs,
            ),
        ),
    ):
        with torch.no_grad():
            bits.bit_width_offset.fill_(offset)
        x = tensor(seed, 200).requires_grad_()
        value, scale, _, width = quant(x)
        value.backward(tensor(seed + 1, 200))
        results.append((value, scale, width, x.grad, bits.bit_width_offset.grad))
    (value, scale, width, grad, learned), (their_value, their_scale, their_width, their_grad, their_learned) = results
    assert torch.equal(value, their_value)
    assert torch.equal(scale, their_scale)
    assert torch.equal(width, their_width)
    assert (grad - their_grad).abs().max() <= 1e-5
    # The fused pass keeps 11 bits of each element's rounding residual.
    assert abs(float((learned - their_learned).detach())) <= float(tensor(seed + 1, 200).abs().sum()) * 2**-11


@settings(max_examples=15, deadline=None)
@given(seeds, st.integers(2, 8), st.booleans())
def test_weights_of_layers(seed: int, bits: int, per_channel: bool) -> None:
    weight, incoming = tensor(seed, 5, 16), tensor(seed + 1, 5, 16)
    options: dict[str, Any] = {
        "bias": False,
        "weight_bit_width": bits,
        "weight_scaling_per_output_channel": per_channel,
    }
    results = []
    for layer in (
        qnn.QuantLinear(16, 5, weight_bit_width_impl=c.ParameterBitWidth, **options),
        bnn.QuantLinear(16, 5, weight_bit_width_impl_type="parameter", **options),
    ):
        with torch.no_grad():
            layer.weight.copy_(weight)
        layer.weight_quant.init_tensor_quant()
        out = layer.quant_weight()
        out.value.backward(incoming)
        (learned,) = (p for name, p in layer.named_parameters() if name.endswith("bit_width_offset"))
        results.append((out, layer.weight.grad, learned.grad))
    (ours, grad, learned), (theirs, their_grad, their_learned) = results
    assert torch.equal(ours.value, theirs.value)
    assert ours.bit_width.item() == theirs.bit_width.item() == bits
    assert (grad - their_grad).abs().max() <= 1e-3 * their_grad.abs().max()
    assert (
        abs(float((learned - their_learned).detach()))
        <= float(incoming.abs().sum()) * float(ours.scale.detach().max()) * 2**-9
    )


def test_a_short_training_of_the_bit_width_goes_the_same_way() -> None:
    found = []
    for layer in (
        qnn.QuantIdentity(
            bit_width_impl=c.ParameterBitWidth, bit_width=8, collect_stats_steps=1, return_quant_tensor=True
        ),
        bnn.QuantIdentity(
            bit_width_impl_type="parameter", bit_width=8, collect_stats_steps=1, return_quant_tensor=True
        ),
    ):
        optimizer = torch.optim.SGD(layer.parameters(), lr=0.5)
        widths = []
        for step in range(12):
            x = tensor(step, 256)
            optimizer.zero_grad()
            out = layer(x)
            ((out.value - x).square().mean() + 0.1 * out.bit_width).backward()
            optimizer.step()
            widths.append(out.bit_width.item())
        found.append(widths)
    assert found[0] == found[1]
    assert found[0][-1] < 8
