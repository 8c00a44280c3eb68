"""Whether freshly compiled kernels compute what they should: compilers have defects, above all in vectorised loops."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from quant_core.native.binding import Grain
from quant_core.native.library import Kernels

_CHANNELS, _INNER = 3, 1237  # a last vector and a last block that are not full
_GRAIN: Grain = (1, _CHANNELS, _INNER)
_LOW, _HIGH = _BOUNDS = (-4.0, 3.0)


def is_acceptable(kernels: Kernels) -> bool:
    """Compare every kernel with torch operations on one tensor, which takes a few milliseconds.

    It does so in a thread of its own: the first quantizer may run where operations are recorded, transformed, or sent to
    another device, and a new thread knows nothing of that.
    """
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(_computes_as_torch, kernels).result()


def _computes_as_torch(kernels: Kernels) -> bool:
    count = torch.arange(_CHANNELS * _INNER, dtype=torch.float32, device="cpu").reshape(_CHANNELS, _INNER)
    x, g = (count * 0.731).sin() * 5, (count * 0.317).cos() + 1.5
    scale, zero_point = x.new_tensor([[0.5], [0.7], [1.1]]), x.new_tensor([[0.0], [1.0], [-2.0]])
    quantizes = _quantizes(kernels, x, g, scale, zero_point) and _quantizes_by_largest(kernels, x, g)
    return (
        quantizes
        and _quantizes_by_threshold(kernels, x, g, scale)
        and _finds_largest(kernels, x, g)
        and _collects(kernels, x)
    )


def _quantizes(kernels: Kernels, x: Tensor, g: Tensor, scale: Tensor, zero_point: Tensor) -> bool:
    exact = x / scale + zero_point
    rounded = exact.round()
    levels = rounded.clamp(_LOW, _HIGH)
    y, code = kernels.quantize(x, scale, zero_point, _GRAIN, _BOUNDS, "ROUND", rectify=False, keep=True)
    if code is None or not torch.equal(y, (levels - zero_point) * scale):
        return False
    grad_x, (grad_scale, above, below) = kernels.gradient(g, code, zero_point, _GRAIN, _BOUNDS)
    over, under, error = g * (rounded > _HIGH), g * (rounded < _LOW), levels - exact
    inside = g - over - under
    wanted = inside * error + over * (_HIGH - zero_point) + under * (_LOW - zero_point)
    passed = kernels.gradient_of_scale(g, x, scale, zero_point, _GRAIN, _BOUNDS, "ROUND")
    return torch.equal(grad_x, inside) and all(
        _close(found, terms, g)
        for found, terms in ((grad_scale, wanted), (above, over), (below, under), (passed, g * error))
    )


def _finds_largest(kernels: Kernels, x: Tensor, g: Tensor) -> bool:
    largest = kernels.largest(x)
    if not torch.equal(largest, x.abs().amax(dim=1)):
        return False
    ties = x.abs() == largest[:, None]
    wanted = x.sign() * ties * g[:, :1] / ties.sum(dim=1, keepdim=True)
    return torch.allclose(kernels.gradient_of_largest(x, largest, g[:, 0].contiguous()), wanted)


def _quantizes_by_largest(kernels: Kernels, x: Tensor, g: Tensor) -> bool:
    largest = x.abs().amax(dim=1)
    ties = x.abs() == largest[:, None]
    scale = x.new_empty(_CHANNELS, 1)
    y, most = kernels.by_largest(x, scale, 0.0, _BOUNDS, _HIGH, "ROUND")
    if not torch.equal(most, largest[:, None]) or not torch.equal(scale, most / _HIGH):
        return False
    levels = (x / scale).round().clamp(_LOW, _HIGH)
    terms = g * (levels - x / scale)
    through = (terms.sum(dim=1, keepdim=True) + g[:, :1]) / _HIGH
    wanted = g + x.sign() * ties * through / ties.sum(dim=1, keepdim=True)
    found = kernels.gradient_by_largest(g, g[:, :1].contiguous(), x, scale, most, _BOUNDS, _HIGH, "ROUND")
    passes = torch.equal(found[~ties], wanted[~ties])
    return passes and torch.equal(y, levels * scale) and torch.allclose(found, wanted, rtol=1e-3)


def _quantizes_by_threshold(kernels: Kernels, x: Tensor, g: Tensor, parameter: Tensor) -> bool:
    """By comparison with the kernels that it consists of."""
    y, scale, code = kernels.by_threshold(x, -parameter, _GRAIN, 0.6, _BOUNDS, _HIGH, "ROUND", rectify=False)
    wanted_scale = parameter.clamp(min=0.6) / _HIGH
    wanted, _ = kernels.quantize(x, wanted_scale, None, _GRAIN, _BOUNDS, "ROUND", rectify=False, keep=False)
    if not torch.equal(scale, wanted_scale) or not torch.equal(y, wanted):
        return False
    grad_x, for_parameter = kernels.gradient_by_threshold(g, scale, code, -parameter, _GRAIN, _HIGH, _BOUNDS)
    wanted_grad, sums = kernels.gradient(g, code, None, _GRAIN, _BOUNDS)
    through = (sums[0].view(-1, 1) + scale) / _HIGH
    return grad_x is not None and torch.equal(grad_x, wanted_grad) and torch.equal(for_parameter, -through)


def _collects(kernels: Kernels, x: Tensor) -> bool:
    threshold, scale, average, grad = x.new_empty(()), x.new_empty(()), x.new_tensor([0.3, 2.0]), x.new_zeros(3)
    for rectify, ranked in ((False, x.abs()), (True, x.clamp(min=0))):
        index, element = kernels.nth_largest(x, 7, threshold, scale, 0.0, _HIGH, rectify=rectify)
        wanted = ranked.flatten().sort(descending=True).values[6]
        found = x.flatten()[index]
        if not (torch.equal(threshold, wanted) and found.item() == element and torch.equal(found.abs(), wanted)):
            return False
    kernels.add_at_element(grad, 1, -1.0, x.new_tensor([4.0]), x.new_tensor(2.0), 3.0)
    kernels.follow(average, torch.ones_like(average), 1, 0.5)
    followed = torch.allclose(average, x.new_tensor([0.65, 1.5]))
    return followed and torch.equal(scale, threshold / _HIGH) and grad.tolist() == [0, -2, 0]


def _close(found: Tensor, terms: Tensor, g: Tensor) -> bool:
    """Whether sums agree, given what float32 and the stored rounding errors lose."""
    lost = 2.0**-12 * terms.abs().sum(dim=1) + 2.0**-20 * g.abs().sum(dim=1)
    return bool(torch.all((found - terms.sum(dim=1)).abs() <= lost))
