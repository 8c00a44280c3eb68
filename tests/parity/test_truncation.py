"""Truncation of accumulators against Brevitas's: values, scales, bit widths and gradients."""

from typing import Any

import brevitas.core.bit_width as bbw
import brevitas.core.function_wrapper as wrapper
import brevitas.core.quant as bcq
import brevitas.nn as bnn
import brevitas.quant as bq
import torch
from brevitas.quant_tensor import IntQuantTensor
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import quant_core.components as c
import quant_core.quant as q
import quant_nn as qnn
from quant_core.tensor import QuantTensor

ROUNDINGS = {
    "FLOOR": wrapper.FloorSte,
    "ROUND": wrapper.RoundSte,
    "CEIL": wrapper.CeilSte,
    "TO_ZERO": wrapper.RoundToZeroSte,
    "DPU": wrapper.DPURoundSte,
}
seeds = st.integers(0, 10_000)


def integers(seed: int, bits: int, signed: bool, *shape: int) -> Tensor:
    low = -(2 ** (bits - 1)) if signed else 0
    return torch.randint(low, low + 2**bits, shape, generator=torch.Generator().manual_seed(seed)).float()


@settings(max_examples=120, deadline=None)
@given(seeds, st.integers(4, 18), st.integers(2, 10), st.booleans(), st.sampled_from(sorted(ROUNDINGS)), st.booleans())
def test_tensors(seed: int, coming: int, remaining: int, signed: bool, mode: str, learned: bool) -> None:
    x, incoming = (
        integers(seed, coming, signed, 60) * 0.25,
        torch.randn(60, generator=torch.Generator().manual_seed(seed)),
    )
    ours = c.TruncIntQuant((c.ParameterBitWidth if learned else c.ConstBitWidth)(remaining), rounding_mode=mode)
    theirs = bcq.TruncIntQuant(ROUNDINGS[mode](), (bbw.BitWidthParameter if learned else bbw.BitWidthConst)(remaining))
    results = []
    for quant in (ours, theirs):
        leaf, scale, bits = (t.clone().requires_grad_() for t in (x, torch.tensor(0.25), torch.tensor(float(coming))))
        if quant is ours:
            value, new_scale, _, width = quant(leaf, scale, bits, signed)
        else:
            value, new_scale, _, width = quant(leaf, scale, torch.tensor(0.0), bits, torch.tensor(signed))
        value.backward(incoming)
        grads = [leaf.grad, scale.grad, bits.grad, *(p.grad for p in quant.parameters())]
        results.append(([value.detach(), new_scale.detach(), width.detach()], grads))
    for found, wanted in zip(results[0][0], results[1][0], strict=True):
        assert torch.equal(found, wanted)
    for found, wanted in zip(results[0][1], results[1][1], strict=True):
        assert (found - wanted).abs().max() <= 2e-4 * max(float(wanted.abs().max()), float(x.abs().sum()) * 0.25)


def both(seed: int, coming: int, signed: bool) -> tuple[QuantTensor, Any]:
    value = integers(seed, coming, signed, 1, 1, 8, 8) * 0.5
    grid = torch.tensor(0.5), torch.tensor(0.0), torch.tensor(float(coming))
    ours = QuantTensor(value, *grid, signed=signed, symmetric=True)
    return ours, IntQuantTensor(value, *grid, signed=signed, training=True)


@settings(max_examples=30, deadline=None)
@given(seeds, st.integers(8, 16), st.booleans(), st.sampled_from(["TruncTo8bit", "RoundTo8bit"]), st.integers(4, 8))
def test_presets(seed: int, coming: int, signed: bool, name: str, bits: int) -> None:
    """Brevitas's accumulator layer cannot be built; a pooling of single elements is the same."""
    ours, theirs = both(seed, coming, signed)
    found = qnn.TruncQuantAccumulator(trunc_quant=getattr(q, name), bit_width=bits)(ours)
    wanted = bnn.TruncAvgPool2d(1, trunc_quant=getattr(bq, name), bit_width=bits, return_quant_tensor=True)(theirs)
    assert torch.equal(found.value, wanted.value)
    assert torch.equal(found.scale, wanted.scale)
    assert found.bit_width == wanted.bit_width


@settings(max_examples=20, deadline=None)
@given(seeds, st.integers(8, 16), st.booleans())
def test_the_shift_by_statistics_after_they_are_collected(seed: int, coming: int, signed: bool) -> None:
    """While collecting, Brevitas's scale is no power of two, so that it is no shift."""
    layers: list[nn.Module] = [
        qnn.TruncQuantAccumulator(trunc_quant=q.ShiftRoundSaturateTo8bit, collect_stats_steps=2),
        bnn.TruncAvgPool2d(1, trunc_quant=bq.ShiftRoundSaturateTo8bit, collect_stats_steps=2, return_quant_tensor=True),
    ]
    for step in range(3):
        for layer, x in zip(layers, both(seed + step, coming, signed), strict=True):
            layer(x)
    for mode in (True, False):
        for layer in layers:
            layer.train(mode)
        found, wanted = (layer(x) for layer, x in zip(layers, both(seed + 9, coming, signed), strict=True))
        assert torch.equal(found.scale, wanted.scale)
        assert torch.equal(found.value, wanted.value)
