"""Half, single and double precision, and autocast, through every scaling: scales stay in float32 or wider."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from quant_core.components import (
    AbsMax,
    ConstBitWidth,
    ConstScaling,
    ConstZeroPoint,
    FloatRestriction,
    IntQuant,
    IntRestriction,
    LogFloatRestriction,
    ParameterFromRuntimeStatsScaling,
    ParameterFromStatsFromParameterScaling,
    ParameterScaling,
    PowerOfTwoRestriction,
    Restriction,
    RuntimeStatsScaling,
    Scaling,
    StatsFromParameterScaling,
)
from quant_core.proxies import ActQuantProxyFromInjector, WeightQuantProxyFromInjector
from quant_core.quant import Int8WeightPerChannelFloat, Uint8ActPerTensorFloat

DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]
RESTRICTIONS = [FloatRestriction, LogFloatRestriction, PowerOfTwoRestriction, IntRestriction]


def weighted() -> nn.Linear:
    torch.manual_seed(0)
    layer = nn.Linear(16, 4)
    with torch.no_grad():
        layer.weight.mul_(10)
    return layer


SCALINGS: dict[str, Callable[[Restriction], Scaling]] = {
    "const": lambda r: ConstScaling(2.3, restrict_scaling_impl=r),
    "parameter": lambda r: ParameterScaling(2.3, restrict_scaling_impl=r),
    "stats": lambda r: StatsFromParameterScaling(AbsMax(), weighted(), restrict_scaling_impl=r),
    "affine": lambda r: StatsFromParameterScaling(
        AbsMax(), weighted(), restrict_scaling_impl=r, scaling_affine_rescaling_init=1.0
    ),
    "parameter from stats": lambda r: ParameterFromStatsFromParameterScaling(
        AbsMax(), weighted(), restrict_scaling_impl=r
    ),
    "parameter from runtime": lambda r: ParameterFromRuntimeStatsScaling(AbsMax(), 2, restrict_scaling_impl=r),
    "runtime": lambda r: RuntimeStatsScaling(AbsMax(), restrict_scaling_impl=r),
}


def wide(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("name", SCALINGS)
def test_values_keep_their_dtype_and_scales_are_wide(
    name: str, restriction: type[Restriction], dtype: torch.dtype
) -> None:
    """The scaling is made in float32; only the tensor has the dtype."""
    quant = IntQuant(SCALINGS[name](restriction()), ConstBitWidth(8), signed=True)
    x = (weighted().weight.detach() / 2).to(dtype).requires_grad_()
    for _ in range(4):
        value, scale, _, _ = quant(x)
        assert value.dtype == dtype
        assert scale.dtype in (torch.float32, wide(dtype))
        value.sum().backward()
    assert x.grad.dtype == dtype
    assert torch.isfinite(x.grad).all()
    # The same tensor in float32 has the same grid; what is rounded is only the result.
    reference = quant(x.detach().float())[0]
    torch.testing.assert_close(quant(x)[0].float(), reference, rtol=float(torch.finfo(dtype).eps), atol=0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("restriction", RESTRICTIONS)
@pytest.mark.parametrize("name", SCALINGS)
def test_a_model_that_is_converted_trains_on(name: str, restriction: type[Restriction], dtype: torch.dtype) -> None:
    quant = IntQuant(SCALINGS[name](restriction()), ConstBitWidth(8), signed=True).to(dtype)
    x = weighted().weight.detach().to(dtype).requires_grad_()
    for _ in range(4):
        value, scale, _, _ = quant(x)
        assert value.dtype == dtype
        assert scale.dtype == wide(dtype)
        value.sum().backward()
    assert all(p.dtype == dtype for p in quant.parameters())
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in quant.parameters())
    assert quant.eval()(x)[1].dtype == wide(dtype)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_scale_of_a_half_precision_weight_is_that_of_its_values(dtype: torch.dtype) -> None:
    """A scale in half precision would be off by up to half of its last bit, and the largest integer with it."""
    for seed in range(20):
        weight = torch.randn(64, generator=torch.Generator().manual_seed(seed)).to(dtype)
        quant = IntQuant(StatsFromParameterScaling(AbsMax(), weighted()), ConstBitWidth(8), signed=True)
        scale = quant(weight)[1]
        assert torch.equal(scale, weight.float().abs().max() / 128)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_thresholds_too_small_for_half_precision_are_no_zeros(dtype: torch.dtype) -> None:
    for minimum in (None, 1e-10):
        scaling = StatsFromParameterScaling(AbsMax(), weighted(), minimum)
        value, scale, _, _ = IntQuant(scaling, ConstBitWidth(8), signed=True)(torch.zeros(4, dtype=dtype))
        assert scale.item() > 0
        assert torch.equal(value, torch.zeros(4, dtype=dtype))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("threshold", [0.1, 114688.0])
def test_a_fixed_threshold_is_not_rounded_where_a_model_is_converted(threshold: float, dtype: torch.dtype) -> None:
    """The second is the largest number of the minifloat e5m2, beyond the range of float16."""
    scaling = ConstScaling(threshold).to(dtype)
    assert scaling(torch.zeros(3, dtype=dtype)).item() == torch.tensor(threshold).item()
    restored = ConstScaling(1.0).to(dtype)
    restored.load_state_dict(scaling.state_dict())
    assert torch.equal(restored(torch.zeros(3)), scaling(torch.zeros(3)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_fixed_zero_point_is_not_rounded_where_a_model_is_converted(dtype: torch.dtype) -> None:
    scaling = ConstScaling(1.0)
    quant = IntQuant(scaling, ConstBitWidth(16), signed=False, zero_point_impl=ConstZeroPoint(30_001)).to(dtype)
    assert quant(torch.zeros(3, dtype=dtype))[2].item() == 30_001


class Layer(nn.Linear):
    output_channel_dim = 0

    def __init__(self) -> None:
        super().__init__(16, 4)
        self.weight_quant = WeightQuantProxyFromInjector(self, Int8WeightPerChannelFloat)
        self.act_quant = ActQuantProxyFromInjector(self, Uint8ActPerTensorFloat.let(collect_stats_steps=2))

    def forward(self, x: Tensor) -> Tensor:
        quantized = self.weight_quant(self.weight)
        assert quantized.value.dtype == torch.float32
        out = self.act_quant(torch.relu(nn.functional.linear(x, quantized.value, self.bias)))
        assert out.scale.dtype == torch.float32
        return out.value


def test_autocast_computes_layers_in_half_precision_and_grids_in_float32() -> None:
    torch.manual_seed(0)
    layer = Layer()
    x = torch.randn(8, 16)
    for _ in range(4):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = layer(x)
        assert out.dtype == torch.bfloat16
        out.float().square().sum().backward()
    for parameter in layer.parameters():
        assert parameter.dtype == torch.float32
        assert parameter.grad is not None
        assert torch.isfinite(parameter.grad).all()
