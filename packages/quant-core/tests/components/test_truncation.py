"""Accumulators with fewer bits: shifts and saturation, their laws, how they learn, and what is refused."""

import copy
import pickle
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    ClampIntQuant,
    ConstBitWidth,
    ConstScaling,
    IntQuant,
    MsbClampBitWidth,
    ParameterBitWidth,
    RemoveBitWidth,
    TruncIntQuant,
    TruncStatsScaling,
)
from quant_core.errors import ConfigurationError, InputError, QuantError
from quant_core.export import capture
from quant_core.ops import integer_range
from quant_core.proxies import AccumulatorQuantProxy, ClampQuantProxyFromInjector, TruncQuantProxyFromInjector
from quant_core.quant import (
    ClampTo16bit,
    LearnedMsbClamp,
    NoneTruncQuant,
    RoundTo8bit,
    ShiftRoundSaturateTo8bit,
    TruncTo8bit,
)
from quant_core.tensor import QuantTensor

MODES = ["FLOOR", "ROUND", "CEIL", "TO_ZERO", "HALF_UP", "DPU"]


def accumulator(integers: Any, bits: float, scale: float = 0.25, *, signed: bool = True) -> QuantTensor:
    value = torch.as_tensor(integers, dtype=torch.float32) * scale
    grid = torch.tensor(scale), torch.tensor(0.0), torch.tensor(bits)
    return QuantTensor(value, *grid, signed=signed, symmetric=True)


def trunc(quantizer: Any) -> TruncQuantProxyFromInjector:
    return TruncQuantProxyFromInjector(nn.Identity(), quantizer)


def clamp(quantizer: Any) -> ClampQuantProxyFromInjector:
    return ClampQuantProxyFromInjector(nn.Identity(), quantizer)


@given(st.integers(3, 20), st.integers(2, 12), st.booleans(), st.sampled_from(MODES), st.randoms(use_true_random=False))
def test_truncation_gives_what_the_bits_say(coming: int, remaining: int, signed: bool, mode: str, random: Any) -> None:
    low, high = (int(end) for end in integer_range(coming, signed=signed, narrow_range=False))
    integers = [low, high, *(random.randint(low, high) for _ in range(20))]
    out = trunc(TruncTo8bit.let(bit_width=remaining, rounding_mode=mode))(accumulator(integers, coming, signed=signed))
    assert out.is_valid
    assert (out.signed, out.symmetric, out.bit_width.item()) == (signed, True, remaining)
    assert out.scale.item() == 0.25 * 2 ** (coming - remaining)
    if mode == "FLOOR" and coming >= remaining:
        assert out.int().tolist() == [q >> (coming - remaining) for q in integers]


@given(st.integers(4, 20), st.integers(2, 12), st.booleans(), st.randoms(use_true_random=False))
def test_saturation_is_a_clamp_of_integers(coming: int, remaining: int, signed: bool, random: Any) -> None:
    low, high = (int(end) for end in integer_range(coming, signed=signed, narrow_range=False))
    integers = [low, high, *(random.randint(low, high) for _ in range(20))]
    out = clamp(ClampTo16bit.let(bit_width=remaining))(accumulator(integers, coming, signed=signed))
    least, most = (int(end) for end in integer_range(remaining, signed=signed, narrow_range=False))
    assert out.is_valid
    assert out.scale.item() == 0.25
    assert out.int().tolist() == [min(max(q, least), most) for q in integers]


def test_a_per_channel_scale_stays_per_channel() -> None:
    scale = torch.tensor([0.5, 0.25]).reshape(2, 1)
    x = QuantTensor(torch.tensor([[8.0], [8.0]]), scale, torch.tensor(0.0), torch.tensor(10.0), True, symmetric=True)
    out = trunc(TruncTo8bit)(x)
    assert out.is_valid
    assert torch.equal(out.scale, scale * 4)


@pytest.mark.parametrize(("largest", "dropped"), [(2.0, 0), (100.0, 2), (1e6, 4)])
def test_a_shift_by_the_values_keeps_the_bits_in_which_they_lie(largest: float, dropped: int) -> None:
    quant = TruncIntQuant(ConstBitWidth(8), TruncStatsScaling(ConstScaling(largest)))
    assert quant(torch.zeros(1), torch.tensor(0.25), torch.tensor(12.0), True)[1].item() == 0.25 * 2**dropped


def test_statistics_of_the_first_steps_set_the_shift() -> None:
    proxy = trunc(ShiftRoundSaturateTo8bit.let(collect_stats_steps=2, scaling_stats_momentum=0.5))
    for largest in (100, 300):
        out = proxy(accumulator([largest, -7], 16))
    assert out.scale.item() == 0.25 * 4
    assert proxy.eval()(accumulator([1, 2], 16)).scale.item() == 0.25 * 2  # the average is 200
    learned = proxy.get_parameter("tensor_quant.trunc_scaling_impl.scaling_impl.value")
    proxy.train()(accumulator([100, 30000], 16)).value.sum().backward()
    assert learned.grad is not None
    assert learned.grad != 0


def test_the_number_of_bits_to_drop_is_learned() -> None:
    class Keeps(MsbClampBitWidth):
        """As many bits as come in without those that are removed."""

    quant = TruncIntQuant(Keeps(RemoveBitWidth(3), 2, 32))
    value, scale, _, bits = quant(torch.tensor([100.0, -37.0]), torch.tensor(1.0), torch.tensor(8.0), True)
    assert (scale.item(), bits.item()) == (8, 5)
    (value - torch.tensor([100.0, -37.0])).square().sum().backward()
    assert quant.bit_width_impl.get_parameter("bit_width_to_remove_impl.bit_width_coeff").grad != 0


def test_the_bit_width_of_a_saturating_accumulator_is_learned() -> None:
    proxy = clamp(LearnedMsbClamp)
    assert proxy.learns_bit_width
    assert not clamp(ClampTo16bit).learns_bit_width
    x = accumulator([500, -20], 10)
    out = proxy(x)
    assert out.bit_width.item() == 8
    (out.value - x.value).square().sum().backward()
    (coefficient,) = proxy.parameters()
    assert coefficient.grad is not None
    assert coefficient.grad < 0  # a step makes it larger, and so takes fewer bits off


@given(st.sampled_from(MODES))
def test_the_gradient_goes_straight_through_what_is_not_clamped(mode: str) -> None:
    x = torch.tensor([100.0, -60.0, 127.0], requires_grad=True)
    value = TruncIntQuant(ConstBitWidth(4), rounding_mode=mode)(x, torch.tensor(1.0), torch.tensor(8.0), True)[0]
    value.backward(torch.tensor([1.0, 2.0, 4.0]))
    assert x.grad is not None
    up = mode in ("ROUND", "CEIL", "HALF_UP", "DPU")
    assert x.grad.tolist() == [1, 2, 0 if up else 4]  # 127/16 rounds up to 8, which does not fit


@pytest.mark.parametrize("quant", [TruncIntQuant, ClampIntQuant])
def test_a_delay_keeps_the_old_grid(quant: Any) -> None:
    torch._dynamo.reset()
    args = torch.tensor([100.0]), torch.tensor(1.0), torch.tensor(8.0)
    for compiled in (False, True):
        delayed = quant(ConstBitWidth(4), quant_delay_steps=1)
        function = torch.compile(delayed, fullgraph=True, backend="aot_eager") if compiled else delayed
        value, scale, _, bits = function(*args, signed=True)
        assert (value.item(), scale.item(), bits.item()) == (100, 1, 8)
        assert function(*args, signed=True)[3].item() == 4


def test_half_precision_is_computed_in_float32() -> None:
    x = torch.tensor([1000.0, -2040.0])
    args = torch.tensor(1.0), torch.tensor(12.0), True
    quant = TruncIntQuant(ConstBitWidth(8))
    assert torch.equal(quant(x.half(), *args)[0], quant(x, *args)[0].half())


class Net(nn.Module):
    """A quantized product and its accumulator with fewer bits."""

    def __init__(self, proxy: AccumulatorQuantProxy) -> None:
        super().__init__()
        self.act = IntQuant(ConstScaling(1.0), ConstBitWidth(8), signed=True)
        self.accumulator_quant = proxy

    def forward(self, x: Tensor) -> Tensor:
        value, scale, zero_point, bits = self.act(x)
        product = QuantTensor(value * 3, scale, zero_point, bits + 2, signed=True, symmetric=True)
        return self.accumulator_quant(product).value


@pytest.mark.parametrize(
    ("proxy", "op"),
    [
        (trunc(TruncTo8bit), "quant::trunc"),
        (trunc(RoundTo8bit), "quant::trunc"),
        (trunc(ShiftRoundSaturateTo8bit), "quant::trunc"),
        (clamp(ClampTo16bit.let(bit_width=8)), "quant::int"),
        (clamp(LearnedMsbClamp), "quant::int"),
    ],
    ids=lambda value: value if isinstance(value, str) else value.quant_injector.__name__,
)
def test_it_is_captured_with_constant_grids(proxy: AccumulatorQuantProxy, op: str) -> None:
    net = Net(proxy).eval()
    x = torch.randn(50, generator=torch.Generator().manual_seed(0))
    program = capture(net, (x,))
    assert [quantizer.op for quantizer in program.quantizers] == ["quant::int", op]
    assert program.quantizers[1].bit_width == 8
    assert program.quantizers[1].scale is not None
    assert torch.equal(program.run(x), net(x))


@pytest.mark.parametrize("quantizer", [TruncTo8bit, ShiftRoundSaturateTo8bit])
def test_proxies_copy_pickle_resume_and_compile(quantizer: Any) -> None:
    torch._dynamo.reset()
    proxy, x = trunc(quantizer), accumulator([500, -20, 3], 12)
    proxy(x)
    wanted = copy.deepcopy(proxy)(x)
    fresh = trunc(quantizer)
    fresh.load_state_dict(proxy.state_dict())
    compiled = torch.compile(copy.deepcopy(proxy), fullgraph=True, backend="aot_eager")
    for other in (pickle.loads(pickle.dumps(proxy)), fresh, compiled):
        found = other(x)
        assert torch.equal(found.value, wanted.value)
        assert torch.equal(found.scale, wanted.scale)


def test_none_keeps_all_bits() -> None:
    x = accumulator([500], 12)
    assert trunc(NoneTruncQuant)(x) is x


def plain_proxy() -> Any:
    return trunc(TruncTo8bit)


REFUSED: dict[str, tuple[Any, type[QuantError], str]] = {
    "a plain tensor": (
        lambda: plain_proxy()(torch.zeros(1)),
        InputError,
        "a plain tensor has no bits to drop\n"
        "  at Identity\n"
        "  the integers of an accumulator are known from its scale, and this tensor has none\n"
        "  Set return_quant_tensor=True on the layer before it.",
    ),
    "a zero-point": (
        lambda: plain_proxy()(accumulator([1], 8).replace(zero_point=torch.tensor(3.0), symmetric=False)),
        InputError,
        "bits of integers with a zero-point cannot be dropped\n"
        "  at Identity\n"
        "  the zero-point of this tensor may differ from 0; with fewer bits the real number 0 would leave the grid\n"
        "  Set bias_quant on the layer before it, and use quantizers without a zero-point.",
    ),
    "no quantizer of accumulators": (
        lambda: trunc(TruncTo8bit.let(tensor_quant=IntQuant, scaling_impl=ConstScaling(1.0), signed=True)),
        ConfigurationError,
        "IntQuant does not quantize accumulators\n"
        "  at Identity\n"
        "  it takes a float tensor, and an accumulator is quantized already\n"
        "  Use TruncIntQuant or ClampIntQuant, or derive from quant_core.components.AccumulatorQuant.",
    ),
    "one bit": (
        lambda: TruncIntQuant(ConstBitWidth(1)),
        ConfigurationError,
        "bit_width=1 is too small for an accumulator\n"
        "  the integers that remain need at least 2 bits, got 1\n"
        "  Set bit_width to 2 or more.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(case: str) -> None:
    make, kind, message = REFUSED[case]
    with pytest.raises(kind) as caught:
        make()
    assert str(caught.value) == message


def test_a_bit_width_that_learns_by_itself_works_as_well() -> None:
    quant = TruncIntQuant(ParameterBitWidth(6))
    value, scale, _, bits = quant(torch.tensor([100.0]), torch.tensor(1.0), torch.tensor(8.0), True)
    assert (value.item(), scale.item(), bits.item()) == (100, 4, 6)
