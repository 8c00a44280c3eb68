"""When a quantizer is a fixed grid: its scale is stored, and nothing about it depends on the tensor."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from quant_core.components import (
    FloatRestriction,
    IntQuant,
    IntScaling,
    ParameterFromRuntimeStatsScaling,
    ParameterScaling,
)
from quant_core.proxies import ActQuantProxyFromInjector, QuantProxy

MOST_LEVELS = 4096
"""Larger tables than that of 12 bits would not pay."""

LearnedScaling = ParameterScaling | ParameterFromRuntimeStatsScaling


def stored_scale(quantizer: QuantProxy, like: Tensor) -> Tensor | None:
    """The scale of a steady quantizer, 0-dim; ``None`` where it has several."""
    scale, _, _ = quantizer.tensor_quant.grid(like.new_zeros(()))
    return scale.reshape(()).to(like.dtype) if scale.numel() == 1 else None


def learned_scaling(quantizer: QuantProxy, like: Tensor) -> LearnedScaling | None:
    """What the scale of a steady quantizer comes from, where that is ``max(|parameter|, least) / divisor`` of one number."""
    quant = quantizer.tensor_quant
    scaling = quant.scaling_impl
    if type(scaling) not in (ParameterScaling, ParameterFromRuntimeStatsScaling):
        return None
    if type(scaling.restrict_scaling_impl) is not FloatRestriction or type(quant.int_scaling_impl) is not IntScaling:
        return None
    found: LearnedScaling = scaling
    return found if scaling.value.numel() == 1 and scaling.value.dtype == like.dtype else None


def learned_scales(scalings: Sequence[LearnedScaling], divisors: Sequence[float]) -> Tensor:
    """The scales of quantizers with one smallest threshold, in one operation, ``(N,)``: they differ in nothing but numbers."""
    found = [scaling.parameter_now() for scaling in scalings]
    parameters = torch.stack([parameter.reshape(()) for parameter in found if parameter is not None])
    return scalings[0].of_parameter(parameters) / parameters.new_tensor(divisors)


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
