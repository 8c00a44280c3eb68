"""A batch normalization in eval mode is a factor and an offset for each channel, which a linear layer beside it can take over.

With ``f = weight / √(running_var + eps)`` and ``g = bias − running_mean · f`` a normalization computes ``y = f · x + g``. Then,
exactly but for rounding,

    f · (w ∗ x + b) + g  =  (f · w) ∗ x + (f · b + g)             behind a layer, f along its output channels
    w ∗ (f · x + g) + b  =  (w · f) ∗ x + (b + Σ w · g)           before a layer, f along its input channels

All of it is computed in float64 and rounded once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

Linear = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d | nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d
Norm = nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True, kw_only=True)
class Affine:
    """``y = factor · x + offset`` for each channel, both ``(C,)`` in float64."""

    factor: Tensor
    offset: Tensor


@dataclass(frozen=True, kw_only=True)
class Weights:
    """A weight in the shape of its layer, and a bias ``(O,)``, both in float64."""

    weight: Tensor
    bias: Tensor


def affine_of(norm: Norm) -> Affine:
    """What a normalization computes in eval mode.

    >>> norm = nn.BatchNorm1d(2, eps=0.0)
    >>> _ = norm.running_var.fill_(4.0), norm.running_mean.fill_(1.0)
    >>> affine_of(norm)
    Affine(factor=tensor([0.5000, 0.5000], dtype=torch.float64), offset=tensor([-0.5000, -0.5000], dtype=torch.float64))
    """
    assert norm.running_mean is not None  # it was asked for
    assert norm.running_var is not None
    mean, variance = _wide(norm.running_mean), _wide(norm.running_var)
    factor = torch.rsqrt(variance + norm.eps)
    factor = factor if norm.weight is None else factor * _wide(norm.weight)
    offset = -mean * factor
    return Affine(factor=factor, offset=offset if norm.bias is None else offset + _wide(norm.bias))


def weights_of(layer: Linear) -> Weights:
    """The weights of a layer; a bias that it does not have is 0."""
    weight = _wide(layer.weight)
    channels = weight.shape[1] * layer.groups if isinstance(layer, TRANSPOSED) else weight.shape[0]
    return Weights(weight=weight, bias=weight.new_zeros(channels) if layer.bias is None else _wide(layer.bias))


def behind(layer: Linear, own: Weights, norm: Affine) -> Weights:
    """The weights of a layer that does what the normalization behind it does."""
    weight = _along_outputs(layer, own.weight) * norm.factor.reshape(_column(own.weight))
    return Weights(weight=_back(layer, weight, own.weight), bias=own.bias * norm.factor + norm.offset)


def before(layer: Linear, own: Weights, norm: Affine) -> Weights:
    """The weights of a layer that does what the normalization before it does; the layer pads nothing."""
    factor, offset = (_beside_inputs(layer, part, own.weight) for part in (norm.factor, norm.offset))
    shift = _along_outputs(layer, own.weight * offset).flatten(1).sum(1)
    return Weights(weight=own.weight * factor, bias=own.bias + shift)


def _beside_inputs(layer: Linear, part: Tensor, weight: Tensor) -> Tensor:
    """One element for each input channel, broadcastable to the weight."""
    if isinstance(layer, TRANSPOSED):
        return part.reshape(_column(weight))
    if isinstance(layer, nn.Linear):
        return part.reshape(1, -1)
    rows = part.reshape(layer.groups, -1).repeat_interleave(weight.shape[0] // layer.groups, 0)  # (O, C / groups)
    return rows.reshape(*rows.shape, *[1] * (weight.dim() - 2))


def _along_outputs(layer: Linear, weight: Tensor) -> Tensor:
    """The weight with one row for each output channel: ``(O, C / groups, …)``."""
    if not isinstance(layer, TRANSPOSED):
        return weight
    rows: Tensor = weight.unflatten(0, (layer.groups, -1)).transpose(1, 2).flatten(0, 1)
    return rows


def _back(layer: Linear, rows: Tensor, weight: Tensor) -> Tensor:
    """From rows to the shape of the weight."""
    if not isinstance(layer, TRANSPOSED):
        return rows
    back: Tensor = rows.unflatten(0, (layer.groups, -1)).transpose(1, 2).reshape(weight.shape)
    return back


def _column(weight: Tensor) -> tuple[int, ...]:
    return (-1, *[1] * (weight.dim() - 1))


def _wide(tensor: Any) -> Tensor:
    wide: Tensor = tensor.detach().to(torch.float64)
    return wide
