"""Which elements share a scale: shapes of scales and rows, and groups of input channels."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from quant_core.components import (
    AbsMax,
    ConstBitWidth,
    Granularity,
    IntQuant,
    ParameterFromStatsFromParameterScaling,
    PerChannel,
    PerGroup,
    PerTensor,
    PowerOfTwoRestriction,
    StatsFromParameterScaling,
    granularity_of,
)
from quant_core.errors import ConfigurationError, InputError
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.quant import Int8WeightPerTensorFloat

sizes = st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))


def tensor(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@given(sizes, st.integers(1, 4), st.integers(0, 2), st.booleans())
def test_a_group_is_quantized_as_a_tensor_of_its_own(
    shape: tuple[int, ...], size: int, axis: int, from_end: bool
) -> None:
    full = [n * size if index == axis else n for index, n in enumerate(shape)]
    x, groups = tensor(*full), PerGroup(size, axis - 3 if from_end else axis)
    largest = AbsMax(groups)(x)
    assert tuple(largest.shape) == shape
    spread = groups.spread(largest, x).expand(x.shape)
    for part, scale, whole in zip(x.split(size, axis), largest.unbind(axis), spread.split(size, axis), strict=True):
        assert torch.equal(part.abs().amax(axis), scale)
        assert torch.equal(whole, scale.unsqueeze(axis).expand_as(whole))


@given(sizes, st.integers(1, 3))
def test_rows_are_in_the_order_of_the_scale(shape: tuple[int, ...], size: int) -> None:
    kinds: list[Granularity] = [PerTensor(), PerChannel(1), PerChannel(-1), PerGroup(size, 1), PerGroup(size, -2)]
    x = torch.arange(float(shape[0] * shape[1] * size * shape[2])).reshape(shape[0], shape[1] * size, shape[2])
    for kind in kinds:
        rows = kind.rows(x)
        scale_shape = kind.scale_shape(x)
        assert rows.numel() == x.numel()
        assert rows.shape[0] == torch.Size(scale_shape).numel()
        first = rows.amin(1).reshape(scale_shape)
        found = kind.spread(first, x) if isinstance(kind, PerGroup) else first
        assert bool((found <= x).all())


def test_what_broadcasts_already_is_not_repeated() -> None:
    x, groups = tensor(2, 6), PerGroup(3)
    for scale in (torch.tensor(2.0), torch.ones(2, 1), torch.ones(2, 6)):
        assert groups.spread(scale, x) is scale


def test_the_gradient_of_a_group_is_the_sum_over_its_elements() -> None:
    scale = torch.ones(2, 2, requires_grad=True)
    PerGroup(3).spread(scale, tensor(2, 6)).backward(torch.arange(12.0).reshape(2, 6))
    assert scale.grad.tolist() == [[3, 12], [21, 30]]


@pytest.mark.parametrize("learned", [False, True])
@pytest.mark.parametrize("powers", [False, True])
def test_a_weight_quantized_per_group(learned: bool, powers: bool) -> None:
    layer = nn.Linear(6, 2)
    kind = ParameterFromStatsFromParameterScaling if learned else StatsFromParameterScaling
    restriction = PowerOfTwoRestriction() if powers else None
    groups = PerGroup(3)
    scaling = kind(AbsMax(groups), layer, restrict_scaling_impl=restriction)
    quant = IntQuant(scaling, ConstBitWidth(8), signed=True)
    value, scale, zero_point, _ = quant(layer.weight)
    assert scale.shape == layer.weight.shape
    assert zero_point.numel() == 1
    for part, steps in zip(layer.weight.split(3, 1), scale.split(3, 1), strict=True):
        limit = part.abs().amax(1, keepdim=True)
        wanted = torch.exp2(torch.ceil(torch.log2(limit))) if powers else limit
        torch.testing.assert_close(steps, (wanted / 128).expand_as(steps))
    assert torch.equal(value, ((layer.weight / scale).round().clamp(-128, 127) * scale))
    value.sum().backward()
    if learned:
        assert scaling.value.grad.shape == (2, 2)


class Layer(nn.Linear):
    output_channel_dim = 0


def test_a_preset_takes_a_group_size() -> None:
    layer = Layer(8, 2)
    proxy = WeightQuantProxyFromInjector(layer, Int8WeightPerTensorFloat.let(group_size=4))
    quantized = proxy(layer.weight)
    assert quantized.value.shape == quantized.scale.shape == (2, 8)
    assert quantized.is_valid
    assert quantized.int().abs().reshape(2, 2, 4).amax(-1).tolist() == [[127, 127], [127, 127]]
    assert torch.equal(quantized.scale[:, 0], quantized.scale[:, 3])


@pytest.mark.parametrize(
    ("act", "kind", "message"),
    [
        (
            lambda: PerGroup(0),
            ConfigurationError,
            "group_size=0 is not a number of elements\n"
            "  that many neighbours share a scale, at least 1\n"
            "  Use a divisor of the number of input channels, such as 32.",
        ),
        (
            lambda: AbsMax(PerGroup(4))(tensor(2, 6)),
            InputError,
            "a tensor of shape (2, 6) cannot be quantized in groups of 4 along axis 1\n"
            "  6 is no multiple of 4\n"
            "  Choose a group_size that divides the number of input channels.",
        ),
        (
            lambda: AbsMax(PerGroup(4))(tensor(8)),
            InputError,
            "a tensor of shape (8,) cannot be quantized per group along axis 1\n"
            "  the tensor has 1 axes\n"
            "  Quantize it per tensor or per channel.",
        ),
        (
            lambda: AbsMax(PerChannel(1))(tensor(8)),
            InputError,
            "a tensor of shape (8,) cannot be quantized per channel along axis 1\n"
            "  the tensor has 1 axes\n"
            "  Quantize per tensor, or state a per_channel_broadcastable_shape that fits the tensor.",
        ),
        (
            lambda: granularity_of((2, 3)),
            ConfigurationError,
            "a scale of shape (2, 3) is neither per tensor nor per channel\n"
            "  axes [0, 1] are larger than 1, and a per-channel scale has one such axis\n"
            "  Use () per tensor or, for example, (1, channels, 1, 1) per channel.",
        ),
    ],
)
def test_what_is_refused_and_what_it_says(act: object, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind) as caught:
        act()
    assert str(caught.value) == message
