"""Binary and ternary quantizers against Brevitas's: values, scales, bit widths and gradients."""

from typing import Any

import brevitas.core.quant as bcq
import brevitas.nn as bnn
import brevitas.quant.binary as bbinary
import brevitas.quant.ternary as bternary
import pytest
import torch
from brevitas.core.restrict_val import FloatRestrictValue
from brevitas.core.scaling import ConstScaling, ParameterScaling
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import quant_core.components as c
import quant_core.quant as q
import quant_nn as qnn

seeds = st.integers(0, 10_000)


def tensor(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(seeds, st.floats(0.125, 0.875, width=32), st.floats(0.25, 2, width=32), st.sampled_from([(), (4, 1)]))
def test_ternary_tensors(seed: int, threshold: float, start: float, shape: tuple[int, ...]) -> None:
    x, incoming, init = tensor(seed, 4, 50), tensor(seed + 1, 4, 50), torch.full(shape, start)
    results = []
    for quant in (
        c.TernaryQuant(c.ParameterScaling(init), threshold),
        bcq.TernaryQuant(ParameterScaling(init, restrict_scaling_impl=FloatRestrictValue()), threshold, 0),
    ):
        leaf = x.clone().requires_grad_()
        value, scale, zero_point, bits = quant(leaf)
        value.backward(incoming)
        (learned,) = quant.parameters()
        results.append((value, scale, zero_point, bits, leaf.grad, learned.grad))
    for ours, theirs in zip(*results, strict=True):
        assert torch.equal(ours.detach(), theirs.detach()) or torch.allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert torch.equal(results[0][0], results[1][0])


@settings(deadline=None)
@given(seeds, st.booleans(), st.floats(0.25, 2, width=32))
def test_binary_tensors(seed: int, clamped: bool, start: float) -> None:
    x, incoming = tensor(seed, 200), tensor(seed + 1, 200)
    ours = (c.ClampedBinaryQuant if clamped else c.BinaryQuant)(c.ConstScaling(start))
    theirs = (bcq.ClampedBinaryQuant if clamped else bcq.BinaryQuant)(ConstScaling(start, FloatRestrictValue()))
    results = []
    for quant in (ours, theirs):
        leaf = x.clone().requires_grad_()
        value, scale, _, bits = quant(leaf)
        value.backward(incoming)
        results.append((value, scale.reshape(()), bits, leaf.grad))
    for found, wanted in zip(*results, strict=True):
        assert torch.equal(found, wanted)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(["Binary", "Ternary"]))
def test_presets_of_weights(seed: int, kind: str) -> None:
    name = f"Signed{kind}WeightPerTensorConst"
    weight, incoming = tensor(seed, 5, 16) * 0.1, tensor(seed + 1, 5, 16)
    results = []
    for library, presets in ((qnn, q), (bnn, bbinary if kind == "Binary" else bternary)):
        layer = library.QuantLinear(16, 5, bias=False, weight_quant=getattr(presets, name))
        with torch.no_grad():
            layer.weight.copy_(weight)
        out = layer.quant_weight()
        out.value.backward(incoming)
        results.append((out, layer.weight.grad))
    (ours, grad), (theirs, their_grad) = results
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.scale, theirs.scale.reshape(()))
    assert ours.bit_width.item() == theirs.bit_width.item()
    assert torch.allclose(grad, their_grad, rtol=1e-6)


@settings(max_examples=25, deadline=None)
@given(seeds, st.sampled_from(["Binary", "Ternary"]), st.sampled_from([None, 0.5]))
def test_presets_of_activations(seed: int, kind: str, scale: float | None) -> None:
    name = f"Signed{kind}ActPerTensorConst"
    options: dict[str, Any] = {} if scale is None else {"scaling_init": scale}
    results = []
    for library, presets in ((qnn, q), (bnn, bbinary if kind == "Binary" else bternary)):
        layer = library.QuantIdentity(act_quant=getattr(presets, name), return_quant_tensor=True, **options)
        x = tensor(seed, 100).requires_grad_()
        out = layer(x)
        out.value.backward(tensor(seed + 1, 100))
        results.append((out, x.grad))
    (ours, grad), (theirs, their_grad) = results
    assert torch.equal(ours.value, theirs.value)
    assert torch.equal(ours.scale, theirs.scale.reshape(()))
    assert torch.allclose(grad, their_grad, rtol=1e-6)


@pytest.mark.parametrize("kind", ["Weight", "Act"])
def test_names_of_what_quantizes_nothing(kind: str) -> None:
    import brevitas.quant.none as bnone

    assert hasattr(bnone, f"None{kind}Quant")
    assert getattr(q, f"None{kind}Quant").tensor_quant is None
