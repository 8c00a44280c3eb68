"""Bit widths: what they may be, how they learn, how they are shared, and what is refused."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch._dynamo.testing
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from quant_core.components import (
    BitWidth,
    ConstBitWidth,
    ConstScaling,
    FractionalBits,
    IntQuant,
    MsbClampBitWidth,
    ParameterBitWidth,
    PowerOfTwoBits,
    RemoveBitWidth,
    WholeBits,
)
from quant_core.errors import CaptureError, ConfigurationError, QuantError, UnusedAttributeError
from quant_core.export import capture
from quant_core.ops import round_ste, tensor_clamp
from quant_core.proxies import QuantProxy, WeightQuantProxyFromInjector
from quant_core.quant import Int8ActPerTensorFloat, Int8WeightPerTensorFloat
from quant_core.tensor import QuantTensor


class Layer(nn.Module):
    output_channel_dim = 0

    def __init__(self, quantizer: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(-1, 1, 12).reshape(3, 4))
        self.weight_quant: QuantProxy = WeightQuantProxyFromInjector(self, quantizer, "weight_")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight_quant(self.weight).value)


@given(st.floats(-40, 40, width=32), st.integers(2, 8), st.integers(8, 32))
def test_a_learned_bit_width_is_whole_and_stays_inside_of_its_limits(offset: float, least: int, most: int) -> None:
    bits = ParameterBitWidth(8, least, most)
    with torch.no_grad():
        bits.bit_width_offset.fill_(offset)
    assert bits() == bits().round()
    assert least <= bits().item() <= most


@given(st.sampled_from([WholeBits(), PowerOfTwoBits(), FractionalBits()]), st.integers(2, 32))
def test_a_restriction_gives_back_the_bits_that_a_parameter_stands_for(restriction: Any, bits: int) -> None:
    if restriction.allows(bits):
        assert restriction(torch.tensor(restriction.parameter_for(bits))).item() == bits


def test_the_gradient_is_plus_or_minus_one_and_can_leave_zero_and_the_upper_limit() -> None:
    for offset, gradient in ((0.0, 1.0), (1.4, 1.0), (-1.4, -1.0), (40.0, 1.0)):
        bits = ParameterBitWidth(4, 2, 8)
        with torch.no_grad():
            bits.bit_width_offset.fill_(offset)
        bits().backward()
        assert bits.bit_width_offset.grad is not None
        assert bits.bit_width_offset.grad.item() == gradient


def test_a_smaller_parameter_takes_more_bits_off() -> None:
    """So that weight decay, which makes parameters smaller, goes on saving bits."""
    removed = RemoveBitWidth(4)
    with torch.no_grad():
        removed.bit_width_coeff.mul_(0.8)
    assert removed().item() == 5
    assert RemoveBitWidth(0)().item() == 0


def test_clamped_bits_stay_between_the_limits() -> None:
    clamp = MsbClampBitWidth(RemoveBitWidth(4), 6, 16)
    assert [clamp(torch.tensor(bits)).item() for bits in (24.0, 20.0, 18.0, 5.0)] == [16, 16, 14, 6]


def test_one_argument_switches_learning_on_and_the_quantizer_can_tell() -> None:
    fixed = Layer(Int8WeightPerTensorFloat)
    learned = Layer(Int8WeightPerTensorFloat.let(bit_width_impl=ParameterBitWidth, bit_width=4))
    assert not fixed.weight_quant.learns_bit_width
    assert learned.weight_quant.learns_bit_width
    assert learned.weight_quant.bit_width().item() == 4
    learned.weight_quant.tensor_quant.bit_width_impl.requires_grad_(False)
    assert not learned.weight_quant.learns_bit_width


def test_a_loss_and_a_cost_train_the_bit_width() -> None:
    layer = Layer(Int8WeightPerTensorFloat.let(bit_width_impl=ParameterBitWidth))
    (offset,) = layer.weight_quant.parameters()
    layer(torch.ones(1, 4)).square().sum().backward()
    assert offset.grad is not None
    assert offset.grad != 0
    optimizer = torch.optim.SGD(layer.weight_quant.parameters(), lr=0.5)
    for _ in range(6):
        optimizer.zero_grad()
        (0.5 * layer.weight_quant.bit_width()).backward()
        optimizer.step()
    assert layer.weight_quant.bit_width().item() < 8


@pytest.mark.parametrize("restriction", [WholeBits(), FractionalBits()])
def test_the_gradient_is_that_of_plain_operations(restriction: Any) -> None:
    """Also where the ends of the range lie between two integers."""
    grads = []
    x = torch.randn(500, generator=torch.Generator().manual_seed(0))
    for composed in (False, True):
        bits = ParameterBitWidth(4, restrict_bit_width_impl=restriction)
        with torch.no_grad():
            bits.bit_width_offset.fill_(1.3)
        if composed:
            half = 2.0 ** (bits() - 1)
            scale = 1.0 / half
            y = tensor_clamp(round_ste(x / scale), -half, half - 1) * scale
        else:
            y = IntQuant(ConstScaling(1.0), bits, signed=True)(x)[0]
        y.square().sum().backward()
        grads.append((y.detach(), bits.bit_width_offset.grad))
    assert torch.equal(grads[0][0], grads[1][0])
    assert torch.allclose(grads[0][1], grads[1][1], rtol=1e-3)


def test_a_learned_bit_width_compiles_as_one_graph_with_the_same_gradient() -> None:
    torch._dynamo.reset()
    x = torch.randn(64, generator=torch.Generator().manual_seed(0))
    found = []
    for compiled in (False, True):
        quant = IntQuant(ConstScaling(1.0), ParameterBitWidth(3), signed=True)
        function = torch.compile(quant, fullgraph=True, backend="aot_eager") if compiled else quant
        value = function(x)[0]
        value.square().sum().backward()
        offset = quant.bit_width_impl.get_parameter("bit_width_offset")
        assert offset.grad is not None
        found.append((value.detach(), offset.grad))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.allclose(found[0][1], found[1][1], rtol=1e-3)


def test_an_instance_is_shared_by_the_quantizers_that_get_it() -> None:
    bits = ParameterBitWidth(6)
    layers = nn.ModuleList(Layer(Int8WeightPerTensorFloat.let(bit_width_impl=bits)) for _ in range(2))
    assert len(list(layers.parameters())) == 3  # two weights and one offset
    with torch.no_grad():
        bits.bit_width_offset.fill_(1.0)
    assert [layer.weight_quant.bit_width().item() for layer in layers] == [3, 3]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_shares_among_itself_and_not_with_the_original(copied: Any) -> None:
    bits = ParameterBitWidth(6)
    layers = nn.ModuleList(Layer(Int8WeightPerTensorFloat.let(bit_width_impl=bits)) for _ in range(2))
    twin = copied(layers)
    state = {key: torch.full_like(v, 1.0) if "offset" in key else v for key, v in layers.state_dict().items()}
    twin.load_state_dict(state)
    assert [layer.weight_quant.bit_width().item() for layer in twin] == [3, 3]
    assert [layer.weight_quant.bit_width().item() for layer in layers] == [6, 6]
    assert len(list(twin.parameters())) == 3
    assert bits.bit_width_offset.item() == 4


def test_a_checkpoint_brings_the_learned_bit_width_back() -> None:
    layer, fresh = (Layer(Int8WeightPerTensorFloat.let(bit_width_impl=ParameterBitWidth)) for _ in range(2))
    with torch.no_grad():
        layer.weight_quant.tensor_quant.bit_width_impl.bit_width_offset.fill_(3.3)
    fresh.load_state_dict(layer.state_dict())
    assert fresh.weight_quant.bit_width().item() == 5
    x = torch.ones(2, 4)
    assert torch.equal(fresh(x), layer(x))


def test_a_learned_bit_width_is_exported_as_the_constant_that_it_is() -> None:
    layer = Layer(Int8WeightPerTensorFloat.let(bit_width_impl=ParameterBitWidth, bit_width=5))
    (weight,) = capture(layer, (torch.zeros(1, 4),)).quantizers
    assert (weight.role, weight.op, weight.bit_width) == ("weight", "quant::int", 5)
    assert layer.weight_quant.learns_bit_width
    quantized = layer.weight_quant(layer.weight)
    assert isinstance(quantized, QuantTensor)
    assert weight.integers is not None
    assert torch.equal(quantized.int(), weight.integers)


def test_a_fractional_bit_width_is_not_exported() -> None:
    layer = Layer(
        Int8WeightPerTensorFloat.let(bit_width_impl=ParameterBitWidth, restrict_bit_width_impl=FractionalBits)
    )
    with pytest.raises(QuantError) as caught:
        capture(layer, (torch.zeros(1, 4),))
    assert not isinstance(caught.value, CaptureError)
    assert str(caught.value) == (
        "a fractional bit width cannot be exported\n"
        "  at weight_quant.tensor_quant.bit_width_impl\n"
        "  FractionalBits does not round it; integers have a whole number of bits\n"
        "  Train on with restrict_bit_width_impl=WholeBits, loading this checkpoint, and export that."
    )


def test_learning_without_rounding_first_continues_with_rounding() -> None:
    free, whole = (
        Layer(Int8WeightPerTensorFloat.let(bit_width_impl=ParameterBitWidth, restrict_bit_width_impl=kind))
        for kind in (FractionalBits, WholeBits)
    )
    with torch.no_grad():
        free.weight_quant.tensor_quant.bit_width_impl.bit_width_offset.fill_(2.7)
    assert free.weight_quant.bit_width().item() == pytest.approx(4.7)
    whole.load_state_dict(free.state_dict())
    assert whole.weight_quant.bit_width().item() == 5


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: ParameterBitWidth(1),
            "bit_width=1 is out of range\n"
            "  a learned bit width stays from 2 to 32, because the scale of one bit would be infinite\n"
            "  Set bit_width to a number such as 4 or 8.",
        ),
        (
            lambda: ParameterBitWidth(8, min_bit_width=1),
            "min_bit_width=1 is out of range\n"
            "  a learned bit width stays from 2 to 32, because the scale of one bit would be infinite\n"
            "  Set min_bit_width to a number such as 4 or 8.",
        ),
        (
            lambda: ParameterBitWidth(4.5),
            "bit_width=4.5 is not a bit width that WholeBits allows\n"
            "  learning starts from a number that the restriction can give\n"
            "  Choose another number, or restrict_bit_width_impl=FractionalBits to learn without rounding.",
        ),
        (
            lambda: ParameterBitWidth(6, restrict_bit_width_impl=PowerOfTwoBits()),
            "bit_width=6 is not a bit width that PowerOfTwoBits allows\n"
            "  learning starts from a number that the restriction can give\n"
            "  Choose another number, or restrict_bit_width_impl=FractionalBits to learn without rounding.",
        ),
        (
            lambda: ParameterBitWidth(3, min_bit_width=4),
            "bit_width=3 does not lie from min_bit_width=4 to max_bit_width=32\n"
            "  learning starts inside of the limits\n"
            "  Set bit_width between them, or move the limits.",
        ),
        (
            lambda: RemoveBitWidth(-1),
            "bit_width_to_remove=-1 is out of range\n"
            "  an accumulator has up to 64 bits to take off\n"
            "  Set it to 0 or a few bits.",
        ),
        (
            lambda: RemoveBitWidth(0, remove_zero_bit_width=1.0),
            "remove_zero_bit_width=1.0 is out of range\n"
            "  it stands for 0 bits, so that it lies above 0 and is rounded to 0\n"
            "  Leave it out.",
        ),
        (
            lambda: MsbClampBitWidth(ConstBitWidth(4), 8, 6),
            "min_overall_bit_width=8 and max_overall_bit_width=6 contradict each other\n"
            "  the smallest bit width is at least 2, and not above the largest\n"
            "  Use limits such as 2 and 32.",
        ),
        (
            lambda: ConstBitWidth(33),
            "bit_width=33 is not a bit width\n"
            "  a constant bit width is a whole number from 1 to 32\n"
            "  Set bit_width to a number such as 4 or 8.",
        ),
        (
            lambda: IntQuant(ConstScaling(1.0), ConstBitWidth(1), signed=True),
            "bit_width=1 is too small for an integer quantizer\n"
            "  an integer quantizer needs at least 2 bits, got 1\n"
            "  Use BinaryQuant for one bit, or set bit_width to 2 or more.",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert str(caught.value) == message


def test_a_number_beside_an_implementation_that_ignores_it_is_an_error() -> None:
    with pytest.raises(UnusedAttributeError) as caught:
        Layer(Int8WeightPerTensorFloat.let(bit_width_impl=ParameterBitWidth(4), bit_width=6))
    assert str(caught.value) == (
        "option 'weight_bit_width' has no effect\n"
        "  at Layer\n"
        "  'weight_bit_width' is known to ConstBitWidth, but nothing reads it as Int8WeightPerTensorFloat is configured\n"
        "  Leave weight_bit_width out, or choose components and options that read it."
    )


def test_a_third_party_bit_width_needs_forward_only() -> None:
    class Three(BitWidth):
        def forward(self) -> torch.Tensor:
            return torch.tensor(3.0)

    layer = Layer(Int8WeightPerTensorFloat.let(bit_width_impl=Three))
    assert layer.weight_quant.bit_width().item() == 3
    assert not layer.weight_quant.learns_bit_width


def test_activations_learn_theirs_as_well() -> None:
    from quant_core.proxies import ActQuantProxyFromInjector

    proxy = ActQuantProxyFromInjector(nn.Identity(), Int8ActPerTensorFloat.let(bit_width_impl=ParameterBitWidth))
    out = proxy(torch.randn(100, generator=torch.Generator().manual_seed(0)))
    assert not isinstance(out, torch.Tensor)
    out.value.square().sum().backward()
    (offset,) = (p for name, p in proxy.named_parameters() if name.endswith("offset"))
    assert offset.grad is not None
    assert offset.grad != 0
