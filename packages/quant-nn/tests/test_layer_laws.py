"""What single layers promise beyond what all of them do."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_nn as qnn
from quant_core.components import BinaryQuant, ConstScaling
from quant_core.errors import InputError
from quant_core.export import capture
from quant_core.inject import Injector
from quant_core.proxies import WeightQuantProxyFromInjector
from quant_core.quant import (
    Int8Bias,
    Int8BiasPerTensorFloatInternalScaling,
    Int8WeightPerChannelFloat,
    Int16Bias,
    Int32Bias,
)
from quant_core.tensor import QuantTensor
from quant_nn.hadamard import hadamard_matrix


def quantized(*shape: int, bits: int = 4, signed: bool = True, seed: int = 0) -> QuantTensor:
    kind: Any = qnn.QuantIdentity if signed else qnn.QuantReLU
    entry = kind(bit_width=bits, collect_stats_steps=1, return_quant_tensor=True)
    x = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    entry(x)
    out: QuantTensor = entry(x)
    return out


class Signs(Injector):
    """Weights of two values."""

    proxy_class = WeightQuantProxyFromInjector
    tensor_quant = BinaryQuant
    scaling_impl = ConstScaling
    scaling_init = 0.1


@pytest.mark.parametrize(
    ("layer", "shown"),
    [
        (
            qnn.QuantLinear(3, 2, weight_quant=Int8WeightPerChannelFloat, weight_bit_width=4, bias_quant=Int16Bias),
            "QuantLinear(in_features=3, out_features=2, bias=True, weight: int4 per channel, bias: int16)",
        ),
        (
            qnn.QuantConv1d(3, 2, 1, weight_quant=Signs),
            "QuantConv1d(3, 2, kernel_size=(1,), stride=(1,), weight: binary per tensor)",
        ),
        (qnn.QuantLinear(3, 2, weight_quant=None), "QuantLinear(in_features=3, out_features=2, bias=True)"),
        (qnn.QuantReLU(bit_width=3), "QuantReLU(act: uint3 per tensor)"),
        (
            qnn.QuantIdentity(scaling_per_output_channel=True, per_channel_broadcastable_shape=(1, 3, 1, 1)),
            "QuantIdentity(act: int8 per channel)",
        ),
        (qnn.QuantEmbedding(9, 4, padding_idx=1), "QuantEmbedding(9, 4, padding_idx=1, weight: int8 per tensor)"),
    ],
)
def test_a_layer_says_in_one_line_what_it_quantizes(layer: nn.Module, shown: str) -> None:
    assert repr(layer) == shown
    assert repr(nn.Sequential(layer)) == f"Sequential(\n  (0): {shown}\n)"


def test_a_quantizer_that_is_switched_off_says_so_and_foreign_children_are_shown() -> None:
    layer = qnn.QuantLinear(3, 2)
    layer.weight_quant.disable_quant = True
    assert repr(layer).endswith("weight: off)")
    layer.register_module("probe", nn.Identity())
    assert "(probe): Identity()" in repr(layer)


@pytest.mark.parametrize("bias_quant", [Int8Bias, Int16Bias, Int32Bias])
def test_a_bias_is_added_on_the_grid_of_the_accumulator(bias_quant: type[Injector]) -> None:
    layer: Any = qnn.QuantLinear(6, 4, weight_bit_width=4, bias_quant=bias_quant, return_quant_tensor=True)
    x = quantized(3, 6)
    out = layer(x)
    assert out.is_valid
    bits = int(bias_quant.bit_width)  # type: ignore[attr-defined]
    expected = (layer.bias / out.scale).round().clamp(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    sums = x.int().double() @ layer.quant_weight().int().double().T
    assert torch.equal(out.int().double(), sums + expected)


def test_a_bias_with_a_scale_of_its_own_needs_none_of_the_input_and_shifts_the_accumulator() -> None:
    torch.manual_seed(0)
    layer: Any = qnn.QuantLinear(
        6, 4, weight_bit_width=4, bias_quant=Int8BiasPerTensorFloatInternalScaling, return_quant_tensor=True
    )
    x = quantized(3, 6)
    out = layer(x)
    bias = layer.bias_quant(layer.bias, None)
    assert torch.equal(out.value, F.linear(x.value, layer.quant_weight().value, bias.value))
    assert not out.zero_on_grid
    assert out.is_valid
    layer.return_quant_tensor = False
    assert layer(x.value).shape == (3, 4)


def test_an_embedding_per_channel_has_a_scale_for_each_row() -> None:
    layer: Any = qnn.QuantEmbedding(7, 5, weight_quant=Int8WeightPerChannelFloat, return_quant_tensor=True)
    indices = torch.tensor([[1, 6, 1], [0, 2, 3]])
    out = layer(indices)
    assert (out.shape, out.scale.shape, out.is_valid) == ((2, 3, 5), (2, 3, 1), True)
    assert torch.equal(out.value, layer.quant_weight().value[indices])
    assert torch.equal(out.scale, layer.quant_weight().scale[indices])


def test_options_of_an_embedding_are_those_of_torch() -> None:
    weight = torch.randn(7, 5) * 3
    for options in ({"max_norm": 1.0}, {"padding_idx": 2}, {"scale_grad_by_freq": True}):
        pair = [
            kind(7, 5, _weight=weight.clone(), **options, **extra)
            for kind, extra in ((nn.Embedding, {}), (qnn.QuantEmbedding, {"weight_quant": None}))
        ]
        for layer in pair:
            layer(torch.tensor([1, 2, 1])).square().sum().backward()
        assert torch.equal(pair[0].weight, pair[1].weight)
        assert torch.equal(pair[0].weight.grad, pair[1].weight.grad)
    frozen = qnn.QuantEmbedding.from_pretrained(weight)
    assert not frozen.weight.requires_grad
    assert torch.equal(frozen.weight, weight)
    largest = qnn.QuantEmbedding(7, 5, max_norm=1.0, _weight=weight.clone())
    largest(torch.arange(7))
    assert float(largest.weight.detach().norm(dim=1).max()) <= 1.0001


@pytest.mark.parametrize("affine", [True, False])
@pytest.mark.parametrize(
    ("plain", "kind", "shapes"),
    [
        (nn.BatchNorm1d, qnn.BatchNorm1dToQuantScaleBias, [(5, 3), (5, 3, 4)]),
        (nn.BatchNorm2d, qnn.BatchNorm2dToQuantScaleBias, [(5, 3, 4, 4)]),
    ],
)
def test_a_batch_normalization_becomes_a_factor_and_an_offset(
    plain: Any, kind: Any, shapes: list[tuple[int, ...]], affine: bool
) -> None:
    torch.manual_seed(0)
    for shape in shapes:
        reference = nn.Sequential(plain(3, eps=1e-3, affine=affine))
        for _ in range(3):
            reference(torch.randn(shape) * 3 + 1)
        for parameter in reference.parameters():
            nn.init.normal_(parameter)
        layer = nn.Sequential(kind(3, eps=1e-3, weight_quant=None))
        layer.load_state_dict(reference.state_dict(), strict=True)
        x = torch.randn(shape)
        assert torch.allclose(layer(x), reference.eval()(x), atol=1e-5)
        again = nn.Sequential(kind(3, eps=1e-3, weight_quant=None))
        again.load_state_dict(layer.state_dict(), strict=True)
        assert torch.equal(again(x), layer(x))


def test_a_batch_normalization_without_statistics_is_missing_its_keys() -> None:
    with pytest.raises(RuntimeError, match=r'Missing key.*"weight", "bias"'):
        qnn.BatchNorm2dToQuantScaleBias(3).load_state_dict(
            nn.BatchNorm2d(3, affine=False, track_running_stats=False).state_dict()
        )


def test_dropout_keeps_the_integers_so_that_a_quantized_bias_works_behind_it_in_training() -> None:
    torch.manual_seed(0)
    drop = qnn.QuantDropout(0.25)
    layer = qnn.QuantLinear(40, 3, bias_quant=Int8Bias)
    x = quantized(2, 40)
    out: Any = drop(x)
    assert torch.equal(out.scale, x.scale / 0.75)
    kept = out.value != 0
    assert torch.equal(out.int()[kept], x.int()[kept])
    assert layer(out).shape == (2, 3)
    assert drop.eval()(x) is x


def test_max_pooling_returns_indices_and_ends_the_scale_where_it_is_told_to() -> None:
    x = quantized(1, 2, 6, 6)
    values, indices = qnn.QuantMaxPool2d(2, return_indices=True)(x)
    assert isinstance(values, QuantTensor)
    assert torch.equal(values.value.flatten(), x.value.flatten(2).gather(2, indices.flatten(2)).flatten())
    plain, _ = qnn.QuantMaxPool2d(2, return_indices=True, return_quant_tensor=False)(x)
    assert type(plain) is Tensor


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("align_corners", [True, False])
def test_upsampling_rounds_to_the_levels_of_the_input(mode: str, align_corners: bool) -> None:
    x = quantized(1, 2, 4, 5, bits=3)
    out: Any = qnn.QuantUpsample(scale_factor=2, mode=mode, align_corners=align_corners)(x)
    assert out.is_valid
    assert (out.scale.item(), out.bit_width.item()) == (x.scale.item(), 3)
    between = F.interpolate(x.value, scale_factor=2, mode=mode, align_corners=align_corners)
    scale = x.scale.item()
    inside = between.detach().clamp(-4 * scale, 3 * scale)
    assert (out.value.detach() - inside).abs().max().item() <= 0.501 * scale
    unrounded = qnn.QuantUpsample(scale_factor=2, mode=mode, align_corners=align_corners, return_quant_tensor=False)(x)
    assert torch.equal(unrounded, between)


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40))
def test_the_hadamard_classifier_is_orthogonal_up_to_a_factor(features: int, classes: int) -> None:
    full = hadamard_matrix(64)
    assert torch.equal(full @ full.T, 64 * torch.eye(64))
    layer = qnn.HadamardClassifier(features, classes, return_quant_tensor=True)
    x = quantized(3, features, seed=features)
    out: Any = layer(x)
    rows = torch.cat([layer(row).value for row in x.split(1)])
    assert torch.allclose(out.value, rows, atol=1e-6)  # no row depends on another
    assert out.is_valid
    assert list(layer.state_dict()) == ["scale"]
    assert list(qnn.HadamardClassifier(features, classes, fixed_scale=True).state_dict()) == []


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 8), st.integers(2, 8), st.integers(1, 4), st.booleans(), st.integers(0, 100))
def test_average_pooling_is_a_sum_of_integers_that_is_shifted(
    bits: int, kept: int, kernel: int, signed: bool, seed: int
) -> None:
    x = quantized(1, 2, kernel * 2, kernel * 2, bits=bits, signed=signed, seed=seed)
    out: Any = qnn.TruncAvgPool2d(kernel, bit_width=kept)(x)
    sums = F.avg_pool2d(x.int().double(), kernel, divisor_override=1)
    low, high = (int(bound) * kernel**2 for bound in x.range())
    needed = max((high + 1 - 1).bit_length(), (-low - 1).bit_length() if low else 0) + signed
    dropped = needed - kept
    least, most = (-(2 ** (kept - 1)), 2 ** (kept - 1) - 1) if signed else (0, 2**kept - 1)
    assert torch.equal(out.int().double(), (sums / 2.0**dropped).round().clamp(least, most))
    assert out.scale.item() == pytest.approx(float(x.scale.detach()) * 2.0**dropped / kernel**2)


class Pooled(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry = qnn.QuantReLU(bit_width=4, collect_stats_steps=1, return_quant_tensor=True)
        self.pool = qnn.TruncAdaptiveAvgPool2d(1, bit_width=4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.pool(self.entry(x))
        assert isinstance(out, QuantTensor)
        return out.value


def test_an_average_pool_whose_window_changes_after_capture() -> None:
    net = Pooled()
    net(torch.rand(2, 3, 4, 4))
    net.eval()
    fixed = capture(net, (torch.rand(2, 3, 4, 4),))
    larger = torch.rand(2, 3, 8, 8)
    with pytest.raises(InputError) as caught:
        fixed.run(larger)
    assert str(caught.value) == (
        "inputs of shape (2, 3, 8, 8) do not fit the captured program\n"
        "  it was captured for x.size()[2] == 4; windows of pools, for example, depend on it\n"
        "  Capture the model with inputs of these shapes, or name the axes that change in dynamic_shapes."
    )
    x = torch.rand(2, 3, 4, 4)
    dimension = torch.export.Dim("side", min=2, max=64)
    dynamic = capture(net, (x,), dynamic_shapes=({2: dimension, 3: dimension},))
    assert torch.equal(dynamic.run(x), net(x))
    assert torch.equal(dynamic.run(larger), net(larger))  # scale and shift follow the window
    (quantizer,) = [q for q in dynamic.quantizers if q.op == "quant::trunc"]
    assert quantizer.scale is None  # so that targets refuse it: a grid computed at run time
