"""When a quantizer is a fixed grid: its scale is stored, and nothing about it depends on the tensor."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from quant_core.components import IntQuant
from quant_core.ops import integer_range
from quant_core.proxies import ActQuantProxyFromInjector, QuantProxy

MOST_LEVELS = 4096
"""Larger tables than that of 12 bits would not pay."""


class Steady(NamedTuple):
    """A quantizer that only rounds: ``clamp(round(x / scale), low, high) · scale``."""

    scale: Tensor
    low: float
    high: float


def steady(quantizer: QuantProxy | None, like: Tensor) -> Steady | None:
    """The grid of a quantizer; ``None`` where it does something besides, or learns from the tensor.

    A quantizer that is off has scale 0.
    """
    if quantizer is None or not quantizer.is_quant_enabled:
        return Steady(like.new_zeros(()), 0.0, 0.0)
    if not is_steady(quantizer):
        return None
    quant = quantizer.tensor_quant
    scale, _, _ = quant.grid(like.new_zeros(()))
    low, high = integer_range(
        float(quant.bit_width_impl.constant), signed=quant.signed, narrow_range=quant.narrow_range
    )
    if scale.numel() != 1:
        return None
    return Steady(scale.reshape(()).to(like.dtype), low, high)


def is_steady(quantizer: QuantProxy) -> bool:
    """Whether it is an ordinary integer quantizer whose scale is stored."""
    return is_integer(quantizer) and not getattr(quantizer.tensor_quant.scaling_impl, "reads_input", True)


def is_integer(quantizer: QuantProxy) -> bool:
    """Whether it is an ordinary integer quantizer with zero-point 0 and a fixed number of bits."""
    quant = quantizer.tensor_quant
    if type(quantizer) is not ActQuantProxyFromInjector or type(quant) is not IntQuant:
        return False
    parts = (quantizer, quant, quant.scaling_impl)
    hooked = any(part._forward_hooks or part._forward_pre_hooks or part._backward_hooks for part in parts)
    delayed = quant.delay.passed is not None and quant.delay.passed.running
    return (
        not hooked
        and not delayed
        and quantizer.act_impl is None
        and quant.bit_width_impl.constant is not None
        and quant.zero_point_impl.constant == 0
        and quant.rounding_impl is None
        and quant.rounding_mode == "ROUND"
        and quant.clamp_gradient == "masked"
        and quant.groups is None
    )
